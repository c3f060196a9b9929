from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.errors import ConfigError
from curate.estimate.sample import LEAST_INPUTS, SampleSize, chances, draw


@pytest.mark.parametrize(
    ("text", "n_inputs", "n"),
    [("1%", 5000, 50), ("0.01", 5000, 50), (".5", 40, 20), ("20", 5000, 20), ("20", 7, 7), ("1", 90, 1),
     ("1%", 90, LEAST_INPUTS), ("100%", 90, 90), ("10%", 3, 3), (" 2.5 % ", 4000, 100), ("10%", 101, 11)],
)  # fmt: skip
def test_a_share_or_a_number_and_never_too_few_by_accident(text, n_inputs, n):
    assert SampleSize.parse(text).of(n_inputs) == n


@pytest.mark.parametrize("text", ["", "0", "0%", "101%", "1.5", "-3", "ten", "1%%", "nan", "1e3"])
def test_what_is_neither_is_refused(text):
    with pytest.raises(ConfigError, match="neither a share of the inputs nor a number of them"):
        SampleSize.parse(text)


WEIGHTS = st.lists(st.floats(0.1, 1e4), min_size=1, max_size=60)


@given(WEIGHTS, st.data())
def test_so_many_are_drawn_and_the_heavy_ones_always(weights, data):
    n = data.draw(st.integers(1, len(weights)))
    likely = chances(np.array(weights), n)
    assert likely.sum() == pytest.approx(n) and (likely > 0).all() and (likely <= 1).all()
    order = np.argsort(weights)
    assert (np.diff(likely[order]) >= -1e-9).all(), "the heavier the likelier"
    chosen = draw(likely, data.draw(st.integers(0, 99)))
    assert len(set(chosen)) == len(chosen) == n
    assert set(np.flatnonzero(likely >= 1)) <= set(chosen)


def test_each_is_drawn_as_often_as_its_chance_says():
    likely = chances(np.array([1.0, 2, 3, 4, 5, 6, 7, 8, 30]), 4)
    assert likely[-1] == 1 and likely[7] == pytest.approx(3 * 8 / 36)
    drawn = np.zeros(9)
    for seed in range(3000):
        drawn[draw(likely, seed)] += 1
    assert drawn / 3000 == pytest.approx(likely, abs=4 * np.sqrt(0.25 / 3000))


def test_the_seed_decides():
    likely = chances(np.array([1.0 + i % 17 for i in range(100)]), 10)
    assert list(draw(likely, 1)) == list(draw(likely, 1)) != list(draw(likely, 2))
