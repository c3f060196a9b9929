"""Gates and conditions as SQL over the table of one run's clips.

Every clip meets a judge in one of five states: it passes, it fails, the cell *failed*, the cell was *skipped* (a gate
above does not pass, which is that gate's own verdict), or the cell is *missing*, which no selection accepts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import duckdb

from curate.errors import ConfigError, CorpusError
from curate.query import ColumnRef, RunGate, RunTables, identifier, literal
from curate.select.config import Condition
from curate.select.funnel import Threshold
from curate.units import exact

Kind = Literal["number", "text", "truth", "list", "numbers", "unknown", "other"]
"""What a column holds; ``numbers`` are lists of them, ``list`` is one of anything else."""

_NUMERIC = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "FLOAT", "DOUBLE", "DECIMAL")
_LISTS = ("list", "numbers")
_MASKS = ((8, "UTINYINT"), (16, "USMALLINT"), (32, "UINTEGER"), (64, "UBIGINT"))
_LIST_SQL = {"mean": "avg", "min": "min", "max": "max"}


@dataclass(frozen=True, slots=True)
class Judge:
    """``passes``, ``above`` and ``outcome`` are SQL; ``above`` is true where the gates above let the clip through."""

    name: str
    text: str
    kind: Literal["gate", "condition"]
    column: ColumnRef
    passes: str
    above: str
    outcome: str
    on_failed: Literal["failed", "drop", "keep"] = "failed"

    @property
    def failed_text(self) -> str:
        """The reason of a clip whose cell failed."""
        stage = self.column.stage.name if self.column.stage else self.column.name
        return f"{self.name}: {stage} could not be measured"

    @property
    def is_missing(self) -> str:
        """SQL: no cell, and no gate explains it."""
        return f"({self.above} AND {self.outcome} IS NULL)"

    @property
    def is_fail(self) -> str:
        """SQL: measured and not fulfilled."""
        return f"({self.above} AND {self.outcome} = 'ok' AND NOT {self.passes})"

    @property
    def is_error(self) -> str:
        """SQL: the cell failed and that counts."""
        return "FALSE" if self.on_failed == "keep" else f"({self.above} AND {self.outcome} = 'failed')"


def bits_sql(judges: Sequence[Judge]) -> tuple[str, str]:
    """SQL of the two columns that tell clips apart: bit i of ``fails`` and of ``errors`` belongs to judge i."""
    kind = next(name for bits, name in _MASKS if len(judges) <= bits)
    fails = " | ".join(f"if({judge.is_fail}, {1 << i}::UBIGINT, 0)" for i, judge in enumerate(judges)) or "0"
    errors = " | ".join(f"if({judge.is_error}, {1 << i}::UBIGINT, 0)" for i, judge in enumerate(judges)) or "0"
    return f"({fails})::{kind}", f"({errors})::{kind}"


def axis_bits(judges: Sequence[Judge]) -> dict[str, int]:
    """The conditions by column, as bits: those on one column are one axis."""
    axes: dict[str, int] = {}
    for i, judge in enumerate(judges):
        if judge.kind == "condition":
            axes[judge.column.name] = axes.get(judge.column.name, 0) | 1 << i
    return axes


def needed_columns(tables: RunTables, names: Sequence[str]) -> list[str]:
    """These columns, those of the gates, and the outcomes of the cells they come from."""
    wanted = [*(gate.column for gate in tables.gates), *names]
    refs = [tables.column(name) for name in wanted]
    return list(dict.fromkeys([*wanted, *(_outcome_column(ref) for ref in refs if ref.stage)]))


def gate_judges(tables: RunTables) -> list[Judge]:
    """The gates of the run as judges: what they shut out is dropped in their name."""
    return [
        _judge(tables, gate.column, _gate_text(gate), gate.sql, "gate", f"gate {gate.column}") for gate in tables.gates
    ]


def condition_judge(tables: RunTables, table: str, condition: Condition, threshold: Threshold | None) -> Judge:
    """A condition as a judge over the loaded table; ConfigError where it does not suit the column's type."""
    ref = tables.column(condition.column)
    kind = column_kind(tables.con, table, ref)
    if threshold is None:
        passes, text = condition_sql(condition, kind), _condition_text(condition)
    else:
        passes, text = _threshold_sql(condition, kind, threshold), _threshold_text(condition, threshold)
    label = condition.label
    text = text if label == condition.column else f"{label} ({text})"
    judge = _judge(tables, condition.column, text, passes, "condition", label)
    return replace(judge, on_failed=condition.on_failed)


def _judge(
    tables: RunTables,
    column: str,
    text: str,
    passes: str,
    kind: Literal["gate", "condition"],
    name: str,
) -> Judge:
    ref = tables.column(column)
    above = " AND ".join(gate.sql for gate in tables.gates_above(ref)) or "TRUE"
    outcome = identifier(_outcome_column(ref)) if ref.stage else "'ok'"
    return Judge(name, text, kind, ref, passes, f"({above})", outcome)


def _outcome_column(ref: ColumnRef) -> str:
    assert ref.stage is not None
    return f"{ref.stage.name}.outcome"


def percentile(tables: RunTables, table: str, condition: Condition) -> Threshold:
    """The absolute threshold of a percentile condition over the loaded table of all clips of the run."""
    ref = tables.column(condition.column)
    gates = tables.gates_above(ref)
    if gates and condition.population == "all":
        raise ConfigError(
            f"a percentile of {condition.column!r} would see only what the gate on {gates[-1].column!r} lets through",
            subject=condition.label,
            fix="Say `population: after_gate` if that is meant, or use an absolute threshold",
        )
    measured = f"{identifier(_outcome_column(ref))} = 'ok'" if ref.stage else "TRUE"
    where = " AND ".join([measured, *(gate.sql for gate in gates)])
    value = number_sql(condition, column_kind(tables.con, table, ref))
    population = f"SELECT {value} AS v FROM {table} WHERE {where} AND {value} IS NOT NULL"
    return _nearest_rank(tables.con, population, condition)


def _nearest_rank(con: duckdb.DuckDBPyConnection, population: str, condition: Condition) -> Threshold:
    ((n,),) = con.execute(f"SELECT count(*) FROM ({population})").fetchall()
    assert condition.share is not None
    dropped = math.floor(exact(condition.share) * n)
    lowest = condition.drop_lowest is not None
    offset = dropped if lowest else n - 1 - dropped
    found = con.execute(f"SELECT v FROM ({population}) ORDER BY v LIMIT 1 OFFSET {offset}").fetchall() if n else []
    kind = "drop_lowest" if lowest else "drop_highest"
    value = found[0][0] if found else None
    return Threshold(
        condition.label, condition.column, kind, condition.share, n, value, aggregate=condition.aggregate or ""
    )


def column_kind(con: duckdb.DuckDBPyConnection, table: str, ref: ColumnRef) -> Kind:
    """What a loaded column holds."""
    rows = con.execute(f"DESCRIBE SELECT {identifier(ref.name)} FROM {table}").fetchall()
    return kind_of(str(rows[0][1]))


def kind_of(dtype: str) -> Kind:
    """What a column of this type of DuckDB holds."""
    dtype = dtype.strip('"')
    numeric = dtype.removeprefix("U").startswith(_NUMERIC)
    if dtype.endswith("]"):
        return "numbers" if numeric and dtype.count("[") == 1 else "list"
    names: Mapping[str, Kind] = {"VARCHAR": "text", "BOOLEAN": "truth", "NULL": "unknown"}
    return names.get(dtype, "number" if numeric else "other")


def condition_sql(condition: Condition, kind: Kind) -> str:
    """Boolean SQL, never null, of an absolute condition on a column; ConfigError where it does not suit its kind."""
    if condition.min is not None or condition.max is not None:
        number = number_sql(condition, kind)
        low = [f"{number} >= {literal(condition.min)}"] if condition.min is not None else []
        high = [f"{number} <= {literal(condition.max)}"] if condition.max is not None else []
        return f"coalesce({' AND '.join([*low, *high])}, FALSE)"
    if condition.not_in is not None:
        return f"NOT coalesce({_member(condition, condition.not_in, kind)}, FALSE)"
    values = condition.one_of if condition.one_of is not None else (condition.equals,)
    return f"coalesce({_member(condition, values, kind)}, FALSE)"


def _member(condition: Condition, values: Sequence[Any], kind: Kind) -> str:
    column = identifier(condition.column)
    text = kind in {"text", *_LISTS}
    fits = {
        "number": all(isinstance(v, int | float) and not isinstance(v, bool) for v in values),
        "truth": all(isinstance(v, bool) for v in values),
        "other": False,
    }
    if not fits.get(kind, True):
        what = {"number": "numbers", "truth": "true or false"}.get(kind, "values that cannot be compared")
        raise ConfigError(f"the column holds {what}, not {list(values)!r}", subject=condition.column)
    listed = ", ".join(literal(_as_text(v) if text else v) for v in values)
    return f"list_has_any({column}::VARCHAR[], [{listed}])" if kind in _LISTS else f"{column} IN ({listed})"


def _as_text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def number_sql(condition: Condition, kind: Kind) -> str:
    """SQL of the number that a range or percentile judges; ConfigError where the column does not give one."""
    column, aggregate = identifier(condition.column), condition.aggregate
    what = "a percentile" if condition.share is not None else "min and max"
    needs = f"{what} need{'s' if condition.share is not None else ''}"
    if kind == "unknown":
        return "NULL::DOUBLE"
    if kind == "numbers" and not aggregate:
        raise ConfigError(
            f"{needs} one number, the column holds lists of them",
            subject=condition.column,
            fix="Say which: aggregate: mean, min, max, first, middle or last",
        )
    if aggregate and kind != "numbers":
        holds = {"number": "one number", "list": "lists of something else"}.get(kind, "no lists")
        raise ConfigError(f"aggregate needs lists of numbers, the column holds {holds}", subject=condition.column)
    if aggregate:
        place = {"first": "1", "middle": f"(len({column}) + 1) // 2", "last": f"len({column})"}.get(aggregate)
        return f"{column}[{place}]::DOUBLE" if place else f"list_{_LIST_SQL[aggregate]}({column}::DOUBLE[])"
    if kind != "number" and not condition.column.startswith("user."):
        raise ConfigError(f"{needs} a column of numbers", subject=condition.column)
    return f"TRY_CAST({column} AS DOUBLE)"


def _threshold_sql(condition: Condition, kind: Kind, threshold: Threshold) -> str:
    if threshold.value is None:
        return "TRUE"
    comparison = ">=" if condition.drop_lowest is not None else "<="
    return f"coalesce({number_sql(condition, kind)} {comparison} {literal(float(threshold.value))}, FALSE)"


def threshold_like(condition: Condition, earlier: Sequence[Threshold], name: str) -> Threshold:
    """The threshold that an earlier selection came to for this condition; ConfigError when it had none. Without a name
    thresholds are given, and one without a value lets all pass, as it does where it was made."""
    kind = "drop_lowest" if condition.drop_lowest is not None else "drop_highest"
    for threshold in earlier:
        asked = (condition.label, condition.column, condition.aggregate or "", kind)
        same = (threshold.condition, threshold.column, threshold.aggregate, threshold.kind) == asked
        if same and (threshold.value is not None or not name):
            return replace(threshold, like=name)
    raise ConfigError(f"selection {name!r} has no threshold for this condition ({kind})", subject=condition.label)


def check_missing(tables: RunTables, table: str, judges: Sequence[Judge]) -> None:
    """CorpusError naming the stages whose cells are neither there nor explained by a gate."""
    if not judges:
        return
    counts = ", ".join(f"count(*) FILTER (WHERE {judge.is_missing})" for judge in judges)
    (found,) = tables.con.execute(f"SELECT {counts} FROM {table}").fetchall()
    missing = {judge.column.stage.name: n for judge, n in zip(judges, found, strict=True) if n and judge.column.stage}
    if missing:
        raise missing_cells(tables, missing)


def missing_cells(tables: RunTables, missing: Mapping[str, int]) -> CorpusError:
    """The refusal that says which stages to run."""
    listed = ", ".join(f"{n} clips have no cell of {stage!r}" for stage, n in sorted(missing.items()))
    only = " ".join(f"--stages {stage}" for stage in sorted(missing))
    return CorpusError(
        f"run {tables.run_id} is not computed to its end: {listed}",
        subject=tables.corpus.uri,
        fix=f"Run the same `curate run` again, or only `curate run ... {only}`, then select again",
    )


def _gate_text(gate: RunGate) -> str:
    ranged = gate.min is not None or gate.max is not None
    texts = [_range_text(gate.column, gate.min, gate.max)] if ranged else []
    texts += [f"{gate.column} is not one of {_names(gate.one_of)}"] if gate.one_of else []
    texts += [f"{gate.column} is one of {_names(gate.none_of)}"] if gate.none_of else []
    return f"gate: {' or '.join(texts)}"


def _condition_text(condition: Condition) -> str:
    if condition.one_of is not None:
        return f"{condition.column} is not one of {_names(condition.one_of)}"
    if condition.not_in is not None:
        return f"{condition.column} is one of {_names(condition.not_in)}"
    if condition.equals is not None:
        return f"{condition.column} is not {condition.equals}"
    return _range_text(condition.measure, condition.min, condition.max)


def _range_text(column: str, low: float | None, high: float | None) -> str:
    if low is not None and high is not None:
        return f"{column} outside {low:g} to {high:g}"
    return f"{column} below {low:g}" if low is not None else f"{column} above {high:g}"


def _threshold_text(condition: Condition, threshold: Threshold) -> str:
    end, side = ("lowest", "below") if condition.drop_lowest is not None else ("highest", "above")
    limit = f"{side} {threshold.value:.6g}" if threshold.value is not None else "nothing measured"
    whose = f" of selection {threshold.like}" if threshold.like else ""
    return f"{condition.measure} in the {end} {float(exact(threshold.share) * 100):g} %{whose} ({limit})"


def _names(values: Sequence[Any]) -> str:
    return ", ".join(str(value) for value in values)
