"""Hard cuts: the picture jumps between two frames, to another scene, and stays there."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from enum import Enum

import numpy as np

from curate.records import CutKind
from curate.stages.cut import blend
from curate.stages.cut.features import FeatureWindow
from curate.stages.cut.model import BEFORE_ALL, DISSOLVE, HARD, Transition
from curate.stages.cut.rules import ASK_RULE, CUT_RULE
from curate.stages.cut.scene import same_scene

STEP_FLOOR = 2.0
"""Smallest change (levels, on the tiny picture) that can be a cut."""

LARGER, STANDS_OUT = 1.3, 1.8
"""Ratio to the usual step from which a jump is judged at all, and from which it is a flash or a part of a short
dissolve when it is no cut."""

PACE = 0.7
"""Usual steps grow with this power of the time between the frames."""

AROUND, AROUND_S = 5, 0.7
"""Frames on each side, and their distance at most, whose usual step a jump is compared with."""

LONG = 11
"""A step is also compared with so many before it: frames between looks, shown in the midst of a change, are fewer."""

FLASH_S, LATER_S = 0.25, 0.5
"""A picture that is back after so long was covered by a flash; after the second, perhaps."""

RETURNS, SURELY = 0.5, 0.2
"""A flash: a later picture is nearer to the one before than this share of the jump; below the second whatever else."""

QUIET = 0.3
"""Usual steps below this (levels) are noise."""

RAMP_S = 0.25
"""How far around a jump that is no cut a short dissolve is looked for."""


LIKELY_SAME = 0.375
"""The likeness of two pictures at which a cut between them is likeliest."""


class Verdict(Enum):
    """What a jump is: ``PART`` of a change that takes a few frames, or mere motion."""

    CUT = "cut"
    FLASH = "flash"
    PART = "part"
    MOTION = "motion"


class JumpFinder:
    """Finds hard cuts. ``settled``: pts before which no cut is still to come."""

    def __init__(self) -> None:
        self.n_flashes = 0
        self.settled = BEFORE_ALL
        self._seen = 0
        self._candidates: deque[int] = deque()
        self._paces: deque[float] = deque(maxlen=LONG)

    def wants_between(self, window: FeatureWindow, new: int) -> bool:
        """Whether a cut may lie between a frame, the newest or the staged one, and the one shown before it."""
        step = window.step(new)
        usual = self._usual(window, new)
        if not new or step < max(STEP_FLOOR, usual):
            return False
        measures = {
            "ratio": math.log(step / max(usual, QUIET)),
            "size": math.log(step),
            "spread": window.spread(new - 1, new),
            "lift": window.lift(new - 1, new),
            "same": LIKELY_SAME,
        }
        if ASK_RULE.score(measures) < 0:
            return False
        return ASK_RULE.score({**measures, "same": same_scene(window.grey(new - 1), window.grey(new))}) >= 0

    def _usual(self, window: FeatureWindow, number: int) -> float:
        """The usual step so far, as it would be over the time since the frame before."""
        if not self._paces:
            return 0.0
        usual = min(_middle(self._paces), _middle(list(self._paces)[-AROUND:]))
        return usual * (window.time_s(number) - window.time_s(number - 1)) ** PACE

    def advance(self, window: FeatureWindow, final: bool) -> list[Transition]:
        """Take the newest frame of the window; give the hard cuts that became certain."""
        newest = window.n - 1
        if newest and self._seen != newest:
            self._seen = newest
            is_next = window.after(newest - 1) == window.pts(newest) or self.wants_between(window, newest)
            if is_next and window.step(newest) >= max(STEP_FLOOR, LARGER * self._usual(window, newest)):
                self._candidates.append(newest)
            elapsed = window.time_s(newest) - window.time_s(newest - 1)
            self._paces.append(window.step(newest) / elapsed**PACE)
        ready_s = window.time_s(newest) - LATER_S - 0.05
        found = []
        while self._candidates and (final or window.time_s(self._candidates[0]) < ready_s):
            frame = self._candidates.popleft()
            verdict = judge(window, frame)
            self.n_flashes += verdict is Verdict.FLASH
            if verdict is Verdict.CUT:
                window.walls.append(frame)
                found.append(Transition.of(HARD, window.after(frame - 1), window.pts(frame), CutKind.HARD, "jump"))
            elif verdict is Verdict.PART and (place := self._ramp(window, frame)) is not None:
                found.append(Transition.of(DISSOLVE, *place, CutKind.DISSOLVE, "dissolve"))
        oldest = window.after(self._candidates[0] - 1) if self._candidates else window.pts(newest)
        self.settled = oldest - int(RAMP_S / window.tick_s)
        return found

    def _ramp(self, window: FeatureWindow, frame: int) -> tuple[int, int] | None:
        """The short dissolve that a jump is a part of."""
        now_s = window.time_s(frame)
        first = window.held(frame - 60)
        first += int(np.searchsorted(window.times(first, frame), now_s - RAMP_S))
        end = frame + int(np.searchsorted(window.times(frame, window.n), now_s + RAMP_S, "right"))
        return blend.between(window, np.arange(first, end))


def _middle(paces: Iterable[float]) -> float:
    ordered = sorted(paces)
    return ordered[len(ordered) // 2]


def judge(window: FeatureWindow, frame: int) -> Verdict:
    """Judge the jump from the frame shown before ``frame``.

    A cut is a jump that stands out from the usual change on both sides, to a picture that is not the old one shifted
    or lit, and that does not turn back within the length of a flash.
    """
    jump = window.step(frame)
    before, after = _usual(window, frame, frame - AROUND, frame), _usual(window, frame, frame + 1, frame + 1 + AROUND)
    returns, later = _nearest(window, frame - 1, frame, FLASH_S), _nearest(window, frame - 1, frame, LATER_S)
    back = _nearest(window, frame, frame - 1, -FLASH_S)
    stands_out = jump >= STANDS_OUT * max(before, after)
    if min(returns, back) * jump >= SURELY * jump:
        neighbours = [window.step(each) for each in (frame - 1, frame + 1) if 0 < each < window.n]
        measures = {
            "before": math.log(jump / max(before, QUIET)),
            "after": math.log(jump / max(after, QUIET)),
            "size": math.log(jump),
            "returns": returns,
            "back": back,
            "later": later,
            "peak": min(max(neighbours, default=0.0) / jump, 1.5),
            "spread": window.spread(frame - 1, frame),
            "same": same_scene(window.grey(frame - 1), window.grey(frame)),
            "lift": window.lift(frame - 1, frame),
        }
        if CUT_RULE.score(measures) >= 0:
            return Verdict.CUT
    if stands_out and returns < RETURNS:
        return Verdict.FLASH
    return Verdict.PART if stands_out and back >= RETURNS else Verdict.MOTION


def _nearest(window: FeatureWindow, frame: int, beside: int, within_s: float) -> float:
    """Distance of a frame from the most similar one beyond its neighbour ``beside``, in units of their jump; those up
    to ``within_s`` after the neighbour count, before it where that is negative; 1 where there is none, at most 1.2."""
    limit_s = window.time_s(beside) + within_s
    if within_s > 0:
        first, end = beside + 1, beside + int(np.searchsorted(window.times(beside, window.n), limit_s, "right"))
    else:
        first = window.held(0)
        first, end = first + int(np.searchsorted(window.times(first, beside), limit_s)), beside
    near = window.near(frame, first, end) if first < end else np.zeros(0)
    return min(float(near.min()) / window.distance(frame, beside), 1.2) if near.size else 1.0


def _usual(window: FeatureWindow, frame: int, first: int, end: int) -> float:
    """The usual step among frames [first, end) that are near, as it would be over the time of the jump."""
    first, end = max(window.held(first), 1), min(end, window.n)
    if end <= first:
        return 0.0
    times = window.times(first - 1, end)
    elapsed = np.diff(times)
    steps = window.steps(first, end)[-len(elapsed) :]
    near = np.abs(times[-len(elapsed) :] - window.time_s(frame)) < AROUND_S
    if not near.any():
        return 0.0
    paces = np.sort(steps[near] / elapsed[near] ** PACE)
    own = window.time_s(frame) - window.time_s(frame - 1)
    return float(paces[len(paces) // 2]) * own**PACE
