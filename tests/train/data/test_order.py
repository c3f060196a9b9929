"""Orders and draws: pure, fair, and never a batch of two buckets."""

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.train.data.order import Draws, Order, Position
from curate.train.data.worker import draw_caption

sizes = st.lists(st.integers(0, 30), min_size=1, max_size=4)


def order(counts, batch):
    edges = np.cumsum([0, *counts])
    rows = [np.arange(edges[at], edges[at + 1]) for at in range(len(counts))]
    return Order(rows, batch), rows


def walked(made, position, n):
    for _ in range(n):
        yield position, made.batch(position)
        position = made.next(position)


@given(sizes, st.integers(1, 7), st.integers(0, 3))
def test_an_epoch_holds_whole_batches_of_one_bucket_each(counts, batch, seed):
    made, rows = order(counts, batch)
    seen = Counter()
    for position, plan in walked(made, Position(seed), made.n_batches):
        firsts = [candidates[0] for candidates in plan.candidates]
        assert len(firsts) == batch
        assert set(firsts) <= set(rows[plan.bucket].tolist())
        assert {c for own in plan.candidates for c in own} <= set(rows[plan.bucket].tolist())
        assert plan.first_item == position.index * batch
        seen.update(firsts)
    assert all(count == 1 for count in seen.values())
    assert made.n_batches == sum(count // batch for count in counts)
    assert len(seen) == sum(count - count % batch for count in counts)


@given(sizes.filter(lambda counts: sum(counts) >= 14), st.integers(0, 2), st.integers(0, 100))
def test_a_batch_depends_on_its_position_alone(counts, epoch, at):
    walking, _ = order(counts, 2)
    fresh, _ = order(counts, 2)
    position = Position(5, epoch, at % walking.n_batches)
    for seen, plan in walked(walking, Position(5), 3 * walking.n_batches):
        if seen == position:
            assert fresh.batch(position) == plan


def test_the_order_is_known():
    """What a checkpoint was trained on must not change with the version."""
    made, _ = order([7], 2)
    assert [[c[0] for c in plan.candidates] for _, plan in walked(made, Position(0), 3)] == KNOWN_ORDER
    draws = Draws(0, 1, 2)
    assert draws.unit("start") == pytest.approx(KNOWN_UNIT, abs=1e-15)


KNOWN_ORDER = [[6, 3], [4, 5], [0, 1]]
KNOWN_UNIT = 0.09988067800270006


def test_spares_are_the_next_rows_of_the_same_order():
    made, _ = order([6], 2)
    plans = [plan for _, plan in walked(made, Position(0), 3)]
    by_first = {own[0]: own for plan in plans for own in plan.candidates}
    for own in by_first.values():
        assert len(own) == 5
        assert own[1:4] == by_first[own[1]][:3]


def test_buckets_are_mixed_over_the_epoch():
    made, _ = order([100, 100], 2)
    buckets = [plan.bucket for _, plan in walked(made, Position(0), 100)]
    changes = sum(a != b for a, b in itertools.pairwise(buckets))
    assert 35 < changes < 65


@given(st.integers(0, 9), st.integers(0, 9), st.integers(0, 10**6))
def test_draws_lie_in_their_range(seed, epoch, item):
    draws = Draws(seed, epoch, item)
    assert 0 <= draws.unit("a") < 1
    assert 0 <= draws.below(7, "a") < 7
    assert draws.unit("a") != draws.unit("b")


def test_draws_have_their_chances():
    items = [Draws(0, 0, item) for item in range(20_000)]
    for weights in ([0.5, 0.25, 0.25], [2.0, 1.0, 1.0], [1.0]):
        counts = Counter(draws.weighted(weights, "caption") for draws in items)
        shares = [weight / sum(weights) for weight in weights]
        # four standard deviations of a share of one half over 20,000 draws
        assert [counts[at] / len(items) for at in range(len(weights))] == pytest.approx(shares, abs=0.0142)
    even = Counter(draws.below(10, "start") for draws in items)
    assert [even[at] / len(items) for at in range(10)] == pytest.approx([0.1] * 10, abs=0.01)


@pytest.mark.parametrize(
    ("lacking", "shares"),
    [
        ("", {"coca": 0.5, "vblip": 0.25, "llm": 0.25}),
        ("coca", {"vblip": 0.5, "llm": 0.5}),
        ("llm", {"coca": 2 / 3, "vblip": 1 / 3}),
    ],
)
def test_captions_are_drawn_by_their_weights_among_those_there_are(lacking, shares):
    facts = {name: f"text of {name}" for name in ("coca", "vblip", "llm", "other")} | {lacking: None}
    weights = {"coca": 0.5, "vblip": 0.25, "llm": 0.25}
    drawn = [draw_caption(facts, weights, Draws(0, 0, item)) for item in range(4000)]
    assert {text for _, text in drawn} == {f"text of {name}" for name in shares}
    counts = Counter(name for name, _ in drawn)
    assert {name: count / 4000 for name, count in counts.items()} == pytest.approx(shares, abs=0.03)
    assert draw_caption({}, weights, Draws(0, 0, 0)) == ("", "")
