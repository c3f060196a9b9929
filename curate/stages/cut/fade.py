"""Fades: the picture goes to black or white, or comes from it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from curate.records import CutKind
from curate.stages.cut.features import FeatureWindow
from curate.stages.cut.hard import RETURNS
from curate.stages.cut.model import Transition

FLAT = 3.0
"""Luma contrast (levels, standard deviation) below which a black or white frame counts as empty."""

NO_LONGER_FLAT = 5.0
"""Contrast above which an empty stretch ends: more than FLAT, so that noise does not split it."""

BLACK, WHITE = 32.0, 160.0
"""Mean luma below and above which a flat frame is black or white (limited range; films fade to a soft white)."""

ABRUPT = 2
"""Affected frames up to which going to black is a hard cut."""

AT_ONCE = 0.6
"""Share of its final strength that the first picture beside an empty stretch has after a hard cut."""

SETTLED_SHARE = 0.05
"""Change of contrast over a few frames, as a share, below which the picture is no longer fading."""


class FadeFinder:
    """Finds stretches of black or white, and how far before and after them the picture is affected.

    ``frontier``: no such stretch to come affects a frame before this one, on the side where it begins.
    """

    def __init__(self, fade_frames: int, flash_frames: int, stride: int) -> None:
        self._fade_frames = fade_frames
        self._flash_frames = flash_frames
        self._stride = stride
        self._seen = 0
        self._open: Transition | None = None

    @property
    def frontier(self) -> int:
        """See the class."""
        return self._seen - self._fade_frames - 1

    def advance(self, window: FeatureWindow, final: bool) -> list[Transition]:
        """Follow the frames whose surroundings are known; give the stretches that began. The end of one is entered
        in it when it is known."""
        found = []
        while self._seen < window.n - (0 if final else self._ahead):
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
        return found

    @property
    def _ahead(self) -> int:
        return self._flash_frames + 1 if self._open is None else self._fade_frames

    def _back_from_flash(self, window: FeatureWindow, frame: int) -> int | None:
        jump = RETURNS * window.distance(frame - 1, frame)
        later = range(frame + 1, min(frame + 1 + self._flash_frames, window.n))
        return next((each for each in later if window.distance(frame - 1, each) < jump), None)

    def _begin(self, window: FeatureWindow, frame: int) -> Transition:
        first = max(frame - self._fade_frames, 0)
        affected = self._affected(window, frame, slice(first, frame), -1)
        self._open = Transition.of(max(frame - affected, 0), None, *_side(affected))
        return self._open

    def _end(self, window: FeatureWindow, frame: int, stretch: Transition) -> None:
        affected = self._affected(window, frame - 1, slice(frame, min(frame + self._fade_frames, window.n)), 1)
        stretch.clean = frame + affected
        stretch.start_kind, stretch.start_detector = _side(affected)
        self._open = None

    def _affected(self, window: FeatureWindow, empty_frame: int, frames: slice, direction: int) -> int:
        """How many of the frames next to the empty stretch are affected, with a margin where it is a fade."""
        level = window.means(empty_frame, empty_frame + 1)[0]
        contrasts = window.contrasts(frames.start, frames.stop)[::direction]
        levels = np.abs(window.means(frames.start, frames.stop)[::direction] - level)
        affected = fading_frames([contrasts, levels], self._stride)
        return affected if affected <= ABRUPT else affected + 1 + affected // 16


def _side(affected: int) -> tuple[CutKind, str]:
    return (CutKind.HARD, "black") if affected <= ABRUPT else (CutKind.FADE, "fade")


def empty(window: FeatureWindow, frame: int, inside: bool) -> bool:
    """Whether a frame shows nothing but black or white; ``inside`` an empty stretch the test is milder."""
    mean = float(window.means(frame, frame + 1)[0])
    contrast = float(window.contrasts(frame, frame + 1)[0])
    return contrast < (NO_LONGER_FLAT if inside else FLAT) and not BLACK <= mean <= WHITE


def fading_frames(measures: Sequence[np.ndarray], stride: int) -> int:
    """How many frames next to an empty stretch are still affected.

    ``measures`` of how far the picture is from empty (contrast, distance from the empty level), of the frames in
    order of distance from the stretch. A fade raises them from near nothing; it ends where none grows from one stride
    to the next. When most of the picture is there at once, it is a hard cut and what grows later is its motion.
    """
    growing = np.zeros(len(measures[0]), bool)
    for values in measures:
        later = np.append(values, np.repeat(values[-1:], stride))[stride:]
        growing |= later - values > SETTLED_SHARE * later
    if not growing.size:
        return 0
    affected = len(growing) if growing.all() else int(np.argmin(growing))
    reached = [values[min(affected, len(values) - 1)] for values in measures]
    at_first = [min(values[0] / max(last, 1e-9), 1.0) for values, last in zip(measures, reached, strict=True)]
    return 0 if sum(at_first) >= AT_ONCE * len(measures) else affected
