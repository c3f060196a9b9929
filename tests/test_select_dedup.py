"""Laws of near-duplicate removal, against a comparison of all pairs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.select.dedup import Fingerprints, Rule, near_duplicates, popcount


def fingerprints(rows):
    """Rows of (three hashes, flat, source, start_s, duration_s)."""
    hashes = np.array([row[0] for row in rows], np.uint64).reshape(-1, 3)
    columns = [np.array([row[i] for row in rows], kind) for i, kind in enumerate((bool, np.int64, float, float), 1)]
    return Fingerprints(hashes, *columns)


def naive(rows, rule):
    """The rule as its documentation says it."""
    kept_for = []
    for i, row in enumerate(rows):
        kept = [j for j in range(i) if kept_for[j] < 0 and alike(rows[j], row, rule)]
        kept_for.append(kept[0] if kept else -1)
    return kept_for


def alike(a, b, rule):
    (hashes_a, flat_a, source_a, start_a, length_a), (hashes_b, flat_b, source_b, start_b, length_b) = a, b
    near = all(bin(x ^ y).count("1") <= rule.hamming for x, y in zip(hashes_a, hashes_b, strict=True))
    close = abs(length_a - length_b) <= rule.duration_tolerance * max(length_a, length_b)
    apart = source_a == source_b and (start_a + length_a <= start_b or start_b + length_b <= start_a)
    return near and close and not apart and not flat_a and not flat_b


BASES = (0x0123456789ABCDEF, 0xFFFF0000FFFF0000)
hashes = st.builds(
    lambda base, bits: base ^ sum(1 << b for b in bits), st.sampled_from(BASES), st.sets(st.integers(0, 63), max_size=3)
)
clip = st.tuples(
    st.tuples(hashes, hashes, hashes),
    st.sampled_from([False, False, False, True]),
    st.integers(0, 3),
    st.sampled_from([0.0, 5.0, 10.0]),
    st.sampled_from([4.0, 4.3, 5.0, 9.0]),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(clip, max_size=40), st.sampled_from([0, 1, 3, 5]))
def test_the_clips_kept_are_those_of_the_rule(rows, hamming):
    rule = Rule(hamming)
    found = near_duplicates(fingerprints(rows), rule).tolist()
    assert [k >= 0 for k in found] == [k >= 0 for k in naive(rows, rule)]
    for position, kept_for in enumerate(found):
        if kept_for >= 0:
            assert found[kept_for] < 0
            assert kept_for < position
            assert alike(rows[kept_for], rows[position], rule)


@settings(max_examples=50, deadline=None)
@given(st.lists(clip, max_size=40))
def test_doing_it_again_removes_nothing(rows):
    found = near_duplicates(fingerprints(rows), Rule())
    kept = [row for row, kept_for in zip(rows, found, strict=True) if kept_for < 0]
    assert (near_duplicates(fingerprints(kept), Rule()) < 0).all()


@pytest.mark.parametrize("n", [3, 8, 9, 300])
def test_groups_of_all_sizes_keep_one_a_length(n):
    lengths = [4.0, 8.0, 16.0]
    rows = [((7, 7, 7), False, i, 0.0, lengths[i % 3]) for i in range(n)]
    found = near_duplicates(fingerprints(rows), Rule())
    assert found.tolist() == [-1] * 3 + [i % 3 for i in range(3, n)]


def test_a_fixed_camera_keeps_all_its_clips_and_a_copy_of_it_none():
    rows = [((7, 7, 7), False, source, 10.0 * i, 10.0) for source in (0, 1) for i in range(60)]
    found = near_duplicates(fingerprints(rows), Rule())
    assert (found[:60] < 0).all()
    assert (found[60:] >= 0).all()


def test_a_clip_cut_out_of_a_longer_one_of_its_source_matches_where_they_overlap():
    rows = [((7, 7, 7), False, 0, 0.1 * i, 10.0) for i in range(20)] + [((7, 7, 7), False, 0, 100.0, 10.0)]
    found = near_duplicates(fingerprints(rows), Rule())
    assert found.tolist() == [-1, *[0] * 19, -1]


@given(st.lists(st.integers(0, 2**64 - 1), max_size=20))
def test_popcount(words):
    assert popcount(np.array(words, np.uint64)).tolist() == [bin(word).count("1") for word in words]


def test_no_clips():
    assert near_duplicates(fingerprints([]), Rule()).tolist() == []
