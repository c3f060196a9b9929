"""Laws of exact time."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.units import (
    exact,
    format_bytes,
    format_duration,
    fraction_text,
    parse_fraction,
    pts_to_s,
    s_to_pts_ceil,
    s_to_pts_floor,
)

time_bases = st.sampled_from(
    [Fraction(1, 90000), Fraction(1, 1000), Fraction(1001, 30000), Fraction(1, 25), Fraction(2, 3)]
)
seconds = st.fractions(min_value=-(10**6), max_value=10**6, max_denominator=10**9)


@given(seconds, time_bases)
def test_floor_and_ceiling_enclose_a_time_by_less_than_a_tick(time_s, base):
    low, high = s_to_pts_floor(time_s, base), s_to_pts_ceil(time_s, base)
    assert pts_to_s(low, base) <= time_s <= pts_to_s(high, base)
    assert time_s - pts_to_s(low, base) < base and pts_to_s(high, base) - time_s < base


@given(st.integers(-(2**62), 2**62), time_bases)
def test_a_time_stamp_comes_back_from_its_seconds(pts, base):
    assert s_to_pts_floor(pts_to_s(pts, base), base) == pts == s_to_pts_ceil(pts_to_s(pts, base), base)


@given(st.fractions())
def test_a_fraction_comes_back_from_its_text(value):
    assert parse_fraction(fraction_text(value)) == value


@given(st.integers(-(10**9), 10**9), st.integers(0, 6))
def test_decimals_of_a_config_mean_what_they_say(digits, places):
    value = Fraction(digits, 10**places)
    assert exact(float(value)) == value
    assert exact(value) is value


def test_broadcast_rates_stay_rational():
    base = Fraction(1001, 30000)
    assert pts_to_s(30000, base) == 1001
    assert s_to_pts_floor(exact("0.1"), base) == 2


def test_no_fraction_is_refused():
    with pytest.raises(ValueError, match="Invalid literal"):
        parse_fraction("a third")


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 << 30, "5.0 GiB"), (2**50, "1024.0 TiB")]
)
def test_sizes_are_readable(size, text):
    assert format_bytes(size) == text


@pytest.mark.parametrize(
    ("duration_s", "text"),
    [(0, "0.0s"), (59.9, "59.9s"), (59.96, "1m00s"), (61, "1m01s"), (3725.2, "1h02m05s"), (3599.9, "1h00m00s")],
)
def test_durations_are_readable(duration_s, text):
    assert format_duration(duration_s) == text
