"""Sliders: what limits a condition could have instead, and how many clips each of them would leave.

An axis is one limit of one condition, or one that a score could have which no condition names
(`curate.report.scores`). Its *stops* are values that occur in the column (nearest-rank quantiles) and the limit that
the selection had, if any. A clip's *coordinate* is the number of stops it passes; a slider that asks for more than
``position`` of them keeps exactly the clips of a greater coordinate. Stops ascend: ``position`` i stands for stop i of
a ``min`` and for the i-th stop from above of a ``max``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from curate.datafiles import put_value
from curate.errors import ConfigError
from curate.query import literal
from curate.report.judged import Judged, is_number
from curate.select import Condition
from curate.stats import NumberStats, ranked_stats
from curate.units import HOUR_S

MOST_STOPS = 32
FEWEST_STOPS = 16
"""Stops of an axis: so many where the joint counts stay small, and at least so many where the column has them."""

BINS = 64
_SHARES = (
    *(0.0, 1.0, 0.5, 0.25, 0.75, 0.125, 0.375, 0.625, 0.875, 0.005, 0.995, 0.02, 0.98, 0.05, 0.95),
    *(0.0625, 0.1875, 0.3125, 0.4375, 0.5625, 0.6875, 0.8125, 0.9375),
    *(0.01, 0.99, 0.001, 0.999, 0.03, 0.97, 0.1, 0.9),
)
"""Quantiles in the order in which they are wanted as stops. With the limit, 16, 24 or 32 of them are spread evenly, and
more closely at both ends, where most limits lie."""

_FINER = 256
"""Steps of the grid that is taken besides where ties leave too few."""


@dataclass(frozen=True, slots=True)
class Axis:
    """One limit of one condition. ``condition`` is its place in the selection; ``limit`` what the selection asked.

    ``ranked`` are the stops, those first that matter most; ``stats`` those of the finite values of clips that stand.
    ``table`` is SQL of the clips that stand, with columns ``v<condition>`` and ``f<condition>``. Without ``limit``
    nothing was asked, and the slider is off.
    """

    condition: int
    rule: Condition
    side: Literal["min", "max"]
    limit: float | None
    table: str
    ranked: tuple[float, ...] = ()
    stats: NumberStats | None = field(default=None, compare=False)

    def stops(self, most: int) -> list[float]:
        """The stops, ascending."""
        return sorted(self.ranked[:most])

    def passes(self, limit: float) -> str:
        """SQL over the table: the number passes this limit, as the selection compares it; null without a number."""
        return f"(v{self.condition} {'>=' if self.side == 'min' else '<='} {literal(limit)})"

    def coordinate(self, stops: Sequence[float]) -> str:
        """SQL over the table of the number of stops that a clip passes; a failed cell passes all where it is kept."""
        failed = len(stops) if self.rule.on_failed == "keep" else 0
        tests = [self.passes(stop) for stop in (stops if self.side == "min" else stops[::-1])]
        return f"(CASE WHEN f{self.condition} THEN {failed} ELSE {_search(tests, 0, len(tests))} END)::UTINYINT"

    def rank(self, stops: Sequence[float]) -> str:
        """SQL over the table of twice the number of stops below the number, one more where it is the next stop."""
        tests = [f"v{self.condition} {sign} {literal(stop)}" for stop in stops for sign in (">=", ">")]
        return f"({_search(tests, 0, len(tests))})::UTINYINT"

    @property
    def never(self) -> str:
        """SQL over the table: no position of the slider keeps such a clip, only turning it off does."""
        missing = f"v{self.condition} IS NULL"
        failed = f"f{self.condition}"
        return f"({missing} AND NOT {failed})" if self.rule.on_failed == "keep" else f"({missing} OR {failed})"

    def position(self, stops: Sequence[float], stop: float | None) -> int:
        """Where the slider stands for this stop (None: off): coordinates above it are kept."""
        if stop is None:
            return -1
        index = stops.index(stop)
        return index if self.side == "min" else len(stops) - 1 - index

    def coarser(self, fine: Sequence[float], coarse: Sequence[float]) -> list[int]:
        """For each coordinate on the fine stops the one on the coarse stops, which are among them."""
        asked = fine if self.side == "min" else fine[::-1]
        counts = [0]
        for stop in asked:
            counts.append(counts[-1] + (stop in coarse))
        return counts


def _search(tests: Sequence[str], low: int, high: int) -> str:
    """SQL that finds by halves how many tests are passed, from ``low`` to ``high``; who passes one passes those before
    it. Without a number none is passed."""
    if low == high:
        return str(low)
    middle = (low + high) // 2
    return f"CASE WHEN {tests[middle]} THEN {_search(tests, middle + 1, high)} ELSE {_search(tests, low, middle)} END"


def find_axes(judged: Judged) -> list[Axis]:
    """An axis for every limit of the selection that is a number, with its stops."""
    found = [axis for i, rule in enumerate(judged.config.conditions) for axis in _limits(judged, i, rule)]
    return [with_stops(judged, axis) for axis in found]


def _limits(judged: Judged, i: int, rule: Condition) -> list[Axis]:
    if not is_number(rule):
        return []
    table = f"(SELECT * FROM judged WHERE {judged.standing_sql()})"
    if rule.share is not None:
        limit = judged.limits[i]
        side = "min" if rule.drop_lowest is not None else "max"
        return [] if limit is None else [Axis(i, rule, side, limit, table)]
    low = [Axis(i, rule, "min", float(rule.min), table)] if rule.min is not None else []
    high = [Axis(i, rule, "max", float(rule.max), table)] if rule.max is not None else []
    return [*low, *high]


def fixed_conditions(judged: Judged, axes: Sequence[Axis]) -> list[int]:
    """Places of the conditions without a slider."""
    return sorted(set(range(len(judged.config.conditions))) - {axis.condition for axis in axes})


def with_stops(judged: Judged, axis: Axis) -> Axis:
    """The axis with stops and statistics of its values; without any value the limit is the only stop."""
    values = f"SELECT v{axis.condition} AS v FROM {axis.table} WHERE NOT f{axis.condition}"
    limit = [] if axis.limit is None else [axis.limit]
    found = ranked_stats(judged.con, values, ("", axis.rule.measure), 0, bins=BINS, shares=_SHARES)
    if found is None:
        return replace(axis, ranked=tuple(limit))
    stats, quantiles = found
    finite = f"SELECT v FROM ({values}) WHERE isfinite(v)"
    return replace(axis, ranked=tuple(_ranked(judged, finite, [*limit, *quantiles])), stats=stats)


def _ranked(judged: Judged, values: str, wanted: Sequence[float]) -> list[float]:
    """Stops in the order in which they are wanted: the limit, both ends, then ever finer quantiles.

    Where ties make fewer stops of these, quantiles on a finer grid follow; where they leave fewer than the fewest, the
    values themselves are ranked, each once.
    """
    stops = list(dict.fromkeys(wanted))
    if len(stops) < FEWEST_STOPS:
        values = f"SELECT DISTINCT v FROM ({values})"
    if len(stops) < len(_SHARES):
        stops += _quantiles(judged, values)
    return list(dict.fromkeys(stops))[:MOST_STOPS]


def _quantiles(judged: Judged, values: str) -> list[float]:
    """Nearest-rank quantiles, those first that are wanted most; with few values all of them. There must be one."""
    shares = list(dict.fromkeys([*_SHARES, *(k / _FINER for k in range(_FINER))]))
    ((found,),) = judged.con.execute(f"SELECT quantile_disc(v, ?) FROM ({values})", [shares]).fetchall()
    return found


def axis_facts(judged: Judged, axis: Axis, stops: Sequence[float], *, unit: str, frozen: bool) -> dict[str, Any]:
    """The axis as the page reads it, but for the clips that are shown with it."""
    rule, counts = axis.rule, Counts(len(stops) + 1, count_by(judged, axis, axis.coordinate(stops)))
    keys = keys_of(judged.config.conditions, axis.condition, axis.side)
    share = None if rule.share is None or judged.funnel.like else {"kind": _kind(rule), "share": rule.share}
    return {
        **values_facts(axis, stops, unit=unit),
        "label": _label(rule, axis.side),
        "condition": axis.condition,
        "side": axis.side,
        "start": -1 if axis.limit is None else stops.index(axis.limit),
        "start_position": axis.position(stops, axis.limit),
        "percentile": share,
        "set_key": keys[0],
        "clear_key": keys[1] if share else "",
        "frozen": frozen,
        **counts.never,
        **counts.by_coordinate(0, "alone"),
    }


def values_facts(axis: Axis, stops: Sequence[float], *, unit: str) -> dict[str, Any]:
    """What is compared, and its values: whichever limit there is, and on whichever side."""
    rule, stats = axis.rule, axis.stats
    return {
        "column": rule.column,
        "measure": rule.measure,
        "aggregate": rule.aggregate or "",
        "unit": unit,
        "on_failed": rule.on_failed,
        "stops": list(stops),
        "edges": stats.edges if stats else [],
        "counts": stats.counts if stats else [],
        "min": stats.min if stats else None,
        "max": stats.max if stats else None,
        "median": stats.percentiles["p50"] if stats else None,
        "n": stats.n if stats else 0,
    }


@dataclass(frozen=True, slots=True)
class Counts:
    """Clips that stand by their coordinates on axes over one number: rows of (coordinate on each axis, among ``also``,
    without a value, clips, hours). ``size`` coordinates an axis has."""

    size: int
    rows: list[tuple[Any, ...]]

    @property
    def never(self) -> dict[str, Any]:
        """Those that no stop keeps, for they have no value."""
        never = [row for row in self.rows if row[-3]]
        return {"never_n": sum(row[-2] for row in never), "never_hours": sum(row[-1] for row in never)}

    def by_coordinate(self, axis: int, name: str, *, also: bool = False) -> dict[str, Any]:
        """``<name>_n`` and ``<name>_hours`` by coordinate on this axis, of all or of those among ``also`` alone."""
        n, hours = [0] * self.size, [0.0] * self.size
        for row in self.rows:
            if row[-4] or not also:
                n[row[axis]] += row[-2]
                hours[row[axis]] += row[-1]
        return {f"{name}_n": n, f"{name}_hours": hours}


def count_by(judged: Judged, axis: Axis, place: str, also: str = "FALSE") -> list[tuple[Any, ...]]:
    """Rows of (place, also, without a value, clips, hours) over the axis's table; ``place`` and ``also`` are SQL."""
    return judged.con.execute(
        f"""SELECT {place} AS place, {also} AS also, {axis.never} AS never, count(*), sum(seconds) / {HOUR_S}
        FROM {axis.table} GROUP BY ALL"""
    ).fetchall()


def _label(rule: Condition, side: str) -> str:
    both = rule.min is not None and rule.max is not None
    return f"{rule.label} ({'at least' if side == 'min' else 'at most'})" if both else rule.label


def _kind(rule: Condition) -> str:
    return "drop_lowest" if rule.drop_lowest is not None else "drop_highest"


def keys_of(conditions: Sequence[Condition], index: int, side: str) -> tuple[str, str]:
    """What ``curate select --set`` calls the limit, and what must be null for it to hold (a percentile), or nothing."""
    rule = conditions[index]
    name = next(name for name in (rule.label, str(index)) if _leads_to(conditions, name, index))
    return f"{name}.{side}", f"{name}.{_kind(rule)}" if rule.share is not None else ""


def _leads_to(conditions: Sequence[Condition], name: str, index: int) -> bool:
    listed = [{"name": rule.name, "column": rule.column} for rule in conditions]
    try:
        put_value(listed, [*name.split("."), "found"], True, name)
    except ConfigError:
        return False
    return "=" not in name and "found" in listed[index]
