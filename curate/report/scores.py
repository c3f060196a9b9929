"""Scores that the selection asks nothing of: what a threshold would keep, alone and together with the selection's.

Each is an axis (`curate.report.axes`) without a limit, on either side. The cells of a stage are read once for all of
its scores. View ``others``: clips that stand with ``seconds``, ``kept`` (the selection's conditions hold) and, for
score i of the stage, ``v<i>`` and ``f<i>`` as in ``judged``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from curate.query import RunStage, identifier, run_query
from curate.query.parts import id_sql
from curate.report.axes import MOST_STOPS, Axis, Counts, count_by, values_facts, with_stops
from curate.report.judged import Judged
from curate.select import Condition
from curate.select.judge import number_sql
from curate.stats import NumberStats


def other_scores(
    judged: Judged, axes: Sequence[Axis], numbers: Sequence[NumberStats], units: Mapping[str, str]
) -> dict[str, Any]:
    """``other_scores`` for the page, and ``partial_scores``: those of stages that lack cells, so that selecting refuses
    a condition on them."""
    listed, partial = [], []
    for stage, rules in _rules(judged, axes, numbers).items():
        lacking = _load(judged, stage, rules)
        if lacking:
            partial += [{"column": rule.column, "measure": rule.measure, "n": lacking} for rule in rules]
        else:
            found = (_facts(judged, i, rule, units.get(rule.column, "")) for i, rule in enumerate(rules))
            listed += [facts for facts in found if facts]
        judged.con.execute("DROP VIEW others")
        judged.con.execute("DROP TABLE IF EXISTS others_cells")
    return {"other_scores": listed, "partial_scores": partial}


def _rules(
    judged: Judged, axes: Sequence[Axis], numbers: Sequence[NumberStats]
) -> dict[RunStage | None, list[Condition]]:
    """A condition for each score without a slider, by the stage whose cells hold it; None is the clip's own row."""
    kinds = {stage.name: stage.kind for stage in judged.tables.stages}
    measures = {axis.rule.measure for axis in axes}
    labels = {rule.label for rule in judged.config.conditions}
    found: dict[RunStage | None, list[Condition]] = {}
    for number in numbers:
        column, aggregate = number.measured
        scope = "source" if kinds.get(number.stage) == "probe" else number.stage
        ref = judged.tables.column(f"{scope}.{column}")
        rule = _rule(ref.name, aggregate, labels)
        if rule.measure not in measures and (ref.stage is None or ref.stage.kind != "cut"):
            found.setdefault(ref.stage, []).append(rule)
    return found


def _rule(column: str, aggregate: str, labels: set[str]) -> Condition:
    """A condition with a name that no other has; the limit is none that anybody asked."""
    rule = Condition.model_validate({"column": column, "aggregate": aggregate or None, "min": 0.0})
    name = rule.label
    while name in labels:
        name = rule.measure if name == column != rule.measure else f"{name} too"
    return rule if name == column else rule.model_copy(update={"name": name})


def _load(judged: Judged, stage: RunStage | None, rules: Sequence[Condition]) -> int:
    """Make ``others`` of these scores; gives the number of clips that lack a cell which no gate explains."""
    con, stands = judged.con, judged.standing_sql()
    kept = f"{judged.standing_sql(range(len(judged.config.conditions)))} AS kept"
    if stage is None:
        values = ", ".join(f"seconds AS v{i}, FALSE AS f{i}" for i in range(len(rules)))
        con.execute(
            f"CREATE OR REPLACE TEMP VIEW others AS SELECT seconds, {kept}, {values} FROM judged WHERE {stands}"
        )
        return 0
    above = [i for i, gate in enumerate(judged.tables.gates) if gate.after_index < stage.index]
    own = f"seconds, {stands} AS stands, {kept}, {judged.passes_sql(above)} AS due"
    values = ", ".join(f"c.v{i}" for i in range(len(rules)))
    on = "clip" if stage.kind == "clip" else "source"
    run_query(
        con,
        lambda: (
            f"""CREATE OR REPLACE TEMP TABLE others_cells AS SELECT {own}, outcome = 'failed' AS failed, {values}
        FROM judged j LEFT JOIN ({_cells(judged, stage, rules)}) c ON c.id = j.{on}"""
        ),
    )
    failed = ", ".join(f"failed AS f{i}" for i in range(len(rules)))
    con.execute(f"CREATE OR REPLACE TEMP VIEW others AS SELECT *, {failed} FROM others_cells WHERE stands")
    return con.execute("SELECT count(*) FROM others_cells WHERE failed IS NULL AND due").fetchall()[0][0]


def _cells(judged: Judged, stage: RunStage, rules: Sequence[Condition]) -> str:
    """SQL of a stage's cells: ``id``, ``outcome`` and the number of score i as ``v<i>``, as selecting compares it."""
    tables = judged.tables
    columns = [tables.column(rule.column) for rule in rules]
    named = ", ".join(f"{identifier(ref.column)} AS {identifier(ref.name)}" for ref in columns)
    cells = tables.cells_sql(stage.name, list(dict.fromkeys(["key", "outcome", *(ref.column for ref in columns)])))
    numbers = [number_sql(rule, "numbers" if rule.aggregate else "number") for rule in rules]
    values = ", ".join(f"({number})::DOUBLE AS v{i}" for i, number in enumerate(numbers))
    return f"SELECT {id_sql('key')} AS id, outcome, {values} FROM (SELECT key, outcome, {named} FROM ({cells}))"


def _facts(judged: Judged, place: int, rule: Condition, unit: str) -> dict[str, Any] | None:
    """One score as the page reads it; None where no clip that stands has a value."""
    axis = with_stops(judged, Axis(place, rule, "min", None, "others"))
    stops = axis.stops(MOST_STOPS)
    if not stops:
        return None
    counts = Counts(
        len(stops) + 1, [_either(row, len(stops)) for row in count_by(judged, axis, axis.rank(stops), "kept")]
    )
    asked = {"column": rule.column, "aggregate": rule.aggregate, "name": rule.name}
    return {
        **values_facts(axis, stops, unit=unit),
        "label": rule.label,
        "asked": {key: value for key, value in asked.items() if value},
        **counts.never,
        "sides": {
            side: counts.by_coordinate(i, "alone") | counts.by_coordinate(i, "with", also=True)
            for i, side in enumerate(("min", "max"))
        },
    }


def _either(row: tuple[Any, ...], n_stops: int) -> tuple[Any, ...]:
    """A row of counts with the coordinates on either side in place of the rank."""
    rank, kept, never, *counted = row
    least, most = (0, 0) if never else ((rank + 1) // 2, n_stops - rank // 2)
    return (least, most, kept, never, *counted)
