"""Clips by the clock, and what recipes of others do with long shots and edges."""

from __future__ import annotations

import inspect
import itertools
from fractions import Fraction

import numpy as np
import pytest
from cut_kit import PEER_FACTS, bounds, facts, footage, make
from hypothesis import given, settings
from hypothesis import strategies as st
from media_kit import FILES, small
from pydantic import ValidationError

from curate.engine.detect import Detection
from curate.media import decode
from curate.media.decode import iter_frames
from curate.media.facts import read_facts
from curate.media.views import ViewSampler
from curate.recipe import build, load_recipe
from curate.records import CutKind, SourceFacts
from curate.stage import Thumb
from curate.stages.cut import Cut, CutConfig
from curate.stages.cut.model import Edge, hard_cut
from curate.stages.cut.scenedetect import Settings, make_detector
from curate.stages.cut.spans import SpanRule
from curate.stages.cut.transnet import THRESHOLD
from curate.testing.footage import moving_texture, write_video
from curate.units import exact
from curate.view import ViewSpec

FLAT = np.full((36, 64, 3), 128, np.uint8)


def strode(pts: list[int], end_pts: int, source: SourceFacts, shown_every: int = 1, **config: object):
    """Spans of the method ``stride`` where only some frames are shown, the others told."""
    stage = Cut(CutConfig.model_validate({"method": "stride", "min_len_s": 0.0, **config}))
    detector, spans, skipped = stage.detector(source), [], []
    for i, at in enumerate(pts):
        if i % shown_every:
            skipped.append(at)
            continue
        spans += detector.push(Thumb(at, FLAT, tuple(skipped)))
        skipped = []
    return spans + detector.finish(end_pts, tuple(skipped)), detector.summary()


def test_nothing_adds_up_at_a_rate_that_no_stride_is_a_multiple_of():
    """29.97 frames/s: by whole frames clip k would begin ever earlier; by the clock each begins at 2 k s."""
    pts = [1001 * i for i in range(600)]
    source = SourceFacts(**{**facts_dict(), "time_base": "1/30000", "rate": "30000/1001", "rate_fps": 29.97})
    spans, summary = strode(pts, 600 * 1001, source, fixed_s=2.0, min_len_s=1.0)
    starts_s = [Fraction(span.start_pts, 30000) for span in spans]
    assert [int(start) for start in starts_s] == [2 * k for k in range(len(spans))]
    assert all(0 <= start - 2 * k < Fraction(1001, 30000) for k, start in enumerate(starts_s))
    assert {span.n_frames for span in spans[:-1]} == {60}
    assert (summary["n_cuts"], summary["cut_times_s"]) == (0, [])
    assert {span.end_kind for span in spans[:-1]} == {CutKind.STRIDE}


def facts_dict() -> dict:
    return {name: getattr(facts(), name) for name in SourceFacts.__dataclass_fields__}


@st.composite
def timelines(draw: st.DrawFn):
    """Frames at irregular times, a length and a stride that is not below it."""
    gaps = draw(st.lists(st.integers(1, 40), min_size=1, max_size=80))
    pts = list(itertools.accumulate([draw(st.integers(-50, 50)), *gaps]))
    length = Fraction(draw(st.integers(1, 60)), 10)
    stride = length + Fraction(draw(st.integers(0, 30)), 10)
    return pts, pts[-1] + draw(st.integers(1, 20)), length, stride, draw(st.integers(1, 9))


@given(timelines())
@settings(max_examples=200, deadline=None)
def test_a_clip_holds_the_frames_that_begin_in_it(timeline):
    pts, end_pts, length, stride, shown_every = timeline
    source = SourceFacts(**{**facts_dict(), "start_pts": pts[0]})
    lengths = {"fixed_s": float(length), "stride_s": float(stride)}
    spans, summary = strode(pts, end_pts, source, shown_every, **lengths)
    length_ticks, stride_ticks = exact(float(length)) * 30, exact(float(stride)) * 30
    expected: dict[int, list[int]] = {}
    for at in pts:
        number = (at - pts[0]) // stride_ticks
        if at - pts[0] - number * stride_ticks < length_ticks:
            expected.setdefault(int(number), []).append(at)
    found = [[at for at in pts if span.start_pts <= at < span.end_pts] for span in spans]
    assert found == list(expected.values())
    assert [span.n_frames for span in spans] == [len(each) for each in found]
    assert spans == strode(pts, end_pts, source, 1, **lengths)[0], "what is shown changes nothing"
    assert summary["n_cuts"] == 0


def test_the_last_clip_is_kept_from_min_len_on_and_else_dropped_and_counted():
    for n, n_clips, dropped_s in ((30 * 7, 3, 1.0), (30 * 8, 4, 0.0)):
        spans, summary = strode(list(range(n)), n, facts(), fixed_s=2.0, min_len_s=1.5)
        assert len(spans) == n_clips
        assert summary["short_dropped_s"] == dropped_s


def test_a_video_of_varying_rate_is_cut_by_its_clock_and_only_what_views_need_is_decoded(tmp_path, monkeypatch):
    """Two seconds at 25 frames/s, one with gaps, two at 50: the same clips as by hand."""
    times_ms = [*range(0, 2000, 40), *range(2000, 3000, 170), *range(3000, 5000, 20)]
    path = tmp_path / "vfr.mkv"
    write_video(path, moving_texture(len(times_ms), 96, 54, (1, 0)), Fraction(25), pts=[90 * t for t in times_ms],
                options={"bf": "3"})  # fmt: skip
    source = read_facts(str(path))
    assert source.vfr
    stage = Cut(CutConfig(method="stride", fixed_s=1.0, min_len_s=0.5))
    sampler = ViewSampler(source, {"v": ViewSpec(points=(0.5,), size_px=(16, 16))})
    decoded: list[decode.FrameReader] = []
    monkeypatch.setattr(
        "curate.engine.detect.iter_frames", lambda *a, **k: decoded.append(iter_frames(*a, **k)) or decoded[-1]
    )
    found = [span for spans in Detection(str(path), source, stage, sampler).spans() for span in spans]
    stamps = [frame.pts for frame in iter_frames(str(path), source)]
    by_hand = [[p for p in stamps if k <= (p - stamps[0]) * source.time_base_fraction < k + 1] for k in range(5)]
    assert [(span.start_pts, span.n_frames) for span in found] == [(each[0], len(each)) for each in by_hand]
    assert decoded[0].decoded < len(stamps) * 0.7


@pytest.mark.parametrize("name", ["closed.mp4", "av1.mp4", "open_hevc.mp4"])
def test_a_blind_cut_gives_the_same_clips_as_one_that_sees_all(tmp_path, name):
    path, source = small(tmp_path / name, n=48, **FILES[name])
    found = []
    for every in (False, True):
        stage = Cut(CutConfig(method="stride", fixed_s=0.5, min_len_s=0.1))
        assert stage.blind
        stage.every_frame, stage.blind = every, not every
        detection = Detection(path, source, stage, ViewSampler(source, {}))
        found.append([span for spans in detection.spans() for span in spans])
    assert found[0] == found[1] and len(found[0]) == 4


def test_longer_shots_become_pieces_of_another_length():
    """Panda-70M's rule: what is longer than 7 s is cut at 5 s until it is not."""
    spans, maker = make(list(range(700)), 700, hard_cut(520, "x"), SpanRule(20, 210, piece_ticks=150))
    assert bounds(spans) == [(0, 150), (150, 300), (300, 450), (450, 520), (520, 700)]
    assert maker.dropped == 0
    spans, _ = make(list(range(210)), 210, [], SpanRule(20, 210, piece_ticks=150))
    assert bounds(spans) == [(0, 210)], "7 s are not longer than 7 s"


def test_a_truncated_shot_keeps_its_beginning_and_the_rest_is_counted():
    edges = [*hard_cut(400, "x"), *hard_cut(450, "x")]
    rule = SpanRule(20, 150, truncates=True)
    spans, maker = make(list(range(800)), 800, edges, rule)
    assert bounds(spans) == [(0, 150), (400, 450), (450, 600)]
    assert [span.end_kind for span in spans] == [CutKind.MAX_LEN, CutKind.HARD, CutKind.MAX_LEN]
    assert (maker.dropped, maker.dropped_ticks) == (2, 450)
    for lag in (1, 7, 30):
        assert make(list(range(800)), 800, edges, rule, lag)[0] == spans


def test_the_rest_of_a_truncated_shot_holds_nothing():
    detector = Cut(CutConfig(method="pyscenedetect-content", max_len_s=2.0, long_shots="truncate")).detector(facts())
    flat = np.full((144, 256, 3), 128, np.uint8)
    late = 0
    for i in range(600):
        detector.push(Thumb(i, flat))
        late = max(late, i - detector.needed_pts)
    assert late < 30 * 4


def test_both_ends_are_trimmed_before_the_length_is_judged():
    edges = [Edge(300, False, CutKind.DISSOLVE, "d"), Edge(310, True, CutKind.DISSOLVE, "d"), *hard_cut(360, "x")]
    spans, maker = make(list(range(600)), 600, edges, SpanRule(60, 150, trim_ticks=15))
    assert bounds(spans) == [(15, 135), (165, 285), (375, 495), (525, 585)]
    assert maker.dropped == 1, "50 frames less 30 are too few"
    spans, _ = make(list(range(600)), 600, [], SpanRule(60, 0, trim_ticks=15))
    assert bounds(spans) == [(15, 585)]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=60), st.integers(1, 20), st.integers(0, 40), st.integers(0, 30))
@settings(max_examples=200, deadline=None)
def test_laws_of_trimming(gaps, trim, longest, lag):
    pts = list(itertools.accumulate([0, *gaps]))
    edges, rule = hard_cut(pts[len(pts) // 2], "h"), SpanRule(0, longest, trim_ticks=trim)
    plain, _ = make(pts, pts[-1] + 5, edges, SpanRule(0, longest))
    spans, _ = make(pts, pts[-1] + 5, edges, rule)
    assert make(pts, pts[-1] + 5, edges, rule, lag)[0] == spans
    outer = {
        (s.start_pts, s.end_pts): [p for p in [*pts, pts[-1] + 5] if s.start_pts + trim <= p <= s.end_pts - trim]
        for s in plain
    }
    assert bounds(spans) == [(kept[0], kept[-1]) for kept in outer.values() if len(kept) > 1]


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"threshold": 3.0}, "threshold says nothing to the method 'cascade'"),
        ({"method": "fixed", "stride_s": 20.0}, "stride_s says nothing to the method 'fixed'"),
        ({"method": "stride", "long_shots": "truncate"}, "long_shots says nothing"),
        ({"method": "pyscenedetect-content", "min_content": 3.0}, "min_content says nothing"),
        ({"method": "stride", "fixed_s": 4.0, "stride_s": 2.0}, "clips never overlap"),
        ({"piece_s": 30.0}, "above max_len_s"),
        ({"piece_s": 2.0, "min_len_s": 3.0}, "above the longest clip"),
        ({"max_len_s": 3.0, "min_len_s": 2.0, "trim_s": 1.0}, "above the longest clip, 1 s"),
    ],
)
def test_keys_that_do_not_go_together_are_refused(config, words):
    with pytest.raises(ValidationError, match=words):
        CutConfig.model_validate(config)


def test_what_was_cut_before_these_keys_came_is_still_known():
    """Their defaults are no part of the fingerprint: no corpus is cut again for them."""
    assert Cut(CutConfig()).identity()["config"] == {
        "method": "cascade", "min_len_s": 1.0, "max_len_s": 20.0, "fixed_s": 10.0, "snap_to_key_frames": False,
    }  # fmt: skip
    assert "trim_s" in Cut(CutConfig(trim_s=0.5)).identity()["config"]
    known = {"embedded": "11be449556a06215", "svd": "f0f1ffcc12f28853", "opensora": "29f65e477abd7698"}
    assert {name: build(load_recipe(name)).cut.fingerprint({}) for name in known} == known


@pytest.mark.parametrize(
    ("method", "same", "other"),
    [
        ("pyscenedetect-content", {"threshold": 27, "min_scene_frames": 15}, {"threshold": 25}),
        ("pyscenedetect-adaptive", {"threshold": 3.0, "min_content": 15}, {"min_content": 10}),
        ("pyscenedetect-threshold", {"threshold": 12.0, "min_scene_frames": 15}, {"min_scene_frames": 1}),
        ("cascade+transnetv2", {"threshold": 0.5}, {"threshold": 0.4}),
        ("stride", {"stride_s": 10.0}, {"stride_s": 12.0}),
        ("stride", {"fixed_s": 10.0, "stride_s": 10}, {"fixed_s": 4.0, "stride_s": 10}),
        ("cascade", {"piece_s": 20, "long_shots": "split"}, {"piece_s": 5}),
        ("cascade", {"max_len_s": 20}, {"long_shots": "truncate"}),
    ],
)
def test_a_key_that_says_what_is_done_without_it_cuts_nothing_again(method, same, other):
    plain, told, changed = (
        CutConfig.model_validate({"method": method, **more}).deciding() for more in ({}, same, other)
    )
    assert told == plain != changed


def test_without_a_limit_no_shot_is_long():
    assert CutConfig(max_len_s=0, long_shots="truncate").deciding() == CutConfig(max_len_s=0).deciding()


def test_the_defaults_of_the_detectors_are_their_authors():
    settings = [("content", {}), ("adaptive", {"min_content": "min_content_val"}), ("threshold", {})]
    for name, more in settings:
        method = f"pyscenedetect-{name}"
        detector = type(make_detector(method, Settings()))
        theirs = {key: each.default for key, each in inspect.signature(detector).parameters.items()}
        limit = "adaptive_threshold" if name == "adaptive" else "threshold"
        for ours, key in {"threshold": limit, "min_scene_frames": "min_scene_len", **more}.items():
            config = CutConfig.model_validate({"method": method, ours: theirs[key]})
            assert config.deciding() == CutConfig.model_validate({"method": method}).deciding(), (method, ours)
    assert "threshold" not in CutConfig(method="transnetv2", threshold=THRESHOLD).deciding()


@pytest.mark.parametrize(
    ("method", "more"),
    [
        ("pyscenedetect-content", {"threshold": 60.0}),
        ("pyscenedetect-content", {"min_scene_frames": 60}),
        ("pyscenedetect-adaptive", {"threshold": 12.0}),
        ("pyscenedetect-adaptive", {"min_content": 90.0}),
        ("pyscenedetect-threshold", {"threshold": 0.5}),
    ],
)
def test_the_peers_settings_reach_them(method, more):
    shown = footage()
    n_cuts = []
    for config in ({}, more):
        stage = Cut(CutConfig.model_validate({"method": method, "min_len_s": 0, "max_len_s": 0, **config}))
        detector = stage.detector(PEER_FACTS)
        for thumb in shown:
            detector.push(thumb)
        detector.finish(shown[-1].pts + 3000)
        n_cuts.append(detector.summary()["n_cuts"])
    assert n_cuts[1] < n_cuts[0]
