"""Laws of the estimator: scale, wholeness, what goes with what, and intervals that hold what they promise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.estimate.ratios import DRAWS, Bucket, Family, best_predictor, totals
from curate.estimate.sample import chances, draw

SIZES = st.lists(st.floats(0.1, 1e6), min_size=3, max_size=12)


def bucket(sizes, sample, likely=None, **more) -> Bucket:
    """All sources equally likely, unless it is said how."""
    known = {name: np.array(values, float) for name, values in more.items()}
    sample = np.array(sample)
    likely = np.full(len(sample), len(sample) / len(sizes)) if likely is None else np.array(likely)[sample]
    return Bucket({**known, "bytes": np.array(sizes, float), "number": np.ones(len(sizes))}, sample, likely)


def total(found: Bucket, seen, predictor: str = "", seed: int = 0):
    return totals(found, [Family({"y": np.array(seen, float)}, predictor)], seed)


@given(SIZES, st.randoms(use_true_random=False))
def test_a_sample_of_everything_is_exact_and_sure(sizes, rng):
    seen = [rng.uniform(0, 100) for _ in sizes]
    found = total(bucket(sizes, range(len(sizes))), seen).estimate("y")
    assert found.value == pytest.approx(sum(seen))
    assert found.low == found.value == found.high


@given(SIZES, st.floats(1e-3, 1e3), st.sampled_from(["bytes", "number"]))
def test_estimates_grow_with_what_was_seen_and_not_with_the_unit_of_size(sizes, factor, predictor):
    sample = [0, 2]
    seen = np.array([3.0, 5.0])
    plain = total(bucket(sizes, sample), seen, predictor).estimate("y")
    larger = total(bucket(sizes, sample), factor * seen, predictor).estimate("y")
    in_other_units = total(bucket(factor * np.array(sizes), sample), seen, predictor).estimate("y")
    for value, before in zip(
        (larger.value, larger.low, larger.high), (plain.value, plain.low, plain.high), strict=True
    ):
        assert value == pytest.approx(factor * before)
    assert in_other_units.value == pytest.approx(plain.value)


@given(SIZES, st.floats(0.01, 100))
def test_what_is_in_proportion_is_foretold_exactly_by_any_sample(sizes, rate):
    sample = [0, 1]
    found = total(bucket(sizes, sample), rate * np.array(sizes)[sample], "bytes").estimate("y")
    for value in (found.value, found.low, found.high):
        assert value == pytest.approx(rate * sum(sizes))


@given(SIZES, st.lists(st.floats(0, 1e3), min_size=2, max_size=2))
def test_a_total_is_never_less_than_what_was_seen(sizes, seen):
    found = total(bucket(sizes, [0, 1]), seen)
    assert (found.draws["y"] >= sum(seen) - 1e-9).all()
    told = found.estimate("y")
    assert told.low <= told.value <= told.high


def test_sums_hold_within_a_family():
    found = bucket([1, 9, 4, 4, 7], [0, 1, 3])
    kept, dropped = np.array([1.0, 6, 2]), np.array([0.0, 3, 2])
    told = totals(found, [Family({"found": kept + dropped, "kept": kept, "dropped": dropped})])
    assert told.values["kept"] + told.values["dropped"] == pytest.approx(told.values["found"])
    assert len(set(told.predictors.values())) == 1


def test_each_quantity_goes_with_what_foretells_it_best():
    rng = np.random.default_rng(1)
    pixels, sizes = rng.uniform(1, 100, 40), rng.uniform(1, 100, 40)
    found = bucket(sizes, range(0, 40, 2), pixels=pixels)
    noise = rng.uniform(0.95, 1.05, 20)
    assert best_predictor(found, 3 * pixels[::2] * noise) == "pixels"
    assert best_predictor(found, 3 * sizes[::2] * noise) == "bytes"
    assert best_predictor(found, 3 * noise) == "number"


def test_of_equals_the_first_is_taken_and_nothing_but_noughts_foretells_nothing():
    found = bucket([2, 2, 2, 2], [0, 1], pixels=[0, 0, 5, 5])
    assert best_predictor(found, np.array([1.0, 1.0])) == "bytes"
    assert best_predictor(bucket([1, 3], [1]), np.array([1.0])) == "bytes"


def test_a_single_source_says_nothing_of_the_spread():
    told = total(bucket([1, 2, 3], [1]), [4.0]).estimate("y")
    assert (told.value, told.low, told.high) == (pytest.approx(12.0), None, None)


def test_a_formula_is_given_every_draw():
    told = totals(bucket([1, 2, 3, 4], [0, 3]), [Family({"a": np.array([1.0, 4]), "b": np.array([2.0, 2])})])
    ratio = told.derived(lambda get: get("a") / get("b"))
    assert ratio.value == pytest.approx(told.values["a"] / told.values["b"])
    assert told.derived(lambda get: get("a") + 5).value == pytest.approx(told.values["a"] + 5)
    assert told.estimate("unheard of").value == 0
    assert told.draws["a"].shape == (DRAWS,)


def test_a_source_stands_for_as_many_as_its_chance_was_small():
    likely = [1, 0.5, 0.5, 0.25, 0.25, 0.25, 0.25]
    told = total(bucket([1] * 7, [0, 1, 3], likely), [10.0, 4.0, 1.0], "number")
    assert told.values["y"] == pytest.approx(10 + 2 * 4 + 4 * 1)


def test_a_share_is_never_surer_than_its_sources():
    agree = totals(bucket([1] * 40, range(10)), [Family({"found": np.full(10, 5.0), "kept": np.full(10, 5.0)})])
    told = agree.share("kept", "found")
    assert (told.value, told.high) == (1.0, 1.0)
    assert 0.75 < told.low < 0.9
    whole = totals(bucket([1] * 4, range(4)), [Family({"found": np.full(4, 5.0), "kept": np.arange(4.0)})])
    assert whole.share("kept", "found").low == whole.share("kept", "found").high == pytest.approx(6 / 20)
    assert totals(bucket([1] * 4, [0, 1]), [Family({"found": np.zeros(2)})]).share("kept", "found").value == 0


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 1000))
def test_intervals_hold_the_truth_about_as_often_as_they_say(seed):
    """Clips per source, in proportion to length but for luck, in a sample of a tenth of 120 by length: nine of ten
    cases, give or take what 60 trials may be off."""
    rng = np.random.default_rng(seed)
    hits = 0
    for trial in range(60):
        sizes = rng.lognormal(0, 1, 120)
        clips = rng.poisson(5 * sizes)
        likely = chances(sizes, 12)
        sample = draw(likely, trial)
        told = total(bucket(sizes, sample, likely), clips[sample], seed=trial).estimate("y")
        hits += told.low <= clips.sum() <= told.high
    spread = math.sqrt(0.9 * 0.1 / 60)
    assert hits / 60 > 0.9 - 4 * spread


@pytest.mark.parametrize("alike", [False, True], ids=["a clip in fifty", "all clips of a source in fifty"])
def test_intervals_of_rare_counts_hold_the_truth_too(alike):
    """Also where the sample shows none of it, which is two samples in three where the clips of a source are alike."""
    rng = np.random.default_rng(5)
    hits, unseen = 0, 0
    for trial in range(100):
        sizes = rng.lognormal(0, 1, 200)
        found = np.maximum(1, rng.poisson(5 * sizes))
        rare = rng.binomial(found, rng.random(200) < 0.02 if alike else 0.02)
        likely = chances(sizes, 20)
        sample = draw(likely, trial)
        seen = {"found": found[sample].astype(float), "rare": rare[sample].astype(float)}
        told = totals(bucket(sizes, sample, likely), [Family(seen, whole="found")], trial).estimate("rare")
        hits += told.low - 1e-9 <= rare.sum() <= told.high + 1e-9
        unseen += not seen["rare"].any()
        assert told.low >= seen["rare"].sum() - 1e-9
    assert hits >= 100 * 0.9 - 4 * math.sqrt(100 * 0.9 * 0.1)
    assert not alike or unseen > 30


def test_of_what_was_not_seen_a_part_may_be_there_and_of_a_whole_sample_none():
    some = totals(bucket([1] * 40, range(10)), [Family({"all": np.ones(10), "bad": np.zeros(10)}, whole="all")])
    told = some.estimate("bad")
    assert (told.value, told.low) == (0, 0) and 4 < told.high < 10
    assert some.share("bad", "all").high == pytest.approx(told.high / 40)
    assert told.plus(2).high == told.high + 2
    every = totals(bucket([1] * 4, range(4)), [Family({"all": np.ones(4), "bad": np.zeros(4)}, whole="all")])
    assert every.estimate("bad").high == 0


def test_unequal_sources_tell_less_of_a_share_than_equal_ones():
    seen = {"all": np.ones(8), "some": np.array([1.0, 0, 1, 0, 1, 0, 1, 0])}
    equal = totals(bucket([1] * 80, range(8)), [Family(seen, whole="all")])
    likely = np.full(80, 0.02)
    likely[:7] = 0.9
    unequal = totals(bucket([1] * 80, range(8), likely), [Family(seen, whole="all")])
    assert equal.cases["all"] == pytest.approx(8 / 0.9)
    assert unequal.cases["all"] < 2
