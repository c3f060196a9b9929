"""The paper's recipe as it ships, offline, through both engines: small checkpoints under the names of the real ones.

Every stage runs its real code on files in the real format; what a package index carries is real, the rest is random.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from cli_kit import curate, start
from engine_kit import all_cells
from svd_kit import small_models

from curate.recipe import build, load_recipe
from curate.shards.reader import ShardSet
from curate.storage import Place
from curate.testing.footage import moving_texture, text_card, write_video
from curate.train.data.catalogue import Catalogue
from curate.train.data.config import SVD_CAPTIONS, DataConfig

pytestmark = pytest.mark.ray

SMALL = ["cut.min_len_s=1.0", "text.craft.canvas_px=96", "clip.similarity.batch_size=4"]
"""Films of two seconds, and a canvas at which CRAFT takes a tenth of a second a frame."""
CLIPS_A_FILM = 2
TEXT = {"much text", "text above 7 %"}
AXES = {"little motion", "low aesthetics", "caption does not fit", *TEXT}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        yield small_models(tmp_path_factory.mktemp("models"), patch)


@pytest.fixture(scope="module")
def bucket(tmp_path_factory) -> Path:
    """Eight films of two shots each; one shows text."""
    folder = tmp_path_factory.mktemp("bucket")
    for number in range(8):
        shots = [
            moving_texture(36, 128, 96, (number / 2, 0), seed=20 + 10 * number + shot) for shot in range(CLIPS_A_FILM)
        ]
        if number == 7:
            shots[1] = text_card(36, 128, 96, "MUCH TEXT\nIS HERE")
        write_video(folder / f"{number}.mp4", itertools.chain(*shots))
    return folder


def options(recipe: str, out: Path, engine: str, settings: Sequence[str] = SMALL) -> list[object]:
    sets = itertools.chain.from_iterable(("--set", setting) for setting in settings)
    return ["--recipe", recipe, "--out", out, "--engine", engine, "--no-export", *sets]


@pytest.fixture(scope="module")
def done(models, bucket, tmp_path_factory) -> Path:
    """The corpus that the inline engine makes."""
    out = tmp_path_factory.mktemp("inline") / "corpus"
    ended = curate("run", bucket, *options("svd", out, "inline"))
    assert ended.status == 0, ended.out + ended.err
    return out


def pipeline():
    return build(load_recipe("svd", SMALL))


def test_every_stage_gives_every_clip_its_cell(done):
    cells = all_cells(done, pipeline())
    n_clips = len(cells["motion"])
    assert n_clips >= 14
    assert {name: len(rows) for name, rows in cells.items() if name not in {"probe", "cut", "clips"}} == {
        step.stage.name: n_clips for step in pipeline().steps
    }
    manifest = manifest_of(done)
    assert manifest["counts"]["cells_failed"] == 0
    assert set(manifest["models"]) == {
        "text", "clip", "aesthetic", "caption.coca", "caption.vblip", "caption.fused", "clip.similarity",
    }  # fmt: skip
    assert all(use["items"] == n_clips for use in manifest["stage_use"].values())


def test_a_caption_carries_its_frames_and_its_scores(done):
    rows = {stage: cells_of(done, stage) for stage in ("caption.coca", "caption.vblip", "caption.chosen")}
    scores = cells_of(done, "clip.similarity")
    assert all(len(row["all"]) == 9 for row in scores.values())
    for clip, chosen in rows["caption.chosen"].items():
        assert chosen["replaced"], "the small language model makes words up, so every fusion is replaced"
        source = f"caption.{chosen['source']}"
        assert chosen["caption"] == rows[source][clip]["caption"]
        assert chosen["frames"] == rows[source][clip]["frames"]
        mean = {name: sum(scores[clip][name.rpartition(".")[2]]) for name in ("caption.coca", "caption.vblip")}
        assert mean[source] == max(mean.values())
    assert len({row["frames"] for row in rows["caption.coca"].values()}) == len(scores)


def test_the_funnel_has_the_papers_axes_and_what_independent_ones_would_keep(done):
    funnel = json.loads((done / "selections/svd/funnel.json").read_text())
    n_clips = funnel["clips"]["found"]
    shares = {each["condition"]: (each["kind"], each["share"]) for each in funnel["thresholds"]}
    assert {share for _, share in shares.values()} == {0.25, 0.5}
    assert set(shares) == AXES - {"text above 7 %"}
    failing = {each["name"]: each["failing"] for each in funnel["conditions"]}
    assert set(failing) == AXES
    assert failing["little motion"] == n_clips // 4
    assert failing["caption does not fit"] == n_clips // 2
    retention = funnel["retention"]
    rows = read_parquet_rows(done / "selections/svd/selection.parquet")
    assert retention["joint"] == pytest.approx(sum(not AXES & set(row["failing"]) for row in rows) / n_clips)
    one_by_one = [[axis] for axis in sorted(AXES - TEXT)] + [sorted(TEXT)]
    passing = [sum(not set(row["failing"]) & set(axis) for row in rows) / n_clips for axis in one_by_one]
    assert retention["product"] == pytest.approx(math.prod(passing))
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
    config = DataConfig.model_validate({"buckets": buckets, "batch": 1, "captions": SVD_CAPTIONS, "on_empty": "report"})
    assert Catalogue.read(shards, config).n_clips == shards.index.n_clips > 10
    cells = {column: cells_of(done, column.removesuffix(".caption")) for column in SVD_CAPTIONS}
    for sample in shards.samples():
        for column, rows in cells.items():
            assert sample.facts[column] == rows[sample.clip_id]["caption"] != ""


def test_ray_gives_the_same_cells(done, bucket, tmp_path):
    ended = curate("run", bucket, *options("svd", tmp_path / "corpus", "ray"))
    assert ended.status == 0, ended.out + ended.err
    assert all_cells(tmp_path / "corpus", pipeline()) == all_cells(done, pipeline())


def test_killed_midway_and_run_again_nothing_is_computed_twice(done, bucket, tmp_path):
    out = tmp_path / "corpus"
    process = start("run", bucket, *options("svd", out, "inline"), env=dict(os.environ), start_new_session=True)
    while process.poll() is None and len(list(out.glob("tables/cells/caption.fused/*/*.parquet"))) < 2:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    said = process.communicate()
    assert process.returncode == -signal.SIGKILL, said
    before = {step.stage.name: len(cells_of(out, step.stage.name)) for step in pipeline().steps}
    assert 0 < before["caption.fused"] < len(cells_of(done, "caption.fused"))
    assert curate("run", bucket, *options("svd", out, "inline")).status == 0
    assert all_cells(out, pipeline()) == all_cells(done, pipeline())
    again = {name: use["items"] for name, use in manifest_of(out)["stage_use"].items()}
    n_clips = len(cells_of(done, "caption.fused"))
    twice = {name: before[name] + again[name] - n_clips for name in again}
    assert min(twice.values()) >= 0
    assert max(twice.values()) <= CLIPS_A_FILM, "of the film that was read when the run died, nothing counted yet"


def test_changing_one_captioner_computes_it_and_what_reads_it(done, bucket):
    changed = [*SMALL, "caption.vblip.max_tokens=5"]
    assert curate("run", bucket, *options("svd", done, "inline", changed)).status == 0
    assert set(manifest_of(done)["stage_use"]) == {
        "caption.vblip", "caption.fused", "clip.similarity", "caption.chosen",
    }  # fmt: skip


def manifest_of(out: Path) -> dict:
    """Of the last run."""
    return json.loads(max(out.glob("runs/*/manifest.json")).read_text())


def read_parquet_rows(path: Path) -> list[dict]:
    return pq.read_table(path).to_pylist()


def cells_of(out: Path, stage: str) -> dict[str, dict]:
    rows = [row for path in out.glob(f"tables/cells/{stage}/*/*.parquet") for row in read_parquet_rows(path)]
    return {row["key"]: row for row in rows if row["outcome"] == "ok"}
