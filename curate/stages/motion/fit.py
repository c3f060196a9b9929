"""The camera's share of a flow field: a robust similarity (shift, zoom, roll), the same on every run.

Places and flow are complex numbers (x + iy, y down) in picture widths, with the origin at the picture's centre. A
similarity that moves the content by f(z) = shift + growth * z covers pan, tilt, zoom and roll exactly, because
1 + growth = exp(log scale + i * angle).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_HYPOTHESES = 96
_JUDGES = 256
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


def fit_similarity(places: np.ndarray, flow: np.ndarray, tolerance: float) -> Similarity:
    """Fit complex (n,) flow at complex (n,) places; residuals below ``tolerance`` (widths) count as agreement.

    The start is the best of a fixed set of two-place hypotheses by truncated squares, so that up to about half of the
    places may move on their own.
    """
    if len(places) < 2:
        return STILL
    return refined(places, flow, tolerance, _best_hypothesis(places, flow, tolerance))


def refined(places: np.ndarray, flow: np.ndarray, tolerance: float, start: Similarity) -> Similarity:
    """Improve a similarity by weighted least squares with Geman-McClure weights, and count who agrees."""
    if len(places) < 2:
        return STILL
    here = start
    for _ in range(_REFINEMENTS):
        residual = np.abs(flow - here.at(places))
        here = _least_squares(places, flow, 1.0 / (1.0 + (residual / tolerance) ** 2) ** 2)
    agree = np.abs(flow - here.at(places)) < tolerance
    return Similarity(here.shift, here.growth, float(np.mean(agree)))


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


def _best_hypothesis(places: np.ndarray, flow: np.ndarray, tolerance: float) -> Similarity:
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, len(places), (2, _HYPOTHESES))
    apart = places[first] - places[second]
    far = np.abs(apart) > 0.1
    growth = np.where(far, (flow[first] - flow[second]) / np.where(far, apart, 1), 0)
    growth = np.concatenate([growth, np.zeros(_HYPOTHESES)])
    shift = np.tile(flow[first], 2) - growth * np.tile(places[first], 2)
    judges = np.linspace(0, len(places) - 1, min(_JUDGES, len(places))).astype(np.intp)
    residual = np.abs(flow[judges] - shift[:, None] - growth[:, None] * places[judges])
    cost = np.minimum(residual, 2 * tolerance) ** 2
    best = int(np.argmin(cost.sum(axis=1)))
    return Similarity(complex(shift[best]), complex(growth[best]), 0.0)


def _least_squares(places: np.ndarray, flow: np.ndarray, weight: np.ndarray) -> Similarity:
    total = weight.sum()
    place_mean, flow_mean = (weight * places).sum() / total, (weight * flow).sum() / total
    spread = (weight * np.abs(places - place_mean) ** 2).sum()
    joint = (weight * np.conj(places - place_mean) * (flow - flow_mean)).sum()
    growth = joint / spread if spread > 1e-12 else 0j
    return Similarity(complex(flow_mean - growth * place_mean), complex(growth), 0.0)
