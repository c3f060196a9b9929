"""From edges to spans: lengths, pieces, remainder, stride, key frames."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest
from cut_kit import bounds, facts, make
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from curate.config import parse_config
from curate.errors import ConfigError, StageError
from curate.records import CutKind
from curate.stage import Thumb
from curate.stages.cut import Cut, CutConfig
from curate.stages.cut.model import Edge, hard_cut
from curate.stages.cut.spans import SpanMaker, SpanRule

FLAT = np.full((36, 64, 3), 128, np.uint8)


def test_long_shots_become_pieces_and_the_remainder_is_kept_from_min_len_on():
    frames = list(range(100))
    spans, maker = make(frames, 100, hard_cut(75, "x"), SpanRule(10, 30))
    assert bounds(spans) == [(0, 30), (30, 60), (60, 75), (75, 100)]
    assert [s.end_kind for s in spans] == [CutKind.MAX_LEN, CutKind.MAX_LEN, CutKind.HARD, CutKind.SOURCE_END]
    assert [s.start_kind for s in spans] == [CutKind.SOURCE_START, CutKind.MAX_LEN, CutKind.MAX_LEN, CutKind.HARD]
    assert [s.start_detector for s in spans] == ["", "", "", "x"]
    assert maker.dropped == 0


def test_short_remainders_and_short_shots_are_dropped_and_counted():
    edges = [*hard_cut(65, "x"), *hard_cut(70, "x")]
    spans, maker = make(list(range(100)), 100, edges, SpanRule(10, 30))
    assert bounds(spans) == [(0, 30), (30, 60), (70, 100)]
    assert maker.dropped == 2
    assert maker.dropped_s == pytest.approx(10 / 30)


def test_a_shot_of_exactly_max_len_is_one_span_with_its_own_end():
    spans, _ = make(list(range(60)), 60, hard_cut(30, "x"), SpanRule(10, 30))
    assert bounds(spans) == [(0, 30), (30, 60)]
    assert spans[0].end_kind is CutKind.HARD


def test_pieces_come_before_the_shot_ends():
    maker = SpanMaker(SpanRule(10, 30), Fraction(1, 30))
    given_at = []
    for now in range(100):
        maker.frame(now)
        given_at += [(now, *each) for each in bounds(maker.settle([], now))]
    assert given_at == [(31, 0, 30), (61, 30, 60), (91, 60, 90)]


def test_a_gap_between_shots_belongs_to_none():
    edges = [Edge(40, False, CutKind.DISSOLVE, "d"), Edge(52, True, CutKind.DISSOLVE, "d")]
    spans, maker = make(list(range(100)), 100, edges, SpanRule(0, 0))
    assert bounds(spans) == [(0, 40), (52, 100)]
    assert maker.dropped == 0


def test_a_frame_held_for_longer_than_max_len_is_dropped_and_counted():
    pts = [*range(20), 200, *range(201, 220)]
    spans, maker = make(pts, 220, [], SpanRule(5, 30))
    assert bounds(spans) == [(0, 19), (200, 220)]
    assert maker.dropped_ticks == 181


def test_without_a_limit_few_time_stamps_are_held():
    maker = SpanMaker(SpanRule(0, 0), Fraction(1, 30))
    for now in range(5000):
        maker.frame(now)
        maker.settle([], max(now - 100, 0))
    assert len(maker._points) < 200
    assert bounds(maker.finish([], 5000)) == [(0, 5000)]


def test_frames_out_of_order_are_refused():
    maker = SpanMaker(SpanRule(0, 0), Fraction(1, 30))
    maker.frame(5)
    with pytest.raises(StageError, match="out of order"):
        maker.frame(5)


def test_fixed_stride_ignores_content_and_max_len():
    detector = Cut(CutConfig(method="fixed", fixed_s=2.0, max_len_s=1.0)).detector(facts())
    rng = np.random.default_rng(0)
    shown = [Thumb(i, rng.integers(0, 256, (36, 64, 3), np.uint8)) for i in range(200)]
    spans = [s for thumb in shown for s in detector.push(thumb)] + detector.finish(200)
    assert bounds(spans) == [(0, 60), (60, 120), (120, 180)]
    assert {s.start_kind for s in spans[1:]} == {CutKind.STRIDE}
    assert detector.summary()["short_dropped_s"] == pytest.approx(20 / 30)
    assert detector.summary()["n_cuts"] == 0


def test_snap_moves_inward_to_closed_key_frames():
    keys = [0, 25, 50, 75, 100, 125]
    closed = [True, True, False, True, True, True]
    rule = SpanRule.of(facts(keys, closed), 0.0, 0.0, piece_kind=CutKind.MAX_LEN, snap=True)
    spans, _ = make(list(range(150)), 150, hard_cut(60, "x"), rule)
    assert bounds(spans) == [(0, 25), (75, 150)]


def test_snap_without_a_key_frame_inside_gives_nothing():
    rule = SpanRule.of(facts([0]), 0.0, 0.0, piece_kind=CutKind.MAX_LEN, snap=True)
    spans, maker = make(list(range(90)), 90, [*hard_cut(30, "x"), *hard_cut(60, "x")], rule)
    assert spans == []
    assert (maker.dropped, maker.dropped_ticks) == (3, 90)


def test_snapped_pieces_end_at_key_frames_within_the_limit():
    rule = SpanRule.of(facts(list(range(0, 200, 12))), 0.0, 1.0, piece_kind=CutKind.MAX_LEN, snap=True)
    spans, maker = make(list(range(200)), 200, [], rule)
    assert bounds(spans)[:3] == [(0, 24), (24, 48), (48, 72)]
    assert maker.dropped == 0


def test_a_wrong_pass_key_names_its_path():
    with pytest.raises(ConfigError, match="cut"):
        parse_config(CutConfig, {"passes": [{"fps": 2, "treshold": 3}]}, "cut")
    with pytest.raises(ValidationError, match="above the longest clip"):
        CutConfig(min_len_s=5, max_len_s=2)


@st.composite
def sources(draw: st.DrawFn):
    """Frames at irregular times, cuts and gaps between shots, key frames, limits."""
    gaps = draw(st.lists(st.integers(1, 9), min_size=1, max_size=80))
    pts = [draw(st.integers(-50, 50))]
    for gap in gaps:
        pts.append(pts[-1] + gap)
    marks = sorted(draw(st.sets(st.integers(0, len(pts) - 1), max_size=8)))
    edges: list[Edge] = []
    while marks:
        first = marks.pop(0)
        if marks and draw(st.booleans()):
            clean = marks.pop(0)
            edges += [Edge(pts[first], False, CutKind.FADE, "f"), Edge(pts[clean], True, CutKind.FADE, "f")]
        else:
            edges += hard_cut(pts[first], "h")
    points = frozenset(draw(st.sets(st.sampled_from(pts)))) if draw(st.booleans()) else None
    longest = draw(st.integers(0, 60))
    shortest = draw(st.integers(0, longest or 30))
    return pts, pts[-1] + draw(st.integers(1, 9)), edges, SpanRule(shortest, longest, CutKind.MAX_LEN, points)


@given(sources(), st.integers(0, 30))
@settings(max_examples=300, deadline=None)
def test_laws_of_spans(source: tuple[list[int], int, list[Edge], SpanRule], lag: int):
    pts, end_pts, edges, rule = source
    spans, maker = make(pts, end_pts, edges, rule)
    assert make(pts, end_pts, edges, rule, lag)[0] == spans
    assert all(a.end_pts <= b.start_pts for a, b in itertools.pairwise(spans))
    allowed = set(pts) if rule.points is None else set(rule.points)
    for span in spans:
        assert pts[0] <= span.start_pts < span.end_pts <= end_pts
        assert span.start_pts in allowed
        assert span.end_pts in allowed | {end_pts}
        length = span.end_pts - span.start_pts
        assert length >= rule.min_ticks
        assert not rule.max_ticks or length <= rule.max_ticks
        assert not any(span.start_pts < edge.pts < span.end_pts for edge in edges)
    if rule.points is None:
        shot_ticks = _inside(pts[0], end_pts, edges)
        assert sum(s.end_pts - s.start_pts for s in spans) + maker.dropped_ticks == shot_ticks


def _inside(first_pts: int, end_pts: int, edges: list[Edge]) -> int:
    """Ticks that belong to any shot."""
    total, since = 0, first_pts
    for edge in edges:
        if edge.opens:
            since = edge.pts
        else:
            total += edge.pts - since
    return total + end_pts - since
