"""How the scores of two runs differ: clip by clip where both have the clip, and as distributions in any case."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from curate.query import RunTables, described, identifier, literal
from curate.select.judge import Kind, kind_of

SHARES = {"p5": 0.05, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p95": 0.95}
_NUMBERS = ("number", "numbers")
_MOST_MOVES = 12
_MOST_VALUES = 1000
"""Columns with more different values are texts, not categories."""


@dataclass(frozen=True, slots=True)
class SharedColumn:
    """A column that both runs have. ``same``: both read the same cells, so no clip's value can differ."""

    name: str
    stage: str
    column: str
    kind: Kind
    unit: str
    same: bool


def shared_columns(a: RunTables, b: RunTables) -> list[SharedColumn]:
    """The columns of clip stages that both runs have, of one kind, in the order of the first."""
    units, kinds = described(a), [_kinds(a), _kinds(b)]
    found = []
    for stage in a.stages:
        other = next((each for each in b.stages if each.name == stage.name and each.kind == "clip"), None)
        if stage.kind != "clip" or other is None:
            continue
        same = a.corpus.uri == b.corpus.uri and stage.fingerprint == other.fingerprint
        for column in stage.columns:
            name = f"{stage.name}.{column}"
            if kinds[0][name] == kinds[1].get(name):
                found.append(SharedColumn(name, stage.name, column, kinds[0][name], units[name].unit, same))
    return found


def _kinds(tables: RunTables) -> dict[str, Kind]:
    names = [f"{s.name}.{column}" for s in tables.stages if s.kind == "clip" for column in s.columns]
    rows = tables.con.execute(f"DESCRIBE {tables.wide_sql(names)}").fetchall()
    return {str(row[0]): _kind(str(row[1])) for row in rows}


def _kind(dtype: str) -> Kind:
    """Embeddings (lists of small floats) and hashes (unsigned) are no scores."""
    return "other" if dtype in {"FLOAT[]", "UBIGINT"} else kind_of(dtype)


def number_shifts(
    a: RunTables, b: RunTables, columns: Sequence[SharedColumn], kept: Sequence[str]
) -> list[dict[str, Any]]:
    """One entry a column of numbers (lists by their mean): how the values of kept clips are spread on either side, and,
    unless both read the same cells, how many of the clips that both runs measured changed and by how much (b - a).

    ``kept`` is SQL of the kept clips of either side.
    """
    found = []
    for column in _loaded(a, b, [column for column in columns if column.kind in _NUMBERS]):
        is_mean = column.kind == "numbers"
        value = f"list_avg({identifier(column.name)})" if is_mean else identifier(column.name)
        sides = [f"SELECT clip, v FROM (SELECT clip, {value}::DOUBLE AS v FROM {t}) WHERE isfinite(v)" for t in _TABLES]
        own = [
            _distribution(a, f"SELECT v FROM ({side}) WHERE clip IN ({chosen})")
            for side, chosen in zip(sides, kept, strict=True)
        ]
        entry: dict[str, Any] = {"column": column.name, "stage": column.stage, "unit": column.unit, "same": column.same}
        entry |= {"mean_of_list": is_mean, "changed": 0, "shift": None, "a": own[0], "b": own[1]}
        if not column.same:
            pairs = f"SELECT y.v - x.v AS v FROM ({sides[0]}) x JOIN ({sides[1]}) y USING (clip)"
            ((entry["changed"],),) = a.con.execute(f"SELECT count(*) FROM ({pairs}) WHERE v <> 0").fetchall()
            entry["shift"] = _distribution(a, pairs)
        found += [entry] if own[0]["n"] or own[1]["n"] else []
    return found


def category_shifts(a: RunTables, b: RunTables, columns: Sequence[SharedColumn]) -> list[dict[str, Any]]:
    """One entry a column of names: how many clips have another one, and which for which, the most frequent first."""
    found = []
    for column in _loaded(a, b, [c for c in columns if c.kind in {"text", "truth"} and not c.same]):
        name = identifier(column.name)
        pairs = f"""SELECT x.{name}::VARCHAR AS a, y.{name}::VARCHAR AS b FROM {_TABLES[0]} x JOIN {_TABLES[1]} y
            USING (clip) WHERE x.{name} IS NOT NULL AND y.{name} IS NOT NULL"""
        ((n, changed, values),) = a.con.execute(
            f"SELECT count(*), count(*) FILTER (a <> b), approx_count_distinct(a) FROM ({pairs})"
        ).fetchall()
        entry = {"column": column.name, "stage": column.stage, "n": n, "changed": changed, "moves": []}
        if values <= _MOST_VALUES:
            sql = f"""SELECT a, b, count(*) AS n FROM ({pairs}) WHERE a <> b GROUP BY ALL
                ORDER BY n DESC, a, b LIMIT {_MOST_MOVES}"""
            entry["moves"] = [list(row) for row in a.con.execute(sql).fetchall()]
        found += [entry] if n else []
    return found


_TABLES = ("values_a", "values_b")


def _loaded(a: RunTables, b: RunTables, columns: Sequence[SharedColumn]) -> Iterator[SharedColumn]:
    """The columns one after the other; those of one stage lie in the tables `_TABLES` meanwhile."""
    one_run = (a.corpus.uri, a.run_id) == (b.corpus.uri, b.run_id)
    for stage in dict.fromkeys(column.stage for column in columns):
        own = [column for column in columns if column.stage == stage]
        names = [column.name for column in own]
        a.load(_TABLES[0], names)
        if one_run:
            a.con.execute(f"CREATE TEMP VIEW {_TABLES[1]} AS FROM {_TABLES[0]}")
        else:
            b.load(_TABLES[1], names)
        yield from own
        a.con.execute(f"DROP {'VIEW' if one_run else 'TABLE'} {_TABLES[1]}")
        a.con.execute(f"DROP TABLE {_TABLES[0]}")


def _distribution(tables: RunTables, values: str) -> dict[str, Any]:
    """n, mean, least, largest and nearest-rank percentiles of ``values``, SQL of a column ``v``."""
    shares = ", ".join(literal(share) for share in SHARES.values())
    sql = f"SELECT count(*), avg(v), min(v), max(v), quantile_disc(v, [{shares}]) FROM ({values}) WHERE isfinite(v)"
    ((n, mean, low, high, ranks),) = tables.con.execute(sql).fetchall()
    found = {"n": n, "mean": mean, "min": low, "max": high, **dict(zip(SHARES, ranks or [None] * 5, strict=True))}
    return {key: None if isinstance(x, float) and not math.isfinite(x) else x for key, x in found.items()}
