"""Dissolves: stretches whose middle is a blend of their ends."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from curate.stage import LOOKS_PER_S
from curate.stages.cut.features import FeatureWindow, dots
from curate.stages.cut.scene import MIN_SPREAD, SAME_PLACE, same_scene

MIN_CHANGE = 8.0
"""Levels (root mean square over the tiny picture) by which the ends must differ."""

MAX_REST, MAX_REST_LEFT = 0.46, 0.39
"""Largest part of the middle, relative to the difference of the ends, that no blend of the ends explains, for a centre
to be looked at and for a dissolve to be one: of a blurred pan about 0.4 is left."""

MAX_DETAIL, MAX_DETAIL_KEPT = 0.8, 0.72
"""Fine detail of the middle relative to that of the ends, for a centre to be looked at and for a dissolve to be one:
two mixed pictures have half of it, a moving one keeps it."""

MAX_MISFIT, MAX_MISFIT_OF_FEW, MANY = 0.07, 0.1, 5
"""Root mean square distance of the blend shares from a straight ramp; of one with no more steps than the last number,
which begins and ends between two frames that were shown."""

MAX_JUMP = 0.55
"""A share of the ramp passed in one frame above which it is a hard cut."""

MARGIN_S, MARGIN_SHARE = 0.02, 1 / 16
"""Added on both sides of a gradual transition: so long, and this share of its length."""

MOST_FRAMES = 96
"""Frames on which a ramp is fitted, at most: at high rates some are enough."""

FEW = 6
"""Half length, in units of 1/12 s, up to which a dissolve is measured on all frames that were shown."""


def score(share: np.ndarray, aside: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """How much pictures look like the blend of two others, 0 to 1: ``share`` of the first, square distance ``aside``
    of the line between them, in units of that line's, and detail ``kept``."""
    left_over = np.sqrt(aside)
    good = (left_over < MAX_REST) & (np.abs(share - 0.5) < 0.3) & (kept < MAX_DETAIL)
    return np.where(good, 1 - left_over / MAX_REST, 0)


def reach_s(half: int) -> float:
    """How far around the centre of a transition of this half length, in units of 1/12 s, is looked."""
    return (half + half // 2 + 2.2) / LOOKS_PER_S


def locate(window: FeatureWindow, centre: int, half: int) -> tuple[int, int] | None:
    """pts of the first affected and first clean frame of the dissolve around a sample; None when it is none."""
    frames = window.around(centre, reach_s(half))
    if len(frames) < 3:
        return None
    rough = _fit(window, frames)
    if half <= FEW:
        return between(window, np.arange(window.held(frames[rough.old]), frames[rough.new] + 1))
    return between(window, frames[rough.old : rough.new + 1])


def between(window: FeatureWindow, frames: np.ndarray) -> tuple[int, int] | None:
    """As `locate`, for a dissolve among these frames, of which the first and the last are clean."""
    if len(frames) < 3:
        return None
    if len(frames) > MOST_FRAMES:
        frames = frames[np.linspace(0, len(frames) - 1, MOST_FRAMES).round().astype(np.int64)]
    fine = _fit(window, frames)
    if not _is_ramp(fine):
        return None
    old, new = int(frames[fine.old]), int(frames[fine.new])
    if window.distance(old, new) < MIN_CHANGE or window.spread(old, new) < MIN_SPREAD:
        return None
    if not _fades(window, frames[fine.old : fine.new + 1]):
        return None
    same = same_scene(window.grey(old), window.grey(new))
    return None if same >= SAME_PLACE else affected(window, old, new)


def affected(window: FeatureWindow, old: int, new: int) -> tuple[int, int]:
    """pts of the first affected and first clean frame when ``old`` and ``new`` are the last and the first that look
    clean: a little more is taken, because the beginning and the end of a slow change cannot be seen."""
    begin_s, end_s = window.time_s(old), window.time_s(new)
    margin_s = MARGIN_S + (end_s - begin_s) * MARGIN_SHARE
    low = max((wall for wall in window.walls if wall <= old), default=0)
    high = min((wall for wall in window.walls if wall > new), default=window.n) - 1
    while old > max(low, window.held(0)) and window.time_s(old) > begin_s - margin_s:
        old -= 1
    while new < high and window.time_s(new) < end_s + margin_s:
        new += 1
    return window.after(old), window.pts(new)


def _is_ramp(fit: _Fit) -> bool:
    steps = fit.new - fit.old
    limit = MAX_MISFIT if steps > MANY else MAX_MISFIT_OF_FEW
    return steps >= 2 and fit.misfit <= limit and fit.rest <= MAX_REST_LEFT and fit.jump <= MAX_JUMP


def _fades(window: FeatureWindow, frames: np.ndarray) -> bool:
    """Whether the middle third has lost the fine detail that a mixture loses."""
    details = window.details(frames)
    third = max((len(frames) - 1) // 3, 1)
    return bool(details[third : len(frames) - third].mean() < MAX_DETAIL_KEPT * (details[0] + details[-1]) / 2)


class _Fit(NamedTuple):
    """A ramp of blend shares: last frame of the old shot, first of the new, and how well it fits."""

    old: int
    new: int
    misfit: float
    rest: float
    jump: float


def _fit(window: FeatureWindow, frames: np.ndarray) -> _Fit:
    """The dissolve among these frames, taking the first and the last for the pure shots."""
    pictures = window.tinies(frames)
    ends = pictures[0] - pictures[-1]
    change = max(float(ends.dot(ends)), 1.0)
    rest = pictures - pictures[-1]
    shares = rest @ ends / change
    left_over = np.sqrt(np.maximum(dots(rest, rest) / change - shares**2, 0))
    old, new, misfit = _ramp(shares, window.seconds(frames))
    mixed = left_over[old + 1 : new]
    return _Fit(old, new, misfit, float(mixed.mean()) if mixed.size else 0.0, float(np.max(-np.diff(shares))))


def _ramp(shares: np.ndarray, times: np.ndarray) -> tuple[int, int, float]:
    """The straight ramp from 1 to 0 nearest to the shares: last index at 1, first index at 0, misfit."""
    starts, ends = np.triu_indices(len(shares), 1)
    length = np.maximum(times[ends] - times[starts], 1e-9)
    ramps = np.clip((times[ends][:, None] - times) / length[:, None], 0, 1)
    errors = np.square(ramps - shares).mean(axis=1)
    best = int(np.argmin(errors))
    return int(starts[best]), int(ends[best]), float(np.sqrt(errors[best]))
