"""What verification says: one thing that is wrong, where, and what."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

ProblemKind = Literal["table", "run", "index", "file", "tar", "sidecar", "decode", "taken_down", "selection"]
SHOWN = 20
"""How many problems of one sort are told one by one."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: with which file, clip, source or run, and what."""

    kind: ProblemKind
    subject: str
    message: str


def told(problems: Sequence[Problem]) -> Iterator[Problem]:
    """The first of many problems of one sort, and how many there are besides."""
    yield from problems[:SHOWN]
    if len(problems) > SHOWN:
        yield Problem(problems[0].kind, "...", f"{len(problems) - SHOWN} more of this sort")
