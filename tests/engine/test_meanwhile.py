"""What happens around a run while it goes on: compaction, another run, a clock that jumps, a signal."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import pytest
from engine_kit import Luma, LumaConfig, all_cells, pipeline, run

from curate.compact import compact
from curate.engine import run as engine_run
from curate.engine.plan import Planner
from curate.ingest.listing import list_inputs
from curate.query import connect, last_run, list_parts
from curate.storage import Place
from curate.tables import Corpus


def parts_below(corpus: Corpus) -> int:
    return len(corpus.root.fs.find(corpus.root.child("tables").path))


@pytest.mark.parametrize("listing", range(1, 30, 4))
def test_compaction_between_listing_and_reading_is_not_noticed(tmp_path, bucket, monkeypatch, listing):
    """Right after some listing of a table, all parts of all tables are merged: the names just listed are gone."""
    out, pipe = tmp_path / "c", pipeline(Luma(LumaConfig()))
    run(out, bucket, pipe)
    before = all_cells(out, pipe)
    true, calls = Place.files, []

    def files(self, suffix=""):
        found = true(self, suffix)
        calls.append(self.uri)
        if len(calls) == listing:
            with monkeypatch.context() as patch:
                patch.setattr(Place, "files", true)
                list(compact(Corpus(str(out))))
        return found

    with monkeypatch.context() as patch:
        patch.setattr(Place, "files", files)
        _, heard = run(out, bucket, pipe)
    assert len(calls) > 30
    assert heard.plans == []
    assert parts_below(Corpus(str(out))) == 5  # one a table
    assert all_cells(out, pipe) == before


def test_a_listing_that_compaction_overtook_is_taken_again(tmp_path, monkeypatch):
    """The first listing saw neither the old part (removed before it came there) nor the new one (added behind it)."""
    folder = Place(str(tmp_path))
    listings = iter([["b"], ["a", "n"], ["n"], ["n"]])
    monkeypatch.setattr(Place, "files", lambda *_: next(listings))
    assert list_parts(folder) == ["n"]


class Clock(datetime):
    """A clock that the test sets."""

    at: datetime

    @classmethod
    def now(cls, tz=None):
        return cls.at.astimezone(tz)


@pytest.mark.parametrize("step", [timedelta(days=-3), timedelta(0), timedelta(microseconds=-1)])
def test_the_last_run_is_the_one_that_began_last_whatever_the_clock_says(tmp_path, bucket, monkeypatch, step):
    """Regression: after the clock went back, the run of before stayed "the last" for selections and statistics."""
    out, pipe = tmp_path / "c", pipeline(Luma(LumaConfig()))
    monkeypatch.setattr(engine_run, "datetime", Clock)
    Clock.at = datetime(2026, 3, 1, 12, tzinfo=UTC)
    ids = []
    for _ in range(3):
        ids.append(run(out, bucket, pipe)[0].run_id)
        assert last_run(Corpus(str(out))) == ids[-1]
        Clock.at += step
    assert ids == sorted(set(ids))


def test_two_runs_at_once_both_finish_and_nothing_is_doubled(tmp_path, bucket):
    """Nothing is locked: both do what they find missing, and reading takes one row a key."""
    out, pipe = tmp_path / "c", pipeline(Luma(LumaConfig()))
    ended, begin = [], threading.Barrier(3)

    def work():
        begin.wait()
        ended.append(run(out, bucket, pipeline(Luma(LumaConfig())))[0].run_id)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    run(tmp_path / "alone", bucket, pipe)
    assert len(set(ended)) == 3
    assert sorted(Corpus(str(out)).run_ids()) == sorted(ended)
    assert all_cells(out, pipe) == all_cells(tmp_path / "alone", pipe)
    with connect() as con:
        left = Planner(con, Corpus(str(out)), pipe, list_inputs([str(bucket)]))
        assert left.plan(engine_run.known_sources(con, Corpus(str(out)))) == []
