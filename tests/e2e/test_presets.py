"""The known recipes as they ship, offline: each runs to its end, drops what it should, and says what it lacks.

CLIP has random weights, and the head beside it rates every frame 4.8; what a package index carries is real.
"""

from __future__ import annotations

import json
import re
from fractions import Fraction
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import yaml
from cli_kit import curate
from clip_kit import OPENAI_LIKE, add_head, add_open_clip, kit_beside, mlp_head
from cut_kit import PEER_FACTS

from curate.datafiles import recipe_files
from curate.engine.detect import Detection
from curate.media.decode import iter_frames
from curate.media.facts import read_facts
from curate.media.views import ViewSampler
from curate.query import connect
from curate.recipe import Recipe, build, load_recipe
from curate.shards.buckets import bucket_of
from curate.shards.index import ShardIndex
from curate.stage import Thumb
from curate.tables import Corpus
from curate.testing.footage import moving_texture, static_texture, text_card, write_video

PRESETS = ("nemo", "opensora", "opensora-plan", "panda", "data-juicer")
ROOT = Path(__file__).parents[2]
EMBEDDING = OPENAI_LIKE["model_cfg"]["embed_dim"]
RATING = 4.8
W, H, RATE = 320, 256, Fraction(12)
FILMS = {
    "pan": lambda: moving_texture(42, W, H, (4, 1), 1),
    "still": lambda: static_texture(42, W, H, 2),
    "cut": lambda: chain(moving_texture(36, W, H, (4, 1), 3), text_card(36, W, H, "MUCH TEXT\nIS HERE")),
}
QUICK = ["export.preset=ultrafast", "export.buckets={short_sides_px: [128], multiple_px: 64, frames: [8]}"]


@pytest.fixture(scope="module", autouse=True)
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    with pytest.MonkeyPatch.context() as patch:
        kit = kit_beside(folder / "kit", patch, ("pp-ocr-det",))
        add_open_clip(kit, "openclip-vit-l-14", OPENAI_LIKE, folder / "clip")
        settings = {"head": "mlp", "embedding": EMBEDDING, "family": "kit"}
        add_head(kit, "laion-aesthetic-sac-logos-ava1-l14", level_head(), folder / "head", **settings)
        yield


def level_head() -> dict:
    """A head that gives every picture the same rating."""
    state = {name: value * 0 for name, value in mlp_head(EMBEDDING).items()}
    last = max((name for name in state if name.endswith("bias")), key=lambda name: int(name.split(".")[1]))
    state[last] = state[last] + RATING
    return state


@pytest.fixture(scope="module")
def bucket(tmp_path_factory) -> Path:
    """A camera move, a picture that stands still, and a cut from a move to much text."""
    folder = tmp_path_factory.mktemp("bucket")
    for name, frames in FILMS.items():
        write_video(folder / f"{name}.mp4", frames(), RATE, options={"preset": "ultrafast", "bf": "2"})
    return folder


@pytest.fixture(scope="module")
def ran(bucket, tmp_path_factory):
    """A maker of corpora, one for each preset: the folder and what was printed."""
    made = {}

    def run(name):
        if name not in made:
            out = tmp_path_factory.mktemp(name) / "corpus"
            settings = [*QUICK, *(["text.short_side_px=128"] if name in ("opensora", "data-juicer") else [])]
            sets = chain.from_iterable(("--set", each) for each in settings)
            ended = curate("run", bucket, "--recipe", name, "--out", out, "--engine", "inline", "--no-report", *sets)
            assert ended.status == 0, ended.out + ended.err
            made[name] = out, ended.out
        return made[name]

    return run


def failing(out: Path, name: str) -> dict[tuple[str, float], set[str]]:
    """By film and start of each clip the conditions that it fails."""
    sql = f"""select uri, start_s, failing from '{out}/selections/{name}/selection.parquet' s
        join '{out}/tables/clips/*/*.parquet' c using (clip_id)
        join '{out}/tables/sources/*.parquet' u on u.source_digest = c.source_digest"""
    with connect() as con:
        rows = con.sql(sql).fetchall()
    return {(Path(uri).stem, round(start_s, 2)): set(reasons) for uri, start_s, reasons in rows}


SHOTS = (("pan", 0.0), ("still", 0.0), ("cut", 0.0), ("cut", 3.0))
TRUTH: dict[str, dict[tuple[str, float], set[str]]] = {
    "nemo": {**{shot: set() for shot in SHOTS[:3]}, ("still", 0.0): {"little motion", "a patch stands still"}},
    "opensora": {shot: {"low aesthetics"} for shot in SHOTS},
    "opensora-plan": {shot: set() for shot in SHOTS},
    "panda": {shot: set() for shot in SHOTS},
    "data-juicer": {shot: {"little motion"} if shot in {SHOTS[1], SHOTS[3]} else set() for shot in SHOTS},
}
"""With everything rated 4.8. The stride of `nemo` knows no cut: its one clip of the third film holds both shots."""


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_runs_to_its_end_and_judges_as_its_rules_say(ran, name):
    out, _ = ran(name)
    found = failing(out, name)
    expected = TRUTH[name]
    assert found == expected
    funnel = json.loads((out / f"selections/{name}/funnel.json").read_text())
    assert funnel["clips"]["failed"] == 0
    assert funnel["clips"]["kept"] == sum(not reasons for reasons in expected.values())
    index = out / f"shards/{name}/index.json"
    n_written = sum(shard["count"] for shard in json.loads(index.read_text())["shards"]) if index.is_file() else 0
    assert n_written == funnel["clips"]["kept"]


def test_opensora_keeps_one_of_two_encodings_and_writes_it(tmp_path):
    """What is rated 4.8 passes a lower limit; then near-duplicates go by the vectors of CLIP."""
    folder, out = tmp_path / "videos", tmp_path / "corpus"
    folder.mkdir()
    again = {"preset": "ultrafast", "crf": "30", "bf": "0"}
    for name, film, options in (("pan", "pan", {"preset": "ultrafast"}), ("twin", "pan", again), ("cut", "cut", again)):
        write_video(folder / f"{name}.mp4", FILMS[film](), RATE, options=options)
    settings = [*QUICK, "text.short_side_px=128", "select.conditions.low aesthetics.min=4.5"]
    sets = chain.from_iterable(("--set", each) for each in settings)
    ended = curate("run", folder, "--recipe", "opensora", "--out", out, "--engine", "inline", "--no-report", *sets)
    assert ended.status == 0, ended.out + ended.err
    found = failing(out, "opensora")
    lost = [clip for clip, reasons in found.items() if reasons]
    assert lost in ([("pan", 0.0)], [("twin", 0.0)])
    assert found[lost[0]] == {"near-duplicate"}
    index = ShardIndex.read(Corpus(str(out)).shards("opensora"))
    assert (index.n_clips, len(found), index.holes) == (3, 4, ())


@pytest.mark.parametrize("name", PRESETS)
def test_what_a_preset_lacks_is_told_in_the_terminal_the_manifest_and_the_statistics(ran, name):
    out, printed = ran(name)
    lacks = load_recipe(name).lacks
    assert lacks
    manifest = json.loads(max(out.glob("runs/*/manifest.json")).read_text())
    assert manifest["lacks"] == lacks
    shown = curate("stats", out).out
    for what, why in lacks.items():
        assert f"Not done {what}: {why}" in printed
        assert f"Not done {what}: {why}" in shown


def test_text_that_a_single_frame_would_miss_is_found(ran):
    """The text comes at the end of a clip: one early frame shows none, the last of three does."""
    steps = {step.stage.name: step.stage for step in build(load_recipe("data-juicer")).steps}
    assert steps["text"].views()["ends"].points == (0.0, 0.5, 1.0)
    out, _ = ran("data-juicer")
    selected = curate("select", out, "--name", "little-text", "--set", "text area.max=0.1")
    assert selected.status == 0, selected.err
    found = failing(out, "little-text")
    assert {clip for clip, reasons in found.items() if "text area" in reasons} == {("cut", 3.0)}
    out, _ = ran("opensora")
    with connect() as con:
        counts = con.sql(f"select n_boxes_max from '{out}/tables/cells/text/*/*.parquet'").fetchall()
    assert sorted(n for (n,) in counts)[:3] == [0, 0, 0] and max(counts)[0] >= 2


@pytest.mark.parametrize("name", ["opensora", "panda", "data-juicer"])
def test_no_frame_of_the_scene_before_is_in_a_clip(bucket, name):
    path = str(bucket / "cut.mp4")
    facts = read_facts(path)
    cut = build(load_recipe(name)).cut
    spans = [s for found in Detection(path, facts, cut, ViewSampler(facts, {})).spans() for s in found]
    luma = {frame.pts: frame.av_frame.to_ndarray(format="gray") for frame in iter_frames(path, facts)}
    corners = {pts: picture[:9, :9].std() for pts, picture in luma.items()}
    shown = [[bool(corners[pts] > 2) for pts in corners if s.start_pts <= pts < s.end_pts] for s in spans]
    assert shown == [[True] * 36, [False] * 36], "the card has a plain corner, the move before it never"


LENGTHS_S = {
    "nemo": [10, 10, 10, 3.5],
    "opensora": [15],
    "opensora-plan": [20, 13.5],
    "panda": [5, 5, 5, 5, 5, 5, 3.5],
    "data-juicer": [10, 10, 10, 3.5],
}


@pytest.mark.parametrize("name", PRESETS)
def test_a_scene_of_33_and_a_half_seconds_is_cut_as_the_recipe_says(name):
    cut = build(load_recipe(name)).cut
    detector = cut.detector(PEER_FACTS)
    flat = np.full((9 * cut.thumb_width_px // 16, cut.thumb_width_px, 3), 128, np.uint8)
    spans = [s for i in range(1005) for s in detector.push(Thumb(3000 * i, flat))] + detector.finish(3000 * 1005)
    assert [(s.end_pts - s.start_pts) / 90000 for s in spans] == LENGTHS_S[name]


@pytest.mark.parametrize("name", sorted(recipe_files()))
def test_the_shortest_clip_of_a_recipe_has_a_bucket(name):
    """At 8 frames/s and more; else every such clip would be scored and then left out."""
    recipe = load_recipe(name)
    shortest_s = dict(recipe.stage_entries())["cut"]["min_len_s"]
    for rate_fps in (8, 12, 24, 25, 30, 60):
        assert bucket_of(426, 240, int(shortest_s * rate_fps), recipe.export.buckets)[0], rate_fps


@pytest.mark.parametrize("name", PRESETS)
def test_the_page_says_of_each_preset_what_its_file_does(name):
    """Every limit stands in the row of its column, every key of the cut beside its value, and all that is lacking."""
    page = (ROOT / "docs" / "presets.md").read_text(encoding="utf-8")
    section = page.split(f"\n## {name}\n")[1].split("\n## ")[0]
    recipe = load_recipe(name)
    assert wrongly_told(section, recipe) == []


def wrongly_told(section: str, recipe: Recipe) -> list[str]:
    """What the table of a preset does not say as its recipe does."""
    ours = [line.split(" | ")[1] for line in section.splitlines() if line.startswith("| ") and line.count(" | ") == 2]
    missing = [line for line in section.splitlines() if re.search(r"\| missing[ :]", line)]
    wanted = [
        f"`{condition.column}` {sign} {value:g}"
        for condition in recipe.select.conditions
        for sign, value in ((">=", condition.min), ("<=", condition.max))
        if value is not None
    ]
    stages = yaml.safe_load(recipe_files()[recipe.name].read_text(encoding="utf-8"))["stages"]
    cut = {"method": "cascade", **next(stage["cut"] for stage in stages if "cut" in stage)}
    wanted.append(f"method `{cut.pop('method')}`")
    wanted += [f"`{key}: {each}`" if isinstance(each, str) else f"`{key}` {each:g}" for key, each in cut.items()]
    told = [text for text in wanted if not any(re.search(re.escape(text) + r"(?![\w.])", own) for own in ours)]
    return told + ["a rule that is missing"] * (len(missing) < len(recipe.lacks or {}))


def test_a_wrong_number_on_the_page_is_found():
    page = (ROOT / "docs" / "presets.md").read_text(encoding="utf-8")
    section, recipe = page.split("\n## nemo\n")[1].split("\n## ")[0], load_recipe("nemo")
    for right, wrong in ((">= 3.5", ">= 3"), ("`fixed_s` 10", "`fixed_s` 100"), (">= 0.00098", "<= 0.00098")):
        assert len(wrongly_told(section.replace(right, wrong), recipe)) == 1, right
