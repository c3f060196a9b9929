"""Is this frame the first of a new shot? The test that every candidate of every pass must stand."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

import cv2
import numpy as np

from curate.records import CutKind
from curate.stages.cut.features import GREY_PX, FeatureWindow
from curate.stages.cut.model import Transition
from curate.stages.cut.passes import RatePass

STEP_FLOOR = 2.0
"""Smallest change (levels, on the tiny picture) that can be a cut."""

RETURNS = 0.5
"""A flash: a later picture is nearer to the one before than this share of the jump."""

SAME_PLACE = 0.9
"""Correlation of the best-shifted middle above which two pictures show the same scene."""

MIN_SPREAD = 0.3
"""Evenness of the change over the picture below which something moved before an unchanged scene."""

AROUND = 4
"""Frames on each side whose usual change a jump is compared with."""


NATIVE_RATIO, COARSE_RATIO = 1.8, 2.5
"""How far a jump must stand out from the usual change: less for one that is large by itself."""


class Verdict(Enum):
    """What a candidate frame is."""

    CUT = "cut"
    FLASH = "flash"
    MOTION = "motion"


def same_scene(first: np.ndarray, second: np.ndarray) -> float:
    """Correlation, -1 to 1, of the middle of one luma picture with its best place in another, both ways round: near 1
    under pans and changes of light, however fast, as long as half of the picture stays in sight."""
    return max(_found_in(first, second), _found_in(second, first))


def _found_in(first: np.ndarray, second: np.ndarray) -> float:
    width, height = GREY_PX
    middle = first[height // 4 : height - height // 4, width // 4 : width - width // 4]
    if middle.std() < 2:
        return 0.0
    return float(cv2.matchTemplate(second, middle, cv2.TM_CCOEFF_NORMED).max())


def judge(window: FeatureWindow, frame: int, flash_frames: int, peak_ratio: float) -> Verdict:
    """Judge the jump between ``frame`` - 1 and ``frame``.

    A cut is a jump that stands out ``peak_ratio`` times from the usual change on both sides, to a picture that is
    not the old one shifted, and that does not turn back within ``flash_frames`` frames.
    """
    steps = window.steps(frame - AROUND, frame + AROUND + 1)
    jump = float(steps[AROUND])
    usual = max(float(np.median(steps[:AROUND])), float(np.median(steps[AROUND + 1 :])))
    if jump < max(STEP_FLOOR, peak_ratio * usual):
        return Verdict.MOTION
    if _returns(window, frame - 1, range(frame + 1, frame + 1 + flash_frames), jump):
        return Verdict.FLASH
    if _returns(window, frame, range(frame - 1 - flash_frames, frame - 1), jump):
        return Verdict.MOTION
    is_peak = steps[AROUND - 1] < jump >= steps[AROUND + 1]
    if not is_peak or window.spread(frame - 1, frame) < MIN_SPREAD:
        return Verdict.MOTION
    same = same_scene(window.grey(frame - 1), window.grey(frame))
    return Verdict.MOTION if same >= SAME_PLACE else Verdict.CUT


def _returns(window: FeatureWindow, frame: int, others: range, jump: float) -> bool:
    """Whether one of the other frames shows the picture of ``frame`` again."""
    near = [other for other in others if window.distance(frame, other) < RETURNS * jump]
    return bool(near)


class HardFinder:
    """Judges the candidates that the passes name. ``frontier``: frames before it are judged."""

    def __init__(self, passes: Sequence[RatePass], flash_frames: int) -> None:
        self.frontier = 0
        self.n_flashes = 0
        self._passes = passes
        self._flash_frames = flash_frames
        self._candidates: dict[int, RatePass] = {}

    def advance(self, window: FeatureWindow, final: bool) -> list[Transition]:
        """Show the newest frame of the window to the passes; give the hard cuts that became certain."""
        newest = window.n - 1
        for each in self._passes:
            frames = each.push(newest, window.pts(newest), window.hsv, last=final)
            for frame in range(*frames or (0,)):
                self._candidates.setdefault(frame, each)
        ready = window.n - max(AROUND, self._flash_frames) - 1
        end = window.n if final else min(ready, *(each.sampled for each in self._passes))
        numbered = [(frame, self._candidates.pop(frame, None)) for frame in range(self.frontier, end)]
        self.frontier = max(self.frontier, end)
        return [
            Transition.of(frame, frame, CutKind.HARD, each.name)
            for frame, each in numbered
            if each is not None and self._is_cut(window, frame, each)
        ]

    def _is_cut(self, window: FeatureWindow, frame: int, each: RatePass) -> bool:
        verdict = judge(window, frame, self._flash_frames, COARSE_RATIO if each.coarse else NATIVE_RATIO)
        self.n_flashes += verdict is Verdict.FLASH
        return verdict is Verdict.CUT
