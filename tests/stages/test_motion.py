"""Motion against scenes with known truth, most of them as hand-built views, without a codec."""

from fractions import Fraction
from itertools import pairwise

import cv2
import numpy as np
import pytest

from curate.media.facts import read_facts
from curate.media.views import sample_spans
from curate.records import Clip, Outcome, Span
from curate.stage import ClipItem
from curate.stages.motion import Motion, MotionConfig
from curate.stages.motion.flow import spread
from curate.testing import scenes
from curate.testing.footage import write_video
from curate.view import View

W_PX, H_PX, FPS = 320, 180, 24
TIME_BASE = Fraction(1, 90000)
CLIP = Clip.of_span("digest", 0, TIME_BASE, Span(0, 90000))


@pytest.fixture(scope="module")
def motion():
    stage = Motion(MotionConfig())
    stage.setup()
    return stage


def view(frames, times_s, groups=None, width_px=W_PX):
    pts = np.array([round(t * 90000) for t in times_s], dtype=np.int64)
    scale = width_px / frames[0].shape[1]
    given = np.zeros(len(frames), np.int64) if groups is None else np.array(groups)
    return View(np.stack(frames), pts, TIME_BASE, given, (scale, scale))


def reduced(plane, width_px):
    height_px = round(plane.shape[0] * width_px / plane.shape[1])
    return cv2.resize(plane, (width_px, height_px), interpolation=cv2.INTER_AREA)


def luma_of(rgb, noise_levels=0.0):
    rng = np.random.default_rng(7)
    planes = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float64) for frame in rgb]
    noisy = [plane + rng.normal(0, noise_levels, plane.shape) if noise_levels else plane for plane in planes]
    return [np.clip(plane, 0, 255).round().astype(np.uint8) for plane in noisy]


def item_of(rgb, noise_levels=0.0, times_s=None, fps=FPS):
    """The views of a clip whose frames lie at ``times_s``; all of them are grid frames when times are given."""
    luma = luma_of(rgb, noise_levels)
    step = 1 if times_s is not None else fps // 4
    times_s = times_s if times_s is not None else [i / fps for i in range(len(luma))]
    n_window = min(fps, len(luma) // 2)
    in_window = [*range(n_window), *range(len(luma) - n_window, len(luma))]
    half = slice(None, None, 2 * step)
    views = {
        "px16": view([reduced(p, 28) for p in luma[half]], times_s[half]),
        "flow": view([reduced(p, min(160, p.shape[1])) for p in luma[::step]], times_s[::step]),
        "windows": view(
            [reduced(luma[i], 64) for i in in_window],
            [times_s[i] for i in in_window],
            [0] * n_window + [1] * n_window,
        ),
    }
    return ClipItem(CLIP, None, views)


@pytest.mark.parametrize("rate", [0.02, 0.05, 0.1, 0.2])
@pytest.mark.parametrize("noise_levels", [0.0, 2.0])
def test_a_pan_comes_out_within_ten_per_cent(motion, rate, noise_levels):
    frames = scenes.moving_texture(2 * FPS, W_PX, H_PX, (-rate * W_PX / FPS, 0))
    found = motion.score(item_of(frames, noise_levels))
    assert found["camera"] == "pan_right"
    assert found["camera_pan_width_s"] == pytest.approx(rate, rel=0.1)
    assert found["speed_width_s"] == pytest.approx(rate, rel=0.1)
    assert found["speed_native_px_s"] == pytest.approx(rate * W_PX, rel=0.1)
    assert found["object_speed_width_s"] < 0.01 * rate
    assert found["n_pairs"] == 7


def test_native_speed_counts_source_pixels(motion):
    item = item_of(scenes.moving_texture(FPS, W_PX, H_PX, (2, 0)))
    flow = item.views["flow"]
    larger = View(flow.frames, flow.pts, flow.time_base, flow.groups, (12.0, 12.0))
    found = motion.score(ClipItem(CLIP, None, {**item.views, "flow": larger}))
    assert found["speed_native_px_s"] == pytest.approx(2 * FPS * 6, rel=0.05)
    assert found["speed_width_s"] == pytest.approx(2 * FPS / W_PX, rel=0.05)


@pytest.mark.parametrize(
    ("velocity_px", "label"),
    [((2, 0), "pan_left"), ((-2, 0), "pan_right"), ((0, 1), "tilt_up"), ((0, -1), "tilt_down")],
)
def test_directions_are_the_cameras(motion, velocity_px, label):
    found = motion.score(item_of(scenes.moving_texture(FPS, W_PX, H_PX, velocity_px), 2.0))
    assert found["camera"] == label
    assert found["camera_pan_width_s"] == pytest.approx(-velocity_px[0] * FPS / W_PX, rel=0.1, abs=0.002)
    assert found["camera_tilt_height_s"] == pytest.approx(velocity_px[1] * FPS / H_PX, rel=0.1, abs=0.002)


@pytest.mark.parametrize("per_s", [-0.2, 0.03, 0.1, 0.3])
def test_a_zoom_comes_out_within_ten_per_cent(motion, per_s):
    frames = scenes.zoom_texture(2 * FPS, W_PX, H_PX, np.exp(per_s / FPS) - 1)
    found = motion.score(item_of(frames, 2.0))
    assert found["camera"] == ("zoom_in" if per_s > 0 else "zoom_out")
    assert found["camera_zoom_per_s"] == pytest.approx(per_s, rel=0.1)
    assert found["object_speed_width_s"] < 0.001


@pytest.mark.parametrize("deg_s", [-20.0, 3.0, 10.0])
def test_a_roll_comes_out_within_fifteen_per_cent(motion, deg_s):
    """The scene turns its content clockwise, so the camera rolls the other way."""
    found = motion.score(item_of(scenes.roll_texture(FPS, W_PX, H_PX, deg_s / FPS), 2.0))
    assert found["camera"] == "roll"
    assert found["camera_roll_deg_s"] == pytest.approx(-deg_s, rel=0.15)


def test_noise_on_a_static_texture_is_no_motion(motion):
    found = motion.score(item_of(scenes.static_texture(2 * FPS, W_PX, H_PX), 2.0))
    assert found["camera"] == "static"
    assert found["object_speed_width_s"] == 0.0
    assert found["speed_width_s"] < 0.001
    assert found["camera_inlier_share"] > 0.99


@pytest.mark.parametrize("level", [0, 90])
def test_a_plain_noisy_picture_stands_still(motion, level):
    found = motion.score(item_of([np.full((H_PX, W_PX, 3), level, np.uint8)] * FPS, 2.0))
    assert found["camera"] == "static"
    assert found["speed_width_s"] == found["object_speed_width_s"] == 0.0


def test_a_pan_over_a_mostly_plain_picture(motion):
    frames = list(scenes.moving_texture(FPS, W_PX, H_PX, (-1.5, 0)))
    for frame in frames:
        frame[: H_PX * 3 // 4] = (150, 170, 200)
    found = motion.score(item_of(frames, 2.0))
    assert found["camera"] == "pan_right"
    assert found["speed_width_s"] == pytest.approx(1.5 * FPS / W_PX, rel=0.1)


def test_an_object_moves_before_a_static_camera(motion):
    velocity_px, size_px = 2, 40
    found = motion.score(item_of(scenes.moving_object(FPS, W_PX, H_PX, (velocity_px, 0), size_px), 2.0))
    area = size_px * size_px / (W_PX * H_PX)
    assert found["camera"] == "static"
    assert area / 2 < found["object_area_share"] < 2 * area
    speed_width_s = area * velocity_px * FPS / W_PX
    assert speed_width_s / 2 < found["object_speed_width_s"] < 2 * speed_width_s


def test_an_object_moves_in_a_pan(motion):
    frames = list(scenes.moving_texture(FPS, W_PX, H_PX, (-1, 0)))
    patch = scenes.texture(9)[:60, :60]
    for i, frame in enumerate(frames):
        frame[60:120, 60 + 3 * i : 120 + 3 * i] = patch
    found = motion.score(item_of(frames, 2.0))
    assert found["camera"] == "pan_right"
    assert found["camera_pan_width_s"] == pytest.approx(FPS / W_PX, rel=0.1)
    assert found["object_speed_width_s"] > 0.005


def test_jitter_without_direction_is_handheld(motion):
    rng = np.random.default_rng(3)
    texture = scenes.texture(0)
    at = 40 + np.round(rng.normal(0, 4, (3 * FPS, 2))).astype(int)
    found = motion.score(item_of([texture[y : y + H_PX, x : x + W_PX] for x, y in at]))
    assert found["camera"] == "handheld"
    assert found["camera_shake_width_s"] > 0.02
    steady = motion.score(item_of(scenes.moving_texture(3 * FPS, W_PX, H_PX, (-1, 0)), 2.0))
    assert steady["camera_shake_width_s"] < 0.003


def test_bars_do_not_move_against_the_camera(motion):
    frames = scenes.letterbox(scenes.moving_texture(FPS, W_PX, H_PX, (0, 1)), 22)
    found = motion.score(item_of(frames, 1.0))
    assert found["camera"] == "tilt_up"
    assert found["camera_tilt_height_s"] == pytest.approx(FPS / H_PX, rel=0.1)
    assert found["object_speed_width_s"] < 0.02 * found["speed_width_s"]


def test_uneven_time_stamps_are_divided_by_true_time(motion):
    """Frames of one steady pan at uneven times: 100 ticks a second, 0.6 px a tick."""
    ticks = np.cumsum([0, 25, 40, 26, 25, 71, 25, 33, 25])
    all_frames = list(scenes.moving_texture(int(ticks[-1]) + 1, W_PX, H_PX, (-0.6, 0)))
    item = item_of([all_frames[t] for t in ticks], 2.0, times_s=[t / 100 for t in ticks])
    found = motion.score(item)
    assert found["camera_pan_width_s"] == pytest.approx(60 / W_PX, rel=0.05)
    assert found["speed_width_s"] == pytest.approx(60 / W_PX, rel=0.05)
    assert found["camera_shake_width_s"] < 0.01


def test_v2d_score_equals_a_plain_loop(motion):
    item = item_of(scenes.moving_texture(3 * FPS, W_PX, H_PX, (-2, 0.5)), 2.0)
    frames = item.views["px16"].frames
    lengths = []
    for first, second in pairwise(frames):
        flow = cv2.calcOpticalFlowFarneback(
            first,
            second,
            np.zeros((*first.shape, 2), np.float32),
            pyr_scale=0.5,
            levels=3,
            winsize=15,
            iterations=3,
            poly_n=5,
            poly_sigma=1.2,
            flags=0,
        )
        lengths.append(sum(np.hypot(u, v) for u, v in flow.reshape(-1, 2)) / first.size)
    assert motion.score(item)["v2d_px16"] == pytest.approx(sum(lengths) / len(lengths), rel=1e-5)


def test_repeated_frames_are_counted(motion):
    """24 frames/s shown at 30: each fourth frame twice, so one pair of five repeats; no stretch stands still."""
    frames = [f for i, f in enumerate(scenes.moving_texture(48, W_PX, H_PX, (-2, 0))) for _ in range(1 + (i % 4 == 3))]
    found = motion.score(item_of(frames, fps=30, times_s=[i / 30 for i in range(len(frames))]))
    assert found["duplicate_frame_ratio"] == pytest.approx(0.2, abs=0.02)
    assert found["freeze_ratio"] == 0.0


def test_a_freeze_is_a_long_repeat(motion):
    moving = list(scenes.moving_texture(FPS, W_PX, H_PX, (-2, 0)))
    found = motion.score(item_of([*moving, *[moving[-1]] * FPS]))
    assert found["freeze_ratio"] == pytest.approx(0.5, abs=0.03)
    assert found["duplicate_frame_ratio"] == pytest.approx(0.5, abs=0.03)


def test_windows_of_single_frames_leave_the_count_to_the_grid(motion):
    item = item_of([*scenes.static_texture(2 * FPS, W_PX, H_PX)])
    windows = item.views["windows"]
    single = View(windows.frames[[0, -1]], windows.pts[[0, -1]], TIME_BASE, np.array([0, 1]))
    found = motion.score(ClipItem(CLIP, None, {**item.views, "windows": single}))
    assert found["freeze_ratio"] == found["duplicate_frame_ratio"] == 1.0


def test_a_window_may_hold_nothing(motion):
    """A stream with a hole: all of its reference frames lie in one window."""
    item = item_of([*scenes.static_texture(2 * FPS, W_PX, H_PX)])
    windows = item.views["windows"]
    for held in ([], windows.groups == 1):
        left = View(windows.frames[held], windows.pts[held], TIME_BASE, windows.groups[held])
        found = motion.score(ClipItem(CLIP, None, {**item.views, "windows": left}))
        assert found["freeze_ratio"] == 1.0


@pytest.mark.parametrize("fade", [0, 12])
def test_still_pictures_that_replace_one_another_are_a_slideshow(motion, fade):
    first, second = (list(scenes.static_texture(2 * FPS, W_PX, H_PX, seed=seed)) for seed in (0, 3))
    found = motion.score(item_of(scenes.crossfade(first, second, fade) if fade else [*first, *second], 1.0))
    assert found["slideshow"] > 0.7
    assert found["camera"] == "static"
    assert found["object_speed_width_s"] < 0.001


def test_zooms_into_stills_are_a_slideshow_without_object_motion(motion):
    slides = [f for seed in (0, 3) for f in scenes.zoom_texture(2 * FPS, W_PX, H_PX, 0.002, seed=seed)]
    found = motion.score(item_of(slides, 1.0))
    assert found["slideshow"] > 0.7
    assert found["camera"] == "zoom_in"
    assert found["object_speed_width_s"] < 0.001


@pytest.mark.parametrize(
    "frames",
    [
        lambda: scenes.moving_texture(4 * FPS, W_PX, H_PX, (-1, 0)),
        lambda: scenes.static_texture(4 * FPS, W_PX, H_PX),
        lambda: scenes.moving_object(4 * FPS, W_PX, H_PX, (2, 0)),
    ],
)
def test_a_shot_is_no_slideshow(motion, frames):
    assert motion.score(item_of(frames(), 1.0))["slideshow"] == 0.0


@pytest.mark.parametrize(("gain", "offset"), [(0.0, 0.0), (1.4, 0.0), (1.0, 40.0)])
def test_a_fade_or_a_brightening_is_no_motion(motion, gain, offset):
    still = next(scenes.static_texture(1, W_PX, H_PX)).astype(float)
    share = [i / (2 * FPS) for i in range(2 * FPS)]
    frames = [np.clip(still * (1 + (gain - 1) * s) + offset * s, 0, 255).astype(np.uint8) for s in share]
    found = motion.score(item_of(frames, 1.0))
    assert found["camera"] == "static"
    assert found["object_speed_width_s"] < 0.001


def test_a_pan_in_a_fade_out_is_still_a_pan(motion):
    frames = list(scenes.moving_texture(2 * FPS, W_PX, H_PX, (-1.5, 0)))
    faded = [(frame * (1 - 0.7 * i / len(frames))).astype(np.uint8) for i, frame in enumerate(frames)]
    found = motion.score(item_of(faded, 1.0))
    assert found["camera"] == "pan_right"
    assert found["camera_pan_width_s"] == pytest.approx(1.5 * FPS / W_PX, rel=0.1)


@pytest.mark.parametrize("n", [*range(1, 40), 79, 500])
def test_pairs_are_spread_over_the_whole_clip(n):
    chosen = spread(n)
    assert chosen == sorted(set(chosen)) and chosen[0] == 0 and chosen[-1] == n - 1
    assert len(chosen) == n if n <= 8 else 8 <= len(chosen) <= 12
    assert max(np.diff(chosen), default=0) <= n / 3 + 1
    assert len(chosen) == 1 or (np.diff(chosen) == 1).any()


def test_a_long_pan_and_a_long_slideshow(motion):
    pan = motion.score(item_of(scenes.moving_texture(10 * FPS, W_PX, H_PX, (-1, 0)), 1.0))
    assert pan["n_pairs"] == 12
    assert pan["camera_pan_width_s"] == pytest.approx(FPS / W_PX, rel=0.05)
    assert pan["slideshow"] == 0.0
    shown = motion.score(item_of(scenes.slideshow(8 * FPS, W_PX, H_PX, hold=2 * FPS), 1.0))
    assert shown["slideshow"] > 0.8
    assert shown["object_speed_width_s"] < 0.001


def test_a_card_that_fades_in_from_black_is_no_slideshow(motion):
    card = list(scenes.static_texture(3 * FPS, W_PX, H_PX))
    black = [np.zeros_like(card[0])] * FPS
    assert motion.score(item_of(scenes.crossfade(black, card, 6), 1.0))["slideshow"] == 0.0


def test_the_same_input_gives_the_same_values(motion):
    item = item_of(scenes.moving_object(FPS, W_PX, H_PX), 2.0)
    assert motion.score(item) == motion.score(item)


def test_what_cannot_be_measured_fails_alone_and_says_why(motion):
    single = item_of(list(scenes.static_texture(4, W_PX, H_PX)), fps=24)
    tiny = item_of(list(scenes.static_texture(FPS, 12, 8)))
    good = item_of(list(scenes.static_texture(FPS, W_PX, H_PX)))
    cells = motion.process([single, tiny, good])
    assert [cell.outcome for cell in cells] == [Outcome.FAILED, Outcome.FAILED, Outcome.OK]
    assert "two frames" in cells[0].failure.message
    assert "12x8" in cells[1].failure.message


def test_a_coded_pan_end_to_end(motion, tmp_path):
    path = tmp_path / "pan.mp4"
    rate = 0.1
    write_video(path, scenes.moving_texture(75, 640, 360, (-rate * 640 / 25, 0)), Fraction(25))
    facts = read_facts(str(path))
    span = Span(facts.start_pts, facts.end_pts)
    clip = Clip.of_span("digest", facts.stream, facts.time_base_fraction, span)
    [(_, views)] = list(sample_spans(str(path), facts, [clip], motion.views()))
    cell = motion.process([ClipItem(clip, facts, views)])[0]
    assert cell.outcome == Outcome.OK
    assert cell.values["camera"] == "pan_right"
    assert cell.values["camera_pan_width_s"] == pytest.approx(rate, rel=0.1)
    assert cell.values["speed_native_px_s"] == pytest.approx(rate * 640, rel=0.1)
    assert cell.values["freeze_ratio"] == 0.0
