"""Freezes, repeated frames and slideshows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np

from curate.stages.motion.flow import PairMotion, Tracker
from curate.view import THUMB_WIDTH_PX, View

SAME_MEAN_LEVELS = 0.15
SAME_MAX_LEVELS = 3
"""Two thumbnails at most this far apart (8-bit luma) show the same frame, coded again."""

FREEZE_S = 0.2
"""Repeats that last as long are a freeze; shorter ones come from a change of frame rate (24 to 30, 30 to 60)."""

STILL_S = 0.75
CHANGE_S = 1.5
CHANGE_LEVELS = 8.0
"""A slideshow holds a picture for STILL_S at least and changes it within CHANGE_S, by CHANGE_LEVELS on average."""

_STILL_OBJECT_SHARE = 0.0075
_STILL_LEFT_LEVELS = 3.0
_PLAIN_LEVELS = 6.0
_CALM_PAIRS = 3
_REACH_PAIRS = 6
_STANDS_OUT = 2.0


@dataclass(frozen=True, slots=True)
class Repeats:
    """Shares (0..1) of consecutive frame pairs that are repeats, and that lie in a freeze."""

    duplicate_ratio: float
    freeze_ratio: float


def repeats(windows: View, grid: View) -> Repeats:
    """Count in the fully decoded windows; in the sparse grid where no window holds two frames."""
    view = windows if np.any(windows.groups[1:] == windows.groups[:-1]) else _thumbs(grid)
    same: list[bool] = []
    frozen: list[bool] = []
    for group in np.unique(view.groups):
        chosen = view.groups == group
        here = _same_as_next(view.frames[chosen])
        same += here.tolist()
        frozen += _in_freeze(here, view.times_s[chosen]).tolist()
    return Repeats(float(np.mean(same)), float(np.mean(frozen)))


def slideshow_share(tracker: Tracker) -> float:
    """Share (0..1) of the clip's time spent on still pictures that replace one another; 0 without a replacement.

    A picture is still when nothing moves against the camera, so a slow zoom into a photograph is still too. Flow is
    measured everywhere only once a replacement between two stills is certain.
    """
    if not _has_replacement(tracker):
        return 0.0
    pairs = [tracker.motion(at) for at in range(len(tracker.dt_s))]
    spans, times_s, frames = _still_spans(pairs), tracker.times_s, tracker.pictures
    slides: set[int] = set()
    for i in range(len(spans) - 1):
        (_, left), (right, _) = spans[i], spans[i + 1]
        if times_s[right] - times_s[left] <= CHANGE_S and _changed(frames[left], frames[right]):
            slides |= {i, i + 1}
    return float(sum(times_s[spans[i][1]] - times_s[spans[i][0]] for i in slides) / times_s[-1])


def _has_replacement(tracker: Tracker) -> bool:
    """Whether a step between frames stands out from calm stretches before and after it that show different stills.

    A stretch is _CALM_PAIRS pairs; the calmest that ends, or begins, within _REACH_PAIRS of the step is taken.
    """
    frames, times_s = tracker.pictures, tracker.times_s
    steps = np.array([_difference(a, b) for a, b in pairwise(frames)])
    if len(steps) <= _CALM_PAIRS:
        return False
    calm = np.lib.stride_tricks.sliding_window_view(steps, _CALM_PAIRS).max(axis=1)
    tried: set[tuple[int, int]] = set()
    for i in np.flatnonzero(steps >= CHANGE_LEVELS / _REACH_PAIRS):
        earlier = range(max(0, i - _REACH_PAIRS - _CALM_PAIRS + 1), i - _CALM_PAIRS + 1)
        later = range(i + 1, min(len(calm), i + _REACH_PAIRS + 1))
        if not (earlier and later):
            continue
        before = min(earlier, key=lambda at: (calm[at], -at))
        after = min(later, key=lambda at: (calm[at], at))
        if steps[i] < _STANDS_OUT * max(calm[before], calm[after]) or (before, after) in tried:
            continue
        tried.add((before, after))
        left = before + _CALM_PAIRS
        if times_s[after] - times_s[left] <= CHANGE_S and _changed(frames[left], frames[after]):
            stretch = [*range(before, left), *range(after, after + _CALM_PAIRS)]
            if all(_is_still(tracker.motion(at)) for at in stretch):
                return True
    return False


def _still_spans(pairs: Sequence[PairMotion]) -> list[tuple[int, int]]:
    """Frame indices (first, last) of stretches of still pairs that last STILL_S."""
    spans, start, length_s = [], 0, 0.0
    for i, pair in enumerate(pairs):
        if _is_still(pair):
            length_s += pair.dt_s
            continue
        if length_s >= STILL_S:
            spans.append((start, i))
        start, length_s = i + 1, 0.0
    return [*spans, (start, len(pairs))] if length_s >= STILL_S else spans


def _is_still(pair: PairMotion) -> bool:
    return pair.object_share < _STILL_OBJECT_SHARE and pair.left_levels < _STILL_LEFT_LEVELS


def _changed(first: np.ndarray, second: np.ndarray) -> bool:
    """Another picture; a black or plain one is none."""
    plain = any(cv2.meanStdDev(picture)[1][0, 0] < _PLAIN_LEVELS for picture in (first, second))
    return not plain and _difference(first, second) >= CHANGE_LEVELS


def _difference(first: np.ndarray, second: np.ndarray) -> float:
    """Mean absolute difference of two pictures, in levels."""
    return cv2.norm(first, second, cv2.NORM_L1) / first.size


def _same_as_next(thumbs: np.ndarray) -> np.ndarray:
    if len(thumbs) < 2:
        return np.zeros(0, bool)
    difference = np.abs(np.diff(thumbs.astype(np.int16), axis=0)).reshape(len(thumbs) - 1, -1)
    return (difference.max(axis=1) <= SAME_MAX_LEVELS) & (difference.mean(axis=1) <= SAME_MEAN_LEVELS)


def _in_freeze(same: np.ndarray, times_s: np.ndarray) -> np.ndarray:
    frozen = np.zeros(len(same), bool)
    start = 0
    for i in range(len(same) + 1):
        if i < len(same) and same[i]:
            continue
        frozen[start:i] = times_s[i] - times_s[start] >= FREEZE_S - 1e-9
        start = i + 1
    return frozen


def _thumbs(view: View) -> View:
    height, width = view.frames.shape[1:3]
    size_px = (THUMB_WIDTH_PX, max(1, round(THUMB_WIDTH_PX * height / width)))
    frames = np.stack([cv2.resize(frame, size_px, interpolation=cv2.INTER_AREA) for frame in view.frames])
    return View(frames, view.pts, view.time_base, np.zeros(len(frames), np.int64), view.px_scale)
