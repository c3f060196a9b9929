"""The corpus on disk: its mark, its parts, its cells."""

from __future__ import annotations

import json
from fractions import Fraction
from typing import ClassVar

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.config import Config
from curate.errors import CorpusError, StageError
from curate.records import Cell, Clip, Outcome, Span
from curate.stage import ClipStage, Column, failed_cell
from curate.storage import Place
from curate.tables import (
    BOOKKEEPING,
    CLIPS,
    FORMAT_VERSION,
    Corpus,
    cell_schema,
    cells_table,
    kept_ids,
    parquet_bytes,
    read_parquet,
    rows_of,
    rows_table,
    write_part,
)


class Everything(ClipStage[Config]):
    """A column of each type in use."""

    name = "everything"
    version = 1
    columns: ClassVar[tuple[Column, ...]] = (
        Column("share", pa.float64(), "share", "a number"),
        Column("n", pa.int32(), "1", "a count"),
        Column("hash", pa.uint64(), "", "64 bits"),
        Column("flag", pa.bool_(), "", "a switch"),
        Column("word", pa.string(), "", "a text"),
        Column("words", pa.list_(pa.string()), "", "texts"),
        Column("times_s", pa.list_(pa.float64()), "s", "numbers"),
        Column("half", pa.list_(pa.float16()), "", "half floats"),
    )

    def score(self, item):
        raise StageError("not here")


STAGE = Everything(Config())
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
numbers = st.floats(allow_nan=False, allow_infinity=False)
values = st.fixed_dictionaries(
    {
        "share": numbers,
        "n": st.integers(-(2**31), 2**31 - 1),
        "hash": st.integers(0, 2**64 - 1),
        "flag": st.booleans(),
        "word": texts,
        "words": st.lists(texts, max_size=3),
        "times_s": st.lists(numbers, max_size=3),
        "half": st.lists(st.floats(width=16, allow_nan=False, allow_infinity=False), max_size=3),
    }
)


@pytest.fixture(params=["local", "memory"])
def corpus(request, tmp_path, memory_bucket) -> Corpus:
    return Corpus(str(tmp_path / "c") if request.param == "local" else f"{memory_bucket}/c/")


def test_a_corpus_is_marked_once_and_known_again(corpus):
    with pytest.raises(CorpusError, match=r"no corpus\.json"):
        corpus.check()
    corpus.create()
    mark = corpus.root.child("corpus.json").read_bytes()
    assert json.loads(mark)["format_version"] == FORMAT_VERSION
    corpus.create()
    assert corpus.root.child("corpus.json").read_bytes() == mark


@pytest.mark.parametrize(
    ("text", "words"),
    [('{"format_version": 99}', "has format 99"), ("{}", "not ours"), ("[1]", "not ours"), ("half a fi", "not ours")],
)
def test_another_format_is_refused_and_left_alone(corpus, text, words):
    corpus.root.child("corpus.json").write_text(text)
    for call in (corpus.check, corpus.create):
        with pytest.raises(CorpusError, match=words):
            call()
    assert corpus.root.child("corpus.json").read_text() == text


def test_only_runs_with_a_manifest_are_complete(corpus):
    assert corpus.run_ids() == []
    for run_id in ("2", "1", "3"):
        corpus.runs().child(run_id, "recipe.yaml").write_text("name: x")
    for run_id in ("2", "1"):
        corpus.runs().child(run_id, "manifest.json").write_text(json.dumps({"run_id": run_id}))
    assert corpus.run_ids() == ["1", "2"]
    assert corpus.manifest("2") == {"run_id": "2"}


def clips(n: int) -> pa.Table:
    made = [Clip.of_span("d" * 64, 0, Fraction(1, 25), Span(25 * i, 25 * i + 25)) for i in range(n)]
    return rows_table(CLIPS, [clip.to_row() for clip in made])


def test_a_part_written_twice_is_one_and_another_is_another(corpus):
    folder = corpus.clips("f" * 16)
    paths = [write_part(folder, clips(n)) for n in (3, 3, 4)]
    assert paths[0] == paths[1] != paths[2]
    assert sorted(folder.files(".parquet")) == sorted(set(paths))


def test_a_part_holds_its_rows(corpus):
    folder = corpus.clips("f" * 16)
    path = write_part(folder, clips(3))
    assert read_parquet(folder.child(path.rsplit("/", 1)[-1])).equals(clips(3))


@given(st.lists(st.tuples(values, st.integers(1, 5), st.floats(0, 10)), min_size=1, max_size=4))
def test_cells_come_back_with_their_types(given_cells):
    cells = [Cell(f"{i:032x}", Outcome.OK, v, seconds, attempt=n) for i, (v, n, seconds) in enumerate(given_cells)]
    place = Place("memory://cells/part")
    path = write_part(place, cells_table(STAGE, cells, host="here", run_id="r"))
    table = read_parquet(place.child(path.rsplit("/", 1)[-1]))
    place.remove()
    assert table.schema.equals(cell_schema(STAGE))
    for row, cell in zip(table.to_pylist(), cells, strict=True):
        assert {name: row[name] for name in cell.values} == cell.values
        assert (row["key"], row["outcome"]) == (cell.key, "ok")
        assert (row["attempt"], row["seconds"]) == (cell.attempt, cell.seconds)
        assert row["error_class"] is None and (row["host"], row["run_id"]) == ("here", "r")


def test_a_failed_cell_has_no_value_and_the_whole_error():
    cell = failed_cell("k", StageError("too dark", subject="x", fix="Use a lamp"), 0.5, attempt=3)
    (row,) = cells_table(STAGE, [cell], host="h", run_id="r").to_pylist()
    assert all(row[column.name] is None for column in STAGE.columns)
    assert (row["outcome"], row["error_class"], row["attempt"]) == ("failed", "StageError", 3)
    assert row["error_message"] == "too dark. Use a lamp"
    assert "StageError: x: too dark" in row["error_traceback"]


def test_units_and_words_travel_with_the_columns():
    field = cell_schema(STAGE).field("times_s")
    assert field.metadata == {b"unit": b"s", b"doc": b"numbers"}


def test_a_value_of_another_type_is_refused():
    cell = Cell("k", Outcome.OK, {"share": "high"}, 0.0)
    with pytest.raises(CorpusError, match="everything: a value does not fit"):
        cells_table(STAGE, [cell], host="h", run_id="r")


def test_bookkeeping_names_are_columns():
    assert set(cell_schema(STAGE).names) >= BOOKKEEPING


def test_missing_keys_of_a_row_are_null():
    (row,) = rows_table(CLIPS, [{"clip_id": "c"}]).to_pylist()
    assert row["clip_id"] == "c" and row["stream"] is None


@pytest.mark.parametrize("n", [0, 1, 40_000])
def test_rows_of_a_table_are_its_rows_in_order(n):
    table = pa.table({"a": pa.array(range(n), pa.int64()), "b": pa.array(map(str, range(n)), pa.string())})
    assert list(rows_of(table)) == table.to_pylist()


@pytest.mark.parametrize("verdicts", [[], ["dropped"], ["kept", "failed", "kept", None, "dropped", "kept"]])
def test_kept_ids_are_those_of_the_verdict_in_order(tmp_path, verdicts):
    ids = [f"{7 * at % 10:032x}" for at in range(len(verdicts))]
    place = Place(str(tmp_path / "selection.parquet"))
    columns = {"clip_id": pa.array(ids, pa.string()), "verdict": pa.array(verdicts, pa.string())}
    place.write_bytes(parquet_bytes(pa.table(columns)))
    kept = [clip for clip, verdict in zip(ids, verdicts, strict=True) if verdict == "kept"]
    assert kept_ids(place).to_pylist() == sorted(kept)
