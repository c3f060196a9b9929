"""Dissolves: stretches whose middle is a blend of their ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from curate.records import CutKind
from curate.stages.cut.features import FeatureWindow
from curate.stages.cut.hard import MIN_SPREAD, SAME_PLACE, same_scene
from curate.stages.cut.model import Transition

MIN_CHANGE = 8.0
"""Levels (root mean square over the tiny picture) by which the ends must differ."""

MAX_REST = 0.38
"""Largest part of the middle, relative to the difference of the ends, that no blend of the ends explains."""

MAX_DETAIL, MAX_DETAIL_KEPT = 0.8, 0.72
"""Fine detail of the middle relative to that of the ends, for a centre to be looked at and for a dissolve to be one:
two mixed pictures have half of it, a moving one keeps it."""

MAX_GROWTH = 2
"""A dissolve reaches at most so many half lengths to each side of its centre."""

MAX_MISFIT = 0.1
"""Root mean square distance of the blend shares from a straight ramp."""

MAX_JUMP = 0.55
"""A share of the ramp passed in one frame above which it is a hard cut."""

BLOCK = 8
"""Frames that are scored at once; no result depends on it."""


class BlendFinder:
    """Finds dissolves: frames that look like the middle of one, the best of their surroundings, looked at closely.

    ``frontier``: no dissolve to come begins before this frame. ``halves``: half lengths looked for, in frames.
    """

    def __init__(self, halves: Sequence[int], peak_radius: int) -> None:
        self._halves = halves
        self._radius = peak_radius
        self._centre = 0
        self._first = 0
        self._score = np.zeros(0)
        self._half = np.zeros(0, np.int64)

    @property
    def frontier(self) -> int:
        """See the class."""
        return self._centre - 3 * self._halves[-1] - 8

    def advance(self, window: FeatureWindow, final: bool) -> list[Transition]:
        """Score the frames whose surroundings are known; give the dissolves that became certain."""
        scanned = self._first + len(self._score)
        end = window.n - (0 if final else 3 * self._halves[-1])
        if not final and end - scanned < BLOCK:
            return []
        if end > scanned:
            score, half = scan(window, scanned, end, self._halves)
            self._score, self._half = np.append(self._score, score), np.append(self._half, half)
        found = self._peaks(window, end if final else end - self._radius)
        drop = max(self._centre - self._radius - self._first, 0)
        self._score, self._half, self._first = self._score[drop:], self._half[drop:], self._first + drop
        return found

    def _peaks(self, window: FeatureWindow, end: int) -> list[Transition]:
        begin, self._centre = self._centre, max(self._centre, end)
        found = []
        for at in begin - self._first + np.flatnonzero(self._score[begin - self._first : max(end - self._first, 0)]):
            low = max(at - self._radius, 0)
            if low + int(np.argmax(self._score[low : at + self._radius + 1])) != at:
                continue
            centre = self._first + int(at)
            halves = [half for half in reversed(self._halves) if half <= self._half[at]]
            place = next((place for half in halves if (place := locate(window, centre, half))), None)
            if place is not None:
                found.append(Transition.of(*place, CutKind.DISSOLVE, "dissolve"))
        return found


def scan(window: FeatureWindow, first: int, end: int, halves: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """How much frames [first, end) look like the middle of a dissolve: score (0: not at all) and half length."""
    score = np.zeros(end - first)
    half = np.zeros(end - first, np.int64)
    middle = window.tinies(first, end)
    for h in halves:
        found = _score(window, first, end, middle, h)
        better = found > score
        score[better], half[better] = found[better], h
    return score, half


def _score(window: FeatureWindow, first: int, end: int, middle: np.ndarray, h: int) -> np.ndarray:
    before, after = window.tinies(first - h, end - h), window.tinies(first + h, end + h)
    ends = before - after
    change = _dot(ends, ends)
    rest = middle - after
    share = _dot(rest, ends) / np.maximum(change, 1)
    left_over = np.sqrt(np.maximum(_dot(rest, rest) / np.maximum(change, 1) - share**2, 0))
    size = np.sqrt(change / middle.shape[1])
    details = window.details(first, end), window.details(first - h, end - h), window.details(first + h, end + h)
    faded = details[0] < MAX_DETAIL * (details[1] + details[2]) / 2
    good = (size > MIN_CHANGE) & (left_over < MAX_REST) & (np.abs(share - 0.5) < 0.25) & faded
    return np.where(good, size * (1 - left_over / MAX_REST), 0)


def locate(window: FeatureWindow, centre: int, half: int) -> tuple[int, int] | None:
    """First affected and first clean frame of the dissolve around ``centre``; None when it is none after all."""
    reach = half + half // 2 + 1
    rough = _fit(window, centre - reach, centre + reach)
    fine = _fit(window, rough.last_old, rough.first_new)
    if not _is_ramp(fine):
        return None
    more = min(fine.length // 2 + 1, MAX_GROWTH * half - fine.length // 2)
    wider = _fit(window, fine.last_old - more, fine.first_new + more)
    if _is_ramp(wider) and wider.length >= fine.length:
        fine = wider
    old, new = fine.last_old, fine.first_new
    if window.distance(old, new) < MIN_CHANGE or window.spread(old, new) < MIN_SPREAD or not _fades(window, old, new):
        return None
    margin = 1 + fine.length // 16
    same = same_scene(window.grey(old), window.grey(new))
    return None if same >= SAME_PLACE else (max(old + 1 - margin, 0), new + margin)


def _is_ramp(fit: _Fit) -> bool:
    return fit.length >= 3 and fit.misfit <= MAX_MISFIT and fit.rest <= MAX_REST and fit.jump <= MAX_JUMP


def _fades(window: FeatureWindow, old: int, new: int) -> bool:
    """Whether the middle third has lost the fine detail that a mixture loses."""
    third = max((new - old) // 3, 1)
    middle = window.details(old + third, new - third + 1).mean()
    ends = window.details(old, old + 1)[0] + window.details(new, new + 1)[0]
    return bool(middle < MAX_DETAIL_KEPT * ends / 2)


class _Fit(NamedTuple):
    """A ramp of blend shares: last frame of the old shot, first of the new, and how well it fits."""

    last_old: int
    first_new: int
    misfit: float
    rest: float
    jump: float

    @property
    def length(self) -> int:
        """Frames from the last pure one to the first pure one."""
        return self.first_new - self.last_old


def _fit(window: FeatureWindow, left: int, right: int) -> _Fit:
    """The dissolve between ``left`` and ``right``, taking these two for the pure shots."""
    shares, rest = _shares(window, left, right)
    old, new, misfit = _ramp(shares)
    mixed = rest[old + 1 : new]
    jump = float(np.max(-np.diff(shares)))
    return _Fit(left + old, left + new, misfit, float(mixed.mean()) if mixed.size else 0.0, jump)


def _shares(window: FeatureWindow, left: int, right: int) -> tuple[np.ndarray, np.ndarray]:
    """Share of the picture at ``left`` in every frame up to ``right``, and what no blend of the two explains."""
    pictures = window.tinies(left, right + 1)
    ends = pictures[0] - pictures[-1]
    change = max(float(ends.dot(ends)), 1.0)
    rest = pictures - pictures[-1]
    shares = rest @ ends / change
    return shares, np.sqrt(np.maximum(_dot(rest, rest) / change - shares**2, 0))


def _ramp(shares: np.ndarray) -> tuple[int, int, float]:
    """The straight ramp from 1 to 0 nearest to the shares: last index at 1, first index at 0, misfit."""
    n = len(shares)
    starts, ends = np.triu_indices(n, 1)
    ramps = np.clip((ends[:, None] - np.arange(n)) / (ends - starts)[:, None], 0, 1)
    errors = np.square(ramps - shares).mean(axis=1)
    best = int(np.argmin(errors))
    return int(starts[best]), int(ends[best]), float(np.sqrt(errors[best]))


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.einsum("ij,ij->i", a, b)
