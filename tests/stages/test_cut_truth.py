"""The cascade against generated footage whose cuts are known to the frame."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import cv2
import numpy as np
import pytest

from curate.records import CutKind, SourceFacts, Span
from curate.stage import Thumb
from curate.stages.cut import Cut, CutConfig
from curate.testing import scenes

W, H = 128, 72
TO_YUV = np.array([[0.257, 0.504, 0.098, 16], [-0.148, -0.291, 0.439, 128], [0.439, -0.368, -0.071, 128]])


def thumbs(frames: Iterable[np.ndarray], pts: Iterable[int] | None = None) -> list[Thumb]:
    small = [cv2.resize(cv2.transform(f, TO_YUV), (64, 36), interpolation=cv2.INTER_AREA) for f in frames]
    return [Thumb(p, yuv) for p, yuv in zip(pts or range(len(small)), small, strict=True)]


def facts(rate: int = 30, time_base: str | None = None) -> SourceFacts:
    return SourceFacts(
        0, "mp4", "h264", "yuv420p", 8, W, H, W, H, 0, "1/1", str(rate), float(rate), False, True,
        time_base or f"1/{rate}", 0, 0, 0.0, 0, [], [], 0, "[]",
    )  # fmt: skip


def run(shown: list[Thumb], end_pts: int | None = None, source: SourceFacts | None = None, **config: object):
    stage = Cut(CutConfig.model_validate({"min_len_s": 0, "max_len_s": 0, **config}))
    detector = stage.detector(source or facts())
    spans = [span for thumb in shown for span in detector.push(thumb)]
    spans += detector.finish(end_pts if end_pts is not None else shown[-1].pts + 1)
    summary = detector.summary()
    assert set(summary) == {column.name for column in stage.columns} - {"n_clips", "damaged_s"}
    return spans, summary


def bounds(spans: list[Span]) -> list[tuple[int, int]]:
    return [(span.start_pts, span.end_pts) for span in spans]


def shots(*lengths: int, velocity_px: tuple[float, float] = (1.0, 0.0)) -> list[np.ndarray]:
    return [f for seed, n in enumerate(lengths) for f in scenes.moving_texture(n, W, H, velocity_px, seed)]


def test_hard_cuts_are_exact_and_the_old_shot_never_leaks():
    spans, summary = run(thumbs(shots(40, 33, 61, 50)))
    assert bounds(spans) == [(0, 40), (40, 73), (73, 134), (134, 184)]
    assert [s.start_kind for s in spans] == [CutKind.SOURCE_START] + [CutKind.HARD] * 3
    assert [s.end_kind for s in spans] == [CutKind.HARD] * 3 + [CutKind.SOURCE_END]
    assert {s.end_detector for s in spans[:-1]} == {"jump"}
    assert (summary["n_cuts"], summary["n_hard"], summary["n_frames"]) == (3, 3, 184)
    assert summary["cut_times_s"] == [40 / 30, 73 / 30, 134 / 30]
    assert summary["cut_kinds"] == ["hard"] * 3


def test_similar_shots_are_told_apart():
    pale = [(f * 0.25 + 96).astype(np.uint8) for f in shots(60, 60, velocity_px=(0.0, 0.0))]
    assert bounds(run(thumbs(pale))[0]) == [(0, 60), (60, 120)]


@pytest.mark.parametrize("n", [8, 12, 16, 24, 32, 40])
@pytest.mark.parametrize("velocity_px", [(0.0, 0.0), (0.5, 0.2)])
def test_dissolves_belong_to_no_clip(n: int, velocity_px: tuple[float, float]):
    a = scenes.moving_texture(90, W, H, velocity_px, 1)
    b = scenes.moving_texture(90, W, H, velocity_px, 2)
    spans, summary = run(thumbs(scenes.crossfade(a, b, n)))
    first, clean = 90 - n, 90
    assert (summary["n_cuts"], summary["n_dissolves"]) == (1, 1)
    assert spans[0].end_kind is spans[1].start_kind is CutKind.DISSOLVE
    assert spans[0].end_detector == "dissolve"
    assert first - 6 <= spans[0].end_pts <= first + 1
    assert clean - 1 <= spans[1].start_pts <= clean + 6


@pytest.mark.parametrize("level", [0, 255])
@pytest.mark.parametrize("n", [8, 20, 40])
def test_fades_and_the_dark_between_belong_to_no_clip(level: int, n: int):
    a, b = shots(90), shots(0, 90)
    end = np.full((H, W, 3), level, np.uint8)
    out = [cv2.addWeighted(f, 1 - (i + 1) / n, end, (i + 1) / n, 0) for i, f in enumerate(a[-n:])]
    back = [cv2.addWeighted(end, 1 - i / n, f, i / n, 0) for i, f in enumerate(b[:n])]
    spans, summary = run(thumbs([*a[:-n], *out, *[end] * 12, *back, *b[n:]]))
    assert (summary["n_cuts"], summary["n_fades"]) == (1, 1)
    assert spans[0].end_kind is spans[1].start_kind is CutKind.FADE
    assert 90 - n - 10 <= spans[0].end_pts <= 90 - n + 1
    assert 102 + n - 1 <= spans[1].start_pts <= 102 + n + 10


def test_fade_in_at_the_start_and_black_at_the_end_are_outside():
    frames = [*scenes.fade(scenes.moving_texture(90, W, H, (1, 0), 0), n_in=20, n_out=20)]
    spans, summary = run(thumbs([*frames, *[np.zeros((H, W, 3), np.uint8)] * 30]))
    assert len(spans) == 1
    assert 18 <= spans[0].start_pts <= 24
    assert 65 <= spans[0].end_pts <= 71
    assert summary["n_fades"] == 2


def test_a_cut_to_black_is_hard_and_a_fade_in_after_it_a_fade():
    black = [np.zeros((H, W, 3), np.uint8)] * 60
    spans, _ = run(thumbs([*shots(60), *black, *scenes.fade(scenes.static_texture(60, W, H, 3), n_in=20)]))
    assert spans[0].end_pts == 60
    assert spans[0].end_kind is CutKind.HARD
    assert spans[1].start_kind is CutKind.FADE


def test_black_source_has_no_clip():
    spans, summary = run(thumbs([np.zeros((H, W, 3), np.uint8)] * 100))
    assert spans == []
    assert summary["n_frames"] == 100


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("level", [0, 255])
def test_flashes_do_not_cut(n: int, level: int):
    frames = shots(120)
    for at in (30, 70, 90):
        frames[at : at + n] = [np.full((H, W, 3), level, np.uint8)] * n
    spans, summary = run(thumbs(frames))
    assert bounds(spans) == [(0, 120)]
    assert summary["n_flashes"] == 3


@pytest.mark.parametrize("velocity_px", [(0.0, 0.0), (4.0, 0.0), (12.0, 3.0), (20.0, 0.0)])
def test_pans_up_to_five_widths_a_second_do_not_cut(velocity_px: tuple[float, float]):
    spans, _ = run(thumbs(shots(200, velocity_px=velocity_px)))
    assert bounds(spans) == [(0, 200)]


@pytest.mark.parametrize("rate", [0.01, -0.005])
def test_zooms_do_not_cut(rate: float):
    assert bounds(run(thumbs(scenes.zoom_texture(150, W, H, rate)))[0]) == [(0, 150)]


def test_a_title_that_fades_in_does_not_cut():
    plain = next(iter(scenes.static_texture(1, W, H, 4)))
    titled = plain.copy()
    titled[20:35, 30:90] = 255
    frames = [*[plain] * 60, *scenes.crossfade([plain] * 20, [titled] * 20, 20), *[titled] * 60]
    assert len(run(thumbs(frames))[0]) == 1


def test_letterbox_bars_hide_neither_cuts_nor_fades():
    clean = [*shots(60, 60), *scenes.fade(scenes.static_texture(60, W, H, 5), n_out=20)]
    white = [np.full((H, W, 3), 235, np.uint8)] * 20
    spans, summary = run(thumbs(scenes.letterbox([*clean, *white, *shots(0, 0, 0, 60)], 9)))
    assert bounds(spans)[:2] == [(0, 60), (60, 120)]
    assert summary["n_cuts"] == 3


def test_variable_rate_and_odd_time_base():
    rng = np.random.default_rng(5)
    pts = (np.cumsum(rng.integers(20, 80, 150)) + 777).tolist()
    source = facts(rate=20, time_base="1/1000")
    spans, summary = run(thumbs(shots(70, 80), pts), end_pts=pts[-1] + 40, source=source)
    assert bounds(spans) == [(777 + pts[0] - 777, pts[70]), (pts[70], pts[-1] + 40)]
    assert summary["cut_times_s"] == [pts[70] / 1000]


@pytest.mark.parametrize("rate", [12, 24, 60])
def test_rates(rate: int):
    n = rate * 3
    a, b = scenes.moving_texture(n, W, H, (0.3, 0), 1), scenes.moving_texture(n, W, H, (0.3, 0), 2)
    shown = thumbs([*shots(n), *scenes.crossfade(a, b, rate // 2)])
    spans, summary = run(shown, source=facts(rate))
    assert spans[0].end_pts == n
    assert summary["cut_kinds"] == ["hard", "dissolve"]


def test_nothing_pushed_gives_nothing():
    detector = Cut(CutConfig()).detector(facts())
    assert detector.finish(0) == []
    assert detector.summary()["n_frames"] == 0


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_a_source_of_few_frames_is_one_shot(frames: int):
    assert bounds(run(thumbs(shots(frames)))[0]) == [(0, frames)]


def test_spans_come_within_the_declared_look_ahead():
    stage = Cut(CutConfig(min_len_s=1.0, max_len_s=4.0))
    detector = stage.detector(facts())
    black = [np.zeros((H, W, 3), np.uint8)] * 300
    late = [
        (thumb.pts - span.start_pts) / 30
        for thumb in thumbs([*shots(300, 45), *black, *shots(0, 0, 300)])
        for span in detector.push(thumb)
    ]
    assert len(late) > 3
    assert max(late) <= stage.longest_clip_s()


def test_result_does_not_depend_on_when_it_is_asked_for(monkeypatch: pytest.MonkeyPatch):
    a, b = scenes.moving_texture(80, W, H, (0.5, 0), 1), scenes.moving_texture(80, W, H, (0.5, 0), 2)
    faded = scenes.fade(scenes.static_texture(80, W, H, 5), n_in=15, n_out=15)
    shown = thumbs([*shots(50, 40), *scenes.crossfade(a, b, 20), *faded, *shots(0, 50)])
    expected = run(shown)
    assert len(expected[0]) == 6
    for block in (1, 7, 40):
        monkeypatch.setattr("curate.stages.cut.gradual.BLOCK", block)
        assert run(shown) == expected


def test_cuts_after_a_prefix_are_those_of_the_whole():
    """What was certain stays: pushing more frames never takes back a span."""
    shown = thumbs(shots(50, 60, 70))
    whole, _ = run(shown)
    detector = Cut(CutConfig(min_len_s=0, max_len_s=0)).detector(facts())
    early = [span for thumb in shown for span in detector.push(thumb)]
    assert early == whole[: len(early)]


def test_thumb_width_and_longest_clip_follow_the_method():
    widths = {m: Cut(CutConfig.model_validate({"method": m})).thumb_width_px for m in ("cascade", "fixed")}
    assert widths == {"cascade": 64, "fixed": 64}
    assert Cut(CutConfig(method="pyscenedetect-content")).thumb_width_px == 256
    assert Cut(CutConfig(max_len_s=0)).longest_clip_s() == float("inf")
    assert Cut(CutConfig(method="fixed", fixed_s=3.0)).longest_clip_s() == 3.0


def test_every_pair_of_neighbouring_spans_is_in_order():
    spans, _ = run(thumbs([*shots(45, 31, 50), *scenes.noise(60, W, H), *shots(40)]), min_len_s=0.5, max_len_s=1.0)
    assert all(a.end_pts <= b.start_pts for a, b in itertools.pairwise(spans))
    assert all(15 <= s.end_pts - s.start_pts <= 30 for s in spans)


@pytest.mark.parametrize("min_len_s", [0.0, 1.0])
def test_no_span_to_come_begins_before_the_pts_still_needed(min_len_s: float):
    """Regression: a minute of shots too short to keep held every frame of it."""
    shown = thumbs(shots(*[12] * 20, 60))
    detector = Cut(CutConfig(min_len_s=min_len_s, max_len_s=2.0)).detector(facts())
    needed, starts = 0, []
    for thumb in shown:
        spans = detector.push(thumb)
        assert all(span.start_pts >= needed for span in spans)
        assert detector.needed_pts >= needed
        starts += [span.start_pts for span in spans]
        needed = detector.needed_pts
        assert thumb.pts - needed < 30 * (2 + 7)
    assert all(span.start_pts >= needed for span in detector.finish(len(shown)))
