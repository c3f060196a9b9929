"""What a shot finder tells: where shots end and begin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from curate.records import CutKind
from curate.stage import Thumb


@dataclass(frozen=True, slots=True)
class Edge:
    """A shot ends before the frame at ``pts`` (``opens`` False), or begins with it (``opens`` True).

    A hard cut is two edges at one pts. A dissolve or fade is an end at its first affected frame and, later, a
    beginning at the first clean frame; what lies between belongs to no shot.
    """

    pts: int
    opens: bool
    kind: CutKind
    detector: str


def hard_cut(pts: int, detector: str) -> list[Edge]:
    """Both edges of a hard cut whose first new frame is at ``pts``."""
    return [Edge(pts, False, CutKind.HARD, detector), Edge(pts, True, CutKind.HARD, detector)]


FADE, DISSOLVE, HARD = range(3)
"""Ranks of transitions."""


@dataclass(slots=True)
class Transition:
    """From one shot to the next, in frame numbers: ``first`` affected frame, ``clean`` again (None: not known yet;
    equal to ``first`` for a hard cut). The two sides may differ in kind (a cut to black, then a fade in)."""

    first: int
    clean: int | None
    end_kind: CutKind
    end_detector: str
    start_kind: CutKind
    start_detector: str

    @classmethod
    def of(cls, first: int, clean: int | None, kind: CutKind, detector: str) -> Transition:
        """A transition that is the same on both sides."""
        return cls(first, clean, kind, detector, kind, detector)

    @property
    def rank(self) -> int:
        """Which of two overlapping transitions stands: the lower rank."""
        if self.clean == self.first:
            return HARD
        return DISSOLVE if self.end_kind is CutKind.DISSOLVE else FADE


class ShotFinder(Protocol):
    """Streaming search for the edges of shots. The first frame opens a shot without an edge.

    Edges come in order, ends and beginnings in turn. ``settled_pts``: no edge to come lies before it.
    """

    settled_pts: int

    @property
    def n_flashes(self) -> int:
        """Jumps that turned back at once, not taken for cuts."""
        ...

    def push(self, thumb: Thumb) -> list[Edge]:
        """Take the next frame; give the edges that are now certain."""
        ...

    def finish(self) -> list[Edge]:
        """The stream ended; give the remaining edges."""
        ...


class NoCuts:
    """The shot finder of the fixed stride: the whole source is one shot."""

    n_flashes = 0

    def __init__(self) -> None:
        self.settled_pts = 0

    def push(self, thumb: Thumb) -> list[Edge]:
        """Nothing is ever found; all before this frame is settled."""
        self.settled_pts = thumb.pts
        return []

    def finish(self) -> list[Edge]:
        """Nothing is ever found."""
        return []
