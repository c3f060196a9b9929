"""Fades: the picture goes to black or white, or comes from it."""

from __future__ import annotations

import numpy as np

from curate.records import CutKind
from curate.stages.cut.features import FeatureWindow
from curate.stages.cut.hard import RETURNS
from curate.stages.cut.model import Transition

FLAT = 3.0
"""Luma contrast (levels, standard deviation) below which a black or white frame counts as empty."""

NO_LONGER_FLAT = 5.0
"""Contrast above which an empty stretch ends: more than FLAT, so that noise does not split it."""

BLACK, WHITE = 32.0, 220.0
"""Mean luma below and above which a flat frame is black or white (limited range)."""

ABRUPT = 2
"""Affected frames up to which going to black is a hard cut."""

SETTLED_SHARE = 0.02
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
        affected = fading_frames(window.contrasts(first, frame)[::-1], self._stride)
        self._open = Transition.of(frame - affected, None, *_side(affected))
        return self._open

    def _end(self, window: FeatureWindow, frame: int, stretch: Transition) -> None:
        end = min(frame + self._fade_frames, window.n)
        affected = fading_frames(window.contrasts(frame, end), self._stride)
        stretch.clean = frame + affected
        stretch.start_kind, stretch.start_detector = _side(affected)
        self._open = None


def _side(affected: int) -> tuple[CutKind, str]:
    return (CutKind.HARD, "black") if affected <= ABRUPT else (CutKind.FADE, "fade")


def empty(window: FeatureWindow, frame: int, inside: bool) -> bool:
    """Whether a frame shows nothing but black or white; ``inside`` an empty stretch the test is milder."""
    mean = float(window.means(frame, frame + 1)[0])
    contrast = float(window.contrasts(frame, frame + 1)[0])
    return contrast < (NO_LONGER_FLAT if inside else FLAT) and not BLACK <= mean <= WHITE


def fading_frames(contrasts: np.ndarray, stride: int) -> int:
    """How many frames from the empty end on are still affected.

    ``contrasts``: of the frames in order of distance from the empty stretch. The fade ends where the contrast stops
    growing from one stride to the next.
    """
    later = np.append(contrasts, np.repeat(contrasts[-1:], stride))[stride:]
    settled = later - contrasts <= SETTLED_SHARE * later
    return int(np.argmax(settled)) if settled.any() else len(contrasts)
