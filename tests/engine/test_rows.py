"""The buffer before the writer: what goes first, and when it is time."""

from __future__ import annotations

from fractions import Fraction

import pytest
from engine_kit import Double, Luma, LumaConfig, pipeline

from curate.config import Config
from curate.engine import rows
from curate.engine.rows import FLUSH_ROWS, FLUSH_S, MESSAGE_CHARS, RowBuffer
from curate.engine.work import Ended, FailedCell, Summary
from curate.engine.writer import write_bundle
from curate.errors import StageError
from curate.records import Cell, Clip, Outcome, Span
from curate.stage import failed_cell
from curate.tables import Corpus

DIGEST = "d" * 64
NO = ("StageError", "no")


@pytest.fixture
def pipe():
    return pipeline(Luma(LumaConfig()), Double(Config()))


@pytest.fixture
def buffer(pipe):
    return RowBuffer(pipe, host="h", run_id="r")


def clip(index: int) -> Clip:
    return Clip.of_span(DIGEST, 0, Fraction(1, 25), Span(25 * index, 25 * index + 25))


def luma_cell(index: int, seconds: float = 0.5) -> Cell:
    return Cell(clip(index).clip_id, Outcome.OK, {"mean": 1.0}, seconds)


def source_row(outcome: Outcome = Outcome.OK) -> dict[str, object]:
    return {"uri": "a.mp4", "size_bytes": 1, "version": "1", "source_digest": DIGEST, "outcome": str(outcome)}


def test_the_cut_cell_comes_after_clips_and_cells_and_the_source_last(buffer, pipe):
    """Clips count by the cut cell, a source is done by its row: whatever breaks off before is done again."""
    buffer.add_source(source_row())
    buffer.add_cell(pipe.cut, Cell(DIGEST, Outcome.OK, {"n_clips": 1, "n_frames": 25}, 0.1))
    buffer.add_cell(pipe.steps[1].stage, Cell(clip(0).clip_id, Outcome.OK, {"twice": 2.0}, 0.1))
    buffer.add_cell(pipe.steps[0].stage, luma_cell(0))
    buffer.add_clip(clip(0))
    folders = [folder for folder, _ in buffer.take().tables]
    kinds = [folder.split("/")[1:3] for folder in folders]
    assert kinds == [
        ["clips", pipe.cut_fingerprint],
        ["cells", "luma"],
        ["cells", "double"],
        ["cells", "cut"],
        ["sources"],
    ]
    assert folders[1].endswith(pipe.steps[0].fingerprint)


@pytest.mark.parametrize("kind", ["clips", "cells", "sources"])
def test_it_is_time_when_one_table_is_full(buffer, pipe, kind):
    add = {
        "clips": lambda i: buffer.add_clip(clip(i)),
        "cells": lambda i: buffer.add_cell(pipe.steps[0].stage, luma_cell(i)),
        "sources": lambda i: buffer.add_source(source_row()),
    }[kind]
    for index in range(FLUSH_ROWS - 1):
        add(index)
    assert not buffer.is_due()
    add(FLUSH_ROWS)
    assert buffer.is_due()
    assert buffer.take().tables[0][1].num_rows == FLUSH_ROWS
    assert not buffer.is_due()


def test_it_is_time_when_rows_have_waited_long_enough(monkeypatch, pipe):
    now = 1000.0
    monkeypatch.setattr(rows.time, "monotonic", lambda: now)
    buffer = RowBuffer(pipe, host="h", run_id="r")
    buffer.add_clip(clip(0))
    now += FLUSH_S - 1
    assert not buffer.is_due()
    now += 1
    assert buffer.is_due()
    buffer.take()
    assert not buffer.is_due()


def test_taking_empties_the_buffer(buffer):
    buffer.add_clip(clip(0))
    buffer.scored(clip(0))
    assert len(buffer.take().tables) == 1
    empty = buffer.take()
    assert empty.tables == () and empty.summary == Summary()


def test_the_summary_counts_what_is_in_the_bundle(buffer, pipe):
    stage = pipe.steps[0].stage
    for index in range(3):
        buffer.add_cell(stage, luma_cell(index, seconds=0.5))
        buffer.scored(clip(index))
    buffer.add_cell(stage, failed_cell("k", StageError("no"), 0.25), DIGEST)
    buffer.add_cell(pipe.cut, failed_cell(DIGEST, StageError("no"), 1.0))
    buffer.add_source({**source_row(), "seconds": 1.5}, read_bytes=700, clips=3)
    failure = failed_cell("k", StageError("no"), 0.25).failure
    buffer.add_source({**source_row(Outcome.FAILED), "uri": "b.mp4", **failure.columns()})
    bundle = buffer.take()
    (row,) = [row for row in bundle.tables[-1][1].to_pylist() if row["uri"] == "b.mp4"]
    assert (row["error_class"], row["error_traceback"]) == ("StageError", failure.traceback)
    assert row["peak_memory_bytes"] == failure.peak_memory_bytes > 0
    first = bundle.summary
    assert (first.clips, first.video_s, first.sources, first.failed_sources) == (3, 3.0, 2, 1)
    assert first.failed_cells == 1, "cells of clips; a source that failed is counted by itself"
    assert first.stage_seconds == {"luma": 1.75, "cut": 1.0}
    assert first.cells == {("luma", "ok"): 3, ("luma", "failed"): 1, ("cut", "failed"): 1}
    assert first.ended["a.mp4"] == Ended(DIGEST, 1.5, 700, 3)
    assert first.ended["b.mp4"] == Ended(DIGEST, error_class="StageError", message="no")
    clip_cell, source_cell = FailedCell("luma", DIGEST, "k", *NO), FailedCell("cut", DIGEST, "", *NO)
    assert first.failed == [clip_cell, source_cell]
    total = Summary()
    total.add(first)
    total.add(first)
    assert (total.clips, total.stage_seconds["luma"], total.read_bytes) == (6, 3.5, 1400)
    assert total.cells["luma", "ok"] == 6
    assert not total.ended and not total.failed, "they would grow without end"


def test_a_long_message_goes_to_the_table_whole_and_is_cut_for_who_listens(buffer, pipe):
    long = StageError("n" * (2 * MESSAGE_CHARS))
    buffer.add_cell(pipe.cut, failed_cell(DIGEST, long, 1.0))
    buffer.add_source({**source_row(Outcome.FAILED), **failed_cell("k", long, 0.25).failure.columns()})
    bundle = buffer.take()
    assert len(bundle.summary.failed[0].message) == len(bundle.summary.ended["a.mp4"].message) == MESSAGE_CHARS
    assert all(len(table.to_pylist()[0]["error_message"]) == 2 * MESSAGE_CHARS for _, table in bundle.tables)


def test_the_writer_writes_every_table_of_a_bundle_and_the_same_bundle_once(buffer, pipe, tmp_path):
    corpus = Corpus(str(tmp_path))
    buffer.add_clip(clip(0))
    buffer.add_cell(pipe.steps[0].stage, luma_cell(0))
    bundle = buffer.take()
    assert write_bundle(corpus, bundle) is bundle.summary
    write_bundle(corpus, bundle)
    assert bundle.summary.written_bytes == sum(path.stat().st_size for path in tmp_path.rglob("*.parquet"))
    assert len(corpus.clips(pipe.cut_fingerprint).files(".parquet")) == 1
    assert len(corpus.cells("luma", pipe.steps[0].fingerprint).files(".parquet")) == 1
