"""Marks by hand: the last one counts, selections use them, and no reader of tables trips over them."""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pytest
from corpus_kit import CorpusKit
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.compact import compact
from curate.errors import ConfigError, UsageError
from curate.failures import failures
from curate.forget import forget
from curate.marks import Mark, MarkBook, marks, set_marks
from curate.query import MARK_FINGERPRINT, RunTables, connect, list_parts, mark_folder
from curate.recipe import parse_recipe
from curate.select import SelectConfig, select
from curate.tables import Corpus, read_parquet
from curate.verify.tables import verify_tables

RECIPE = "{name: r, stages: [probe, cut, quality], select: {name: s, dedup: {method: none}, conditions: [%s]}}"


def made(path, gates=()) -> tuple[Corpus, list[str]]:
    """A corpus of four clips with scores 0, 1, 2, 3."""
    kit = CorpusKit(path, {"score": {"x": pa.float64()}, "late": {"y": pa.float64()}}, gates)
    clips = kit.source("a.mp4", [1.0, 2.0]) + kit.source("b.mp4", [3.0, 4.0])
    for x, clip in enumerate(clips):
        kit.cell("score", clip, x=float(x))
        kit.cell("late", clip, y=float(x))
    return kit.write(), clips


def config(*conditions: dict, name: str = "s") -> SelectConfig:
    return SelectConfig.model_validate({"name": name, "conditions": conditions, "dedup": {"method": "none"}})


def kept(corpus: Corpus, name: str = "s") -> set[str]:
    rows = read_parquet(corpus.selections().child(name, "selection.parquet")).to_pylist()
    return {row["clip_id"] for row in rows if row["verdict"] == "kept"}


IDS = [f"{n:032x}" for n in range(3)]
steps = st.one_of(
    st.just("compact"),
    st.tuples(
        st.dictionaries(st.sampled_from(IDS), st.sampled_from(["keep", "drop", None]), min_size=1),
        st.sampled_from(["", "täxt\n'; DROP TABLE x"]),
        st.sampled_from(["", "me"]),
        st.sampled_from([0, 1]),
    ),
)


@settings(max_examples=12)
@given(st.lists(steps, max_size=8))
def test_what_is_read_is_what_was_said_last(tmp_path_factory, said):
    corpus = Corpus(str(tmp_path_factory.mktemp("c")))
    corpus.create()
    expected: dict[str, Mark] = {}
    books, told = [MarkBook(corpus), MarkBook(corpus, most_parts=2)], [{}, {}]
    for step in said:
        if step == "compact":
            list(compact(corpus))
            continue
        verdicts, note, by, n = step
        after = {clip: Mark(verdict, note, by) if verdict else None for clip, verdict in verdicts.items()}
        changed = sum(mark != expected.get(clip) for clip, mark in after.items())
        assert books[n].set(verdicts, note=note, by=by) == changed
        expected = {clip: mark for clip, mark in {**expected, **after}.items() if mark}
        told[n] |= books[n].news()
        assert {clip: mark for clip, mark in told[n].items() if mark} == expected
    assert marks(corpus) == expected
    assert {clip: mark for clip in IDS for mark in marks(corpus, clip).values()} == expected
    assert list(verify_tables(corpus)) == []


def test_two_who_mark_at_once_lose_nothing_but_what_both_marked(tmp_path):
    corpus = Corpus(str(tmp_path))
    corpus.create()
    people = {"ann": ("keep", IDS[0]), "bob": ("drop", IDS[1])}
    books = {name: MarkBook(corpus, most_parts=6) for name in people}
    ready = threading.Barrier(2, timeout=60)

    def mark_all(name: str) -> None:
        verdict, own = people[name]
        for n in range(12):
            ready.wait()
            assert books[name].set({own: verdict, IDS[2]: verdict}, note=f"{n}", by=name) > 0

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(mark_all, name) for name in people]:
            done.result()
    found = marks(corpus)
    assert {clip: found[clip] for clip in IDS[:2]} == {own: Mark(v, "11", name) for name, (v, own) in people.items()}
    assert found[IDS[2]] in {Mark(verdict, "11", name) for name, (verdict, _) in people.items()}
    for book in (*books.values(), MarkBook(corpus)):
        assert {clip: mark for clip, mark in book.news().items() if mark} == found


def test_marking_one_after_the_other_reads_what_is_new_and_leaves_few_files(tmp_path, monkeypatch):
    corpus = Corpus(str(tmp_path))
    corpus.create()
    book, read = MarkBook(corpus, most_parts=8), []
    reading = book._read
    monkeypatch.setattr(book, "_read", lambda parts: [read.append(len(parts)), reading(parts)][1])
    for n in range(20):
        assert book.set({f"{n:032x}": "keep"}) == 1
        assert len(list_parts(mark_folder(corpus).place)) <= 9
    assert max(read) == 1
    assert len(marks(corpus)) == 20


def test_selections_drop_what_was_marked_so_or_keep_that_alone(tmp_path):
    corpus, clips = made(tmp_path / "c")
    set_marks(corpus, {clips[0]: "keep", clips[1]: "drop"})
    select(corpus, config({"column": "mark.verdict", "not_in": ["drop"]}))
    assert kept(corpus) == {clips[0], clips[2], clips[3]}
    funnel = select(corpus, config({"column": "mark.verdict", "in": ["keep"]}))
    assert kept(corpus) == {clips[0]}
    assert (funnel.clips.kept, funnel.clips.dropped, funnel.clips.failed) == (1, 3, 0)
    set_marks(corpus, {clips[0]: None, clips[1]: "keep"})
    select(corpus, config({"column": "mark.verdict", "in": ["keep"]}))
    assert kept(corpus) == {clips[1]}


def test_a_corpus_without_marks_has_the_columns_all_the_same(tmp_path):
    corpus, clips = made(tmp_path / "c")
    select(corpus, config({"column": "mark.verdict", "not_in": ["drop"]}, {"column": "score.x", "min": 1}))
    assert kept(corpus) == set(clips[1:])
    with connect() as con:
        tables = RunTables(con, corpus, "run-1")
        assert {"mark.verdict", "mark.note", "mark.by"} <= set(tables.column_names())
        rows = con.sql(tables.wide_sql(["mark.verdict", "score.x"])).fetchall()
        assert {row[1] for row in rows} == {None}
        with pytest.raises(ConfigError, match=r"mark\.verdict"):
            tables.column("mark.verdikt")


def test_a_mark_counts_for_clips_behind_a_gate_too(tmp_path):
    corpus, clips = made(tmp_path / "c", [{"after_index": 2, "column": "score.x", "min": 2.0}])
    set_marks(corpus, {clips[0]: "keep", clips[3]: "drop"}, note="why", by="me")
    select(corpus, config({"column": "mark.verdict", "not_in": ["drop"]}))
    assert kept(corpus) == {clips[2]}
    with connect() as con:
        tables = RunTables(con, corpus, "run-1")
        tables.load("t", ["mark.verdict", "mark.note", "mark.by", "late.y"])
        rows = con.sql('SELECT "mark.verdict", "mark.note", "mark.by" FROM t WHERE "mark.verdict" IS NOT NULL')
        assert sorted(rows.fetchall()) == [("drop", "why", "me"), ("keep", "why", "me")]


def test_readers_of_all_tables_take_marks_as_they_come(tmp_path):
    corpus, clips = made(tmp_path / "c")
    for clip, verdict in itertools.product(clips, ("keep", "drop")):
        set_marks(corpus, {clip: verdict})
    folder = corpus.cells("mark", MARK_FINGERPRINT)
    assert len(list_parts(folder)) == 8
    done = {each.folder: each for each in compact(corpus)}
    assert done[f"tables/cells/mark/{MARK_FINGERPRINT}"].repeated == 4
    assert len(list_parts(folder)) == 1
    assert {mark.verdict for mark in marks(corpus).values()} == {"drop"}
    assert list(verify_tables(corpus)) == []
    assert failures(corpus, every=True) == []
    forget(corpus, "a.mp4", "asked to")
    select(corpus, config({"column": "mark.verdict", "in": ["drop"]}))
    assert kept(corpus) == set(clips[2:])


@pytest.mark.parametrize("verdicts", [{"x": "keep"}, {IDS[0].upper() + "/..": "keep"}, {IDS[0]: "perhaps"}])
def test_nonsense_is_refused_before_anything_is_written(tmp_path, verdicts):
    corpus, clips = made(tmp_path / "c")
    with pytest.raises(UsageError):
        set_marks(corpus, {clips[0]: "keep", **verdicts})
    with pytest.raises(UsageError, match="at most"):
        set_marks(corpus, {clips[0]: "keep"}, note="x" * 2001)
    assert marks(corpus) == {}


@pytest.mark.parametrize("conditions", ["", "{column: quality.contrast, min: 0}", "{column: mark.verdict, in: [keep]}"])
def test_set_makes_the_condition_on_marks_where_the_recipe_has_none(conditions):
    recipe = parse_recipe(RECIPE % conditions, "test", ["select.conditions.mark.verdict.in=[keep]"])
    found = [(c.column, c.one_of) for c in recipe.select.conditions if c.column.startswith("mark.")]
    assert found == [("mark.verdict", ("keep",))]
    with pytest.raises(ConfigError, match="no entry"):
        parse_recipe(RECIPE % "", "test", ["select.conditions.quality.contrast.min=1"])
