"""Finds dissolves and wipes: samples that look like the middle of one, the best of their surroundings, looked at."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from curate.records import CutKind
from curate.stage import LOOKS_PER_S
from curate.stages.cut import blend, wipe
from curate.stages.cut.features import FeatureWindow, dots
from curate.stages.cut.hard import LATER_S
from curate.stages.cut.model import BEFORE_ALL, DISSOLVE, WIPE, Transition
from curate.stages.cut.scene import MIN_SPREAD, SAME_PLACE, same_scene

KINDS = ((DISSOLVE, CutKind.DISSOLVE, blend.locate), (WIPE, CutKind.WIPE, wipe.locate))
"""Rank, kind and the close look, in the order of the scores of `scan`."""

KNOWN_S = LATER_S + 0.1
"""Time after which a hard cut is surely known."""

BLOCK = 24
"""Samples that are scored at once; no result depends on it."""


class GradualFinder:
    """``settled``: pts before which none to come begins. ``halves``: half lengths looked for, in units of 1/12 s."""

    def __init__(self, halves: Sequence[int], peak_radius: int) -> None:
        self.settled = BEFORE_ALL
        self._halves = halves
        self._reach_s = blend.reach_s(halves[-1])
        self._radius = peak_radius
        self._centre = 0
        self._first = 0
        self._score = np.zeros((2, 0))
        self._half = np.zeros((2, 0), np.int64)

    def advance(self, window: FeatureWindow, final: bool) -> list[Transition]:
        """Score the samples whose surroundings are known; give the transitions that became certain."""
        scanned = self._first + self._score.shape[1]
        end = window.n_samples if final else scanned + BLOCK
        if not final:
            known_s = window.time_s(window.n - 1) - self._reach_s - KNOWN_S
            if end > window.n_samples or window.time_s(window.sample_at(end - 1)) > known_s:
                return []
        if end > scanned:
            score, half = scan(window, scanned, end, self._halves)
            self._score, self._half = np.hstack([self._score, score]), np.hstack([self._half, half])
        found = self._peaks(window, end if final else end - self._radius)
        drop = max(self._centre - self._radius - self._first, 0)
        self._score, self._half, self._first = self._score[:, drop:], self._half[:, drop:], self._first + drop
        ticks = int(self._reach_s / window.tick_s) + 1
        self.settled = window.pts(window.sample_at(self._centre)) - ticks
        return found

    def _peaks(self, window: FeatureWindow, end: int) -> list[Transition]:
        begin, self._centre = self._centre, max(self._centre, end)
        found = []
        for (rank, kind, locate), score, half in zip(KINDS, self._score, self._half, strict=True):
            for at in begin - self._first + np.flatnonzero(score[begin - self._first : max(end - self._first, 0)]):
                low = max(at - self._radius, 0)
                if low + int(np.argmax(score[low : at + self._radius + 1])) != at:
                    continue
                centre = self._first + int(at)
                if not _differ(window, window.around(centre, int(half[at]) / LOOKS_PER_S)):
                    continue
                halves = [each for each in reversed(self._halves) if each <= half[at]]
                place = next((place for each in halves if (place := locate(window, centre, each))), None)
                if place is not None:
                    found.append(Transition.of(rank, *place, kind, str(kind)))
        return found


def _differ(window: FeatureWindow, frames: np.ndarray) -> bool:
    """Whether the first and the last of some frames show different scenes."""
    old, new = int(frames[0]), int(frames[-1])
    if window.spread(old, new) < MIN_SPREAD:
        return False
    return same_scene(window.grey(old), window.grey(new)) < SAME_PLACE


def scan(window: FeatureWindow, first: int, end: int, halves: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """How much samples [first, end) look like the middle of a dissolve (row 0) and of a wipe (row 1): scores (0: not
    at all) and half lengths, each (2, n)."""
    n, reach = end - first, blend.reach_s(halves[-1])
    best = np.zeros((2, n))
    half = np.zeros((2, n), np.int64)
    low, high = window.shots(first, end)
    numbers = window.frames_of(np.arange(window.first_sample, window.n_samples))
    all_times = window.seconds(numbers)
    now = all_times[first - window.first_sample : end - window.first_sample]
    base = window.first_sample + int(np.searchsorted(all_times, now[0] - reach))
    times = all_times[base - window.first_sample :]
    frames = numbers[base - window.first_sample :][: int(np.searchsorted(times, now[-1] + reach, "right"))]
    low = np.maximum(low - base, 0)
    high = np.minimum(high - base, np.searchsorted(times, now + reach, "right") - 1)
    pictures, details = window.tinies(frames), window.details(frames)
    middle, detail = pictures[first - base : end - base], details[first - base : end - base]
    for h in halves:
        away = (h - 0.4) / LOOKS_PER_S
        before = np.maximum(np.searchsorted(times, now - away, "right") - 1, low)
        after = np.minimum(np.searchsorted(times, now + away), high)
        last = pictures[after]
        ends = pictures[before] - last
        change = dots(ends, ends)
        size = np.sqrt(change / ends.shape[1])
        large = size > blend.MIN_CHANGE
        if not large.any():
            continue
        rest = middle - last
        share = dots(rest, ends) / np.maximum(change, 1)
        aside = np.maximum(dots(rest, rest) / np.maximum(change, 1) - share**2, 0)
        kept = detail / np.maximum(details[before] + details[after], 1e-9) * 2
        for row, score in enumerate((blend.score(share, aside, kept), wipe.score(share, aside, kept))):
            found = np.where(large, size * score, 0)
            better = found > best[row]
            best[row, better], half[row, better] = found[better], h
    return best, half
