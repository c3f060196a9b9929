"""The reading rules, and one run's view of the tables."""

from __future__ import annotations

import itertools
import uuid

import fsspec
import pyarrow as pa
import pytest
from corpus_kit import CorpusKit, cells_schema, digest_of
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.errors import ConfigError, CorpusError, StorageError
from curate.query import RunTables, cells_sql, clips_sql, connect, last_run, parts_sql, run_query, sources_sql
from curate.storage import Place
from curate.tables import SOURCES, Corpus, rows_table, write_part

COLUMNS = {"x": pa.float64()}
SCHEMA = cells_schema(COLUMNS)
STAGES = {
    "motion": {"speed": pa.float64(), "camera": pa.string()},
    "caption": {"template": pa.string()},
    "caption.template": {"caption": pa.string()},
}


def rows(con, sql):
    return run_query(con, lambda: sql).to_pylist()


def cell(key, outcome, attempt, x):
    return {"key": key, "outcome": outcome, "attempt": attempt, "x": x, "run_id": "r"}


def write_cells(corpus, *parts):
    return [write_part(corpus.cells("s", "f"), rows_table(SCHEMA, part)) for part in parts]


cell_rows = st.builds(
    cell,
    st.sampled_from(["k1", "k2", "k3"]),
    st.sampled_from(["ok", "failed"]),
    st.integers(1, 3),
    st.floats(0, 1),
)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(cell_rows, min_size=1, max_size=4), max_size=4))
def test_the_cell_that_counts_is_ok_then_latest_then_of_the_smallest_part(tmp_path_factory, parts):
    corpus = Corpus(str(tmp_path_factory.mktemp("c")))
    names = write_cells(corpus, *parts)
    by_part = dict(zip(names, parts, strict=True))
    expected = {}
    for name in sorted(by_part):
        for row in by_part[name]:
            best = expected.get(row["key"])
            better = best is None or (row["outcome"] == "ok", row["attempt"]) > (
                best["outcome"] == "ok",
                best["attempt"],
            )
            expected[row["key"]] = row if better else best
    con = connect()
    found = rows(con, cells_sql(con, corpus, "s", "f", SCHEMA))
    assert {r["key"]: (r["outcome"], r["attempt"], r["x"]) for r in found} == {
        k: (r["outcome"], r["attempt"], r["x"]) for k, r in expected.items()
    }
    assert len(found) == len(expected)


def test_a_missing_folder_is_an_empty_relation_with_the_right_types(tmp_path):
    con, corpus = connect(), Corpus(str(tmp_path))
    table = run_query(con, lambda: cells_sql(con, corpus, "s", "f", SCHEMA))
    assert table.num_rows == 0
    assert table.schema.names == SCHEMA.names
    assert table.schema.field("x").type == pa.float64()
    assert rows(con, f"SELECT * FROM ({cells_sql(con, corpus, 's', 'f', columns=['key', 'x'])}) WHERE x > 0.5") == []
    assert rows(con, clips_sql(con, corpus, "cut", "f")) == []
    assert rows(con, sources_sql(con, corpus)) == []


def test_half_floats_are_floats_whether_a_part_is_there_or_not(tmp_path):
    corpus, con = Corpus(str(tmp_path)), connect()
    schema = cells_schema({"half": pa.float16(), "halves": pa.list_(pa.float16())})
    empty = con.sql(cells_sql(con, corpus, "s", "f", schema)).types
    write_part(corpus.cells("s", "f"), rows_table(schema, [{"key": "k", "half": 0.5, "halves": [0.5]}]))
    assert con.sql(cells_sql(con, corpus, "s", "f", schema)).types == empty


def test_names_with_wild_cards_and_key_value_folders_are_plain_names(tmp_path):
    corpus = Corpus(str(tmp_path / "a[1]*" / "x=3"))
    write_cells(corpus, [cell("k", "ok", 1, 0.5)], [cell("k", "ok", 2, 0.7)])
    con = connect()
    assert [r["x"] for r in rows(con, cells_sql(con, corpus, "s", "f"))] == [0.7]


def test_a_part_that_vanishes_after_listing_is_listed_again(tmp_path):
    corpus, con = Corpus(str(tmp_path)), connect()
    first, second = write_cells(corpus, [cell("a", "ok", 1, 0.1)], [cell("b", "ok", 1, 0.2)])
    asked = itertools.count()

    def make_sql():
        sql = cells_sql(con, corpus, "s", "f", SCHEMA)
        if next(asked) == 0:
            write_cells(corpus, [cell("a", "ok", 1, 0.1), cell("b", "ok", 1, 0.2)])
            Place(first).remove()
            Place(second).remove()
        return sql

    assert sorted(r["key"] for r in run_query(con, make_sql).to_pylist()) == ["a", "b"]
    assert next(asked) == 2


def test_a_part_that_stays_away_is_a_storage_error(tmp_path):
    with pytest.raises(StorageError, match="could not be read"):
        run_query(connect(), lambda: f"SELECT * FROM read_parquet('{tmp_path}/none.parquet')", attempts=2)


def test_a_damaged_part_is_a_corpus_error(tmp_path):
    corpus, con = Corpus(str(tmp_path)), connect()
    corpus.cells("s", "f").child("part-0.parquet").write_bytes(b"not parquet at all")
    with pytest.raises(CorpusError, match="damaged"):
        run_query(con, lambda: cells_sql(con, corpus, "s", "f"))


def test_tables_on_another_file_system_are_read_through_fsspec():
    corpus, con = Corpus(f"memory://{uuid.uuid4().hex}"), connect()
    write_cells(corpus, [cell("k", "failed", 3, None)], [cell("k", "ok", 1, 0.25)])
    assert [r["x"] for r in rows(con, cells_sql(con, corpus, "s", "f"))] == [0.25]
    fsspec.filesystem("memory").rm(corpus.root.path, recursive=True)


def test_sources_are_one_row_per_uri_size_and_version(tmp_path):
    corpus, con = Corpus(str(tmp_path)), connect()
    base = {"uri": "a", "size_bytes": None, "version": ""}
    write_part(corpus.sources(), rows_table(SOURCES, [{**base, "outcome": "failed", "attempt": 2}]))
    write_part(corpus.sources(), rows_table(SOURCES, [{**base, "outcome": "ok", "attempt": 1}]))
    write_part(corpus.sources(), rows_table(SOURCES, [{**base, "version": "2", "outcome": "failed", "attempt": 1}]))
    found = rows(con, sources_sql(con, corpus, ["version", "outcome"]))
    assert sorted((r["version"], r["outcome"]) for r in found) == [("", "ok"), ("2", "failed")]


def kit_with_two_sources(tmp_path, **options):
    kit = CorpusKit(tmp_path / "corpus", STAGES, **options)
    a = kit.source("a.mp4", [2.0, 3.0], width_px=640, user={"licence": "CC0"})
    b = kit.source("b.mp4", [4.0])
    for clip, speed in zip([*a, *b], [0.1, 0.2, 0.3], strict=True):
        kit.cell("motion", clip, speed=speed, camera="pan left")
    return kit, a, b


def test_clips_count_only_with_an_ok_cut_cell_that_promises_their_number(tmp_path):
    kit, a, b = kit_with_two_sources(tmp_path)
    lost = kit.source("lost.mp4", [1.0, 1.0])
    kit.clips = [clip for clip in kit.clips if clip.clip_id != lost[1]]
    kit.source("dead.mp4", [1.0])
    kit.cells["cut"] = [row for row in kit.cells["cut"] if row["key"] != digest_of("dead.mp4")]
    corpus, con = kit.write(), connect()
    sql = clips_sql(con, corpus, "cut", kit.fingerprint("cut"))
    assert sorted(r["clip_id"] for r in rows(con, sql)) == sorted([*a, *b])
    again = CorpusKit(tmp_path / "corpus", STAGES)
    again.source("lost.mp4", [1.0, 1.0])
    again.write("run-2")
    sql = clips_sql(con, corpus, "cut", kit.fingerprint("cut"), columns=["clip_id"])
    assert sorted(r["clip_id"] for r in rows(con, sql)) == sorted([*a, *b, *lost])


def test_a_run_sees_its_own_sources_only(tmp_path):
    kit, a, b = kit_with_two_sources(tmp_path)
    corpus, con = kit.write(), connect()
    kit.inputs.clear()
    other = kit.source("c.mp4", [5.0])
    kit.write("run-2")
    assert sorted(r["clip_id"] for r in rows(con, RunTables(con, corpus, "run-1").clips_sql())) == sorted([*a, *b])
    assert [r["clip_id"] for r in rows(con, RunTables(con, corpus, "run-2").clips_sql(["clip_id"]))] == other


def test_wide_joins_clip_source_user_and_cell_columns(tmp_path):
    kit, a, b = kit_with_two_sources(tmp_path)
    kit.cell("caption.template", a[0], caption="a pan")
    kit.failed("caption.template", a[1], "DecodeError")
    corpus, con = kit.write(), connect()
    tables = RunTables(con, corpus, "run-1")
    names = [
        "clip.duration_s",
        "source.width_px",
        "source.uri",
        "user.licence",
        "motion.speed",
        "caption.template.caption",
        "caption.template.outcome",
        "cut.n_clips",
    ]
    found = {row.pop("clip_id"): list(row.values()) for row in rows(con, tables.wide_sql(names))}
    assert found == {
        a[0]: [2.0, 640, "a.mp4", "CC0", 0.1, "a pan", "ok", 2],
        a[1]: [3.0, 640, "a.mp4", "CC0", 0.2, None, "failed", 2],
        b[0]: [4.0, 1280, "b.mp4", None, 0.3, None, None, 1],
    }
    tables.load("work", names)
    loaded = rows(con, "SELECT * EXCLUDE (clip, source), replace(clip::VARCHAR, '-', '') AS clip_id FROM work")
    assert {row["clip_id"]: [row[name] for name in names] for row in loaded} == found


def test_the_longest_stage_name_wins(tmp_path):
    kit, _, _ = kit_with_two_sources(tmp_path)
    tables = RunTables(connect(), kit.write(), "run-1")
    assert tables.column("caption.template").stage.name == "caption"
    assert tables.column("caption.template.caption").stage.name == "caption.template"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("motion.sped", "motion.speed"),
        ("sauce.width_px", "source.width_px"),
        ("user.license", "user.licence"),
        ("clip.durations", "clip.duration_s"),
    ],
)
def test_an_unknown_column_names_the_nearest(tmp_path, name, hint):
    kit, _, _ = kit_with_two_sources(tmp_path)
    tables = RunTables(connect(), kit.write(), "run-1")
    with pytest.raises(ConfigError, match=f"did you mean '{hint}'"):
        tables.column(name)


def test_gates_above_a_column(tmp_path):
    gates = [{"after_index": 2, "column": "motion.speed", "min": 0.15, "max": 0.25}]
    kit, a, _ = kit_with_two_sources(tmp_path, gates=gates)
    con, corpus = connect(), kit.write()
    tables = RunTables(con, corpus, "run-1")
    assert tables.gates_above(tables.column("motion.speed")) == ()
    (gate,) = tables.gates_above(tables.column("caption.template.caption"))
    sql = f"SELECT clip_id FROM ({tables.wide_sql(['motion.speed'])}) WHERE {gate.sql}"
    assert [r["clip_id"] for r in rows(con, sql)] == [a[1]]


def test_the_last_complete_run(tmp_path):
    kit, _, _ = kit_with_two_sources(tmp_path)
    with pytest.raises(CorpusError, match="no complete run"):
        last_run(kit.corpus)
    kit.write("run-1")
    kit.write("run-2", complete=False)
    assert last_run(kit.corpus) == "run-1"
    with pytest.raises(ConfigError, match="did you mean 'run-1'"):
        RunTables(connect(), kit.corpus, "run1")


def test_reading_again_after_a_new_part_sees_it(tmp_path):
    corpus, con = Corpus(str(tmp_path)), connect()
    write_cells(corpus, [cell("k", "failed", 1, None)])
    assert rows(con, cells_sql(con, corpus, "s", "f"))[0]["outcome"] == "failed"
    write_cells(corpus, [cell("k", "ok", 2, 0.5)])
    assert rows(con, parts_sql(con, corpus.cells("s", "f"), ["key"], "attempt DESC"))[0]["outcome"] == "ok"


def test_cells_that_hold_half_floats_read_the_same_empty_and_filled(tmp_path):
    """Regression: a stage with a float16 column and no cell yet ended the run's planning."""
    corpus = Corpus(str(tmp_path))
    schema = pa.schema([("key", pa.string()), ("vector", pa.list_(pa.float16())), ("outcome", pa.string())])
    con = connect()
    empty = con.sql(cells_sql(con, corpus, "x", "f", schema)).types
    cell = {"key": "a", "vector": [1.5], "outcome": "ok", "attempt": 1}
    full = pa.schema([*schema, ("attempt", pa.int32())])
    write_part(corpus.cells("x", "f"), pa.Table.from_pylist([cell], schema=full))
    assert con.sql(cells_sql(con, corpus, "x", "f", schema)).types[: len(empty)] == empty
