"""Two selections, of one run or of two, of one corpus or of two: what entered, what left, which filter moved it.

Clips are the same where their ids are: one span of one content. All counts are of all clips, asked of the tables.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

import duckdb

from curate import __version__
from curate.config import parse_config
from curate.datafiles import parse_yaml
from curate.errors import ConfigError, UsageError
from curate.query import RunTables, connect, identifier, listing_again, run_query
from curate.query.parts import file_sql, id_sql, id_text_sql
from curate.redaction import redacted
from curate.report.facts import chosen_selection
from curate.report.html import render
from curate.report.pictures import Wanted, plan_pictures, take_pictures
from curate.report.samples import CLIP_COLUMNS, caption_columns, clip_rows, cut
from curate.report.shifts import category_shifts, number_shifts, shared_columns
from curate.select import Funnel, SelectConfig, select
from curate.select.inputs import FORGOTTEN, forgotten_sql
from curate.storage import Place
from curate.tables import Corpus
from curate.units import HOUR_S

FORMAT = 1
PICTURES = 48
MOST_IDS = 1000
"""Clips that entered or left and are named one by one."""

ELSEWHERE = "not among its clips"
"""Why a selection does not keep a clip that its run does not have."""

_RUN = re.compile(r"(?P<place>.*)@(?P<run>[^/@]+)")
_ID = id_text_sql("clip")


@dataclass(frozen=True)
class Side:
    """One selection with the tables of its run."""

    corpus: Corpus
    funnel: Funnel
    tables: RunTables
    folder: Place
    judged_now: bool = False

    def facts(self) -> dict[str, Any]:
        """What is said of it alone."""
        funnel = self.funnel
        return {
            "corpus": redacted(self.corpus.uri),
            "selection": funnel.name,
            "run_id": funnel.run_id,
            "recipe_name": self.tables.manifest.get("recipe", ""),
            "created_at": funnel.created_at,
            "found": funnel.clips.found,
            "judged_now": self.judged_now,
            "cut": self.tables.cut.fingerprint,
        }


class Named(NamedTuple):
    """A side as it is named. Without ``selection`` the latest over the run, without ``run_id`` the last run."""

    corpus: Corpus
    selection: str | None = None
    run_id: str | None = None


def parse_side(text: str, other: Corpus | None = None) -> Named:
    """``CORPUS``, ``CORPUS#SELECTION``, ``CORPUS@RUN`` or ``CORPUS@RUN#SELECTION``; without CORPUS that of the other
    side. A corpus whose own name ends in @ and something is not taken apart.
    """
    place, mark, name = text.rpartition("#") if "#" in text else (text, "", "")
    if mark and not name:
        raise UsageError("names no selection behind #", subject=text, fix="Write CORPUS#SELECTION")
    found = _RUN.fullmatch(place)
    whole = found is None or (bool(found["place"]) and Corpus(place).root.child("corpus.json").exists())
    place, run_id = (place, None) if found is None or whole else (found["place"], found["run"])
    if not place and other is None:
        raise UsageError("names no corpus", subject=text, fix="Write CORPUS or CORPUS#SELECTION")
    return Named(Corpus(place) if place else other or Corpus(place), name or None, run_id)


@dataclass(frozen=True)
class Difference:
    """The facts, and what the pictures of its clips need, by side."""

    facts: dict[str, Any]
    wanted: list[Wanted]
    reasons: dict[str, str]


@listing_again
def difference(one: Named, other: Named, *, pictures: int = 0, clips: int = PICTURES) -> Difference:
    """The difference between two selections as plain JSON.

    About ``clips`` clips are told one by one, ``pictures`` of them with a picture. ConfigError where there is no such
    selection.
    """
    with closing(connect()) as con, tempfile.TemporaryDirectory(prefix="curate-diff-") as scratch:
        a, b = (_side(con, named, Place(f"{scratch}/{side}")) for side, named in (("a", one), ("b", other)))
        _pair(con, a, b)
        columns = shared_columns(a.tables, b.tables)
        kept = [f"SELECT clip FROM pair WHERE {side} = 'kept'" for side in ("a", "b")]
        facts: dict[str, Any] = {
            "format": FORMAT,
            "tool_version": __version__,
            "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "a": a.facts() | {"kept": _count(con, "a = 'kept'")},
            "b": b.facts() | {"kept": _count(con, "b = 'kept'")},
            "corpus": redacted(a.corpus.uri),
            "known": _known(con),
            "both": _count(con, "a = 'kept' AND b = 'kept'"),
            "left": _moved(con, "left"),
            "entered": _moved(con, "entered"),
            "filters": _filters(con),
            "thresholds": _thresholds(a.funnel, b.funnel),
            "numbers": number_shifts(a.tables, b.tables, columns, kept),
            "categories": category_shifts(a.tables, b.tables, columns),
        }
        half = max(1, clips // 2)
        facts["samples"] = {"left": _sample(con, "left", half), "entered": _sample(con, "entered", half)}
        facts["clip_facts"], wanted, reasons = {}, [], {}
        for side, which in ((a, "left"), (b, "entered")):
            columns = [*CLIP_COLUMNS, "source.uri", *caption_columns(side.tables)[-1:]]
            rows = clip_rows(side.tables, facts["samples"][which], columns)
            facts["clip_facts"] |= _clip_facts(con, side, rows)
            planned, why = plan_pictures(side.tables, rows, min(half, (pictures + 1) // 2))
            wanted += planned
            reasons |= why
        return Difference(facts | {"pictures": {}}, wanted, reasons)


def write_difference(found: Difference, target: str, heard: Callable[[int, int], None] | None = None) -> str:
    """The page of a difference as one HTML file; gives where it lies. StorageError where it cannot be written."""
    clips = list(found.facts["clip_facts"])
    facts = found.facts | {"pictures": take_pictures(found.wanted, clips, found.reasons, heard)}
    place = Place(target)
    place.write_text(render(facts, name="diff.html"))
    return place.uri


def _side(con: duckdb.DuckDBPyConnection, named: Named, scratch: Place) -> Side:
    """The selection that is meant. Of a run that none is over any more (each `curate run` replaces that of its recipe)
    the recipe's own, made anew in ``scratch``."""
    corpus, name, run_id = named
    try:
        funnel, folder = chosen_selection(corpus, run_id, name), None
    except ConfigError:
        own = _own_selection(corpus, run_id) if run_id in corpus.run_ids() else None
        if own is None or name not in {None, own.name}:
            raise
        funnel, folder = select(corpus, own, run_id=run_id, folder=scratch), scratch
    tables = RunTables(con, corpus, funnel.run_id)
    return Side(corpus, funnel, tables, folder or corpus.selections().child(funnel.name), judged_now=folder is not None)


def _own_selection(corpus: Corpus, run_id: str | None) -> SelectConfig | None:
    """The selection of a run's recipe, where the run keeps it."""
    place = corpus.runs().child(run_id or "", "recipe.yaml")
    if not place.exists():
        return None
    recipe = parse_yaml(place.read_text(), place.uri) or {}
    return parse_config(SelectConfig, recipe.get("select"), "select")


def _pair(con: duckdb.DuckDBPyConnection, a: Side, b: Side) -> None:
    """Table ``pair``: every clip of either run with both verdicts (null where a run does not have it), reasons and all
    failing conditions; ``moved`` is left or entered. What was taken down by now counts as dropped."""
    a.tables.load("timed_a", ["clip.duration_s"])
    one_run = (a.corpus.uri, a.tables.run_id) == (b.corpus.uri, b.tables.run_id)
    if not one_run:
        b.tables.load("timed_b", ["clip.duration_s"])
    for side, table, timed in ((a, "ended_a", "timed_a"), (b, "ended_b", "timed_a" if one_run else "timed_b")):
        place = side.folder.child("selection.parquet")
        made = f"""CREATE OR REPLACE TEMP TABLE {table} AS SELECT clip, seconds,
            if(gone, 'dropped', verdict) AS verdict, if(gone, '{FORGOTTEN}', coalesce(reason, '')) AS reason,
            if(gone, ['{FORGOTTEN}'], failing) AS failing FROM (SELECT t.clip, s.verdict, s.reason, s.failing,
            t.{identifier("clip.duration_s")} AS seconds, t.source IN ({forgotten_sql(side.tables)}) AS gone
            FROM {timed} t JOIN ({file_sql(con, place)}) s ON {id_sql("s.clip_id")} = t.clip)"""
        run_query(con, lambda made=made: made)
    con.execute(
        f"""CREATE OR REPLACE TEMP TABLE pair AS SELECT clip, coalesce(x.seconds, y.seconds) AS seconds,
        x.verdict AS a, y.verdict AS b, x.failing AS failing_a, y.failing AS failing_b,
        if(x.clip IS NULL, '{ELSEWHERE}', x.reason) AS reason_a,
        if(y.clip IS NULL, '{ELSEWHERE}', y.reason) AS reason_b,
        CASE WHEN a = 'kept' AND b IS DISTINCT FROM 'kept' THEN 'left'
             WHEN b = 'kept' AND a IS DISTINCT FROM 'kept' THEN 'entered' END AS moved
        FROM ended_a x FULL JOIN ended_b y USING (clip)"""
    )
    for table in ("ended_a", "ended_b", "timed_a", *([] if one_run else ["timed_b"])):
        con.execute(f"DROP TABLE {table}")


def _known(con: duckdb.DuckDBPyConnection) -> dict[str, int]:
    """Clips that both runs have, and that only one has."""
    sql = """SELECT count(*) FILTER (a IS NOT NULL AND b IS NOT NULL), count(*) FILTER (b IS NULL),
        count(*) FILTER (a IS NULL) FROM pair"""
    return dict(zip(("both", "only_a", "only_b"), con.execute(sql).fetchall()[0], strict=True))


def _count(con: duckdb.DuckDBPyConnection, where: str) -> dict[str, Any]:
    sql = f"SELECT count(*), coalesce(sum(seconds), 0) / {HOUR_S} FROM pair WHERE {where}"
    return dict(zip(("n", "hours"), con.execute(sql).fetchall()[0], strict=True))


def _moved(con: duckdb.DuckDBPyConnection, which: str) -> dict[str, Any]:
    """How many left or entered, by the reason on the side that does not keep them, and which clips."""
    reason = "reason_b" if which == "left" else "reason_a"
    where = f"moved = '{which}'"
    rows = con.execute(
        f"""SELECT {reason}, count(*) AS n, coalesce(sum(seconds), 0) / {HOUR_S} FROM pair WHERE {where}
        GROUP BY 1 ORDER BY n DESC, 1"""
    ).fetchall()
    ids = con.execute(f"SELECT {_ID}, {reason} FROM pair WHERE {where} ORDER BY clip LIMIT {MOST_IDS}").fetchall()
    reasons = [{"reason": text, "n": n, "hours": hours} for text, n, hours in rows]
    return {**_count(con, where), "reasons": reasons, "clips": [list(row) for row in ids]}


def _filters(con: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    """By gate or condition: clips that left and fail it now, that fail nothing else, and the same of what entered and
    failed it before."""
    parts = [
        f"SELECT moved, unnest({failing}) AS name, len({failing}) = 1 AS alone FROM pair WHERE moved = '{which}'"
        for which, failing in (("left", "failing_b"), ("entered", "failing_a"))
    ]
    counts = ", ".join(
        f"count(*) FILTER (WHERE moved = '{which}'{tail}) AS {identifier(which + name)}"
        for which in ("left", "entered")
        for name, tail in (("", ""), ("_only", " AND alone"))
    )
    sql = f'SELECT name, {counts} FROM ({" UNION ALL ".join(parts)}) GROUP BY 1 ORDER BY "left" + entered DESC, name'
    return con.sql(sql).to_arrow_table().to_pylist()


def _thresholds(a: Funnel, b: Funnel) -> list[dict[str, Any]]:
    """Conditions of either selection in words, by name, with the limits that percentiles came to; only those that
    differ."""
    told = [_limits(funnel) for funnel in (a, b)]
    names = dict.fromkeys([*told[0], *told[1]])
    rows = [{"name": name, "a": told[0].get(name, ""), "b": told[1].get(name, "")} for name in names]
    return [row for row in rows if row["a"] != row["b"]]


def _limits(funnel: Funnel) -> dict[str, str]:
    return {condition.name: condition.text for condition in funnel.conditions}


def _sample(con: duckdb.DuckDBPyConnection, which: str, n: int) -> list[str]:
    """Clips drawn by their ids, in turn from each reason, so that rare reasons are seen too."""
    reason = "reason_b" if which == "left" else "reason_a"
    rows = con.execute(
        f"""SELECT {_ID} FROM (SELECT clip, {reason} AS reason,
        row_number() OVER (PARTITION BY {reason} ORDER BY hash(clip), clip) AS turn FROM pair WHERE moved = '{which}')
        ORDER BY turn, reason LIMIT {n}"""
    ).fetchall()
    return [clip for (clip,) in rows]


def _clip_facts(
    con: duckdb.DuckDBPyConnection, side: Side, rows: Mapping[str, dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """What the page says of each clip that it shows."""
    if not rows:
        return {}
    captions = caption_columns(side.tables)[-1:]
    listed = ", ".join(f"'{clip}'::UUID" for clip in rows)
    ends = con.sql(f"SELECT {_ID} AS clip, a, b, reason_a, reason_b, moved FROM pair WHERE clip IN ({listed})")
    known = {row["clip"]: row for row in ends.to_arrow_table().to_pylist()}
    found = {}
    for clip, row in rows.items():
        end = known[clip]
        verdict, reason = ("b", "reason_b") if end["moved"] == "left" else ("a", "reason_a")
        found[clip] = {
            "corpus": redacted(side.corpus.uri),
            "uri": redacted(row["source.uri"] or ""),
            "start_s": row["clip.start_s"],
            "end_s": row["clip.end_s"],
            "verdict": end[verdict] or "absent",
            "reason": end[reason],
            "caption": cut(row[captions[0]] or "") if captions else "",
        }
    return found
