"""The paper's recipe as it ships, offline: small checkpoints under the names of the real ones. Ray: test_ray_job.

Every stage runs its real code on files in the real format; what a package index carries is real, the rest is random.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from cli_kit import curate
from engine_kit import all_cells, run
from svd_kit import (
    AXES,
    CLIPS_A_FILM,
    SMALL,
    OneGpu,
    cells_by_stage,
    cells_of,
    computed_twice,
    funnel_of,
    kept_and_expected,
    killed,
    made,
    manifest_of,
    pipeline,
    small_models,
    unfit_captions,
    write_films,
)

from curate.recipe import build, load_recipe
from curate.shards.reader import ShardSet
from curate.storage import Place
from curate.tables import CLIPS
from curate.train.data.catalogue import Catalogue
from curate.train.data.config import DataConfig
from curate.train.recipe import load_train_recipe

FILMS = ("3.mp4", "7.mp4")
"""Two are enough for the plan of a larger machine, and for the smaller recipe."""
HALF = ("2.mp4", "3.mp4", "6.mp4", "7.mp4")
"""Enough for a run that dies with its second film and has as many left."""


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        yield small_models(tmp_path_factory.mktemp("models"), patch)


@pytest.fixture(scope="module")
def bucket(tmp_path_factory) -> Path:
    """Eight films of two shots each; one shows text."""
    return write_films(tmp_path_factory.mktemp("bucket"), range(8))


@pytest.fixture(scope="module")
def few(bucket, tmp_path_factory) -> Path:
    """Two of the films."""
    return some(bucket, tmp_path_factory.mktemp("few"), FILMS)


def some(bucket: Path, folder: Path, names: Sequence[str]) -> Path:
    """A folder of some of the films."""
    for name in names:
        (folder / name).hardlink_to(bucket / name)
    return folder


@pytest.fixture(scope="module")
def done(models, bucket, tmp_path_factory) -> Path:
    """The corpus that the inline engine makes."""
    return made(bucket, tmp_path_factory.mktemp("inline") / "corpus", "inline", SMALL)


def test_every_stage_gives_every_clip_its_cell(done):
    found = cells_by_stage(done, SMALL)
    n_clips = found["motion"]
    assert n_clips >= 14
    assert set(found.values()) == {n_clips}
    manifest = manifest_of(done)
    assert manifest["counts"]["cells_failed"] == 0
    assert set(manifest["models"]) == {
        "text", "clip", "aesthetic", "caption.coca", "caption.vblip", "caption.fused", "clip.similarity",
    }  # fmt: skip
    assert all(use["items"] == n_clips for use in manifest["stage_use"].values())


def test_a_caption_carries_its_frames_and_its_scores(done):
    scores = cells_of(done, "clip.similarity")
    assert all(len(row["all"]) == 9 for row in scores.values())
    assert unfit_captions(done) == [], "the small language model makes words up, so every fusion is replaced"
    assert set(cells_of(done, "caption.chosen")) == set(scores)
    assert len({row["frames"] for row in cells_of(done, "caption.coca").values()}) == len(scores)


def test_the_funnel_has_the_papers_axes_and_what_independent_ones_would_keep(done):
    funnel = funnel_of(done)
    n_clips = funnel["clips"]["found"]
    shares = {each["condition"]: (each["kind"], each["share"]) for each in funnel["thresholds"]}
    assert {share for _, share in shares.values()} == {0.25, 0.5}
    assert set(shares) == AXES - {"text above 7 %"}
    failing = {each["name"]: each["failing"] for each in funnel["conditions"]}
    assert set(failing) == AXES
    assert failing["little motion"] == n_clips // 4
    assert failing["caption does not fit"] == n_clips // 2
    retention = funnel["retention"]
    assert (retention["joint"], retention["product"]) == pytest.approx(kept_and_expected(done))
    told = curate("select", done)
    assert "expected if they were independent" in told.out
    assert told.status == 0


def test_a_trainer_finds_the_papers_three_captions_in_the_shards(done):
    """A column of the weights that no shard has would never be drawn, and nobody would notice."""
    assert curate("select", done, "--name", "all", "--set", "select.conditions=[]").status == 0
    small = "{short_sides_px: [64], multiple_px: 32, frames: [8]}"
    args = ["--selection", "all", "--set", f"export.buckets={small}", "--set", "export.preset=ultrafast"]
    ended = curate("export", done, *args)
    assert ended.status == 0, ended.err
    shards = ShardSet.open(Place(str(done / "shards" / "all")))
    buckets = {"short_sides_px": (64,), "multiple_px": 32, "frames": (8,)}
    captions = load_train_recipe("video-320x576").data.captions
    assert sorted(captions.values()) == [0.25, 0.25, 0.5]
    config = DataConfig.model_validate({"buckets": buckets, "batch": 1, "captions": captions, "on_empty": "report"})
    assert Catalogue.read(shards, config).n_clips == shards.index.n_clips > 10
    cells = {column: cells_of(done, column.removesuffix(".caption")) for column in captions}
    for sample in shards.samples():
        for column, rows in cells.items():
            assert sample.facts[column] == rows[sample.clip_id]["caption"] != ""


def test_svd_small_gives_every_cell_and_the_same_axes(models, few, tmp_path):
    """Its V-BLIP stands in bfloat16, which PyTorch computes on this machine's CPU."""
    out = made(few, tmp_path / "corpus", "inline", ["cut.min_len_s=1.0"], "svd-small")
    stages = build(load_recipe("svd-small")).steps
    found = {step.stage.name: len(cells_of(out, step.stage.name)) for step in stages}
    assert set(found) == {*cells_by_stage(out, SMALL)}
    assert set(found.values()) == {len(FILMS) * CLIPS_A_FILM}
    manifest = manifest_of(out)
    assert manifest["counts"]["cells_failed"] == 0
    assert "coca-vit-b-32" in json.dumps(manifest["models"]["caption.coca"])
    funnel = json.loads((out / "selections/svd-small/funnel.json").read_text())
    assert {each["name"] for each in funnel["conditions"]} == AXES
    assert funnel["retention"]["product"] > 0


def test_pools_that_share_a_gpu_give_the_same_cells(done, few, tmp_path):
    """The plan for a machine with one, on this one: a pool for every network, clips sent on from each to the next."""
    out = tmp_path / "corpus"
    plan, engine = pipeline(SMALL), OneGpu(tmp_path)
    _, heard = run(out, few, plan, engine)
    assert heard.deaths == []
    assert sum(pool.gpus for pool in engine.packing.pools) == pytest.approx(1.0)
    assert plan.n_groups == 1 + len(engine.packing.pools) == 7
    assert plan.without_gpus().n_groups == 1, "as the others ran"
    found = all_cells(out, plan)
    assert (len(found["probe"]), len(found["clips"])) == (len(FILMS), len(FILMS) * CLIPS_A_FILM)
    assert found == part_of(all_cells(done, plan), found)


def part_of(whole: Mapping[str, list], found: Mapping[str, list]) -> dict[str, list]:
    """Of all cells of a corpus those of the films that another one has too."""
    films = {cell[0] for cell in found["probe"]}
    clip, film = map(CLIPS.names.index, ("clip_id", "source_digest"))
    keys = films | {row[clip] for row in whole["clips"] if row[film] in films}
    return {name: [cell for cell in cells if cell[0] in keys] for name, cells in whole.items()}


def test_killed_midway_and_run_again_nothing_is_computed_twice(done, bucket, tmp_path_factory):
    out = tmp_path_factory.mktemp("killed") / "corpus"
    half = some(bucket, tmp_path_factory.mktemp("half"), HALF)
    killed(half, out, SMALL)
    before = cells_by_stage(out, SMALL)
    made(half, out, "inline", SMALL)
    n_clips = len(cells_of(out, "caption.fused"))
    assert 0 < before["caption.fused"] < n_clips
    found = all_cells(out, pipeline(SMALL))
    assert len(found["probe"]) == len(HALF)
    assert found == part_of(all_cells(done, pipeline(SMALL)), found)
    again = {name: use["items"] for name, use in manifest_of(out)["stage_use"].items()}
    twice = {name: before[name] + again[name] - n_clips for name in again}
    assert min(twice.values()) >= 0
    assert max(twice.values()) <= CLIPS_A_FILM, "of the film that was read when the run died, nothing counted yet"
    assert len(computed_twice(out, SMALL)) <= 1


def test_changing_one_captioner_computes_it_and_what_reads_it(done, bucket):
    made(bucket, done, "inline", [*SMALL, "caption.vblip.max_tokens=5"])
    assert set(manifest_of(done)["stage_use"]) == {
        "caption.vblip", "caption.fused", "clip.similarity", "caption.chosen",
    }  # fmt: skip
