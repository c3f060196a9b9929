"""Fades: the picture goes to black or white, or comes from it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from curate.records import CutKind
from curate.stages.cut.features import FeatureWindow
from curate.stages.cut.hard import FLASH_S, RETURNS
from curate.stages.cut.model import BEFORE_ALL, FADE, Transition

FLAT = 3.0
"""Luma contrast (levels, standard deviation) below which a black or white frame counts as empty."""

NO_LONGER_FLAT = 5.0
"""Contrast above which an empty stretch ends: more than FLAT, so that noise does not split it."""

BLACK, WHITE = 32.0, 160.0
"""Mean luma below and above which a flat frame is black or white (limited range; films fade to a soft white)."""

STRIDE_S = 0.17
"""Over so long the growth of the picture is looked at."""

ABRUPT_S = 0.07
"""Affected time up to which going to black is a hard cut."""

AT_ONCE = 0.6
"""Share of its final strength that the first picture beside an empty stretch has after a hard cut."""

MARGIN_SHARE = 24
"""A fade of so many frames is given a margin of one more frame than any."""

SETTLED_SHARE = 0.05
"""Change of contrast over a stride, as a share, below which the picture is no longer fading."""


class FadeFinder:
    """Finds stretches of black or white, and how far before and after them the picture is affected.

    ``settled``: pts before which no such stretch to come affects a frame, on the side where it begins.
    ``longest_s``: longest part of a fade on one side of the empty stretch that is taken out.
    """

    def __init__(self, longest_s: float, tick_s: float) -> None:
        self.settled = BEFORE_ALL
        self._longest_ticks = int((longest_s + FLASH_S) / tick_s)
        self._longest_s = longest_s
        self._seen = 0
        self._open: Transition | None = None

    def advance(self, window: FeatureWindow, final: bool) -> list[Transition]:
        """Follow the frames whose surroundings are known; give the stretches that began. The end of one is entered
        in it when it is known."""
        found = []
        newest_s = window.time_s(window.n - 1)
        while self._seen < window.n and (final or window.time_s(self._seen) + self._ahead_s < newest_s):
            frame = self._seen
            self._seen += 1
            if empty(window, frame, self._open is not None) == (self._open is not None):
                continue
            if self._open is not None:
                self._end(window, frame, self._open)
            elif (back := self._back_from_flash(window, frame)) is not None:
                self._seen = back
            else:
                found.append(self._begin(window, frame))
        self.settled = window.pts(self._seen) - self._longest_ticks
        return found

    @property
    def _ahead_s(self) -> float:
        return FLASH_S + 0.1 if self._open is None else self._longest_s

    def _back_from_flash(self, window: FeatureWindow, frame: int) -> int | None:
        if frame == 0:
            return None
        jump = RETURNS * window.distance(frame - 1, frame)
        near = window.near(frame - 1, frame + 1, frame + 64)
        soon = window.times(frame + 1, frame + 64) <= window.time_s(frame) + FLASH_S
        back = np.flatnonzero(soon & (near < jump))
        return frame + 1 + int(back[0]) if back.size else None

    def _begin(self, window: FeatureWindow, frame: int) -> Transition:
        beside = self._beside(window, frame, -1)
        affected = _affected(window, frame, beside)
        first = frame if not affected else int(beside[affected - 1])
        clean = affected < len(beside)
        pts = window.after(first - 1) if first and clean else window.pts(first)
        self._open = Transition(FADE, pts, None, *_side(window, frame, first), *_side(window, frame, frame))
        return self._open

    def _end(self, window: FeatureWindow, frame: int, stretch: Transition) -> None:
        beside = self._beside(window, frame - 1, 1)
        affected = _affected(window, frame - 1, beside)
        clean = int(beside[min(affected, len(beside) - 1)])
        stretch.clean = window.pts(clean)
        stretch.start_kind, stretch.start_detector = _side(window, frame, clean)
        self._open = None

    def _beside(self, window: FeatureWindow, empty_frame: int, direction: int) -> np.ndarray:
        """Frames next to an empty stretch in order of distance, as far as a fade may reach."""
        here_s = window.time_s(empty_frame)
        if direction < 0:
            times = window.times(0, empty_frame)
            n = len(times) - int(np.searchsorted(times, here_s - self._longest_s))
            return np.arange(empty_frame - 1, empty_frame - 1 - n, -1)
        times = window.times(empty_frame + 1, window.n)
        n = int(np.searchsorted(times, here_s + self._longest_s, "right"))
        return np.arange(empty_frame + 1, empty_frame + 1 + n)


def _affected(window: FeatureWindow, empty_frame: int, beside: np.ndarray) -> int:
    """How many of the frames beside an empty stretch are affected; of a fade, whose first and last frames hardly differ
    from clean ones, with a margin."""
    if not beside.size:
        return 0
    level = window.means(np.array([empty_frame]))[0]
    measures = [window.contrasts(beside), np.abs(window.means(beside) - level)]
    times = np.abs(window.seconds(beside) - window.time_s(empty_frame))
    affected = fading_frames(measures, times)
    if not affected or times[affected - 1] <= ABRUPT_S:
        return affected
    return min(affected + 1 + affected // MARGIN_SHARE, len(beside))


def _side(window: FeatureWindow, frame: int, last: int) -> tuple[CutKind, str]:
    abrupt = abs(window.time_s(last) - window.time_s(frame)) <= ABRUPT_S
    return (CutKind.HARD, "black") if abrupt else (CutKind.FADE, "fade")


def empty(window: FeatureWindow, frame: int, inside: bool) -> bool:
    """Whether a frame shows nothing but black or white; ``inside`` an empty stretch the test is milder."""
    mean, contrast = window.luma(frame)
    return contrast < (NO_LONGER_FLAT if inside else FLAT) and not BLACK <= mean <= WHITE


def fading_frames(measures: Sequence[np.ndarray], times: np.ndarray) -> int:
    """How many frames next to an empty stretch are still affected.

    ``measures`` of how far the picture is from empty (contrast, distance from the empty level), of the frames in
    order of distance from the stretch, ``times`` in s. A fade raises them from near nothing; it ends where none grows
    over a stride. When most of the picture is there at once, it is a hard cut and what grows later is its motion.
    """
    later_at = np.minimum(np.searchsorted(times, times + STRIDE_S), len(times) - 1)
    growing = np.zeros(len(times), bool)
    for values in measures:
        later = values[later_at]
        growing |= later - values > SETTLED_SHARE * later
    affected = len(growing) if growing.all() else int(np.argmin(growing))
    reached = [values[min(affected, len(values) - 1)] for values in measures]
    at_first = [min(values[0] / max(last, 1e-9), 1.0) for values, last in zip(measures, reached, strict=True)]
    return 0 if sum(at_first) >= AT_ONCE * len(measures) else affected
