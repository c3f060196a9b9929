"""The cascade on coarse input: looks at 12 frames a second, and the frames between where it asks for them."""

from __future__ import annotations

import itertools
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import cv2
import numpy as np
import pytest

from curate.records import CutKind, SourceFacts, Span
from curate.stage import LOOKS_PER_S, CutDetector, Thumb
from curate.stages.cut import Cut, CutConfig
from curate.testing import scenes

W, H = 128, 72
TO_YUV = np.array([[0.257, 0.504, 0.098, 16], [-0.148, -0.291, 0.439, 128], [0.439, -0.368, -0.071, 128]])


@dataclass
class Shown:
    """What came of showing a stream: spans, summary, looks that skipped frames and how many of these were filled."""

    spans: list[Span]
    summary: dict[str, Any]
    gaps: int
    filled: int

    @property
    def bounds(self) -> list[tuple[int, int]]:
        return [(span.start_pts, span.end_pts) for span in self.spans]

    @property
    def changes(self) -> list[tuple[int, int]]:
        """Ends and beginnings of neighbouring spans."""
        return [(a.end_pts, b.start_pts) for a, b in itertools.pairwise(self.spans)]


def small(frame: np.ndarray) -> np.ndarray:
    return cv2.resize(cv2.transform(frame, TO_YUV), (64, 36), interpolation=cv2.INTER_AREA)


def detector(rate: int, **config: Any) -> CutDetector:
    facts = SourceFacts(
        0, "mp4", "h264", "yuv420p", 8, W, H, W, H, 0, "1/1", str(rate), float(rate), False, True, f"1/{rate}", 0, 0,
        0.0, 0, [], [], 0, "[]",
    )  # fmt: skip
    return Cut(CutConfig.model_validate({"min_len_s": 0, "max_len_s": 0, **config})).detector(facts)


def show(
    frames: list[np.ndarray],
    rate: int = 30,
    apart: int = 1,
    fill: Callable[[int], bool] = lambda _: True,
    **config: Any,
) -> Shown:
    """Show frames (one tick each) as the engine does; of these every ``apart``-th is a reference frame. ``fill``: may
    the frames before this one be had when they are asked for."""
    yuvs = [small(frame) for frame in frames]
    judge = detector(rate, **config)
    spans: list[Span] = []
    last, slot, gaps, filled = -1, None, 0, 0
    for i in range(0, len(yuvs), apart):
        if (now := Fraction(i, rate) * LOOKS_PER_S // 1) == slot:
            continue
        slot = now
        look = Thumb(i, yuvs[i], tuple(range(last + 1, i)))
        if look.skipped:
            gaps += 1
            if judge.wants_between(look) and fill(i):
                filled += 1
                for pts in look.skipped:
                    spans += judge.push(Thumb(pts, yuvs[pts]))
                look = Thumb(i, yuvs[i])
        spans += judge.push(look)
        last = i
    spans += judge.finish(len(yuvs), tuple(range(last + 1, len(yuvs))))
    return Shown(spans, judge.summary(), gaps, filled)


def moving(n: int, seed: int, velocity_px: tuple[float, float] = (0.7, 0.2)) -> list[np.ndarray]:
    return list(scenes.moving_texture(n, W, H, velocity_px, seed))


def sweep(direction: str, share: float, soft: float) -> np.ndarray:
    """Weight of the new picture, (H, W, 1), when this share of a wipe is done."""
    y, x = (np.mgrid[0:H, 0:W] + 0.5) / np.array([H, W])[:, None, None]
    place = {
        "right": x,
        "left": 1 - x,
        "down": y,
        "diagonal": (x + y) / 2,
        "iris": np.hypot(x - 0.5, y - 0.5) / 0.71,
        "door": np.abs(x - 0.5) * 2,
    }[direction]
    return np.clip((share * (1 + soft) - place) / soft, 0, 1)[..., None]


def wiped(direction: str, n: int, soft: float) -> list[np.ndarray]:
    old, new = moving(90, 1, (0.2, 0.1)), moving(90, 2, (0.2, 0.1))
    weights = [sweep(direction, (i + 1) / (n + 1), soft) for i in range(n)]
    mixed = [(a * (1 - w) + b * w).astype(np.uint8) for a, b, w in zip(old[-n:], new[:n], weights, strict=True)]
    return [*old[:-n], *mixed, *new[n:]]


@pytest.mark.parametrize(("rate", "apart"), [(12, 1), (24, 2), (24, 4), (25, 1), (30, 3), (50, 4), (60, 1), (30, 16)])
def test_coarse_input_gives_the_hard_cuts_of_full_input(rate: int, apart: int):
    frames = [*moving(rate * 2, 0), *moving(rate + 7, 1), *moving(rate * 2 + 3, 2)]
    shown = show(frames, rate, apart)
    full = detector(rate)
    spans = [span for i, frame in enumerate(frames) for span in full.push(Thumb(i, small(frame)))]
    spans += full.finish(len(frames))
    assert shown.spans == spans
    assert shown.bounds == [(0, 2 * rate), (2 * rate, 3 * rate + 7), (3 * rate + 7, len(frames))]


def test_frames_that_stay_unseen_belong_to_no_shot():
    frames = [*moving(61, 0), *moving(60, 1)]
    shown = show(frames, 30, apart=4, fill=lambda _: False)
    (end, start), *more = shown.changes
    assert not more
    assert end <= 61 <= start
    assert 1 <= start - end <= 4
    assert {shown.spans[0].end_kind, shown.spans[1].start_kind} == {CutKind.HARD}
    assert shown.spans[0].n_frames == end
    assert shown.summary["n_frames"] == len(frames)


def test_short_shots_are_found():
    lengths = [60, 3, 5, 8, 12, 4, 60]
    frames = [frame for seed, n in enumerate(lengths) for frame in moving(n, seed)]
    edges = [0, *itertools.accumulate(lengths)]
    assert show(frames).bounds == list(itertools.pairwise(edges))


@pytest.mark.parametrize("direction", ["right", "left", "down", "diagonal", "iris", "door"])
@pytest.mark.parametrize(("n", "soft"), [(10, 0.01), (20, 0.15), (36, 0.01)])
def test_wipes_belong_to_no_clip(direction: str, n: int, soft: float):
    shown = show(wiped(direction, n, soft), apart=2)
    assert (shown.summary["n_cuts"], shown.summary["n_wipes"]) == (1, 1)
    assert shown.spans[0].end_kind is shown.spans[1].start_kind is CutKind.WIPE
    ((end, start),) = shown.changes
    assert 90 - n - 8 <= end <= 90 - n + 2
    assert 88 <= start <= 98


@pytest.mark.parametrize("n", [4, 6, 10, 24])
def test_dissolves_are_found_between_looks(n: int):
    frames = list(scenes.crossfade(moving(60, 1, (0, 0)), moving(60, 2, (0, 0)), n))
    shown = show(frames, apart=3)
    assert shown.summary["cut_kinds"] == ["dissolve"]
    ((end, start),) = shown.changes
    assert end <= 60 - n + 1
    assert start >= 59


def test_flashes_and_strobes_do_not_cut():
    frames = moving(240, 3)
    for at in (40, 90, 150, 154, 158, 162, 166):
        frames[at : at + 2] = [np.clip(frame * 1.2 + 110.0, 0, 255).astype(np.uint8) for frame in frames[at : at + 2]]
    for apart in (1, 2, 4):
        assert show(frames, apart=apart).bounds == [(0, 240)]


def test_a_whip_pan_does_not_cut():
    picture = scenes.texture(5, 512)
    at = np.concatenate([np.zeros(40), np.linspace(0, 300, 9), np.full(40, 300.0)])
    views = [np.roll(picture, -round(x), axis=1)[:H, :W] for x in at]
    assert show(views, apart=2).bounds == [(0, len(views))]


def test_frames_are_asked_for_seldom_in_a_moving_shot():
    shown = show(moving(600, 4, (3.0, 1.0)), apart=2)
    assert shown.bounds == [(0, 600)]
    assert shown.filled <= 0.02 * shown.gaps


def test_the_first_look_and_a_still_shot_ask_for_nothing():
    still = show([*scenes.static_texture(300, W, H, 6)])
    assert still.filled == 0
    assert not detector(30).wants_between(Thumb(5, np.full((36, 64, 3), 90, np.uint8), (3, 4)))


def test_asking_changes_nothing():
    """Whether a look is asked about or not, once or twice, the same is found; only what is pushed counts."""
    yuvs = [small(frame) for frame in [*moving(40, 0), *moving(40, 1)]]
    plain, asked = detector(30), detector(30)
    spans = [span for i, yuv in enumerate(yuvs) for span in plain.push(Thumb(i, yuv))] + plain.finish(len(yuvs))
    found = []
    for i, yuv in enumerate(yuvs):
        later = Thumb(min(i + 2, 79), yuvs[min(i + 2, 79)], (i,))
        assert asked.wants_between(later) == asked.wants_between(later)
        found += asked.push(Thumb(i, yuv))
    assert found + asked.finish(len(yuvs)) == spans


def test_pieces_are_the_same_with_and_without_skipped_frames():
    frames = [*moving(100, 0), *moving(200, 1)]
    limits = {"min_len_s": 0.5, "max_len_s": 1.7}
    sparse, dense = show(frames, apart=3, **limits), show(frames, **limits)
    full = detector(30, **limits)
    spans = [span for i, frame in enumerate(frames) for span in full.push(Thumb(i, small(frame)))]
    spans += full.finish(len(frames))
    assert sparse.spans == dense.spans == spans
    assert [span.n_frames for span in spans] == [span.end_pts - span.start_pts for span in spans]
    assert sparse.summary == full.summary()


def test_frames_on_one_clock_but_far_from_zero_and_below_it():
    frames = [small(frame) for frame in [*moving(50, 0), *moving(50, 1)]]
    for origin in (-70, 10**9):
        judge = detector(30)
        spans = [span for i, yuv in enumerate(frames) for span in judge.push(Thumb(origin + i, yuv))]
        spans += judge.finish(origin + 100)
        assert [(s.start_pts - origin, s.end_pts - origin) for s in spans] == [(0, 50), (50, 100)]


def test_only_the_peers_must_see_every_frame():
    every = {m: Cut(CutConfig.model_validate({"method": m})).every_frame for m in ("cascade", "fixed")}
    assert every == {"cascade": False, "fixed": False}
    assert Cut(CutConfig(method="pyscenedetect-adaptive")).every_frame


def test_the_fixed_stride_asks_for_nothing_and_counts_skipped_frames():
    frames = [*moving(45, 0), *moving(45, 1)]
    shown = show(frames, apart=4, method="fixed", fixed_s=1.0)
    assert shown.filled == 0
    assert shown.bounds == [(0, 30), (30, 60), (60, 90)]
    assert [span.n_frames for span in shown.spans] == [30, 30, 30]


@pytest.mark.parametrize("levels", [(16, 28), (170, 235)])
def test_jumps_inside_a_long_dark_or_white_stretch_hold_nothing_up(levels: tuple[int, int]):
    """Regression: from the first jump inside on, everything was held until the stretch ended."""
    found = detector(24, max_len_s=5)
    late = 0
    for i in range(24 * 60):
        picture = np.full((36, 64, 3), 128, np.uint8)
        picture[..., 0] = levels[i // 48 % 2]
        found.push(Thumb(i, picture))
        late = max(late, i - found.needed_pts)
    assert late < 24 * 15


def test_a_dissolve_at_a_very_high_rate_is_fitted_on_some_of_its_frames():
    """Regression: fitting a ramp to every one of hundreds of frames took gigabytes."""
    first, second = (next(iter(scenes.static_texture(1, W, H, seed))) for seed in (1, 2))
    n = 320
    mixed = [cv2.addWeighted(first, 1 - i / n, second, i / n, 0) for i in range(n)]
    found = detector(480, min_len_s=0, max_len_s=0)
    tracemalloc.start()
    pushed = [first] * 480 + mixed + [second] * 960
    spans = [span for i, frame in enumerate(pushed) for span in found.push(Thumb(i, small(frame)))]
    spans += found.finish(len(pushed))
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [span.end_kind for span in spans][:1] == [CutKind.DISSOLVE]
    assert peak_bytes < 60 << 20
