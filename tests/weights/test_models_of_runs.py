"""Models and runs: what is missing is said before a video is read, and each digest is on record."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_kit import curate
from job_kit import do
from model_kit import ModelKit

from curate.engine.ready import check_models
from curate.errors import MissingModelError
from curate.recipe import Recipe, build, parse_recipe
from curate.stages import registry
from curate.tables import Corpus
from curate.testing.footage import write_video
from curate.testing.scenes import moving_texture

RECIPE = """
name: modelled
stages: [probe, cut: {min_len_s: 0.5}, luma, double, dimmed, twin]
select: {name: modelled, conditions: [], dedup: {method: none}}
export: {caption: "", motion: "", preset: ultrafast, buckets: {short_sides_px: [64], multiple_px: 32, frames: [8]}}
"""
HUB = {"name": "w.txt", "sources": ["hf:org/model@main#w.txt"]}


@pytest.fixture
def recipe(monkeypatch) -> Recipe:
    for name, cls in {"luma": "engine_kit:Luma", "double": "engine_kit:Double"}.items():
        monkeypatch.setitem(registry.BUILT_IN, name, cls)
    for name, cls in {"dimmed": "Dimmed", "twin": "Twin", "cut": "CutByModel"}.items():
        monkeypatch.setitem(registry.BUILT_IN, name, f"model_stages_kit:{cls}")
    return parse_recipe(RECIPE, "test")


@pytest.fixture
def kit(tmp_path, monkeypatch) -> ModelKit:
    """The cards ``dimmer``, ``cutter`` and ``twin``, the first two fetched."""
    kit = ModelKit(tmp_path / "kit", monkeypatch)
    put(kit, "dimmer", "0.5", tmp_path)
    put(kit, "cutter", "sharp", tmp_path)
    twin = {"name": "twin", "purpose": "p", "licence": "l", "files": [HUB], "input": "i", "output": "o"}
    (kit.cards / "twin.yaml").write_text(json.dumps({**twin, "memory_bytes": 1, "needed_by": []}))
    return kit


def put(kit: ModelKit, name: str, text: str, folder: Path) -> str:
    """(Re)write a card and its one file; gives the digest."""
    made = folder / "made" / name
    made.mkdir(parents=True, exist_ok=True)
    (made / "w.txt").write_text(text)
    return kit.add(name, made).digests()[f"{name}/w.txt"]


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("footage") / "a.mp4"
    write_video(path, moving_texture(30, 96, 64, (1, 0), seed=1))
    return path


@pytest.mark.parametrize("engine", ["inline", "ray"])
def test_all_that_is_missing_is_told_at_once_before_a_video_is_read(recipe, kit, video, tmp_path, monkeypatch, engine):
    monkeypatch.setenv("CURATE_MODELS", str(tmp_path / "nowhere"))
    monkeypatch.setattr("curate.job.list_inputs", lambda *_, **__: pytest.fail("the inputs were listed"))
    with pytest.raises(MissingModelError) as caught:
        do([video], tmp_path / "corpus", recipe, engine=engine)
    assert caught.value.message.endswith("cutter (stage cut), dimmer (stage dimmed), twin (stage twin)")
    assert caught.value.fix == "Run `curate models fetch cutter dimmer twin`"
    assert not (tmp_path / "corpus").exists()


def test_a_damaged_model_is_as_good_as_none(recipe, kit):
    """Its size is right, and only the digest tells."""
    pipeline = build(recipe, ["dimmed"])
    (weights,) = (kit.models / "dimmer").rglob("w.txt")
    weights.write_text("5.0")
    with pytest.raises(MissingModelError, match=r"dimmer \(damaged, stage dimmed\)\. Run `curate models fetch dimmer`"):
        check_models(pipeline)
    assert curate("models", "fetch", "dimmer").status == 0
    assert weights.read_text() == "0.5"
    check_models(pipeline)


def test_the_command_that_is_told_is_the_one_that_fixes_it(recipe, kit, tmp_path, monkeypatch):
    monkeypatch.setenv("CURATE_MODELS", str(tmp_path / "nowhere"))
    pipeline = build(recipe, ["dimmed"])
    with pytest.raises(MissingModelError) as caught:
        check_models(pipeline)
    command = caught.value.fix.split("`")[1]
    assert curate(*command.split()[1:]).status == 0
    check_models(pipeline)


def test_what_a_recipe_needs_is_what_is_fetched_for_it(recipe, kit, tmp_path, monkeypatch):
    monkeypatch.setenv("CURATE_MODELS", str(tmp_path / "nowhere"))
    (tmp_path / "mine.yaml").write_text(RECIPE.replace(", twin]", "]"))
    ended = curate("models", "fetch", "--recipe", tmp_path / "mine.yaml")
    assert ended.status == 0
    assert {line.split("/")[0] for line in ended.out.splitlines() if ": " in line} == {"cutter", "dimmer"}


def test_models_of_stages_that_are_not_asked_for_are_not_missed(recipe, kit):
    assert sorted(build(recipe, ["double"]).models()) == ["cutter/w.txt"]
    assert build(recipe).models()["twin/w.txt"] == ["twin"]
    check_models(build(recipe, ["double", "dimmed"]))
    with pytest.raises(MissingModelError, match=r"twin \(stage twin\)"):
        check_models(build(recipe))


def test_a_run_records_every_digest_and_another_model_is_another_measurement(recipe, kit, video, tmp_path):
    asked, out = ["double", "dimmed"], tmp_path / "corpus"
    dimmer = put(kit, "dimmer", "0.5", tmp_path)
    first, _ = do([video], out, recipe, only_stages=asked, export=False)
    manifest = Corpus(str(out)).manifest(first.run.run_id)
    assert manifest["models"]["dimmed"] == {"dimmer/w.txt": dimmer}
    assert manifest["models"]["cut"].keys() == {"cutter/w.txt"}
    before = fingerprints(recipe)
    brighter = put(kit, "dimmer", "0.9", tmp_path)
    after = fingerprints(recipe)
    assert {name for name in before if before[name] != after[name]} == {"dimmed"}
    result, heard = do([video], out, recipe, only_stages=asked, export=False)
    assert heard.computed & {"luma", "double", "dimmed"} == {"dimmed"}
    assert Corpus(str(out)).manifest(result.run.run_id)["models"]["dimmed"] == {"dimmer/w.txt": brighter}


def test_another_model_for_the_cuts_is_another_cut(recipe, kit, tmp_path):
    before = fingerprints(recipe)
    put(kit, "cutter", "blunt", tmp_path)
    after = fingerprints(recipe)
    assert before["cut"] != after["cut"]
    assert before["probe"] == after["probe"]


def fingerprints(recipe: Recipe) -> dict[str, str]:
    return {stage.name: fingerprint for _, stage, fingerprint in build(recipe).stages()}


def test_a_worker_without_the_model_says_where_it_looked(recipe, kit):
    """As on another node of a cluster, whose store nobody has looked into: the next run tries again."""
    (weights,) = (kit.models / "dimmer").rglob("w.txt")
    pipeline = build(recipe, ["dimmed"])
    check_models(pipeline)
    weights.unlink()
    stage = next(step.stage for step in pipeline.steps if step.stage.name == "dimmed")
    with pytest.raises(MissingModelError, match=rf"not on this machine \(looked in {kit.models}\)") as caught:
        stage.setup()
    assert caught.value.transient
