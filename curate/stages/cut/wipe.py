"""Wipes: an edge sweeps over the picture, and every place changes once, when the edge passes it."""

from __future__ import annotations

import math

import numpy as np

from curate.stages.cut.blend import FEW, affected, reach_s
from curate.stages.cut.features import TINY_PX, FeatureWindow
from curate.stages.cut.rules import WIPE_RULE
from curate.stages.cut.scene import SAME_PLACE, same_scene

MIN_CHANGE = 12.0
"""Levels (root mean square over the tiny picture) by which the ends must differ."""

MAX_ASIDE = 0.55
"""Largest square distance of the middle from the line between the ends, in units of that line's: 1/4 for a wipe
between still pictures, 3/4 for pictures that have nothing in common."""

SHORTEST_S = 0.1
"""Anything shorter is a cut, or light that falls on a part of the picture."""

MIN_SMOOTH = 0.48
"""Share of the variance of the places' switching times that a moving edge explains."""

MIN_AT_ONCE = 0.35
"""Part of a place's change that comes in its largest step."""

MIN_EVEN = 0.45
"""Evenness of the difference of the ends over the picture."""


def _shapes() -> np.ndarray:
    """What switching times of wipes are made of, (places, shapes): straight edges, doors and irises."""
    width, height = TINY_PX
    y, x = np.mgrid[0:height, 0:width].reshape(2, -1) + 0.5
    x, y = x / width - 0.5, y / height - 0.5
    shapes = [np.ones_like(x), x, y, np.abs(x), np.abs(y), np.hypot(x, y), np.hypot(x, y * height / width)]
    return np.stack(shapes, axis=1)


_SHAPES = _shapes()


def score(share: np.ndarray, aside: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """How much pictures look like one part of one picture and the rest of another, 0 to 1; arguments as for blends."""
    good = (aside < MAX_ASIDE) & (np.abs(share - 0.5) < 0.3)
    return np.where(good, 1 - aside / MAX_ASIDE, 0)


def locate(window: FeatureWindow, centre: int, half: int) -> tuple[int, int] | None:
    """pts of the first affected and first clean frame of the wipe around a sample; None when it is none."""
    frames = window.around(centre, reach_s(half))
    if half <= FEW:
        frames = np.arange(frames[0], frames[-1] + 1)
    if len(frames) < 4 or window.distance(frames[0], frames[-1]) < MIN_CHANGE:
        return None
    place = _sweep(window, frames)
    if place is None:
        return None
    old, new = int(frames[place[0]]), int(frames[place[1]])
    if window.time_s(new) - window.time_s(old) < SHORTEST_S or _same(window, old, new) >= SAME_PLACE:
        return None
    return affected(window, old, new)


def _sweep(window: FeatureWindow, frames: np.ndarray) -> tuple[int, int] | None:
    """Indices of the last frame before and the first after an edge swept over the picture; None when none did."""
    pictures = window.tinies(frames).reshape(len(frames), -1, 3)
    weight = np.abs(pictures[-1] - pictures[0]).sum(axis=1)
    even = float(weight.mean() ** 2 / max(np.square(weight).mean(), 1e-9))
    if even < MIN_EVEN:
        return None
    steps = np.square(np.diff(pictures, axis=0)).sum(axis=2)
    largest, total = steps.max(axis=0), steps.sum(axis=0)
    if largest.sum() < MIN_AT_ONCE * total.sum():
        return None
    times = window.seconds(frames)
    last_old = np.argmax(steps, axis=0)
    switched = (times[last_old] + times[last_old + 1]) / 2
    smooth, fitted, left_s = _edge(switched, weight * np.square(largest / np.maximum(total, 1)))
    if smooth < MIN_SMOOTH:
        return None
    near = np.abs(switched - fitted) < 2 * left_s + 1e-9
    first, end = int(last_old[near].min()), min(int(last_old[near].max()) + 1, len(frames) - 1)
    measures = {
        "step_smooth": smooth,
        "share_smooth": _share_smooth(pictures, times),
        "even": even,
        "same": _same(window, int(frames[0]), int(frames[-1])),
        "length": math.log(times[end] - times[first]),
    }
    return (first, end) if WIPE_RULE.score(measures) >= 0 else None


def _edge(switched: np.ndarray, weight: np.ndarray) -> tuple[float, np.ndarray, float]:
    """A moving edge fitted to the places' switching times: the share of their variance that it explains, the fitted
    times, and the standard deviation of the rest."""
    weight = weight / max(weight.sum(), 1e-9)
    root = np.sqrt(weight)[:, None]
    fitted = _SHAPES @ np.linalg.lstsq(_SHAPES * root, switched * root[:, 0], rcond=None)[0]
    left = float(weight @ np.square(switched - fitted))
    variance = float(weight @ np.square(switched - weight @ switched))
    return 1 - left / max(variance, 1e-9), fitted, left**0.5


def _same(window: FeatureWindow, old: int, new: int) -> float:
    return same_scene(window.grey(old), window.grey(new))


def _share_smooth(pictures: np.ndarray, times: np.ndarray) -> float:
    """As ``_edge``, for the times until which each place shows the old picture rather than the new one, or what lay
    beside it there."""
    grid = pictures.reshape(len(pictures), TINY_PX[1], TINY_PX[0], 3)
    to_old, to_new = _unlike(grid, grid[0]), _unlike(grid, grid[-1])
    share = to_new / np.maximum(to_old + to_new, 1)
    gone = ((share[1:] + share[:-1]) / 2 * np.diff(times)[:, None]).sum(axis=0)
    return _edge(gone, to_old[-1] + to_new[0])[0]


def _unlike(grid: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(n, places): difference of each place from the most similar of the same place and its neighbours in another."""
    height, width = other.shape[:2]
    wide = np.pad(other, ((1, 1), (1, 1), (0, 0)), mode="edge")
    shifted = [wide[y : y + height, x : x + width] for y in range(3) for x in range(3)]
    best = np.abs(grid - shifted[0]).sum(axis=3)
    for each in shifted[1:]:
        np.minimum(best, np.abs(grid - each).sum(axis=3), out=best)
    return best.reshape(len(grid), -1)
