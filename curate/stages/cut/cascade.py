"""The cascade: several passes name candidates, one test at the frame decides; dissolves and fades by their shape.

Each pass is blind to something: the native rate to soft changes, a low rate to none but drowned in motion. So a low
threshold at a low rate only says "look here", and the frame itself must show an isolated jump. Numbers of frames are
given for 30 frames/s and scale with the rate of the source.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from curate.stage import Thumb
from curate.stages.cut.blend import BlendFinder
from curate.stages.cut.fade import FadeFinder
from curate.stages.cut.features import FeatureWindow
from curate.stages.cut.hard import HardFinder
from curate.stages.cut.model import HARD, Edge, Transition
from curate.stages.cut.passes import RatePass

BLEND_HALVES = (3, 6, 11, 18)
"""Half lengths at which dissolves are looked for."""

FADE_MAX = 90
"""Longest part of a fade on one side of black that is taken out."""

FLASH_MAX = 4
"""Longest flash."""

SLACK = 2
"""A hard cut so few frames before a gradual transition is its first sign."""


class Cascade:
    """Shot finder over small pictures. ``passes``: (frames/s or 0 for every frame, threshold 0-255) in the order in
    which they may claim a cut. ``rate_fps`` is the usual rate of the source."""

    def __init__(self, passes: Sequence[tuple[Fraction, float]], time_base: Fraction, rate_fps: float) -> None:
        scale = min(max(rate_fps or 30.0, 8.0), 120.0) / 30
        halves = sorted({max(2, round(half * scale)) for half in BLEND_HALVES})
        fade_frames, flash_frames = round(FADE_MAX * scale), max(1, round(FLASH_MAX * scale))
        self.settled_pts = 0
        self._window = FeatureWindow(2 * fade_frames + 6 * halves[-1])
        self._hard = HardFinder([RatePass(*each, time_base, fade_frames) for each in passes], flash_frames)
        self._blend = BlendFinder(halves, peak_radius=round(12 * scale))
        self._fade = FadeFinder(fade_frames, flash_frames, stride=max(1, round(5 * scale)))
        self._found: list[Transition] = []
        self._closed: Transition | None = None
        self._clean = 0

    @property
    def n_flashes(self) -> int:
        """Jumps that turned back within a few frames."""
        return self._hard.n_flashes

    def push(self, thumb: Thumb) -> list[Edge]:
        """Take the next frame; give the edges that are now certain."""
        self._window.add(thumb)
        self._advance(final=False)
        frontier = min(finder.frontier for finder in (self._hard, self._blend, self._fade)) - SLACK
        self.settled_pts = self._window.pts(frontier)
        return self._resolve(frontier)

    def finish(self) -> list[Edge]:
        """The stream ended; give the remaining edges."""
        if self._window.n:
            self._advance(final=True)
        return self._resolve(self._window.n)

    def _advance(self, final: bool) -> None:
        for finder in (self._hard, self._blend, self._fade):
            if new := finder.advance(self._window, final):
                self._found = sorted([*self._found, *new], key=lambda each: (each.first, each.rank))

    def _resolve(self, frontier: int) -> list[Edge]:
        """Edges of the transitions that begin before ``frontier``; of those that overlap one stands."""
        edges = self._open()
        while self._closed is None and self._found and self._found[0].first < frontier:
            each = self._found.pop(0)
            within = each.first < self._clean or (each.rank == HARD and each.first == self._clean)
            if within or self._yields(each):
                continue
            edges.append(Edge(self._window.pts(each.first), False, each.end_kind, each.end_detector))
            self._closed = each
            edges += self._open()
        return edges

    def _open(self) -> list[Edge]:
        """The edge that ends the current transition, once it is known. A stretch that lasts to the end has none."""
        each = self._closed
        if each is None or each.clean is None or each.clean >= self._window.n:
            return []
        self._closed, self._clean = None, each.clean
        return [Edge(self._window.pts(each.clean), True, each.start_kind, each.start_detector)]

    def _yields(self, each: Transition) -> bool:
        """Whether another transition stands instead; a hard cut just before it then becomes its beginning."""
        for other in self._found:
            if other.first > (each.clean or each.first) + SLACK:
                return False
            if other.rank < each.rank:
                if each.rank == HARD:
                    other.first = each.first
                return True
        return False
