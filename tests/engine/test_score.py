"""A group of stages over clips: what is due, what fails and how far a failure reaches."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import pyarrow as pa
import pytest
from engine_kit import (
    Double,
    Luma,
    LumaConfig,
    Picky,
    PickyConfig,
    all_cells,
    gate,
    grey,
    open_clips,
    pipeline,
    run,
    scored,
)

from curate.config import Config
from curate.engine.score import Scorer, ViewKeys
from curate.errors import MissingModelError
from curate.records import Outcome
from curate.stage import ClipItem, ClipStage, Column, Resources
from curate.testing.footage import write_video
from curate.testing.scenes import moving_texture
from curate.view import ViewSpec


class Unready(ClipStage[Config]):
    """Its weights are not there; counts how often it was asked to load them."""

    name = "unready"
    version = 1
    columns = (Column("x", pa.float64(), "1", "x"),)

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.loads = 0

    def setup(self) -> None:
        self.loads += 1
        raise MissingModelError("weights are not here", fix="Fetch them")

    def score(self, item: ClipItem) -> Mapping[str, Any]:
        raise AssertionError("scored without weights")


class Counting(Luma):
    """Counts its set-ups and the sizes of its batches."""

    name = "counting"
    resources = Resources(batch_size=3)

    def __init__(self, config: LumaConfig) -> None:
        super().__init__(config)
        self.loads = 0
        self.batches: list[int] = []

    def setup(self) -> None:
        self.loads += 1

    def score_batch(self, items):
        self.batches.append(len(items))
        return super().score_batch(items)


def luma() -> Luma:
    return Luma(LumaConfig())


def test_each_clip_gets_a_cell_of_each_stage_and_reads_those_above():
    pipe = pipeline(luma(), Double(Config()))
    clips = open_clips(pipe)
    cells = scored(pipe, clips)
    assert [cell.values["twice"] for cell in cells["double"].values()] == [0, 20, 40, 60]
    assert [clip.has["luma"]["mean"] for clip in clips] == [0, 10, 20, 30]


def test_only_what_is_missing_is_scored():
    pipe = pipeline(luma(), Double(Config()))
    clips = open_clips(pipe, missing=frozenset({"double"}))
    for clip in clips:
        clip.has["luma"] = {"mean": 7.0}
    cells = scored(pipe, clips)
    assert set(cells) == {"double"}
    assert {cell.values["twice"] for cell in cells["double"].values()} == {14.0}


def test_batches_are_of_the_size_a_stage_asks_for_and_weights_are_loaded_once():
    stage = Counting(LumaConfig())
    pipe = pipeline(stage)
    scorer = Scorer(pipe.group(0), ViewKeys(pipe.steps))
    for start in (0, 1):
        scored(pipe, open_clips(pipe, 7 + start), scorer=scorer)
    assert stage.batches == [3, 3, 1, 3, 3, 2]
    assert stage.loads == 1


def test_a_stage_that_cannot_be_set_up_fails_its_own_cells_and_is_asked_once():
    broken = Unready(Config())
    pipe = pipeline(luma(), broken, Double(Config()))
    scorer = Scorer(pipe.group(0), ViewKeys(pipe.steps))
    scored(pipe, open_clips(pipe), scorer=scorer)
    cells = scored(pipe, open_clips(pipe), scorer=scorer)
    assert broken.loads == 1
    assert all(cell.failure.error_class == "MissingModelError" for cell in cells["unready"].values())
    assert all(cell.failure.message == "weights are not here. Fetch them" for cell in cells["unready"].values())
    assert all(cell.outcome is Outcome.OK for name in ("luma", "double") for cell in cells[name].values())


def test_a_cell_that_failed_fails_its_readers_with_that_reason_and_no_neighbour():
    class AfterPicky(Double):
        name = "after"
        reads = ("picky", "luma")

    pipe = pipeline(luma(), Picky(PickyConfig(fails_above=1.5)), AfterPicky(Config()))
    cells = scored(pipe, open_clips(pipe))
    assert [cell.outcome for cell in cells["picky"].values()] == ["ok", "ok", "failed", "failed"]
    assert [cell.outcome for cell in cells["after"].values()] == ["failed", "failed", "ok", "ok"]
    lost = [cell.failure for cell in cells["after"].values() if cell.failure]
    assert {(failure.error_class, failure.message) for failure in lost} == {
        ("DependencyError", "needs the cell of 'picky', which failed")
    }


def test_below_a_gate_only_clips_that_pass_are_scored_and_the_others_have_no_cell():
    pipe = pipeline(luma(), gate("luma", "mean", min=15.0), Double(Config()))
    cells = scored(pipe, open_clips(pipe))
    assert [cell.values["twice"] for cell in cells["double"].values()] == [40, 60]


def test_a_gate_on_a_cell_that_failed_lets_nothing_through():
    pipe = pipeline(luma(), Picky(PickyConfig(fails_above=-1)), gate("picky", "start_s", min=0), Double(Config()))
    cells = scored(pipe, open_clips(pipe))
    assert "double" not in cells


def test_attempts_are_counted_by_stage_and_clip():
    pipe = pipeline(luma(), Double(Config()))
    clips = open_clips(pipe)
    first = clips[0].clip.clip_id
    cells = scored(pipe, clips, {("luma", first): 2})
    assert [cell.attempt for cell in cells["luma"].values()] == [3, 1, 1, 1]
    assert {cell.attempt for cell in cells["double"].values()} == {1}


def test_equal_views_are_sampled_once_and_each_stage_sees_its_own_names():
    class Other(Luma):
        name = "other"

        def views(self):
            return {"centre": ViewSpec(points=(0.5,), short_side_px=32, pixels="luma"), **super().views()}

    class Wider(Luma):
        name = "wider"

        def views(self):
            return {"middle": ViewSpec(points=(0.5,), short_side_px=64, pixels="luma")}

    stages = [luma(), Other(LumaConfig()), Wider(LumaConfig())]
    keys = ViewKeys(pipeline(*stages).steps)
    assert len(keys.specs) == 2
    pixels = {key: grey(index) for index, key in enumerate(keys.specs)}
    assert set(keys.views_of(stages[1], pixels)) == {"middle", "centre"}
    assert keys.views_of(stages[1], pixels)["centre"] is keys.views_of(stages[0], pixels)["middle"]
    assert keys.views_of(stages[2], pixels)["middle"] is not keys.views_of(stages[0], pixels)["middle"]
    assert [spec.short_side_px for spec in keys.wanted_by(frozenset({"wider"})).values()] == [64]
    assert keys.wanted_by(frozenset()) == {}


@pytest.mark.parametrize("first", [(), (Picky(PickyConfig()),)], ids=["in the first pass", "added later"])
def test_a_clip_without_a_frame_on_the_grid_fails_in_what_needs_pixels(tmp_path, first):
    """Clips of 0.08 s: of four, at least one holds no frame at or after a quarter of a second."""
    folder = tmp_path / "bucket"
    folder.mkdir()
    write_video(folder / "a.mp4", moving_texture(25, 96, 64, (1, 0), seed=1), Fraction(25), options={"bf": "0"})
    if first:
        run(tmp_path / "c", folder, pipeline(*first, stride_s=0.08))
    pipe = pipeline(Picky(PickyConfig()), luma(), Double(Config()), stride_s=0.08)
    result, _ = run(tmp_path / "c", folder, pipe)
    cells = all_cells(tmp_path / "c", pipe)
    outcomes = [row[2] for row in cells["luma"]]
    assert outcomes.count("ok") >= 3 and outcomes.count("failed") >= 3
    assert len(cells["luma"]) == len(cells["double"]) == len(cells["clips"]) == 13
    blind = {row[0] for row in cells["luma"] if row[2] == "failed"}
    assert {row[0] for row in cells["double"] if row[2] == "failed"} == blind
    assert all("frame" in row[4] for row in cells["luma"] if row[2] == "failed")
    assert result.counts["inputs"] == {"ok": 1}
    _, again = run(tmp_path / "c", folder, pipe)
    assert again.plans == []
