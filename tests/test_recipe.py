"""Recipes: what is wrong is told before anything runs, and a stored recipe means the same for ever."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.datafiles import recipe_files
from curate.errors import ConfigError, StorageError
from curate.recipe import build, load_recipe, parse_recipe
from curate.storage import Place

SMALL = """
name: small
stages:
  - probe
  - cut: {min_len_s: 1.5}
  - motion
  - gate: {column: motion.camera, in: [static, handheld]}
  - quality:
  - text: {short_side_px: 128}
  - features
  - caption.template
select:
  name: small
  conditions:
    - {column: text.area_max, max: 0.07}
    - {column: motion.camera, in: [static]}
    - {column: motion.freeze_ratio, max: 0.9, name: frozen picture}
export: {crop: letterbox}
"""


def refused(text: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        build(parse_recipe(text, "mine.yaml", overrides))
    return str(caught.value)


def config_of(recipe, stage: str) -> dict:
    return dict(recipe.stage_entries())[stage]


@pytest.mark.parametrize("name", sorted(recipe_files()))
def test_every_recipe_that_ships_can_be_built_and_reloaded(name):
    recipe = load_recipe(name)
    assert recipe.name == name and recipe.description
    build(recipe)
    assert parse_recipe(recipe.to_text(), name) == recipe


def test_the_order_of_the_file_is_the_order_of_the_stages():
    pipe = build(parse_recipe(SMALL, "mine"))
    assert [stage.name for _, stage, _ in pipe.stages()] == [
        "probe", "cut", "motion", "quality", "text", "features", "caption.template",
    ]  # fmt: skip
    assert [len(step.gates) for step in pipe.steps] == [0, 1, 1, 1, 1]


def test_a_stored_recipe_holds_every_default():
    """Another version may have other defaults; what was computed is what the stored text says."""
    stored = yaml.safe_load(parse_recipe(SMALL, "mine").to_text())
    entries = {name: config for entry in stored["stages"] for name, config in entry.items()}
    assert (entries["cut"]["min_len_s"], entries["cut"]["max_len_s"]) == (1.5, 20.0)
    assert entries["cut"]["method"] == "cascade"
    assert entries["text"]["short_side_px"] == 128 and "min_probability" in entries["text"]
    assert entries["gate"] == {
        "column": "motion.camera", "min": None, "max": None, "in": ["static", "handheld"], "not_in": [],
    }  # fmt: skip
    assert stored["export"]["crop"] == "letterbox" and stored["select"]["dedup"]["hamming"] == 3


CHANGES = {
    "cut.min_len_s": st.floats(0, 5),
    "cut.method": st.sampled_from(["cascade", "fixed", "pyscenedetect-content"]),
    "cut.snap_to_key_frames": st.booleans(),
    "motion.static_width_s": st.floats(1e-6, 1),
    "text.short_side_px": st.integers(64, 540),
    "caption.template.text_share": st.floats(0, 1),
    "features.min_probability": st.floats(0, 0.99),
    "gate.in": st.lists(st.sampled_from(["static", "zoom_in", "roll"]), min_size=1),
    "select.conditions.text.area_max.max": st.floats(0, 1),
    "select.conditions.frozen picture.max": st.floats(0, 1),
    "select.conditions.0.on_failed": st.sampled_from(["drop", "keep"]),
    "select.dedup.method": st.sampled_from(["none", "hash", "auto"]),
    "export.crf": st.integers(0, 51),
    "export.buckets.frames": st.lists(st.integers(1, 99), min_size=1, max_size=4, unique=True),
    "export.columns": st.lists(st.sampled_from(["motion.camera", "text.area_max"]), max_size=2),
}


@settings(max_examples=60)
@given(st.data())
def test_the_resolved_text_is_the_same_recipe_with_the_same_fingerprints(data):
    keys = data.draw(st.lists(st.sampled_from(sorted(CHANGES)), max_size=5, unique=True))
    overrides = [f"{key}={yaml.safe_dump(data.draw(CHANGES[key]), default_flow_style=True).strip()}" for key in keys]
    recipe = parse_recipe(SMALL, "mine", [text.removesuffix("\n...") for text in overrides])
    again = parse_recipe(recipe.to_text(), "stored")
    assert again == recipe
    assert again.to_text() == recipe.to_text()
    assert [entry[2] for entry in build(again).stages()] == [entry[2] for entry in build(recipe).stages()]


def test_overrides_reach_what_they_name():
    overrides = [
        "caption.template.text_share=0.25",
        "select.conditions.text.area_max.max=0.01",
        "select.conditions.frozen picture.max=0.5",
        "select.conditions.1.in=[handheld]",
        "cut.method=pyscenedetect-content",
        "gate.in=[roll]",
        "export.seed=7",
    ]
    recipe = parse_recipe(SMALL, "mine", overrides)
    assert config_of(recipe, "caption.template")["text_share"] == 0.25
    limits = [(c.column, c.max, c.one_of) for c in recipe.select.conditions]
    assert limits == [
        ("text.area_max", 0.01, None), ("motion.camera", None, ("handheld",)), ("motion.freeze_ratio", 0.5, None),
    ]  # fmt: skip
    assert config_of(recipe, "cut")["method"] == "pyscenedetect-content"
    assert config_of(recipe, "gate")["in"] == ["roll"]
    assert recipe.export.seed == 7


def test_an_override_changes_the_fingerprint_of_its_stage_and_readers_alone():
    before = {stage.name: fp for _, stage, fp in build(parse_recipe(SMALL, "m")).stages()}
    after = {stage.name: fp for _, stage, fp in build(parse_recipe(SMALL, "m", ["text.unclip_ratio=1.7"])).stages()}
    assert {name for name in before if before[name] != after[name]} == {"text", "caption.template"}
    for free in ("export.seed=3", "select.conditions.text.area_max.max=0.5", "gate.in=[roll]"):
        assert {s.name: fp for _, s, fp in build(parse_recipe(SMALL, "m", [free])).stages()} == before


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "must hold keys such as name"),
        ("- probe", "must hold keys such as name"),
        ("name: [", "mine.yaml: is not YAML"),
        ("name: x\nstages: 5\nselect: {}", "must be a list"),
        ("name: x\nstages: {probe: {}, cut: {min_len_s: 2}}\nselect: {}", "must be a list"),
        ("name: x\nstages: [probe, cut: 5]\nselect: {}", "not {'cut': 5}"),
        ("name: x\nstages: [probe, {cut: {}, motion: {}}]\nselect: {}", "an entry is a stage name or one"),
        ("name: x\nstages: [prob, cut]\nselect: {}", "no stage is called 'prob', did you mean 'probe'?"),
        ("name: x\nstages: [probe]\nselect: {}", "exactly one `probe` and one `cut`"),
        ("name: x\nselect: {}", "exactly one `probe` and one `cut`"),
        ("stages: [probe, cut]\nselect: {}", "recipe.name"),
        ("name: x\nstages: [probe, cut]", "recipe.select"),
        ("name: x\nstages: [probe, cut]\nselct: {}\nselect: {}", "unknown key 'recipe.selct', did you mean 'select'?"),
        ("name: x\nstages: [probe, cut: {min_len: 2}]\nselect: {}", "'cut.min_len', did you mean 'min_len_s'?"),
        ("name: x\nstages: [probe, cut: {min_len_s: 30}]\nselect: {}", "above the longest clip"),
        ("name: x\nstages: [probe, cut, caption.template]\nselect: {}", "must stand above it"),
        ("name: x\nstages: [probe, cut, motion, motion]\nselect: {}", "stands twice"),
        ("name: x\nstages: [probe, cut, gate: {column: motion.camera}]\nselect: {}", "no stage stands above it"),
        ("name: x\nstages: [probe, cut, motion, gate: {colum: a}, text]\nselect: {}", "did you mean 'column'?"),
        ("name: x\nstages: [probe, cut, motion, gate: {column: motion.x, max: 1}, text]\nselect: {}", "no column 'x'"),
        ("name: x\nstages: [probe, cut]\nselect: {conditions: [{column: a.b, max: 1, min: 2}]}", "min is above max"),
        ("name: x\nstages: [probe, cut]\nselect: {conditions: [{column: a.b}]}", "give exactly one of"),
        ("name: x\nstages: [probe, cut]\nselect: {}\nexport: {buckets: {aspects: ['4x3']}}", "is not W:H"),
    ],
)  # fmt: skip
def test_a_wrong_recipe_is_refused_with_what_would_be_right(text, words):
    assert words in refused(text)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("cut.min_len_s", "is not of the form key=value"),
        ("cut.min_len_s=[", "is not YAML"),
        ("cut.min_len=2", "unknown key 'cut.min_len', did you mean 'min_len_s'?"),
        ("cut=2", "as in cut.KEY=VALUE"),
        ("select=2", "as in select.KEY=VALUE"),
        ("cutt.min_len_s=2", "did you mean 'cut'?"),
        ("probe.x=1", "unknown key 'probe.x'"),
        ("caption.templat.text_share=1", "did you mean 'caption.template'?"),
        ("select.conditions.text.area.max=1", "no entry 'text.area' in that list"),
        ("select.conditions.9.max=1", "no entry '9' in that list"),
        ("select.conditions.max=1", "does not name a key"),
        ("cut.min_len_s.x=1", "does not name a key"),
        ("cut.min_len_s=long", "cut.min_len_s"),
        ("export.crf=99", "less than or equal to 51"),
    ],
)
def test_a_wrong_override_is_refused_with_what_would_be_right(override, words):
    assert words in refused(SMALL, override)


def test_a_stage_that_the_recipe_lacks_is_told_apart_from_one_that_does_not_exist():
    text = "name: x\nstages: [probe, cut]\nselect: {}"
    assert "stage 'motion' is not in this recipe" in refused(text, "motion.static_width_s=1")
    assert "stage 'motion'" not in refused(text, "motoin.static_width_s=1")


def test_a_recipe_is_found_by_name_and_by_path(tmp_path, monkeypatch):
    (tmp_path / "mine.yaml").write_text(SMALL)
    (tmp_path / "without_suffix").write_text(SMALL)
    (tmp_path / "embedded").mkdir()
    monkeypatch.chdir(tmp_path)
    assert load_recipe("mine.yaml") == load_recipe(str(tmp_path / "without_suffix")) == parse_recipe(SMALL, "x")
    assert load_recipe("embedded").name == "embedded", "a folder of that name is no recipe"
    for name, words in {"emdedded": "did you mean 'embedded'?", "other.yaml": "no such recipe file"}.items():
        with pytest.raises(ConfigError) as caught:
            load_recipe(name)
        assert words in str(caught.value)


def test_a_recipe_lies_beside_the_runs_of_a_corpus_wherever_that_is(memory_bucket):
    Place(f"{memory_bucket}/runs/1/recipe.yaml").write_text(SMALL)
    assert load_recipe(f"{memory_bucket}/runs/1/recipe.yaml") == parse_recipe(SMALL, "x")
    with pytest.raises(StorageError, match="does not exist"):
        load_recipe(f"{memory_bucket}/runs/2/recipe.yaml")


def test_bytes_that_are_no_text_are_a_wrong_recipe(tmp_path):
    path = Path(tmp_path / "film.yaml")
    path.write_bytes(bytes(range(256)))
    with pytest.raises(ConfigError, match="is not YAML"):
        load_recipe(str(path))
