"""The camera's share of flow fields: a robust similarity (shift, zoom, roll) for each, the same on every run.

Places and flow are complex numbers (x + iy, y down) in picture widths, with the origin at the picture's centre. A
similarity that moves the content by f(z) = shift + growth * z covers pan, tilt, zoom and roll exactly, because
1 + growth = exp(log scale + i * angle). All pairs of frames are fitted in one go: arrays are (pairs, places).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LARGEST_GROWTH = 0.5
"""No camera zooms or rolls by more from one frame to the next that is looked at: such a fit is none."""

_HYPOTHESES = 24
_JUDGES = 64
_REFINEMENTS = 6


@dataclass(frozen=True, slots=True)
class Similarity:
    """How the picture's content moved between two frames, and the share of places that agree."""

    shift: complex
    growth: complex
    inlier_share: float

    def at(self, places: np.ndarray) -> np.ndarray:
        """The modelled flow at complex places (any shape)."""
        return self.shift + self.growth * places


STILL = Similarity(0j, 0j, 0.0)
"""What is said of a pair of frames that offers nothing to hold on to."""


@dataclass(frozen=True, slots=True)
class Rates:
    """Motion of the content per second: ``shift`` in widths/s, ``turn`` = rate of log scale + i * radians/s."""

    shift: complex
    turn: complex

    def over(self, dt_s: float) -> Similarity:
        """The similarity after ``dt_s`` seconds."""
        return Similarity(self.shift * dt_s, complex(np.exp(self.turn * dt_s)) - 1, 0.0)


def fit_similarities(places: np.ndarray, flow: np.ndarray, hold: np.ndarray, tolerance: np.ndarray) -> list[Similarity]:
    """Fit complex (p, m) flow at complex (m,) places where bool (p, m) ``hold`` is set.

    STILL with fewer than two places, or where nothing below LARGEST_GROWTH fits.
    Residuals below float (p,) ``tolerance`` (widths) count as agreement. The start is the best of a fixed set of
    two-place hypotheses by truncated squares, so that up to about half of the places may move on their own.
    """
    starts = _best_hypotheses(places, flow, hold, tolerance)
    return refined(places, flow, hold, tolerance, starts)


def refined(
    places: np.ndarray, flow: np.ndarray, hold: np.ndarray, tolerance: np.ndarray, starts: Sequence[Similarity]
) -> list[Similarity]:
    """Improve similarities by weighted least squares with Geman-McClure weights, and count who agrees."""
    shift = np.array([start.shift for start in starts])
    growth = np.array([start.growth for start in starts])
    scale = 1 / tolerance[:, None] ** 2
    for _ in range(_REFINEMENTS):
        loss = _squared(flow - shift[:, None] - growth[:, None] * places) * scale
        shift, growth = _least_squares(places, flow, hold / (1.0 + loss) ** 2)
    agree = hold & (_squared(flow - shift[:, None] - growth[:, None] * places) * scale < 1)
    n_held = hold.sum(axis=1)
    share = agree.sum(axis=1) / np.maximum(n_held, 1)
    sound = (n_held >= 2) & (np.abs(growth) <= LARGEST_GROWTH)
    return [
        Similarity(complex(shift[i]), complex(growth[i]), float(share[i])) if sound[i] else STILL
        for i in range(len(flow))
    ]


def rates(fits: Sequence[Similarity], dt_s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Complex (n,) shift and turn per second of each fit."""
    shift = np.array([fit.shift for fit in fits]) / dt_s
    return shift, np.log(1 + np.array([fit.growth for fit in fits])) / dt_s


def typical_rates(fits: Sequence[Similarity], dt_s: np.ndarray) -> Rates:
    """Medians over time of each component, a fit counting by its inlier share."""
    shift, turn = rates(fits, dt_s)
    weight = dt_s * np.array([fit.inlier_share for fit in fits])
    parts = [weighted_median(part, weight) for part in (np.real(shift), np.imag(shift), np.real(turn), np.imag(turn))]
    return Rates(complex(parts[0], parts[1]), complex(parts[2], parts[3]))


def weighted_median(values: np.ndarray, weight: np.ndarray) -> float:
    """The middle of float (n,) values by weight, between two values when they share it; 0 when nothing has weight."""
    if weight.sum() <= 0:
        return 0.0
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weight[order]) / weight.sum()
    low = int(np.searchsorted(reached, 0.5 - 1e-9))
    high = int(np.searchsorted(reached, 0.5 + 1e-9))
    return float(values[order[low]] + values[order[min(high, len(values) - 1)]]) / 2


def _best_hypotheses(places: np.ndarray, flow: np.ndarray, hold: np.ndarray, tolerance: np.ndarray) -> list[Similarity]:
    """The best hypothesis of each pair: a similarity through two of its places, or the shift of one."""
    rows = np.arange(len(flow))[:, None]
    held_first = np.argsort(~hold, axis=1, kind="stable")
    n_held = np.maximum(hold.sum(axis=1), 1)[:, None]
    drawn = np.random.default_rng(0).random((2, _HYPOTHESES))
    first, second = (held_first[rows, (n_held * share).astype(np.intp)] for share in drawn)
    apart = places[first] - places[second]
    growth = (flow[rows, first] - flow[rows, second]) / np.where(apart == 0, 1, apart)
    growth = np.where((np.abs(apart) > 0.1) & (np.abs(growth) <= LARGEST_GROWTH), growth, 0)
    shift = np.concatenate([flow[rows, first] - growth * places[first], flow[rows, first]], axis=1)
    growth = np.concatenate([growth, np.zeros_like(growth)], axis=1)
    judges = held_first[rows, (n_held * np.linspace(0, 1, _JUDGES, endpoint=False)).astype(np.intp)]
    far_places = places[judges].astype(np.complex64)[:, None]
    model = shift.astype(np.complex64)[:, :, None] + growth.astype(np.complex64)[:, :, None] * far_places
    off = _squared(flow[rows, judges].astype(np.complex64)[:, None] - model)
    cost = np.minimum(off, (4 * tolerance**2).astype(np.float32)[:, None, None]).sum(axis=2)
    best = cost.argmin(axis=1)
    return [Similarity(complex(shift[i, at]), complex(growth[i, at]), 0.0) for i, at in enumerate(best)]


def _squared(values: np.ndarray) -> np.ndarray:
    return np.real(values) ** 2 + np.imag(values) ** 2


def _least_squares(places: np.ndarray, flow: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shift and growth (p,) for weights (p, m)."""
    total = np.maximum(weight.sum(axis=1), 1e-300)
    place_mean = weight @ places / total
    flow_mean = (weight * flow).sum(axis=1) / total
    from_mean = places - place_mean[:, None]
    weighted = weight * np.conj(from_mean)
    spread = np.real(weighted * from_mean).sum(axis=1)
    joint = (weighted * (flow - flow_mean[:, None])).sum(axis=1)
    growth = np.where(spread > 1e-12, joint / np.maximum(spread, 1e-12), 0)
    return flow_mean - growth * place_mean, growth
