"""Compaction: what the tables say stays the same, whatever dies, writes or reads meanwhile."""

from __future__ import annotations

import threading
import uuid
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cli_kit import curate
from corpus_kit import CorpusKit, cells_schema

from curate.compact import CompactLimits, compact
from curate.errors import CorpusError
from curate.query import cells_sql, connect, list_parts, run_query
from curate.select import select
from curate.select.config import SelectConfig
from curate.stats import corpus_stats
from curate.storage import Place
from curate.tables import Corpus, parquet_bytes, read_parquet, rows_table, write_part

STAGE, FINGERPRINT = "score", "f" * 16
SCHEMA = cells_schema({"x": pa.float64(), "hash": pa.list_(pa.float16())})


def cell(key: str, x: float, outcome: str = "ok", attempt: int = 1) -> dict:
    values = {"x": x, "hash": [np.float16(x)]} if outcome == "ok" else {}
    return {"key": key, **values, "outcome": outcome, "attempt": attempt, "seconds": x}


def key(number: int) -> str:
    return f"{number:032x}"


PARTS = [
    [cell(key(1), 1), cell(key(2), 0, "failed")],
    [cell(key(2), 2, attempt=2), cell(key(3), 3)],
    [cell(key(3), 3), cell(key(4), 0, "failed")],
    [cell(key(4), 0, "failed", attempt=2), cell(key(5), 5)],
    [cell(key(6), 6)],
]
"""Ten rows of six keys: a retry that succeeded, a retry that failed again, a row that two runs wrote."""


@pytest.fixture
def corpus(tmp_path) -> Corpus:
    corpus = Corpus(str(tmp_path / "corpus"))
    corpus.create()
    for rows in PARTS:
        add(corpus, rows)
    return corpus


def add(corpus: Corpus, rows: list[dict]) -> None:
    write_part(corpus.cells(STAGE, FINGERPRINT), rows_table(SCHEMA, rows))


def cells(corpus: Corpus) -> list[tuple]:
    with connect() as con:
        table = run_query(con, lambda: cells_sql(con, corpus, STAGE, FINGERPRINT, SCHEMA))
    return sorted((row["key"], row["outcome"], row["attempt"], row["x"], str(row["hash"])) for row in table.to_pylist())


def parts(corpus: Corpus) -> list[str]:
    return [Path(path).name for path in corpus.cells(STAGE, FINGERPRINT).files(".parquet")]


def test_small_parts_become_one_that_reads_the_same(corpus):
    before = cells(corpus)
    assert len(before) == 6
    (done,) = compact(corpus)
    assert (done.parts_before, done.parts_after, done.rows, done.repeated) == (5, 1, 9, 3)
    assert cells(corpus) == before
    (path,) = corpus.cells(STAGE, FINGERPRINT).files()
    assert read_parquet(Place(path)).schema.equals(SCHEMA)
    assert pq.ParquetFile(path).metadata.num_row_groups == 1
    (again,) = compact(corpus)
    assert (again.parts_before, again.parts_after) == (1, 1)


def test_units_and_documents_of_columns_are_kept(tmp_path):
    corpus = Corpus(str(tmp_path / "c"))
    corpus.create()
    schema = pa.schema([pa.field("key", pa.string()), pa.field("x", pa.float64(), metadata={"unit": "s", "doc": "d"})])
    schema = schema.append(pa.field("outcome", pa.string())).append(pa.field("attempt", pa.int32()))
    for number in range(3):
        row = {"key": key(number), "x": 1.0, "outcome": "ok", "attempt": 1}
        write_part(corpus.cells(STAGE, FINGERPRINT), rows_table(schema, [row]))
    list(compact(corpus))
    (path,) = corpus.cells(STAGE, FINGERPRINT).files()
    assert read_parquet(Place(path)).schema.equals(schema, check_metadata=True)


def test_a_dry_run_changes_nothing(corpus):
    before = parts(corpus)
    (done,) = compact(corpus, dry_run=True)
    assert (done.parts_before, done.parts_after) == (5, 1)
    assert parts(corpus) == before


def test_merged_files_stay_within_the_limits_and_large_parts_are_left_alone(tmp_path):
    corpus = Corpus(str(tmp_path / "c"))
    corpus.create()
    add(corpus, [cell(key(1000 + n), n) for n in range(60)])
    large = parts(corpus)
    for number in range(10):
        add(corpus, [cell(key(10 * number + n), n) for n in range(10)])
    before = cells(corpus)
    list(compact(corpus, limits=CompactLimits(rows=100)))
    paths = corpus.cells(STAGE, FINGERPRINT).files()
    assert sorted(pq.ParquetFile(path).metadata.num_rows for path in paths) == [60, 100]
    assert set(large) < set(parts(corpus))
    assert cells(corpus) == before


def test_parts_of_another_schema_are_not_mixed(corpus):
    """A later version may write a column more."""
    more = SCHEMA.append(pa.field("peak_bytes", pa.int64()))
    for number in (7, 8):
        write_part(corpus.cells(STAGE, FINGERPRINT), rows_table(more, [cell(key(number), 1)]))
    (done,) = compact(corpus)
    assert done.parts_after == 2
    schemas = [read_parquet(Place(path)).schema for path in corpus.cells(STAGE, FINGERPRINT).files()]
    assert sorted(map(len, schemas)) == [len(SCHEMA), len(more)]


def test_a_merged_file_that_equals_one_of_its_parts_is_not_removed(tmp_path):
    """All rows of one part are repeats of the other's: the result has the other's bytes, hence its name."""
    corpus = Corpus(str(tmp_path / "c"))
    corpus.create()
    add(corpus, [cell(key(1), 1), cell(key(2), 2)])
    add(corpus, [cell(key(2), 2)])
    before = cells(corpus)
    list(compact(corpus))
    assert len(parts(corpus)) == 1
    assert cells(corpus) == before


class Killed(BaseException):
    """Stands for kill -9: nothing catches it."""


@pytest.mark.parametrize("step", range(7))
def test_a_death_at_any_step_loses_nothing_and_the_next_compaction_ends_the_same(corpus, tmp_path, monkeypatch, step):
    """Steps: before the file is written, before it is read back, before each removal."""
    before, steps = cells(corpus), iter(range(100))
    list(compact(twin := copy(corpus, tmp_path / "twin")))

    def dies_at(name):
        true = getattr(Place, name)

        def dying(self, *args):
            if "part-" in self.uri and "tmp" not in self.uri.rpartition("/")[2] and next(steps) == step:
                raise Killed
            return true(self, *args)

        return dying

    with monkeypatch.context() as patch, pytest.raises(Killed):
        for name in ("write_bytes", "remove"):
            patch.setattr(Place, name, dies_at(name))
        list(compact(corpus))
        raise Killed  # fewer steps than that: died after the last
    assert cells(corpus) == before
    list(compact(corpus))
    assert cells(corpus) == before
    assert parts(corpus) == parts(twin)


def copy(corpus: Corpus, to: Path) -> Corpus:
    twin = Corpus(str(to))
    twin.create()
    for path in corpus.cells(STAGE, FINGERPRINT).files():
        twin.cells(STAGE, FINGERPRINT).child(Path(path).name).write_bytes(Path(path).read_bytes())
    return twin


def test_damage_is_named_and_nothing_is_removed(corpus):
    folder = corpus.cells(STAGE, FINGERPRINT)
    name = parts(corpus)[2]
    folder.child(name).write_bytes(folder.child(name).read_bytes()[:-10])
    before = parts(corpus)
    with pytest.raises(CorpusError, match=f"{name}: is not a whole Parquet file"):
        list(compact(corpus))
    assert parts(corpus) == before


def test_a_bad_page_is_damage_too(corpus):
    folder = corpus.cells(STAGE, FINGERPRINT)
    data = parquet_bytes(rows_table(SCHEMA, [cell(key(n), n) for n in range(50)]))
    folder.child("part-0.parquet").write_bytes(data[:4] + b"\xff" * 80 + data[84:])
    before = parts(corpus)
    with pytest.raises(CorpusError):
        list(compact(corpus))
    assert parts(corpus) == before


def test_on_an_object_store(memory_bucket):
    corpus = Corpus(f"{memory_bucket}/c")
    corpus.create()
    for rows in PARTS:
        add(corpus, rows)
    before = cells(corpus)
    (done,) = compact(corpus)
    assert done.parts_after == 1
    assert cells(corpus) == before


def test_two_compactions_a_writer_and_readers_at_once(corpus):
    """Rows are never fewer than those known to be written when the reading began, never twice, never others."""
    expected = {row[0] for row in cells(corpus)}
    written, stop, wrong = set(expected), threading.Event(), []

    def write():
        for number in range(100, 160):
            add(corpus, [cell(key(number), number), cell(key(6), 6)])
            written.add(key(number))
        stop.set()

    def merge():
        while not stop.is_set():
            list(compact(corpus, limits=CompactLimits(rows=24)))

    def read():
        while not stop.is_set():
            must = set(written)
            keys = [row[0] for row in cells(corpus)]
            if len(keys) != len(set(keys)) or not must <= set(keys):
                wrong.append((must - set(keys), len(keys)))

    workers = [threading.Thread(target=work) for work in (write, merge, merge, read)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert wrong == []
    list(compact(corpus))
    assert {row[0] for row in cells(corpus)} == expected | {key(number) for number in range(100, 160)}


def test_a_compaction_gives_way_to_one_that_is_always_faster(corpus, monkeypatch):
    """Regression: it failed, "its parts keep vanishing", though nothing was wrong."""
    before, true = cells(corpus), list_parts

    def overtaken(place):
        paths = true(place)
        first = place.child(Path(paths[0]).name)
        data = first.read_bytes()
        first.remove()
        place.child(f"part-again-{uuid.uuid4().hex}.parquet").write_bytes(data)
        return paths

    monkeypatch.setattr("curate.compact.list_parts", overtaken)
    (done,) = compact(corpus)
    assert (done.parts_before, done.parts_after) == (len(PARTS), len(PARTS))
    assert cells(corpus) == before


def kit_of_parts(path: Path) -> Corpus:
    """Three sources of two clips, each table in three parts."""
    kit = CorpusKit(path, {"score": {"x": pa.float64()}})
    for number in range(3):
        for at, clip in enumerate(kit.source(f"{number}.mp4", [2.0, 3.0])):
            kit.cell("score", clip, x=float(number + at))
        kit.write()
    return kit.corpus


def summary(corpus: Corpus) -> object:
    found = corpus_stats(corpus)
    return found.n_clips, [(each.column, each.n, each.min, each.max) for each in found.numbers]


def kept(corpus: Corpus) -> object:
    config = SelectConfig(name="s", dedup={"method": "none"}, conditions=[{"column": "score.x", "min": 2.0}])
    return select(corpus, config).clips


@pytest.mark.parametrize("read", [summary, kept])
@pytest.mark.parametrize("listing", range(1, 14, 3))
def test_statistics_and_selection_do_not_notice_parts_that_vanish(tmp_path, monkeypatch, read, listing):
    """Regression: SQL that was made before the parts were merged was asked again and again, in vain."""
    corpus = kit_of_parts(tmp_path / "c")
    before, true, calls = read(corpus), Place.files, []

    def files(self, suffix=""):
        found = true(self, suffix)
        calls.append(self.uri)
        if len(calls) == listing:
            list(compact(corpus))
        return found

    monkeypatch.setattr(Place, "files", files)
    assert read(corpus) == before
    assert len(calls) > listing


def test_the_command(tmp_path):
    kit = CorpusKit(tmp_path / "c", {"score": {"x": pa.float64()}})
    for number in range(3):
        (clip,) = kit.source(f"{number}.mp4", [2.0])
        kit.cell("score", clip, x=float(number))
        kit.write()
    dry = curate("compact", tmp_path / "c", "--dry-run")
    assert dry.status == 0
    assert "tables/sources: 3 -> 1 parts, 3 rows merged" in dry.out
    assert dry.out.endswith("15 parts would become 5.\n")
    assert curate("compact", tmp_path / "c").out.endswith("15 parts became 5.\n")
    assert curate("compact", tmp_path / "c").out == "5 parts became 5.\n"
    assert curate("compact", tmp_path / "nowhere").status == 1
