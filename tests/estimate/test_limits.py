"""Laws of the limit of a percentile: by definition it drops its share of the bucket, whatever the sample is like."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.estimate.limits import limit_of
from curate.estimate.ratios import Bucket, Family, totals
from curate.estimate.sample import chances, draw

PAIRS = st.lists(st.tuples(st.integers(-5, 5), st.floats(0.5, 20)), min_size=1, max_size=30)


@given(PAIRS, st.floats(0.01, 0.99))
def test_what_lies_below_a_limit_is_its_share_but_for_half_of_the_clip_on_the_border(pairs, share):
    values, weights = np.array(pairs, float).T
    limit = limit_of(values, weights, share)
    below, above = weights[values < limit].sum(), weights[values > limit].sum()
    dropped = share * weights.sum()
    assert limit in values
    assert below - weights.max() / 2 <= dropped + 1e-9
    assert dropped <= weights.sum() - above + weights.max() / 2 + 1e-9


def test_a_quarter_is_foretold_as_a_quarter_where_score_and_length_go_together():
    """100 samples of 20 of 200 sources drawn by length; long sources have the low scores."""
    rng = np.random.default_rng(3)
    sizes = rng.lognormal(0, 1, 200)
    n_clips = np.maximum(1, rng.poisson(4 * sizes))
    scores = [rng.normal(-np.log(size), 0.3, n) for size, n in zip(sizes, n_clips, strict=True)]
    likely, foretold = chances(sizes, 20), []
    for seed in range(100):
        sample = draw(likely, seed)
        values = np.concatenate([scores[at] for at in sample])
        weights = np.concatenate([np.full(n_clips[at], 1 / likely[at]) for at in sample])
        limit = limit_of(values, weights, 0.25)
        fails = np.array([(scores[at] < limit).sum() for at in sample])
        clips = Family({"found": n_clips[sample].astype(float), "fails": fails.astype(float)}, "number")
        bucket = Bucket({"number": np.ones(200)}, sample, likely[sample])
        foretold.append(totals(bucket, [clips], seed).share("fails", "found").value)
    assert np.mean(foretold) == pytest.approx(0.25, abs=0.01)
    assert np.std(foretold) < 0.02
