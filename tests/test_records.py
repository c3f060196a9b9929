"""Records: ids that never change, rows that come back."""

from __future__ import annotations

from dataclasses import fields
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.records import Clip, CutKind, SourceFacts, Span, clip_id

DIGEST = "a" * 64


def test_a_clip_id_is_the_same_for_ever():
    assert clip_id(DIGEST, 0, 0, 450_000, Fraction(1, 90_000)) == "3443f2f2255cfde8e91c3c402f506858"


def test_an_id_depends_on_the_value_of_the_time_base_not_on_how_it_is_written():
    assert clip_id(DIGEST, 0, 0, 9, Fraction(2, 180_000)) == clip_id(DIGEST, 0, 0, 9, Fraction(1, 90_000))


@pytest.mark.parametrize(
    "other",
    [
        ("b" * 64, 0, 0, 9, Fraction(1, 25)),
        (DIGEST, 1, 0, 9, Fraction(1, 25)),
        (DIGEST, 0, 1, 9, Fraction(1, 25)),
        (DIGEST, 0, 0, 8, Fraction(1, 25)),
        (DIGEST, 0, 0, 9, Fraction(1, 24)),
    ],
)
def test_every_part_of_a_span_is_in_its_id(other):
    assert clip_id(*other) != clip_id(DIGEST, 0, 0, 9, Fraction(1, 25))


spans = st.builds(
    lambda start, length, kinds, names: Span(start, start + length, *kinds, *names),
    st.integers(-(2**40), 2**40),
    st.integers(1, 2**40),
    st.tuples(st.sampled_from(CutKind), st.sampled_from(CutKind)),
    st.tuples(st.text(max_size=5), st.text(max_size=5)),
)
bases = st.fractions(min_value=Fraction(1, 10**6), max_value=2, max_denominator=10**6).filter(bool)


@given(spans, bases, st.integers(0, 9))
def test_a_clip_comes_back_from_its_row(span, base, stream):
    clip = Clip.of_span(DIGEST, stream, base, span)
    again = Clip.from_row(clip.to_row())
    assert again == clip
    assert again.clip_id == clip_id(DIGEST, stream, span.start_pts, span.end_pts, base)
    assert again.end_s - again.start_s == again.duration_s > 0


def test_clips_of_one_source_share_what_they_have_in_common():
    rows = [Clip.of_span(DIGEST, 0, Fraction(1, 25), Span(at, at + 9)).to_row() for at in (0, 9)]
    first, second = (Clip.from_row({**row, "source_digest": "".join(DIGEST), "time_base": "1/25"}) for row in rows)
    assert first.source_digest is second.source_digest
    assert first.time_base is second.time_base


def test_what_cut_a_clip_is_no_part_of_its_identity():
    plain = Clip.of_span(DIGEST, 0, Fraction(1, 25), Span(0, 9))
    cut = Clip.of_span(DIGEST, 0, Fraction(1, 25), Span(0, 9, CutKind.HARD, CutKind.FADE, "a", "b"))
    assert plain.clip_id == cut.clip_id


def test_facts_come_back_from_a_cell_with_more_columns():
    given_facts = {field.name: index for index, field in enumerate(fields(SourceFacts))}
    facts = SourceFacts(**{**given_facts, "time_base": "1/90000"})
    assert SourceFacts.from_cell({**facts.to_cell(), "outcome": "ok", "seconds": 1.0}) == facts
    assert facts.time_base_fraction == Fraction(1, 90_000)
