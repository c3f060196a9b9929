"""The funnel step by step, and whether the conditions go together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from curate.redaction import redacted
from curate.report.judged import Group, Judged
from curate.report.samples import cut
from curate.select.duplicates import NEAR_DUPLICATE
from curate.select.inputs import FORGOTTEN, count_inputs
from curate.select.judge import Judge
from curate.select.retention import retention_of

_UNMEASURED = "needed measurements that failed"
_TAKEN_DOWN = "sources that were taken down (`curate forget`)"
_DUPLICATES = "clips that look like a better one that is kept"


@dataclass(slots=True)
class Step:
    """One step. ``first`` is what it takes of what is left, ``failing`` what would not pass it alone, ``only`` what
    it alone stops; ``left`` is what the next step gets. Each in clips and in hours."""

    name: str
    kind: str
    text: str
    first: int = 0
    first_hours: float = 0.0
    failing: int = 0
    failing_hours: float = 0.0
    only: int = 0
    only_hours: float = 0.0
    cell_failed: int = 0
    left: int = 0
    left_hours: float = 0.0


def funnel_steps(judged: Judged) -> list[Step]:
    """Take-downs, clips that could not be measured, gates, conditions and near-duplicates, in this order."""
    steps = [_taken_down(judged), _unmeasured(judged)]
    steps += [_judge_step(judged, i, judge) for i, judge in enumerate(judged.judges)]
    steps.append(_duplicates(judged))
    steps = [step for step in steps if step.kind in {"gate", "condition"} or step.failing or step.cell_failed]
    left, hours = sum(g.n for g in judged.groups), sum(g.hours for g in judged.groups)
    for step in steps:
        left, hours = left - step.first, max(0.0, hours - step.first_hours)
        step.left, step.left_hours = left, hours
    return steps


def judged_otherwise(judged: Judged) -> int:
    """Clips whose cells or marks changed since the selection, so that their verdict would be another now.

    That a different near-duplicate would be kept is not seen: it takes a new selection to know.
    """
    told = {text: i for i, judge in enumerate(judged.judges) for text in (judge.text, judge.failed_text)}
    return sum(g.n for g in judged.groups if not g.forgotten and not _still_so(judged, g, told))


def _still_so(judged: Judged, group: Group, told: dict[str, int]) -> bool:
    bits, fatal = group.fails | group.errors, group.errors & _fatal(judged)
    if group.verdict == "kept" or group.reason.startswith(NEAR_DUPLICATE):
        return not bits
    if group.verdict == "failed":
        return bool(fatal)
    if group.reason == FORGOTTEN:
        return False
    decided = told.get(group.reason)
    return not fatal and bool(bits if decided is None else bits >> decided & 1)


def _total(groups: Iterable[Group]) -> tuple[int, float]:
    found = list(groups)
    return sum(g.n for g in found), sum(g.hours for g in found)


def _count(step: Step, what: str, groups: Iterable[Group]) -> None:
    n, hours = _total(groups)
    setattr(step, what, n)
    setattr(step, f"{what}_hours", hours)


def _fatal(judged: Judged) -> int:
    """Bits of the judges whose failed cells fail a clip."""
    return sum(1 << i for i, judge in enumerate(judged.judges) if judge.on_failed == "failed")


def _decides(judged: Judged, group: Group) -> int | None:
    """The judge that drops the clips of a group; None for those that another step stops."""
    bits = group.fails | group.errors
    if group.forgotten or group.errors & _fatal(judged) or not bits:
        return None
    return (bits & -bits).bit_length() - 1


def _taken_down(judged: Judged) -> Step:
    step = Step("taken down", "take-down", _TAKEN_DOWN)
    gone = [g for g in judged.groups if g.forgotten]
    _count(step, "first", gone)
    _count(step, "failing", gone)
    _count(step, "only", (g for g in gone if not g.fails and not g.errors))
    return step


def _unmeasured(judged: Judged) -> Step:
    step = Step("not measured", "unmeasured", _UNMEASURED)
    lost = [g for g in judged.groups if g.errors & _fatal(judged)]
    _count(step, "first", (g for g in lost if not g.forgotten))
    _count(step, "failing", lost)
    others = ~_fatal(judged)
    _count(step, "only", (g for g in lost if not (g.forgotten or g.fails or g.errors & others)))
    step.cell_failed = step.failing
    return step


def _judge_step(judged: Judged, index: int, judge: Judge) -> Step:
    bit = 1 << index
    step = Step(judge.name, judge.kind, judge.text)
    _count(step, "first", (g for g in judged.groups if _decides(judged, g) == index))
    _count(step, "failing", (g for g in judged.groups if g.fails & bit))
    _count(step, "only", (g for g in judged.groups if _decides(judged, g) == index and g.fails | g.errors == bit))
    step.cell_failed = sum(g.n for g in judged.groups if g.errors & bit)
    return step


def _duplicates(judged: Judged) -> Step:
    """What passed everything else and is not kept: near-duplicates, and clips that could not be compared."""
    step = Step(NEAR_DUPLICATE, "near-duplicate", _DUPLICATES)
    lost = [g for g in judged.groups if not (g.forgotten or g.fails or g.errors) and g.verdict != "kept"]
    for what in ("first", "failing", "only"):
        _count(step, what, lost)
    step.cell_failed = sum(g.n for g in lost if g.reason != NEAR_DUPLICATE)
    return step


def clip_counts(judged: Judged) -> dict[str, Any]:
    """``clips``, ``hours``, ``inputs`` and the reasons of both, with take-downs since the selection honoured."""
    verdicts = ("kept", "dropped", "failed")
    by_verdict = {name: _total(g for g in judged.groups if g.verdict == name) for name in verdicts}
    found = _total(judged.groups)
    counts, reasons = count_inputs(judged.tables, "SELECT source, verdict, reason FROM ended")
    listed: dict[tuple[str, str], tuple[int, float]] = {}
    for group in judged.groups:
        if group.verdict != "kept":
            n, hours = listed.get((group.verdict, group.reason), (0, 0.0))
            listed[group.verdict, group.reason] = (n + group.n, hours + group.hours)
    clip_reasons = [
        {"verdict": verdict, "reason": cut(redacted(reason)), "n": n, "hours": hours}
        for (verdict, reason), (n, hours) in listed.items()
    ]
    return {
        "inputs": {name: getattr(counts, name) for name in ("found", *verdicts, "skipped")},
        "clips": {"found": found[0], **{name: n for name, (n, _) in by_verdict.items()}, "skipped": 0},
        "hours": {"found": found[1], **{name: hours for name, (_, hours) in by_verdict.items()}},
        "input_reasons": [
            {"verdict": r.verdict, "reason": cut(redacted(r.reason)), "n": r.n, "hours": r.hours} for r in reasons
        ],
        "clip_reasons": sorted(clip_reasons, key=lambda r: (-r["n"], r["verdict"], r["reason"])),
    }


def retention(judged: Judged) -> dict[str, Any] | None:
    """Among clips that all conditions could judge: the share that passes all, each axis alone, and their product."""
    found = retention_of(judged.judges, (g for g in judged.groups if not g.forgotten))
    if found is None:
        return None
    together, shares = found
    axes = [{"label": name, "share": share} for name, share in shares.items()]
    return {**asdict(together), "ratio": together.ratio, "axes": axes}
