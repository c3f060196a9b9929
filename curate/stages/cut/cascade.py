"""The cascade: cheap looks say where something may have changed, the frames themselves decide what it was.

It sees about 12 frames per second, and all of them where a cut may lie: `wants_between` asks for those. Hard cuts are
decided at the frame; dissolves, fades and wipes by their shape, on the looks.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from curate.stage import LOOKS_PER_S, Thumb
from curate.stages.cut.fade import FadeFinder
from curate.stages.cut.features import FeatureWindow
from curate.stages.cut.gradual import GradualFinder
from curate.stages.cut.hard import JumpFinder
from curate.stages.cut.model import BEFORE_ALL, HARD, Edge, Transition

LONGEST_FRAMES = 54
"""Longest gradual transition looked for, in frames of the source, and at least LONGEST_S."""

LONGEST_S = 1.4
"""See LONGEST_FRAMES."""

BLEND_HALVES = (1, 2, 3, 4, 6, 8, 11, 15, 20, 27)
"""Half lengths at which dissolves are looked for, in units of 1/12 s."""

FADE_S = 3.0
"""Longest part of a fade on one side of black that is taken out, except at low rates."""

SLACK_S = Fraction(1, 12)
"""A hard cut so little before a gradual transition is its first sign."""


class Cascade:
    """Shot finder over small pictures. ``rate_fps`` is the usual rate of the source."""

    def __init__(self, time_base: Fraction, rate_fps: float) -> None:
        rate = min(max(rate_fps or 30.0, 8.0), 120.0)
        longest_s = max(LONGEST_S, LONGEST_FRAMES / rate)
        fade_s = max(FADE_S, LONGEST_FRAMES / rate)
        halves = [half for half in BLEND_HALVES if half <= LOOKS_PER_S * longest_s / 2]
        self.settled_pts = BEFORE_ALL
        self._slack = int(SLACK_S / time_base)
        self._window = FeatureWindow(time_base, keep=round(2 * fade_s * LOOKS_PER_S) + 6 * halves[-1])
        self._jumps = JumpFinder()
        self._finders = (self._jumps, GradualFinder(halves, peak_radius=3), FadeFinder(fade_s, float(time_base)))
        self._found: list[Transition] = []
        self._closed: Transition | None = None
        self._clean = BEFORE_ALL
        self._newest = 0

    @property
    def n_flashes(self) -> int:
        """Jumps that turned back within a few frames."""
        return self._jumps.n_flashes

    def wants_between(self, thumb: Thumb) -> bool:
        """Whether a cut may lie among the frames that ``thumb`` skips."""
        self._window.stage(thumb)
        return self._jumps.wants_between(self._window, self._window.n)

    def push(self, thumb: Thumb) -> list[Edge]:
        """Take the next frame; give the edges that are now certain."""
        self._window.add(thumb)
        self._newest = thumb.pts
        self._advance(final=False)
        settled = min(finder.settled for finder in self._finders) - self._slack
        edges = self._resolve(settled)
        if self._closed is not None and self._closed.clean is None:  # black or white so far: nothing inside counts
            self._found = [each for each in self._found if each.first >= settled]
        self.settled_pts = min([settled, *(each.first for each in self._found[:1])])
        return edges

    def finish(self, skipped: Sequence[int] = ()) -> list[Edge]:
        """The stream ended; give the remaining edges."""
        if self._window.n:
            self._advance(final=True)
        return self._resolve(self._newest + 2 * self._slack + 2)

    def _advance(self, final: bool) -> None:
        for finder in self._finders:
            if new := finder.advance(self._window, final):
                self._found = sorted([*self._found, *new], key=lambda each: (each.first, each.rank))

    def _resolve(self, settled: int) -> list[Edge]:
        """Edges of the transitions that begin before ``settled``; of those that overlap one stands."""
        edges = self._open()
        while self._closed is None and self._found and self._is_certain(self._found[0], settled):
            each = self._found.pop(0)
            within = each.first < self._clean or (each.rank == HARD and each.first == self._clean)
            if within or self._yields(each):
                continue
            edges.append(Edge(each.first, False, each.end_kind, each.end_detector))
            self._closed = each
            edges += self._open()
        return edges

    def _is_certain(self, each: Transition, settled: int) -> bool:
        """Whether nothing still to come can overlap a transition. A stretch of black whose end is not known is."""
        return (each.first if each.clean is None else each.clean + self._slack) < settled

    def _open(self) -> list[Edge]:
        """The edge that ends the current transition, once it is known. A stretch that lasts to the end has none."""
        each = self._closed
        if each is None or each.clean is None or (each.clean >= self._newest and each.rank != HARD):
            return []
        self._closed, self._clean = None, each.clean
        return [Edge(each.clean, True, each.start_kind, each.start_detector)]

    def _yields(self, each: Transition) -> bool:
        """Whether another transition stands instead; a hard cut just before it then becomes its beginning. Two of a
        kind that overlap by much are one, by little follow each other."""
        if each.clean is None:
            return False
        for other in list(self._found):
            if other.first > each.clean + self._slack:
                return False
            if other.rank < each.rank:
                if each.rank == HARD:
                    other.first = min(each.first, other.first)
                return True
            if other.rank == each.rank != HARD and other.clean is not None and other.first < each.clean:
                shorter = min(each.clean - each.first, other.clean - other.first)
                if 2 * (each.clean - other.first) < shorter:
                    other.first = each.clean
                    continue
                each.clean = max(each.clean, other.clean)
                self._found.remove(other)
        return False
