"""What a shot finder tells: where shots end and begin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from curate.records import CutKind
from curate.stage import Thumb


@dataclass(frozen=True, slots=True)
class Edge:
    """A shot ends before the frame at ``pts`` (``opens`` False), or begins with it (``opens`` True).

    A hard cut is two edges at one pts. A gradual transition is an end at its first affected frame and, later, a
    beginning at the first clean frame; what lies between belongs to no shot. So it is with a hard cut among frames
    that were not shown.
    """

    pts: int
    opens: bool
    kind: CutKind
    detector: str


def hard_cut(pts: int, detector: str) -> list[Edge]:
    """Both edges of a hard cut whose first new frame is at ``pts``."""
    return [Edge(pts, False, CutKind.HARD, detector), Edge(pts, True, CutKind.HARD, detector)]


BEFORE_ALL = -(1 << 62)
"""A pts before any other."""

FADE, DISSOLVE, WIPE, HARD = range(4)
"""Ranks of transitions: of two that overlap the one with the lower rank stands."""


@dataclass(slots=True)
class Transition:
    """From one shot to the next: pts of the ``first`` affected frame and of the first ``clean`` one (None: not known
    yet). Of a hard cut they are equal, or frames that nobody saw lie between them. The two sides may differ in kind
    (a cut to black, then a fade in)."""

    rank: int
    first: int
    clean: int | None
    end_kind: CutKind
    end_detector: str
    start_kind: CutKind
    start_detector: str

    @classmethod
    def of(cls, rank: int, first: int, clean: int | None, kind: CutKind, detector: str) -> Transition:
        """A transition that is the same on both sides."""
        return cls(rank, first, clean, kind, detector, kind, detector)


class ShotFinder(Protocol):
    """Streaming search for the edges of shots. The first frame opens a shot without an edge.

    Edges come in order, ends and beginnings in turn.
    """

    @property
    def settled_pts(self) -> int:
        """No edge to come lies before this pts."""
        ...

    def wants_between(self, thumb: Thumb) -> bool:
        """Whether the frames that ``thumb`` skips may hold a cut."""
        ...

    @property
    def n_flashes(self) -> int:
        """Jumps that turned back at once, not taken for cuts."""
        ...

    def push(self, thumb: Thumb) -> list[Edge]:
        """Take the next frame; give the edges that are now certain."""
        ...

    def finish(self, skipped: Sequence[int] = ()) -> list[Edge]:
        """The stream ended, after frames that were not shown; give the remaining edges."""
        ...


class NoCuts:
    """The shot finder of the fixed stride: the whole source is one shot."""

    n_flashes = 0

    def __init__(self) -> None:
        self.settled_pts = 0

    def wants_between(self, thumb: Thumb) -> bool:
        """No frame is ever needed."""
        return False

    def push(self, thumb: Thumb) -> list[Edge]:
        """Nothing is ever found; all before this frame is settled."""
        self.settled_pts = thumb.pts
        return []

    def finish(self, skipped: Sequence[int] = ()) -> list[Edge]:
        """Nothing is ever found."""
        return []
