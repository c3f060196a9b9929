"""The stage contract: identity, views, and the one boundary that keeps a failure where it happened."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.config import Config
from curate.errors import DependencyError, StageError
from curate.records import Clip, Outcome, SourceFacts, Span
from curate.stage import (
    DECODE_POLICY_VERSION,
    ClipItem,
    ClipStage,
    Column,
    failed_cell,
    missing_dependency,
)
from curate.view import View, ViewSpec

FACTS = SourceFacts(
    stream=0, container="mp4", codec="h264", pix_fmt="yuv420p", bit_depth=8, coded_width_px=32, coded_height_px=18,
    width_px=32, height_px=18, rotation_deg=0, sar="1/1", rate="25/1", rate_fps=25.0, vfr=False, has_pts=True,
    time_base="1/25", start_pts=0, end_pts=250, duration_s=10.0, n_frames=250, key_frames_pts=[0],
    key_frames_closed=[True], bit_rate_bps=0, streams_json="[]",
)  # fmt: skip


def items(n: int) -> list[ClipItem]:
    clips = [Clip.of_span("d" * 64, 0, Fraction(1, 25), Span(25 * i, 25 * i + 25)) for i in range(n)]
    return [ClipItem(clip, FACTS, {}, {"value": {"of": i}}) for i, clip in enumerate(clips)]


class SquareConfig(Config):
    bad: tuple[int, ...] = ()


class Square(ClipStage[SquareConfig]):
    """The square of a number that each item brings along; the numbers in ``bad`` raise what is no error of ours."""

    name = "square"
    version = 1
    config_type = SquareConfig
    columns: ClassVar[tuple[Column, ...]] = (Column("is", pa.int64(), "1", "square"),)

    def score(self, item: ClipItem) -> Mapping[str, Any]:
        number = item.cells["value"]["of"]
        if number in self.config.bad:
            raise ZeroDivisionError(f"not {number}")
        return {"is": number**2}


@given(st.integers(1, 12), st.sets(st.integers(0, 11)))
def test_what_fails_fails_alone_and_in_its_place(n, bad):
    given_items = items(n)
    cells = Square(SquareConfig(bad=tuple(bad))).process(given_items)
    assert [cell.key for cell in cells] == [item.clip.clip_id for item in given_items]
    for number, cell in enumerate(cells):
        if number in bad:
            assert cell.outcome is Outcome.FAILED and cell.values == {}
            assert (cell.failure.error_class, cell.failure.message) == ("ZeroDivisionError", f"not {number}")
            assert "in score" in cell.failure.traceback
        else:
            assert cell.outcome is Outcome.OK and cell.values == {"is": number**2}


class Given(ClipStage[Config]):
    """Gives what it is told to, whatever the clip."""

    name = "given"
    version = 1
    columns: ClassVar[tuple[Column, ...]] = (
        Column("n", pa.int32(), "1", "a count"),
        Column("xs", pa.list_(pa.float32()), "1", "numbers"),
    )
    values: Any = None

    def score_batch(self, items: Sequence[ClipItem]) -> list[Mapping[str, Any]]:
        return self.values(items)

    def score(self, item: ClipItem) -> Mapping[str, Any]:
        raise NotImplementedError


def outcome_of(values: Any) -> tuple[Outcome, str]:
    stage = Given(Config())
    stage.values = lambda items: [values] * len(items)
    (cell,) = stage.process(items(1))
    return cell.outcome, cell.failure.message if cell.failure else ""


@pytest.mark.parametrize(
    "values",
    [
        {"n": 3, "xs": [1.0, None]},
        {"n": None, "xs": []},
        {"n": np.int64(3), "xs": np.ones(4, np.float32)},
        {"n": 3.0, "xs": np.ones(4)},
        {"n": -1, "xs": None},
    ],
)
def test_values_that_fit_their_columns_are_taken(values):
    assert outcome_of(values) == (Outcome.OK, "")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"n": 1}, "lacked ['xs']"),
        ({"n": 1, "xs": [], "m": 2}, "columns ['m'] beyond"),
        ({"n": "one", "xs": []}, "does not fit its declared type in 'n'"),
        ({"n": 2**40, "xs": []}, "does not fit its declared type in 'n'"),
        ({"n": 2**80, "xs": []}, "does not fit its declared type in 'n'"),
        ({"n": 1.5, "xs": []}, "does not fit its declared type in 'n'"),
        ({"n": 1, "xs": 2.0}, "does not fit its declared type in 'xs'"),
        ({"n": 1, "xs": [1.0, float("nan")]}, "not finite in 'xs'"),
        ({"n": 1, "xs": np.array([np.inf], np.float32)}, "not finite in 'xs'"),
        ({"n": 1, "xs": np.ones((2, 2), np.float32)}, "does not fit its declared type in 'xs'"),
    ],
)
def test_values_that_do_not_fit_fail_their_clip_and_not_the_table(values, words):
    outcome, message = outcome_of(values)
    assert outcome is Outcome.FAILED and words in message


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_batch_with_another_number_of_results_is_scored_one_by_one(count):
    stage = Given(Config())
    stage.values = lambda items: [{"n": 1, "xs": []}] * (count if len(items) > 1 else len(items))
    assert [cell.outcome for cell in stage.process(items(2))] == [Outcome.OK] * 2


def test_one_clip_with_no_result_fails():
    stage = Given(Config())
    stage.values = lambda items: []
    (cell,) = stage.process(items(1))
    assert cell.failure.message == "gave 0 results for 1 clips"


def test_a_missing_cell_is_told_with_both_names():
    cell = missing_dependency("c", "caption", "motion")
    assert cell.failure.error_class == DependencyError.__name__
    assert "'motion'" in cell.failure.message and "caption" in cell.failure.traceback


def test_an_error_without_words_is_told_by_its_class():
    assert failed_cell("k", ValueError(), 0.0).failure.message == "ValueError"


def test_a_stage_without_version_or_with_a_column_twice_cannot_be_defined():
    with pytest.raises(StageError, match="lacks \\['version'"):
        type("Bad", (ClipStage,), {"name": "bad", "columns": ()})
    twice = (Column("a", pa.int32(), "", ""), Column("a", pa.int64(), "", ""))
    with pytest.raises(StageError, match="repeats columns \\['a'\\]"):
        type("Bad", (ClipStage,), {"name": "bad", "version": 1, "columns": twice})


def variant(**changes: Any) -> str:
    """The fingerprint of `Square` with something about it changed."""
    reads = changes.pop("reads", {"value": "1"})
    config = changes.pop("config", SquareConfig())
    views, models = changes.pop("views", {}), changes.pop("models", {})
    methods = {"views": lambda self: views, "model_digests": lambda self: models}
    return type("Square", (Square,), {**changes, **methods})(config).fingerprint(reads)


SPEC = ViewSpec(points=(0.5,), short_side_px=32)


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 2},
        {"name": "cube"},
        {"config": SquareConfig(bad=(1,))},
        {"models": {"card/file": "0" * 64}},
        {"views": {"middle": SPEC}},
        {"reads": {"value": "2"}},
        {"reads": {}},
    ],
    ids=str,
)
def test_the_fingerprint_changes_with_all_that_decides_the_values(changes):
    assert variant(**changes) != variant()


def test_the_fingerprint_of_a_view_changes_with_every_part_of_it():
    specs = [
        SPEC,
        ViewSpec(points=(0.25,), short_side_px=32),
        ViewSpec(points=(0.5,), short_side_px=48),
        ViewSpec(points=(0.5,), size_px=(32, 32)),
        ViewSpec(points=(0.5,), short_side_px=32, pixels="luma"),
        ViewSpec(sampling="every", every_s=0.5, short_side_px=32),
    ]
    assert len({variant(views={"middle": spec}) for spec in specs}) == len(specs)


@pytest.mark.parametrize("changes", [{"__doc__": "other words"}, {"resources": None}, {"unrelated": 1}], ids=str)
def test_the_fingerprint_does_not_change_with_what_decides_nothing(changes):
    assert variant(**changes) == variant()


def test_the_fingerprint_is_the_same_in_another_process():
    stage = Square(SquareConfig(bad=(2,)))
    clone = pickle.loads(pickle.dumps(stage))
    assert clone.fingerprint({"a": "1", "b": "2"}) == stage.fingerprint({"b": "2", "a": "1"})


def test_only_stages_with_pixels_depend_on_the_decode_policy():
    with_views = type("Seeing", (Square,), {"views": lambda self: {"middle": SPEC}})(SquareConfig())
    assert with_views.identity()["decode_policy"] == DECODE_POLICY_VERSION
    assert Square(SquareConfig()).identity()["decode_policy"] == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"points": (1.5,), "short_side_px": 32},
        {"points": (0.5,)},
        {"points": (0.5,), "short_side_px": 32, "size_px": (8, 8)},
        {"points": (0.5,), "short_side_px": 5000},
        {"sampling": "every", "every_s": 0.1, "short_side_px": 32},
        {"sampling": "every", "short_side_px": 32},
        {"sampling": "windows", "windows": 2},
    ],
    ids=str,
)
def test_a_view_that_cannot_be_is_refused_when_it_is_written_down(wrong):
    with pytest.raises(StageError, match="impossible view"):
        ViewSpec(**wrong)


def test_times_of_a_view_are_on_the_clock_of_the_stream():
    view = View(np.zeros((2, 4, 4), np.uint8), np.array([0, 45_000]), Fraction(1, 90_000), np.zeros(2, np.int64))
    assert view.times_s.tolist() == [0.0, 0.5]


def test_an_error_in_place_of_values_fails_its_clip_and_nothing_is_scored_again():
    stage, asked = Given(Config()), []

    def values(batch: Sequence[ClipItem]) -> list[Any]:
        asked.append(len(batch))
        good = {"n": 1, "xs": []}
        return [StageError("not measured", fix="Try") if item is batch[1] else good for item in batch]

    stage.values = values
    cells = stage.process(items(3))
    assert [cell.outcome for cell in cells] == [Outcome.OK, Outcome.FAILED, Outcome.OK]
    assert (cells[1].failure.error_class, cells[1].failure.message) == ("StageError", "not measured. Try")
    assert asked == [3]
