"""One run's clips in memory: what the page asks is answered from one table of DuckDB.

The table begins with the spans of all clips; a column joins it when it is first asked for, and stays. So memory grows
with what is looked at, not with what there is, and DuckDB spills beyond its limit.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from curate.errors import UsageError
from curate.export.rows import Source, sources_of
from curate.marks import CLIP_ID, MarkBook, Verdict
from curate.query import (
    MARK,
    MARK_COLUMNS,
    RunTables,
    connect,
    identifier,
    last_run,
    list_parts,
    listing_again,
    literal,
    run_query,
    tombstones_sql,
)
from curate.query.parts import file_sql, id_sql, id_text_sql
from curate.records import Clip
from curate.select.inputs import forgotten_sql
from curate.tables import CLIPS, Corpus
from curate.viewer.columns import SELECTION, ColumnInfo, run_columns, selection_columns
from curate.viewer.query import Ask, known_column

_SPAN = [f"clip.{name}" for name in CLIPS.names if name not in {"clip_id", "source_digest"}]
_MARKS = [f"{MARK}.{column.name}" for column in MARK_COLUMNS]
_BASE = [*_SPAN, "clip.duration_s", *_MARKS]
TOP = 40
"""Values of a column of names that are offered to choose from."""

MOST_IN_TIMELINE = 2000
"""Clips of one source that are drawn around the one looked at."""


@dataclass(frozen=True, slots=True)
class Found:
    """An answer: how many clips there are, their hours, and some of them in order."""

    n: int
    hours: float
    clips: list[dict[str, Any]]


class Library:
    """The clips of a run (the last complete one). Safe to use from several threads: one question at a time."""

    def __init__(self, corpus: Corpus, run_id: str | None = None) -> None:
        corpus.check()
        self.corpus = corpus
        self._lock = threading.RLock()
        self._con = connect()
        self.tables = RunTables(self._con, corpus, run_id or last_run(corpus))
        self.run_id = self.tables.run_id
        self._marks = MarkBook(corpus)
        self._sources: dict[str, Source] = {}
        self._begin()
        self._own = run_columns(self.tables)
        self._loaded = set(_BASE)
        self._selections: dict[str, str] = {}
        self._tombstones: list[dict[str, str]] = []
        self._tombstone_parts: list[str] = []
        self.refresh()

    def close(self) -> None:
        """Let go of the tables."""
        with self._lock:
            self._con.close()

    @listing_again
    def _begin(self) -> None:
        """Tables ``clips`` (one row a clip) and ``sources`` (one row a content, in the order of their names)."""
        self.tables.load("clips", _BASE)
        run_query(
            self._con,
            lambda: (
                f"""CREATE OR REPLACE TEMP TABLE sources AS SELECT {id_sql("source_digest")} AS source,
            source_digest, uri, row_number() OVER (ORDER BY uri) AS place FROM ({self.tables.run_sources_sql()})"""
            ),
        )
        self._join("clips", "SELECT source, place FROM sources", "source", ["place"])

    def refresh(self) -> None:
        """Look again which selections there are over this run, which marks, and what was taken down: it is not shown.
        Verdicts of selections that were made anew are read again.
        """
        with self._lock:
            found = _selections(self.corpus, self.run_id)
            for name in [name for name, digest in self._selections.items() if found.get(name) != digest]:
                for column in selection_columns(name):
                    if column in self._loaded:
                        self._con.execute(f"ALTER TABLE clips DROP COLUMN {identifier(column)}")
                        self._loaded.discard(column)
            self._selections = found
            self._read_marks()
            self._con.execute(f"DELETE FROM clips WHERE source IN ({forgotten_sql(self.tables)})")

    @property
    def selections(self) -> list[str]:
        """Names of the selections over this run."""
        return list(self._selections)

    @property
    def columns(self) -> dict[str, ColumnInfo]:
        """All columns that can be asked for."""
        own = dict(self._own)
        for name in self._selections:
            own |= selection_columns(name)
        return own

    def totals(self) -> dict[str, Any]:
        """Clips, hours and marks of the whole run."""
        with self._lock:
            sql = f"""SELECT count(*), coalesce(sum("clip.duration_s"), 0) / 3600, count(DISTINCT source),
                count(*) FILTER ({identifier(_MARKS[0])} = 'keep'), count(*) FILTER ({identifier(_MARKS[0])} = 'drop')
                FROM clips"""
            (row,) = self._con.execute(sql).fetchall()
        return dict(zip(("n", "hours", "sources", "keep", "drop"), row, strict=True))

    def find(self, ask: Ask) -> Found:
        """The clips that are asked for; ConfigError for a question that makes no sense."""
        with self._lock:
            known = self.columns
            names = ask.columns(known)
            self._need(names)
            where, order = ask.where(known), ask.order(known)
            ((n, hours),) = self._con.execute(
                f'SELECT count(*), coalesce(sum("clip.duration_s"), 0) / 3600 FROM clips WHERE {where}'
            ).fetchall()
            told = [
                *ask.show,
                *([SELECTION + ask.selection] if ask.selection else []),
                *([ask.sort] if ask.sort else []),
            ]
            rows = self._rows(f"WHERE {where} ORDER BY {order} LIMIT {ask.limit} OFFSET {ask.offset}", told)
        return Found(n, hours, rows)

    def _rows(self, tail: str, further: Iterable[str]) -> list[dict[str, Any]]:
        names = ["clip.start_s", "clip.end_s", "clip.duration_s", *_MARKS, *further]
        listed = ", ".join(f"chosen.{identifier(name)}" for name in dict.fromkeys(names))
        inner = f"(SELECT *, row_number() OVER () AS n_th FROM (SELECT * FROM clips {tail})) chosen"
        sql = f"""SELECT {id_text_sql("chosen.clip")} AS clip_id, uri, {listed}
            FROM {inner} JOIN sources USING (source) ORDER BY n_th"""
        return self._con.sql(sql).to_arrow_table().to_pylist()

    def values(self, name: str) -> dict[str, Any]:
        """What a column holds, to choose a filter from: its range, or its most frequent values; and how many have none.

        Asked of all clips of the run. ConfigError where there is no such column.
        """
        with self._lock:
            column = known_column(self.columns, name)
            self._need([name])
            value = identifier(name)
            ((n, none),) = self._con.execute(f"SELECT count({value}), count(*) - count({value}) FROM clips").fetchall()
            found: dict[str, Any] = {"column": name, "kind": column.kind, "n": n, "none": none}
            if column.kind in {"number", "numbers"}:
                number = f"list_avg({value})" if column.kind == "numbers" else f"{value}::DOUBLE"
                sql = f"SELECT min(v), median(v), max(v) FROM (SELECT {number} AS v FROM clips) WHERE isfinite(v)"
                (row,) = self._con.execute(sql).fetchall()
                return {**found, **dict(zip(("min", "median", "max"), row, strict=True))}
            if column.kind in {"text", "list", "truth"}:
                one = f"unnest({value}::VARCHAR[])" if column.kind == "list" else f"{value}::VARCHAR"
                sql = f"""SELECT v, count(*) AS n FROM (SELECT {one} AS v FROM clips) WHERE v IS NOT NULL
                    GROUP BY v ORDER BY n DESC, v LIMIT {TOP + 1}"""
                rows = self._con.execute(sql).fetchall()
                return {**found, "top": [[v, m] for v, m in rows[:TOP]], "more": len(rows) > TOP}
        return found

    def clip(self, clip_id: str) -> tuple[Clip, Source]:
        """A clip of the run and its source; UsageError where the run has no clip of this id."""
        with self._lock:
            row = self._row(clip_id)
            clip = Clip.from_row({name: row[f"clip.{name}"] for name in CLIPS.names})
            digest = clip.source_digest
            if digest not in self._sources:
                self._sources |= self._source(digest)
            return clip, self._sources[digest]

    def taken_down(self, digest: str, uris: Collection[str]) -> str | None:
        """Why a source was taken down, by its content or by one of its names, or None; known as soon as it is."""
        with self._lock:
            self._read_tombstones()
            for row in self._tombstones:
                if row["source_digest"] == digest or (not row["source_digest"] and row["uri"] in uris):
                    return row["reason"]
        return None

    def _read_tombstones(self) -> None:
        parts = list_parts(self.corpus.tombstones())
        if parts != self._tombstone_parts:
            rows = run_query(self._con, lambda: f"{tombstones_sql(self._con, self.corpus)} ORDER BY uri, reason")
            self._tombstones, self._tombstone_parts = rows.to_pylist(), parts

    @listing_again
    def _source(self, digest: str) -> dict[str, Source]:
        return sources_of(self._con, self.tables, {digest}, {})

    def _row(self, clip_id: str) -> dict[str, Any]:
        where = f"clip = {literal(clip_id)}::UUID" if CLIP_ID.fullmatch(clip_id) else "FALSE"
        listed = ", ".join(map(identifier, [*_BASE]))
        rows = self._con.sql(
            f"""SELECT {id_text_sql("clip")} AS "clip.clip_id", source_digest AS "clip.source_digest", {listed}
            FROM clips JOIN sources USING (source) WHERE {where}"""
        ).to_arrow_table()
        if not rows.num_rows:
            raise self._no_such(clip_id)
        return rows.to_pylist()[0]

    def timeline(self, clip_id: str, selection: str = "") -> list[dict[str, Any]]:
        """The clips of the same source in order of time, with marks and verdicts; of very many those around it."""
        verdict = SELECTION + selection
        with self._lock:
            row = self._row(clip_id)
            further = [verdict] if verdict in self.columns else []
            self._need(further)
            start = identifier("clip.start_s")
            near = f"abs({start} - {literal(row['clip.start_s'])})"
            where = f"WHERE source = {literal(row['clip.source_digest'][:32])}::UUID"
            few = f"{where} QUALIFY row_number() OVER (ORDER BY {near}, clip) <= {MOST_IN_TIMELINE}"
            return self._rows(f"{few} ORDER BY {start}, clip", further)

    def mark(self, clip_ids: Sequence[str], verdict: Verdict | None, note: str, by: str) -> int:
        """Mark clips of the run, or take marks back; gives how many changed. UsageError for a clip it does not have."""
        with self._lock:
            self._check_known(clip_ids)
        changed = self._marks.set(dict.fromkeys(clip_ids, verdict), note=note, by=by)  # others may ask meanwhile
        with self._lock:
            self._read_marks()
        return changed

    def _check_known(self, clip_ids: Sequence[str]) -> None:
        good = [clip_id for clip_id in clip_ids if CLIP_ID.fullmatch(clip_id)]
        listed = ", ".join(f"{literal(clip_id)}::UUID" for clip_id in good) or "NULL"
        known = {
            clip_id
            for (clip_id,) in self._con.execute(
                f"SELECT {id_text_sql('clip')} FROM clips WHERE clip IN ({listed})"
            ).fetchall()
        }
        for clip_id in clip_ids:
            if clip_id not in known:
                raise self._no_such(clip_id)

    def _no_such(self, clip_id: str) -> UsageError:
        return UsageError(f"run {self.run_id} has no such clip", subject=clip_id[:40])

    def _read_marks(self) -> None:
        """Take over the marks that changed, those of others too."""
        news = self._marks.news()
        if not news:
            return
        said = {"key": list(news)} | {
            column.name: [getattr(mark, column.name) or None if mark else None for mark in news.values()]
            for column in MARK_COLUMNS
        }
        self._con.register("marked", pa.table({name: pa.array(texts, pa.string()) for name, texts in said.items()}))
        sets = ", ".join(f"{identifier(f'{MARK}.{column.name}')} = m.{column.name}" for column in MARK_COLUMNS)
        self._con.execute(f"UPDATE clips SET {sets} FROM marked m WHERE clips.clip = {id_sql('m.key')}")
        self._con.unregister("marked")

    @listing_again
    def _need(self, names: Iterable[str]) -> None:
        """Have these columns in the table."""
        missing = [name for name in dict.fromkeys(names) if name not in self._loaded]
        own = [name for name in missing if name in self._own]
        if own:
            self.tables.load("added", own)
            self._join("clips", "SELECT * EXCLUDE (source) FROM added", "clip", own)
            self._con.execute("DROP TABLE added")
        self._loaded |= set(own)
        for name in dict.fromkeys(name.partition(".")[2] for name in missing if name not in own):
            place = self.corpus.selections().child(name, "selection.parquet")
            both = list(selection_columns(name))
            sql = f"""SELECT {id_sql("clip_id")} AS clip, verdict AS {identifier(both[0])},
                reason AS {identifier(both[1])} FROM ({file_sql(self._con, place)})"""
            self._join("clips", sql, "clip", both)
            self._loaded |= set(both)

    def _join(self, table: str, relation: str, key: str, names: Sequence[str]) -> None:
        """Add columns of a relation to a table."""
        listed = ", ".join(f"j.{identifier(name)}" for name in names)
        run_query(
            self._con,
            lambda: (
                f"""CREATE OR REPLACE TEMP TABLE {table}_next AS SELECT t.*, {listed} FROM {table} t
            LEFT JOIN ({relation}) j ON j.{key} = t.{key}"""
            ),
        )
        self._con.execute(f"DROP TABLE {table}")
        self._con.execute(f"ALTER TABLE {table}_next RENAME TO {table}")


def _selections(corpus: Corpus, run_id: str) -> dict[str, str]:
    """Digests of the selections over a run, by name, the latest first."""
    made: list[tuple[str, str, str]] = []
    for name in corpus.selections().folders():
        place = corpus.selections().child(name, "funnel.json")
        if place.exists():
            funnel: Mapping[str, Any] = json.loads(place.read_text())
            if funnel.get("run_id") == run_id:
                made.append((str(funnel.get("created_at", "")), name, str(funnel.get("digest", ""))))
    return {name: digest for _, name, digest in sorted(made, reverse=True)}
