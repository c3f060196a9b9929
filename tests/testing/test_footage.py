"""The test kit itself: what is written is what was asked for, and motion is what it says."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from curate.testing import footage
from curate.testing.footage import PTS_PER_S, Track, moving_texture, write_tone, write_tracks, write_video

W, H = 160, 90


def decoded(path: Path, stream: int = 0) -> list[av.VideoFrame]:
    with av.open(str(path)) as container:
        return list(container.decode(video=stream))


def luma(frame: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32)


def shift_px(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """Least-squares shift between two frames that lie less than a pixel apart."""
    a, b = luma(first), luma(second)
    gy, gx = np.gradient((a + b) / 2)
    found, *_ = np.linalg.lstsq(np.stack([gx.ravel(), gy.ravel()], 1), (a - b).ravel(), rcond=None)
    return float(found[0]), float(found[1])


@pytest.mark.parametrize(
    ("name", "codec", "more", "decoder", "pix_fmt"),
    [
        ("a.mp4", "libx264", {}, "h264", "yuv420p"),
        ("a.mkv", "libx264", {}, "h264", "yuv420p"),
        ("a.mp4", "libx265", {"pix_fmt": "yuv420p10le"}, "hevc", "yuv420p10le"),
        ("a.webm", "libvpx-vp9", {}, "vp9", "yuv420p"),
        ("a.mp4", "libsvtav1", {}, "libdav1d", "yuv420p"),
        ("a.avi", "mpeg4", {}, "mpeg4", "yuv420p"),
    ],
)
def test_every_codec_gives_all_frames_back_and_the_same_bytes(
    tmp_path: Path, name: str, codec: str, more: Any, decoder: str, pix_fmt: str
) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        frames = footage.moving_texture(12, W, H, (1.0, 0.5), seed=3)
        write_video(tmp_path / folder / name, frames, Fraction(25), codec, **more)
    path = tmp_path / "one" / name
    assert path.read_bytes() == (tmp_path / "two" / name).read_bytes()
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt) == (decoder, pix_fmt)
    pictures = decoded(path)
    assert [round(frame.time * 25) for frame in pictures] == list(range(12))
    first = next(footage.moving_texture(1, W, H, seed=3))
    assert np.abs(luma(pictures[0].to_ndarray(format="rgb24")) - luma(first)).mean() < 8


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_key_frames_come_exactly_when_asked(tmp_path: Path, codec: str) -> None:
    write_video(tmp_path / "a.mp4", footage.slideshow(25, W, H, hold=7), codec=codec, gop=10)
    assert [i for i, frame in enumerate(decoded(tmp_path / "a.mp4")) if frame.key_frame] == [0, 10, 20]


def test_time_stamps_rotation_and_pixel_aspect_are_kept(tmp_path: Path) -> None:
    pts = [0, 3000, 9000, 9900, 18000]
    frames = list(footage.static_texture(5, W, H))
    write_video(tmp_path / "a.mp4", frames, pts=pts, rotation_deg=90, sar=Fraction(4, 3))
    pictures = decoded(tmp_path / "a.mp4")
    assert [round(frame.time * PTS_PER_S) for frame in pictures] == pts
    assert pictures[0].rotation == -90  # FFmpeg counts counter-clockwise
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert container.streams.video[0].sample_aspect_ratio == Fraction(4, 3)


def test_several_tracks_and_a_tone(tmp_path: Path) -> None:
    small, large = (Track(footage.static_texture(10, w, h)) for w, h in ((80, 46), (W, H)))
    write_tracks(tmp_path / "a.mp4", [small, large], tone_s=0.5)
    assert [decoded(tmp_path / "a.mp4", i)[0].width for i in (0, 1)] == [80, W]
    write_tone(tmp_path / "tone.mp4", 0.5)
    with av.open(str(tmp_path / "tone.mp4")) as container:
        assert [stream.type for stream in container.streams] == ["audio"]
        assert container.duration / av.time_base == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("velocity", [(0.3, -0.7), (0.05, 0.5), (-7.9, 3.1)])
def test_textures_move_as_they_say(velocity: tuple[float, float]) -> None:
    """Against the exact shift of the whole texture, by way of its spectrum."""
    spectrum = np.fft.fft2(luma(footage.texture(5)))
    fy, fx = (np.fft.fftfreq(side) for side in spectrum.shape)
    for i, frame in enumerate(footage.moving_texture(12, W, H, velocity, seed=5)):
        phase = fx[None, :] * velocity[0] * i + fy[:, None] * velocity[1] * i
        true = np.fft.ifft2(spectrum * np.exp(-2j * np.pi * phase)).real[:H, :W]
        gy, gx = np.gradient(true)
        off_px, *_ = np.linalg.lstsq(np.stack([gx.ravel(), gy.ravel()], 1), (true - luma(frame)).ravel(), rcond=None)
        assert np.abs(off_px).max() < 0.01
        assert np.abs(true - luma(frame)).mean() < 1


def test_textures_have_no_seam() -> None:
    steps = [np.abs(luma(f)[:, 1:] - luma(f)[:, :-1]).max() for f in footage.moving_texture(60, W, H, (37.0, 23.0))]
    inner = np.abs(np.diff(luma(footage.texture(0)), axis=1)).max()
    assert max(steps) <= inner + 1


def test_zoom_and_roll_leave_the_centre_and_move_the_rim() -> None:
    zoomed = list(footage.zoom_texture(2, W, H, 0.01))
    left, right = (shift_px(zoomed[0][:, part], zoomed[1][:, part])[0] for part in (slice(0, 30), slice(-30, None)))
    assert left == pytest.approx(-0.65, abs=0.15) and right == pytest.approx(0.65, abs=0.15)
    rolled = list(footage.roll_texture(2, W, H, 0.5))
    left, right = (shift_px(rolled[0][:, part], rolled[1][:, part])[1] for part in (slice(0, 30), slice(-30, None)))
    assert left < -0.3 and right > 0.3  # clockwise: the left side rises, the right side sinks


def test_an_object_moves_over_a_background_that_does_not() -> None:
    frames = list(footage.moving_object(40, W, H, (4.0, 0.0), 20, seed=1))
    changed = np.any([np.abs(a.astype(int) - frames[0]).max(axis=2) > 0 for a in frames], axis=0)
    assert 0 < changed.mean() < 0.3
    assert not changed[: H // 2 - 12].any()


def test_fade_dissolve_bars_and_flashes_are_where_they_say() -> None:
    grey = [np.full((H, W, 3), 200, np.uint8)] * 10
    levels = [int(frame.max()) for frame in footage.fade(grey, n_in=4, n_out=2)]
    assert levels == [0, 50, 100, 150, 200, 200, 200, 200, 100, 0]
    dark = [np.zeros((H, W, 3), np.uint8)] * 10
    mixed = [int(frame.max()) for frame in footage.crossfade(dark, grey, 3)]
    assert mixed == [0] * 7 + [50, 100, 150] + [200] * 7
    boxed = next(footage.letterbox(grey, 10, side_px=4))
    assert boxed[10:-10, 4:-4].min() == 200 and boxed.sum() == 200 * 3 * (H - 20) * (W - 8)
    bright = [int(frame.min()) for frame in footage.with_flashes(dark, (2, 6), n=2)]
    assert [i for i, level in enumerate(bright) if level == 255] == [2, 3, 6, 7]


def test_slides_hold_and_change() -> None:
    frames = list(footage.slideshow(9, W, H, hold=3))
    changes = [i for i in range(1, 9) if (frames[i] != frames[i - 1]).any()]
    assert changes == [3, 6]


def test_text_is_bright_on_a_plain_card() -> None:
    card = next(footage.text_card(1, 320, 180, "HELLO\nWORLD"))
    share = (card.min(axis=2) > 200).mean()
    assert 0.05 < share < 0.5
    assert (card[:4] == card[0, 0]).all()


@pytest.mark.parametrize(
    "scene",
    [
        lambda seed: footage.moving_texture(3, W, H, (1, 1), seed),
        lambda seed: footage.zoom_texture(3, W, H, 0.01, seed),
        lambda seed: footage.moving_object(3, W, H, seed=seed),
        lambda seed: footage.slideshow(3, W, H, 1, seed),
        lambda seed: footage.noise(3, W, H, seed),
    ],
)
def test_scenes_follow_their_seed(scene: Callable[[int], Iterator[np.ndarray]]) -> None:
    def third(seed: int) -> np.ndarray:
        frame = next(islice(scene(seed), 2, None))
        assert frame.shape == (H, W, 3) and frame.dtype == np.uint8
        return frame

    assert (third(1) == third(1)).all()
    assert (third(1) != third(7)).any()


def test_making_footage_leaves_the_scheduling_of_the_process_alone(tmp_path):
    """SVT-AV1, run as root, would leave the thread real-time, and all that it starts."""
    before = os.sched_getscheduler(0), os.sched_getparam(0).sched_priority
    write_video(tmp_path / "a.mp4", moving_texture(3, 64, 64, (1, 0), 1), codec="libsvtav1")
    assert (os.sched_getscheduler(0), os.sched_getparam(0).sched_priority) == before
