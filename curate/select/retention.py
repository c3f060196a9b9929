"""Whether the conditions of a selection go together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from curate.select.funnel import Retention
from curate.select.judge import Judge, axis_bits


class Tally(Protocol):
    """So many clips that fail the same judges: bit i of ``fails`` and of ``errors`` belongs to judge i."""

    @property
    def fails(self) -> int:
        """Judges whose condition they do not fulfil."""
        ...

    @property
    def errors(self) -> int:
        """Judges whose measurement failed."""
        ...

    @property
    def n(self) -> int:
        """How many they are."""
        ...


def retention_of(judges: Sequence[Judge], groups: Iterable[Tally]) -> tuple[Retention, dict[str, float]] | None:
    """Among clips that all conditions could judge: the share that passes all against the product over the axes, and
    the share of each axis. None where there is no such clip, or no condition."""
    gates = sum(1 << i for i, judge in enumerate(judges) if judge.kind == "gate")
    judged = [group for group in groups if not group.errors and not group.fails & gates]
    axes, n = axis_bits(judges), sum(group.n for group in judged)
    if not n or not axes:
        return None
    shares = {name: sum(g.n for g in judged if not g.fails & bits) / n for name, bits in axes.items()}
    product = 1.0
    for share in shares.values():
        product *= share
    return Retention(n, sum(g.n for g in judged if not g.fails) / n, product), shares
