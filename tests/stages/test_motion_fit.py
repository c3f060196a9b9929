"""The robust similarity on generated flow fields."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.stages.motion.fit import STILL, Rates, fit_similarities, typical_rates, weighted_median

X, Y = np.meshgrid(np.linspace(-0.5, 0.5, 40), np.linspace(-0.28, 0.28, 22))
PLACES = (X + 1j * Y).ravel()
TOLERANCE = 1 / 320


def fitted(flow, hold):
    """The fit of one pair beside another that has nothing in common with it."""
    pairs = np.stack([np.conj(PLACES), flow]), np.stack([np.ones(len(flow), bool), hold])
    return fit_similarities(PLACES, *pairs, np.array([1.0, TOLERANCE]))[1]


small = st.floats(-0.05, 0.05)


@given(small, small, small, small, st.integers(0, 1000))
def test_any_similarity_is_recovered_beside_forty_per_cent_that_move_alone(x, y, log_scale, angle, seed):
    rng = np.random.default_rng(seed)
    growth = np.exp(log_scale + 1j * angle) - 1
    flow = complex(x, y) + growth * PLACES + rng.normal(0, 2e-4, (2, len(PLACES))).T @ [1, 1j]
    alone = rng.random(len(PLACES)) < 0.4
    flow[alone] = 0.2 + rng.uniform(-0.1, 0.1, int(alone.sum())) + 1j * rng.uniform(-0.1, 0.1, int(alone.sum()))
    found = fitted(flow, np.ones(len(flow), bool))
    assert found.shift == pytest.approx(complex(x, y), abs=1e-4)
    assert found.growth == pytest.approx(growth, abs=1e-3)
    assert found.inlier_share == pytest.approx(1 - alone.mean(), abs=0.02)


def test_too_few_places_stand_still():
    assert fitted(PLACES, np.arange(len(PLACES)) == 7) == STILL


@given(st.floats(-0.3, 0.3), st.floats(-0.3, 0.3), st.lists(st.floats(0.1, 2), min_size=1, max_size=6))
def test_steady_rates_survive_uneven_time_steps(log_scale, angle, dt_s):
    steady = Rates(0.1 - 0.05j, complex(log_scale, angle))
    fits = [type(STILL)(s.shift, s.growth, 1.0) for s in map(steady.over, dt_s)]
    found = typical_rates(fits, np.array(dt_s))
    assert found.shift == pytest.approx(steady.shift)
    assert found.turn == pytest.approx(steady.turn, abs=1e-9)


def test_weighted_median():
    assert weighted_median(np.array([3.0, 1.0, 2.0]), np.ones(3)) == 2
    assert weighted_median(np.array([1.0, 2.0, 3.0, 4.0]), np.ones(4)) == 2.5
    assert weighted_median(np.array([1.0, 9.0]), np.array([1.0, 3.0])) == 9
    assert weighted_median(np.array([5.0]), np.zeros(1)) == 0
