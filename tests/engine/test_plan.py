"""What is missing is what is done: planning from the tables, pass after pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from engine_kit import Double, Luma, LumaConfig, Picky, PickyConfig, all_cells, gate, pipeline, run

from curate.config import Config
from curate.engine.inline import InlineEngine
from curate.engine.inputs import known_sources
from curate.engine.pipeline import Pipeline
from curate.engine.plan import Planner
from curate.engine.run import MAX_PASSES
from curate.engine.work import SourceWork, Summary
from curate.errors import EngineError, TransientStorageError
from curate.ingest.listing import list_inputs
from curate.query import connect, last_run
from curate.records import InputRef
from curate.stage import ClipItem, ClipStage, Column
from curate.tables import SOURCES, Corpus, read_parquet, rows_table, write_part


class FlakyConfig(Config):
    folder: str
    works_at: int = 2


class Flaky(ClipStage[FlakyConfig]):
    """An endpoint that answers a clip only the n-th time; attempts are counted in a folder."""

    name = "flaky"
    version = 1
    config_type = FlakyConfig
    columns = (Column("x", pa.float64(), "1", "x"),)

    def score(self, item: ClipItem) -> Mapping[str, Any]:
        file = Path(self.config.folder) / item.clip.clip_id
        tried = int(file.read_text()) + 1 if file.exists() else 1
        file.write_text(str(tried))
        if tried < self.config.works_at:
            raise TransientStorageError("busy")
        return {"x": 1.0}


class AfterPicky(ClipStage[Config]):
    name = "after"
    version = 1
    columns = (Column("x", pa.float64(), "1", "x"),)
    reads = ("picky",)

    def score(self, item: ClipItem) -> Mapping[str, Any]:
        return {"x": float(len(item.cells))}


class AfterAfter(AfterPicky):
    name = "after_after"
    reads = ("after",)


def flaky(tmp_path: Path, works_at: int) -> Flaky:
    folder = tmp_path / "tries"
    folder.mkdir(exist_ok=True)
    return Flaky(FlakyConfig(folder=str(folder), works_at=works_at))


def planned(
    out: Path, refs: Sequence[InputRef], pipe: Pipeline, only: frozenset[str] | None = None
) -> list[SourceWork]:
    with connect() as con:
        corpus = Corpus(str(out))
        return Planner(con, corpus, pipe, refs, only).plan(known_sources(con, corpus))


def names(works: Sequence[SourceWork]) -> list[str]:
    return [Path(work.ref.uri).stem for work in works]


def test_a_transient_failure_is_done_again_at_once(tmp_path, bucket):
    pipe = pipeline(Luma(LumaConfig()), flaky(tmp_path, works_at=2))
    result, heard = run(tmp_path / "c", bucket, pipe)
    assert [sum(len(work.clips or ()) for work in plan) for plan in heard.plans] == [0, 5]
    assert {clip.missing for work in heard.plans[1] for clip in work.clips} == {frozenset({"flaky"})}
    assert all(row[2] == "ok" for row in all_cells(tmp_path / "c", pipe)["flaky"])
    assert set(heard.plans[1][0].attempts.values()) == {1}
    assert result.counts["inputs"] == {"ok": 2}


def test_a_failure_that_stays_transient_ends_the_run_as_failed_and_the_next_run_goes_on(tmp_path, bucket):
    """One endpoint that is down must not keep everything else from being selected and exported."""
    pipe = pipeline(Luma(LumaConfig()), flaky(tmp_path, works_at=MAX_PASSES + 2))
    result, heard = run(tmp_path / "c", bucket, pipe)
    assert len(heard.plans) == MAX_PASSES
    assert last_run(Corpus(str(tmp_path / "c"))) == result.run_id
    assert {row[2] for row in all_cells(tmp_path / "c", pipe)["flaky"]} == {"failed"}
    assert {row[2] for row in all_cells(tmp_path / "c", pipe)["luma"]} == {"ok"}
    _, again = run(tmp_path / "c", bucket, pipe)
    assert len(again.plans) == 2
    assert {row[2] for row in all_cells(tmp_path / "c", pipe)["flaky"]} == {"ok"}


def test_cells_below_one_that_failed_for_good_are_tried_once(tmp_path, bucket):
    pipe = pipeline(Picky(PickyConfig(fails_above=0.5)), AfterPicky(Config()), AfterAfter(Config()))
    result, heard = run(tmp_path / "c", bucket, pipe)
    assert len(heard.plans) == 1
    cells = all_cells(tmp_path / "c", pipe)
    for name in ("after", "after_after"):
        assert [row[3] for row in cells[name] if row[2] == "failed"] == ["DependencyError"] * 3
    assert result.counts["cells_failed"] == 9
    _, again = run(tmp_path / "c", bucket, pipe)
    assert again.plans == []


def test_readers_follow_when_a_transient_failure_passes(tmp_path, bucket):
    class AfterFlaky(AfterPicky):
        reads = ("flaky",)

    pipe = pipeline(flaky(tmp_path, works_at=3), AfterFlaky(Config()))
    _, heard = run(tmp_path / "c", bucket, pipe)
    assert len(heard.plans) == 3
    assert {row[2] for row in all_cells(tmp_path / "c", pipe)["after"]} == {"ok"}


def test_nothing_waits_below_a_gate_whose_cell_failed_for_good(tmp_path, bucket):
    items = [Picky(PickyConfig(fails_above=0.5)), AfterPicky(Config())]
    pipe = pipeline(*items, gate("after", "x", min=0), Luma(LumaConfig()))
    _, heard = run(tmp_path / "c", bucket, pipe)
    assert len(heard.plans) == 1
    assert len(all_cells(tmp_path / "c", pipe)["luma"]) == 2
    _, again = run(tmp_path / "c", bucket, pipe)
    assert again.plans == []


def test_a_source_whose_clips_are_not_all_there_is_cut_again(tmp_path, bucket):
    out, pipe = tmp_path / "c", pipeline(Luma(LumaConfig()))
    run(out, bucket, pipe)
    before = all_cells(out, pipe)
    for part in (out / "tables" / "clips" / pipe.cut_fingerprint).glob("*.parquet"):
        table = read_parquet(Corpus(str(out)).clips(pipe.cut_fingerprint).child(part.name))
        part.unlink()
        write_part(Corpus(str(out)).clips(pipe.cut_fingerprint), table.slice(0, table.num_rows - 1))
    works = planned(out, list_inputs([str(bucket)]), pipe)
    assert [work.clips for work in works] == [None] * len(works) and works
    assert {work.attempt for work in works} == {2}
    run(out, bucket, pipe)
    assert all_cells(out, pipe) == before


def test_cells_of_a_source_without_a_cut_cell_do_not_count(tmp_path, bucket):
    """As after a run that broke off between the clips and the cut cell."""
    out, pipe = tmp_path / "c", pipeline(Luma(LumaConfig()))
    run(out, bucket, pipe)
    before = all_cells(out, pipe)
    for part in (out / "tables" / "cells" / "cut").rglob("*.parquet"):
        part.unlink()
    assert all_cells(out, pipe)["clips"] == []
    assert [work.clips for work in planned(out, list_inputs([str(bucket)]), pipe)] == [None, None]
    run(out, bucket, pipe)
    assert all_cells(out, pipe) == before


def test_work_limited_to_some_clips_reads_nothing_new(tmp_path, bucket):
    folder, luma = tmp_path / "bucket", Luma(LumaConfig())
    folder.mkdir()
    (folder / "a.mp4").write_bytes((bucket / "a.mp4").read_bytes())
    run(tmp_path / "c", folder, pipeline(luma))
    (folder / "b.mp4").write_bytes((bucket / "b.mp4").read_bytes())
    chosen = frozenset({all_cells(tmp_path / "c", pipeline(luma))["clips"][1][0]})
    pipe = pipeline(luma, Double(Config()))
    refs = list_inputs([str(folder)])
    assert names(planned(tmp_path / "c", refs, pipe)) == ["a", "b"]
    (work,) = planned(tmp_path / "c", refs, pipe, only=chosen)
    assert Path(work.ref.uri).stem == "a"
    assert {clip.clip.clip_id for clip in work.clips} == chosen
    assert all(clip.has["luma"]["mean"] > 0 and clip.missing == {"double"} for clip in work.clips)
    assert planned(tmp_path / "c", refs, pipe, only=frozenset()) == []


@pytest.mark.parametrize(
    ("error_class", "attempt"),
    [("TransientStorageError", 2), ("ConnectionResetError", 2), ("NotMediaError", None), ("WorkerDiedError", None)],
)
def test_a_source_that_failed_is_read_again_only_for_a_transient_reason(tmp_path, bucket, error_class, attempt):
    corpus = Corpus(str(tmp_path / "c"))
    corpus.create()
    refs = list_inputs([str(bucket / "a.mp4")])
    row = {"uri": refs[0].uri, "size_bytes": refs[0].size_bytes, "version": refs[0].version, "outcome": "failed"}
    more = {"error_class": error_class, "error_message": "no", "attempt": 1}
    write_part(corpus.sources(), rows_table(SOURCES, [row | more]))
    works = planned(tmp_path / "c", refs, pipeline(Luma(LumaConfig())))
    assert [work.attempt for work in works] == ([attempt] if attempt else [])


def test_works_come_in_the_order_of_the_inputs(tmp_path, bucket):
    out, pipe = tmp_path / "c", pipeline(Luma(LumaConfig()))
    run(out, bucket, pipe)
    refs = list_inputs([str(bucket)])
    wider = pipeline(Luma(LumaConfig()), Picky(PickyConfig()))
    assert names(planned(out, refs, wider)) == ["a", "b"]
    assert names(planned(out, list(reversed(refs)), wider)) == ["b", "a"]


class Dying(InlineEngine):
    """An engine whose workers die over one source, every time it is read, with all that was not written yet."""

    def __init__(self, scratch: Path, killer: str) -> None:
        super().__init__(scratch)
        self.killer = killer
        self.singles: list[bool] = []

    def run_pass(
        self, corpus: Corpus, pipeline: Pipeline, works: Sequence[SourceWork], *, run_id: str, single: bool
    ) -> Iterator[Summary]:
        self.singles.append(single)
        healthy = [work for work in works if Path(work.ref.uri).stem != self.killer]
        if single or len(healthy) == len(works):
            yield from super().run_pass(corpus, pipeline, healthy, run_id=run_id, single=single)
        dying = [work for work in works if work not in healthy]
        self._in_flight = {work.ref.uri for work in dying}
        if dying:
            raise EngineError("a worker died")


def ended(out: Path) -> dict[str, tuple[str, str]]:
    corpus = Corpus(str(out))
    rows = read_parquet(corpus.runs().child(last_run(corpus), "inputs.parquet")).to_pylist()
    return {Path(row["uri"]).stem: (row["outcome"], row["cause"]) for row in rows}


@pytest.mark.parametrize("with_twin", [False, True], ids=["digest unknown", "digest known beforehand"])
def test_a_source_in_flight_in_two_dead_passes_is_quarantined(tmp_path, bucket, with_twin):
    folder, out = tmp_path / "bucket", tmp_path / "c"
    folder.mkdir()
    for name in ("a", "b"):
        (folder / f"{name}.mp4").write_bytes((bucket / f"{name}.mp4").read_bytes())
    if with_twin:
        (folder / "b_again.mp4").write_bytes((bucket / "b.mp4").read_bytes())
    engine, pipe = Dying(tmp_path, "b"), pipeline(Luma(LumaConfig()))
    result, heard = run(out, folder, pipe, engine)
    assert engine.singles == [False, True], "the pass after a dead one has one source a block"
    assert len(heard.deaths) == 2
    assert ended(out)["a"] == ("ok", "")
    assert ended(out)["b"][0] == "failed" and "workers died" in ended(out)["b"][1]
    assert result.counts["inputs"]["failed"] == 1
    assert len(all_cells(out, pipe)["luma"]) == 3
    _, again = run(out, folder, pipe, Dying(tmp_path, "b"))
    assert again.plans == []


def test_a_stage_that_kills_workers_over_a_known_source_leaves_the_rest_of_that_source(tmp_path, bucket):
    out = tmp_path / "c"
    run(out, bucket, pipeline(Luma(LumaConfig())))
    pipe = pipeline(Luma(LumaConfig()), Picky(PickyConfig()))
    result, heard = run(out, bucket, pipe, Dying(tmp_path, "b"))
    assert len(heard.deaths) == 2 and result.counts["inputs"] == {"ok": 2}
    cells = all_cells(out, pipe)
    assert {row[2] for row in cells["luma"]} == {"ok"}
    assert sorted(row[3] or "" for row in cells["picky"]) == ["", "", "", "WorkerDiedError", "WorkerDiedError"]
    _, again = run(out, bucket, pipe)
    assert again.plans == []


def test_work_that_no_pass_did_is_never_called_complete(tmp_path, bucket):
    class Lazy(InlineEngine):
        def run_pass(self, corpus, pipeline, works, *, run_id, single):
            return iter(())

    with pytest.raises(EngineError, match=f"2 sources are still not done after {MAX_PASSES} passes"):
        run(tmp_path / "c", bucket, pipeline(Luma(LumaConfig())), Lazy(tmp_path))
    assert Corpus(str(tmp_path / "c")).run_ids() == []
