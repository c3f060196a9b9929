"""Quality against pictures with known truth, most of them as hand-built views, without a codec."""

from fractions import Fraction

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.media.facts import read_facts
from curate.media.views import sample_spans
from curate.records import Clip, Outcome, SourceFacts, Span
from curate.stage import ClipItem
from curate.stages.quality import Quality, QualityConfig, Rectangle, active_rectangle, colourfulness, flashes
from curate.testing import scenes
from curate.testing.footage import write_video
from curate.view import View

W_PX, H_PX, FPS = 320, 180, 24
TIME_BASE = Fraction(1, 90000)
CLIP = Clip.of_span("digest", 0, TIME_BASE, Span(0, 90000))


@pytest.fixture(scope="module")
def quality():
    stage = Quality(QualityConfig())
    stage.setup()
    return stage


def facts_of(width_px, height_px):
    values = dict.fromkeys(SourceFacts.__dataclass_fields__, 0)
    return SourceFacts(**{**values, "width_px": width_px, "height_px": height_px})


def view(frames, times_s, groups=None, scale=(1.0, 1.0)):
    pts = np.array([round(t * 90000) for t in times_s], dtype=np.int64)
    given_groups = np.zeros(len(frames), np.int64) if groups is None else np.array(groups)
    return View(np.stack(frames), pts, TIME_BASE, given_groups, scale)


def fitted(frame, short_px):
    height, width = frame.shape[:2]
    scale = min(1.0, short_px / min(height, width))
    return cv2.resize(frame, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA)


def item_of(rgb, fps=FPS):
    """The views of a clip; both windows together are the whole clip."""
    rgb = list(rgb)
    height, width = rgb[0].shape[:2]
    times_s = [i / fps for i in range(len(rgb))]
    at = [round(point * (len(rgb) - 1)) for point in (0.15, 0.5, 0.85)]
    pictures = [fitted(fitted(rgb[i], 540), 360) for i in at]
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in rgb]
    step = fps // 4
    scale = (width / pictures[0].shape[1], height / pictures[0].shape[0])
    views = {
        "frames": view([cv2.cvtColor(p, cv2.COLOR_RGB2GRAY) for p in pictures], [times_s[i] for i in at], scale=scale),
        "colour": view([fitted(p, 90) for p in pictures], [times_s[i] for i in at]),
        "grid": view([fitted(plane, 90) for plane in grey[::step]], times_s[::step]),
        "windows": view([fitted(plane, 36) for plane in grey], times_s, [2 * i // len(rgb) for i in range(len(rgb))]),
    }
    return ClipItem(CLIP, facts_of(width, height), views)


def texture_clip(n=FPS, **kwargs):
    return list(scenes.moving_texture(n, W_PX, H_PX, (-1, 0), **kwargs))


def rectangle(found):
    return tuple(found[f"active_{side}_px"] for side in ("x", "y", "w", "h"))


def test_a_blurred_picture_is_less_sharp(quality):
    sharp = texture_clip()
    blurred = [cv2.GaussianBlur(frame, (0, 0), 2) for frame in sharp]
    assert quality.score(item_of(blurred))["sharpness"] < 0.3 * quality.score(item_of(sharp))["sharpness"]


def test_bars_do_not_change_what_the_picture_looks_like(quality):
    plain = quality.score(item_of(frame[30:150] for frame in texture_clip()))
    boxed = quality.score(item_of(scenes.letterbox(texture_clip(), 30)))
    for name in ("sharpness", "exposure_mean", "contrast", "colourfulness", "clipped_dark_share"):
        assert boxed[name] == pytest.approx(plain[name], rel=0.02, abs=1e-3)


def test_grey_has_no_colourfulness_and_pure_colours_have_much(quality):
    grey = [np.repeat(frame[..., :1], 3, axis=-1) for frame in texture_clip()]
    assert quality.score(item_of(grey))["colourfulness"] == 0.0
    loud = np.zeros((H_PX, W_PX, 3), np.uint8)
    loud[:, : W_PX // 2, 0] = loud[:, W_PX // 2 :, 2] = 255
    assert quality.score(item_of([loud] * FPS))["colourfulness"] > 100


def test_colourfulness_of_two_colours_by_hand():
    """Half red, half blue: rg = 255 and 0, yb = 127.5 and -255."""
    halves = np.array([[[255, 0, 0], [0, 0, 255]]], np.uint8)
    expected = np.hypot(127.5, 191.25) + 0.3 * np.hypot(127.5, 63.75)
    assert colourfulness(halves) == pytest.approx(expected, rel=1e-5)


def test_exposure_and_clipping(quality):
    def exposed(gain, offset):
        frames = [np.clip(frame.astype(float) * gain + offset, 0, 255).astype(np.uint8) for frame in texture_clip()]
        return quality.score(item_of(frames))

    under, normal, over = exposed(1, -120), exposed(1, 0), exposed(1, 150)
    assert under["exposure_mean"] < normal["exposure_mean"] < over["exposure_mean"]
    assert under["clipped_dark_share"] > 0.2 > normal["clipped_dark_share"]
    assert over["clipped_bright_share"] > 0.2 > normal["clipped_bright_share"]
    assert exposed(0.3, 60)["contrast"] == pytest.approx(0.3 * normal["contrast"], rel=0.1)


@pytest.mark.parametrize(("bar_px", "side_px"), [(22, 0), (0, 40), (24, 42), (0, 0), (3, 0), (41, 1)])
def test_bars_of_known_size(quality, bar_px, side_px):
    found = quality.score(item_of(scenes.letterbox(texture_clip(), bar_px, side_px)))
    even_bar_px, even_side_px = bar_px + bar_px % 2, side_px + side_px % 2
    expected = (even_side_px, even_bar_px, W_PX - 2 * even_side_px, H_PX - 2 * even_bar_px)
    assert rectangle(found) == expected
    assert found["bar_area_share"] == pytest.approx(1 - expected[2] * expected[3] / (W_PX * H_PX))


@settings(max_examples=25, deadline=None)
@given(st.integers(8, 260), st.just(0) | st.integers(8, 200))
def test_no_bar_pixel_is_left_in_a_large_source(bar_px, side_px):
    """1080 rows, reduced to 360 in two stages: the rectangle lies inside the picture, and close to it."""
    frames = scenes.letterbox(scenes.static_texture(1, 1440, 1080), bar_px, side_px)
    x_px, y_px, w_px, h_px = rectangle(Quality(QualityConfig()).score(item_of(frames, fps=4)))
    assert x_px % 2 == y_px % 2 == w_px % 2 == h_px % 2 == 0
    assert bar_px <= y_px <= bar_px + 9
    assert 1080 - bar_px - 9 <= y_px + h_px <= 1080 - bar_px
    assert side_px <= x_px <= side_px + 9
    assert 1440 - side_px - 9 <= x_px + w_px <= 1440 - side_px


def test_bars_with_codec_noise_beside_a_dark_picture(quality):
    rng = np.random.default_rng(2)
    frames = []
    for frame in scenes.letterbox([(frame * 0.25).astype(np.uint8) for frame in texture_clip()], 22):
        frames.append(np.clip(frame + rng.integers(0, 3, frame.shape), 0, 255).astype(np.uint8))
    assert rectangle(quality.score(item_of(frames))) == (0, 22, W_PX, H_PX - 44)


def night(n=FPS):
    """A black sky over an uneven, dimly lit town, and a black foreground."""
    town = next(scenes.static_texture(1, W_PX, H_PX)) // 3
    roofs = 50 + (20 * np.sin(np.arange(W_PX) / 9)).astype(int)
    ground = 150 + (10 * np.cos(np.arange(W_PX) / 14)).astype(int)
    rows = np.arange(H_PX)[:, None]
    town[(rows < roofs) | (rows > ground)] = 0
    return [town] * n


def lit_spot(n=FPS):
    """A face in the dark: a soft, round light in the middle."""
    y, x = np.mgrid[:H_PX, :W_PX]
    glow = np.exp(-(((x - 160) / 50) ** 2) - ((y - 90) / 40) ** 2)
    return [np.repeat((glow * 120)[..., None], 3, axis=-1).astype(np.uint8)] * n


@pytest.mark.parametrize(
    "frames",
    [night, lit_spot, lambda: list(scenes.text_card(FPS, W_PX, H_PX, "THE END", background=(0, 0, 0)))],
)
def test_a_dark_scene_has_no_bars(quality, frames):
    found = quality.score(item_of(frames()))
    assert rectangle(found) == (0, 0, W_PX, H_PX)
    assert found["bar_area_share"] == 0.0


def test_a_bar_that_lights_up_once_is_no_bar(quality):
    frames = list(scenes.letterbox(texture_clip(48), 30))
    for i in range(30, 33):
        frames[i][:30, 50:] = 120
        frames[i][150:, 50:] = 120
    assert rectangle(quality.score(item_of(frames))) == (0, 0, W_PX, H_PX)


def test_a_single_bar_needs_a_straight_edge(quality):
    frames = texture_clip()
    for frame in frames:
        frame[:20] = 0
    assert rectangle(quality.score(item_of(frames))) == (0, 20, W_PX, H_PX - 20)


def test_a_black_picture_has_no_bars():
    assert active_rectangle(np.zeros((3, 90, 160), np.uint8), np.zeros((5, 24, 43), np.uint8)) == Rectangle(
        0, 0, 160, 90
    )


def test_black_frames_are_counted(quality):
    black = [np.zeros((H_PX, W_PX, 3), np.uint8)] * FPS
    assert quality.score(item_of([*black, *texture_clip(3 * FPS)]))["black_ratio"] == pytest.approx(0.25, abs=0.01)
    assert quality.score(item_of(black))["black_ratio"] == 1.0
    assert quality.score(item_of(night()))["black_ratio"] == 0.0


@pytest.mark.parametrize(("at", "length"), [((), 1), ((12,), 1), ((6, 30), 2), ((4, 9, 40), 1)])
def test_flashes_are_counted(quality, at, length):
    frames = [(frame * 0.5).astype(np.uint8) for frame in texture_clip(48)]
    found = quality.score(item_of(scenes.with_flashes(frames, at, length)))
    assert found["n_flashes"] == len(at)
    assert found["flash_ratio"] == pytest.approx(len(at) * length / 48)


def test_steps_and_fades_are_no_flashes():
    def windows(levels):
        frames = [np.full((36, 64), level, np.uint8) for level in levels]
        return view(frames, [i / FPS for i in range(len(frames))])

    assert flashes(windows([30] * 12 + [200] * 12)) == (0, 0.0)
    assert flashes(windows([200] * 2 + [30] * 22)) == (0, 0.0)
    assert flashes(windows(np.linspace(0, 250, 10).astype(int))) == (0, 0.0)
    assert flashes(windows([120] * 11 + [0] + [120] * 12)) == (1, pytest.approx(1 / 24))


def test_a_view_without_frames_fails(quality):
    item = item_of(texture_clip())
    none = View(np.zeros((0, 36, 64), np.uint8), np.zeros(0, np.int64), TIME_BASE, np.zeros(0, np.int64))
    cell = quality.process([ClipItem(CLIP, item.facts, {**item.views, "windows": none})])[0]
    assert cell.outcome == Outcome.FAILED
    assert "windows" in cell.failure.message


def test_a_coded_letterbox_end_to_end(quality, tmp_path):
    path = tmp_path / "box.mp4"
    write_video(path, scenes.letterbox(scenes.moving_texture(30, 854, 480, (-2, 0)), 58), Fraction(15))
    facts = read_facts(str(path))
    span = Span(facts.start_pts, facts.end_pts)
    clip = Clip.of_span("digest", facts.stream, facts.time_base_fraction, span)
    [(_, views)] = list(sample_spans(str(path), facts, [clip], quality.views()))
    cell = quality.process([ClipItem(clip, facts, views)])[0]
    assert cell.outcome == Outcome.OK
    x_px, y_px, w_px, h_px = rectangle(cell.values)
    assert (x_px, w_px) == (0, 854)
    assert 58 <= y_px <= 62
    assert 480 - 62 <= y_px + h_px <= 480 - 58
    assert cell.values["n_flashes"] == 0
    assert cell.values["black_ratio"] == 0.0
