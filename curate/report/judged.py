"""Every clip of a run as a selection judged it: one table for all that a report counts.

Table ``judged``: ``clip``, ``source`` (UUID), ``seconds``, ``forgotten`` (taken down by now), ``fails`` and ``errors``
(bit i belongs to judge i), ``code`` (into `Judged.verdicts`), ``bucket``, ``keeper``, the columns of `FACTS` and, for
condition i with a number, ``v<i>`` (the number, null where there is none) and ``f<i>`` (its cell failed).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb

from curate.config import parse_config
from curate.errors import CorpusError
from curate.query import RunTables, identifier, run_query
from curate.query.parts import file_sql, id_sql
from curate.select import Condition, Funnel, SelectConfig
from curate.select.inputs import FORGOTTEN, forgotten_sql
from curate.select.judge import (
    Judge,
    bits_sql,
    check_missing,
    column_kind,
    condition_judge,
    gate_judges,
    needed_columns,
    number_sql,
)
from curate.units import HOUR_S

FACTS = {
    "width_px": "source.width_px",
    "height_px": "source.height_px",
    "rate_fps": "source.rate_fps",
    "n_frames": "clip.n_frames",
    "camera": "motion.camera",
}
"""Columns of the table that distributions and buckets are counted over, where the run has them."""


@dataclass(frozen=True, slots=True)
class Group:
    """All clips that fail the same judges and ended the same way."""

    forgotten: bool
    fails: int
    errors: int
    verdict: str
    reason: str
    n: int
    hours: float


@dataclass(frozen=True, slots=True)
class Judged:
    """The table's meaning. ``limits`` is the absolute limit of each percentile condition, by its place."""

    tables: RunTables
    funnel: Funnel
    config: SelectConfig
    judges: list[Judge]
    limits: dict[int, float | None]
    groups: list[Group]
    facts: tuple[str, ...]

    @property
    def con(self) -> duckdb.DuckDBPyConnection:
        """The connection that holds the table."""
        return self.tables.con

    @property
    def n_gates(self) -> int:
        """The first so many judges are gates; condition i is judge ``n_gates + i``."""
        return len(self.judges) - len(self.config.conditions)

    @property
    def conditions(self) -> list[dict[str, Any]]:
        """The conditions as they can be asked for again: a percentile that another selection came to, as its limit."""
        asked = [dict(entry) for entry in self.funnel.config.get("conditions", [])]
        for i, limit in self.limits.items() if self.funnel.like else ():
            if limit is not None:
                lowest = asked[i].pop("drop_lowest", None) is not None
                asked[i].pop("drop_highest", None)
                asked[i]["min" if lowest else "max"] = limit
        return asked

    def standing_sql(self, conditions: Sequence[int] = ()) -> str:
        """SQL: not taken down, and through all gates and these conditions."""
        judges = [*range(self.n_gates), *(self.n_gates + i for i in conditions)]
        return f"(NOT forgotten AND {self.passes_sql(judges)})"

    def passes_sql(self, judges: Iterable[int]) -> str:
        """SQL: passes these judges."""
        bits = sum(1 << i for i in judges)
        return f"((fails | errors)::UBIGINT & {bits}::UBIGINT) = 0"


KEPT = "(verdict = 'kept')"


def judge_clips(tables: RunTables, funnel: Funnel) -> Judged:
    """Make the table for a selection. CorpusError where the selection does not belong to the run's clips any more."""
    config = parse_config(SelectConfig, funnel.config, f"selection {funnel.name}")
    facts = tuple(name for name, column in FACTS.items() if _has(tables, column))
    columns = needed_columns(tables, [condition.column for condition in config.conditions])
    tables.load("work", list(dict.fromkeys(["clip.duration_s", *(FACTS[name] for name in facts), *columns])))
    limits = {
        i: _limit(condition, funnel) for i, condition in enumerate(config.conditions) if condition.share is not None
    }
    judges = gate_judges(tables)
    for condition in config.conditions:
        threshold = next((t for t in funnel.thresholds if t.condition == condition.label), None)
        judges.append(condition_judge(tables, "work", condition, threshold if condition.share is not None else None))
    check_missing(tables, "work", judges)
    _join_selection(tables, funnel, _values(tables, config.conditions, judges), bits_sql(judges), facts)
    return Judged(tables, funnel, config, judges, limits, _groups(tables.con), facts)


def _has(tables: RunTables, column: str) -> bool:
    return column in tables.column_names()


def _limit(condition: Condition, funnel: Funnel) -> float | None:
    found = next((t.value for t in funnel.thresholds if t.condition == condition.label), None)
    return None if found is None or not math.isfinite(found) else float(found)


def is_number(condition: Condition) -> bool:
    """Whether the condition compares a number with a limit."""
    return condition.min is not None or condition.max is not None or condition.share is not None


def _values(tables: RunTables, conditions: Sequence[Condition], judges: Sequence[Judge]) -> list[str]:
    own = judges[len(judges) - len(conditions) :]
    listed = []
    for i, (condition, judge) in enumerate(zip(conditions, own, strict=True)):
        if is_number(condition):
            kind = column_kind(tables.con, "work", judge.column)
            listed += [f"({number_sql(condition, kind)})::DOUBLE AS v{i}", f"({judge.outcome} = 'failed') AS f{i}"]
    return listed


def _join_selection(
    tables: RunTables, funnel: Funnel, values: Sequence[str], bits: tuple[str, str], facts: Sequence[str]
) -> None:
    con = tables.con
    place = tables.corpus.selections().child(funnel.name, "selection.parquet")
    chosen = f"""SELECT {id_sql("clip_id")} AS clip, verdict, coalesce(reason, '') AS reason, bucket,
        {id_sql("duplicate_of")} AS keeper FROM ({file_sql(con, place)})"""
    run_query(
        con,
        lambda: (
            f"""CREATE OR REPLACE TEMP TABLE endings AS SELECT verdict, reason,
        (row_number() OVER (ORDER BY verdict, reason))::INTEGER AS code
        FROM (SELECT DISTINCT verdict, reason FROM ({chosen}))"""
        ),
    )
    shape = [f"{identifier(FACTS[name])} AS {name}" for name in facts]
    listed = ", ".join(["w.clip", "w.source", '"clip.duration_s" AS seconds', *shape, *values])
    run_query(
        con,
        lambda: (
            f"""CREATE OR REPLACE TEMP TABLE judged AS SELECT {listed},
        w.source IN ({forgotten_sql(tables)}) AS forgotten, {bits[0]} AS fails, {bits[1]} AS errors,
        e.code, s.bucket, s.keeper
        FROM work w JOIN ({chosen}) s ON s.clip = w.clip JOIN endings e USING (verdict, reason)"""
        ),
    )
    ((n, joined),) = con.execute("SELECT (SELECT count(*) FROM work), (SELECT count(*) FROM judged)").fetchall()
    con.execute("DROP TABLE work")
    if joined != n:
        raise CorpusError(
            f"{n - joined} clips of run {tables.run_id} are not in selection {funnel.name!r}",
            subject=tables.corpus.uri,
            fix="Run `curate select` again",
        )
    con.execute(
        f"""CREATE OR REPLACE TEMP VIEW ended AS SELECT j.*,
        if(forgotten, 'dropped', e.verdict) AS verdict, if(forgotten, '{FORGOTTEN}', e.reason) AS reason
        FROM judged j JOIN endings e USING (code)"""
    )


def _groups(con: duckdb.DuckDBPyConnection) -> list[Group]:
    rows = con.execute(
        f"""SELECT g.forgotten, g.fails, g.errors, if(g.forgotten, 'dropped', e.verdict),
        if(g.forgotten, '{FORGOTTEN}', e.reason), g.n, g.hours
        FROM (SELECT forgotten, fails, errors, code, count(*) AS n, sum(seconds) / {HOUR_S} AS hours
        FROM judged GROUP BY ALL) g JOIN endings e USING (code) ORDER BY ALL"""
    ).fetchall()
    return [Group(*row) for row in rows]


def rows_of(con: duckdb.DuckDBPyConnection, sql: str) -> list[dict[str, Any]]:
    """Rows of a small answer."""
    return con.sql(sql).to_arrow_table().to_pylist()
