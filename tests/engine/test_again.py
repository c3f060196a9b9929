"""A retry is a plan in which some failed cells are missing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import duckdb
import pyarrow as pa
import pytest
from engine_kit import Listening, Luma, LumaConfig, StrideConfig, StrideCut, all_cells, gate, pipeline, run
from hypothesis import given
from hypothesis import strategies as st

from curate.bulk import inline_map
from curate.config import Config
from curate.engine.again import Again, Redo
from curate.engine.inline import InlineEngine
from curate.engine.pipeline import Pipeline, build_pipeline
from curate.engine.run import RunRequest, RunResult, execute
from curate.errors import DecodeError, StageError
from curate.ingest.listing import list_inputs
from curate.query import cells_sql, connect
from curate.records import SourceFacts
from curate.stage import ClipItem, ClipStage, Column
from curate.stages.probe import Probe
from curate.tables import Corpus, cell_schema


class Buggy(ClipStage[Config]):
    """Fails on clips beyond the first half second until it is repaired, which its fingerprint does not show."""

    name = "buggy"
    version = 1
    columns = (Column("x", pa.float64(), "1", "x"),)
    is_repaired: ClassVar[bool] = False

    def score(self, item: ClipItem) -> Mapping[str, Any]:
        if item.clip.start_s > 0.5 and not self.is_repaired:
            raise StageError("a bug")
        return {"x": 1.0}


class Reader(Buggy):
    name = "reader"
    reads = ("buggy",)

    def score(self, item: ClipItem) -> Mapping[str, Any]:
        return {"x": 2.0}


class BuggyCutConfig(StrideConfig):
    repaired: str


class BuggyCut(StrideCut):
    """Fails on the longer film until a file says that it is repaired: cuts are found in another process."""

    config_type = BuggyCutConfig

    def detector(self, facts: SourceFacts) -> Any:
        if facts.n_frames == 75 and not Path(self.config.repaired).exists():
            raise DecodeError("a bug")
        return super().detector(facts)


def retry(out: Path, bucket: Path, pipe: Pipeline, **again: str) -> tuple[RunResult, Listening]:
    corpus, heard = Corpus(str(out)), Listening()
    request = RunRequest(corpus, pipe, list_inputs([str(bucket)]), "test", "name: test\n", again=Again(**again))
    return execute(request, InlineEngine(out), inline_map, out, heard), heard


def missing(heard: Listening) -> list[set[str]]:
    """By pass: the stages that clips lacked."""
    return [{stage for work in plan for clip in work.clips or () for stage in clip.missing} for plan in heard.plans]


def attempts(out: Path, pipe: Pipeline, name: str) -> set[tuple[str, int]]:
    kind = next((stage, fingerprint) for _, stage, fingerprint in pipe.stages() if stage.name == name)
    with connect() as con:
        cells = cells_sql(con, Corpus(str(out)), name, kind[1], cell_schema(kind[0]))
        return set(con.sql(f"select outcome, attempt from ({cells})").fetchall())


def test_failed_cells_are_computed_again_and_what_read_them_follows(tmp_path, bucket, monkeypatch):
    out, pipe = tmp_path / "c", pipeline(Luma(LumaConfig()), Buggy(Config()), Reader(Config()))
    run(out, bucket, pipe)
    monkeypatch.setattr(Buggy, "is_repaired", True)
    result, heard = retry(out, bucket, pipe, stage="buggy")
    assert missing(heard) == [{"buggy", "reader"}]
    assert result.counts["cells_failed"] == 0
    assert attempts(out, pipe, "buggy") == attempts(out, pipe, "reader") == {("ok", 1), ("ok", 2)}
    assert attempts(out, pipe, "luma") == {("ok", 1)}


def test_what_stood_below_a_gate_follows(tmp_path, bucket, monkeypatch):
    out, pipe = tmp_path / "c", pipeline(Buggy(Config()), gate("buggy", "x", min=0), Luma(LumaConfig()))
    run(out, bucket, pipe)
    monkeypatch.setattr(Buggy, "is_repaired", True)
    retry(out, bucket, pipe, stage="buggy")
    assert len(all_cells(out, pipe)["luma"]) == 5


def test_a_lasting_failure_is_tried_once_a_run(tmp_path, bucket):
    out, pipe = tmp_path / "c", pipeline(Buggy(Config()))
    run(out, bucket, pipe)
    for attempt in (2, 3):
        _, heard = retry(out, bucket, pipe)
        assert missing(heard) == [{"buggy"}]
        assert attempts(out, pipe, "buggy") == {("ok", 1), ("failed", attempt)}


@pytest.mark.parametrize("again", [{"stage": "luma"}, {"error_class": "DecodeError"}, {"stage": "input"}])
def test_what_does_not_match_is_left_alone(tmp_path, bucket, again):
    out, pipe = tmp_path / "c", pipeline(Luma(LumaConfig()), Buggy(Config()))
    run(out, bucket, pipe)
    _, heard = retry(out, bucket, pipe, **again)
    assert heard.plans == []


def test_a_source_that_could_not_be_cut_is_cut_again(tmp_path, bucket):
    repaired, out = tmp_path / "repaired", tmp_path / "c"
    cut = BuggyCut(BuggyCutConfig(repaired=str(repaired)))
    pipe = build_pipeline([Probe(Config()), cut, Luma(LumaConfig())])
    first, _ = run(out, bucket, pipe)
    assert first.counts["inputs"] == {"ok": 1, "failed": 1}
    again, heard = retry(out, bucket, pipe, stage="cut")
    assert (again.counts["inputs"], len(heard.plans)) == ({"ok": 1, "failed": 1}, 1)
    repaired.touch()
    last, heard = retry(out, bucket, pipe, error_class="DecodeError")
    assert last.counts["inputs"] == {"ok": 2}
    assert {work.attempt for work in heard.plans[0]} == {3}
    assert attempts(out, pipe, "cut") == {("ok", 1), ("ok", 3)}
    assert len(all_cells(out, pipe)["luma"]) == 5


@pytest.mark.parametrize(("name", "stage"), [("empty", "input"), ("no video", "probe")])
def test_a_source_that_could_not_be_read_is_read_again(tmp_path, bucket, name, stage):
    folder, out, pipe = tmp_path / "bucket", tmp_path / "c", pipeline(Luma(LumaConfig()))
    folder.mkdir()
    (folder / "a.mp4").write_bytes((bucket / "a.mp4").read_bytes())
    (folder / "bad.mp4").write_bytes(b"" if name == "empty" else b"no video" * 99)
    run(out, folder, pipe)
    for attempt in (2, 3):
        result, heard = retry(out, folder, pipe, stage=stage)
        assert [(Path(work.ref.uri).stem, work.attempt) for plan in heard.plans for work in plan] == [("bad", attempt)]
        assert result.counts["inputs"] == {"ok": 1, "failed": 1}


texts = st.sampled_from(["", "cut", "motion", "DecodeError", "Timeout'Error", "r1", "r2"])


@pytest.fixture(scope="module")
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(":memory:") as con:
        yield con


@given(texts, texts, texts, st.one_of(st.none(), texts), st.one_of(st.none(), texts), st.booleans())
def test_what_is_taken_is_the_same_in_python_and_in_sql(con, stage, error_class, asked, found, run_id, has_again):
    redo = Redo(frozenset({"Timeout'Error"}), Again(stage, error_class) if has_again else None, "r1")
    con.execute("create or replace table t as select ?::varchar as error_class, ?::varchar as run_id", [found, run_id])
    assert con.sql(f"select {redo.sql(asked)} from t").fetchall() == [(redo.takes(asked, found, run_id),)]
