"""Synthetic scenes with known truth: iterators of uint8 (height, width, 3) RGB frames, the same for the same seed.

Every frame is sampled afresh from one large texture that repeats without a seam, so that no error adds up over time.
Shifts are right to about 1/100 px, zoom and roll to about 1/30 px.
A positive x velocity moves the picture's content to the right, a positive y velocity moves it down.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from functools import lru_cache

import cv2
import numpy as np

Frame = np.ndarray
"""uint8 (height, width, 3), RGB."""

_TILE_PX = 1024


@lru_cache(maxsize=4)
def texture(seed: int = 0, size_px: int = _TILE_PX) -> Frame:
    """A seamless square picture with detail from 4 px to a quarter of its side, uint8 (size_px, size_px, 3), RGB.

    Soft colour noise at three scales, and flat patches with clear edges, so that optical flow finds a hold everywhere.
    """
    rng = np.random.default_rng(seed)
    planes = [np.full((size_px, size_px), 0.5, np.float32) for _ in range(3)]
    for sigma_px, weight in ((size_px / 24, 0.10), (size_px / 90, 0.09), (2.0, 0.06)):
        for channel in range(3):
            planes[channel] += weight * _soft_noise(rng, size_px, sigma_px)
    for sigma_px in (size_px / 40, size_px / 100):
        patch = _soft_noise(rng, size_px, sigma_px) > 0.7
        for plane, change in zip(planes, rng.uniform(-0.3, 0.3, 3), strict=True):
            plane[patch] += change
    soft = (_low_pass(plane, 0.8) for plane in planes)
    return np.stack([(np.clip(plane, 0, 1) * 255).round().astype(np.uint8) for plane in soft], axis=-1)


def moving_texture(
    n: int, width: int, height: int, velocity_px: tuple[float, float] = (0.0, 0.0), seed: int = 0
) -> Iterator[Frame]:
    """``n`` frames of a camera move over a texture; the content moves by ``velocity_px`` (x, y) a frame."""
    for i in range(n):
        yield _shifted(width, height, seed, velocity_px[0] * i, velocity_px[1] * i)


def static_texture(n: int, width: int, height: int, seed: int = 0) -> Iterator[Frame]:
    """``n`` times the same textured frame."""
    return moving_texture(n, width, height, (0.0, 0.0), seed)


def zoom_texture(n: int, width: int, height: int, rate: float = 0.01, seed: int = 0) -> Iterator[Frame]:
    """The content grows about the picture's centre by the share ``rate`` of its size a frame (negative: shrinks)."""
    for i in range(n):
        yield _sampled(width, height, seed, scale=(1.0 + rate) ** i)


def roll_texture(n: int, width: int, height: int, rate_deg: float = 1.0, seed: int = 0) -> Iterator[Frame]:
    """The content turns clockwise about the picture's centre by ``rate_deg`` a frame."""
    for i in range(n):
        yield _sampled(width, height, seed, turn_deg=rate_deg * i)


def moving_object(
    n: int,
    width: int,
    height: int,
    velocity_px: tuple[float, float] = (2.0, 0.0),
    size_px: int = 40,
    seed: int = 0,
) -> Iterator[Frame]:
    """A textured square crosses a textured background that stands still, and enters again opposite where it left."""
    background = _shifted(width, height, seed).astype(np.float32)
    patch = texture(seed + 1)[:size_px, :size_px][..., ::-1].astype(np.float32)
    alpha = np.ones((size_px, size_px, 1), np.float32)
    for i in range(n):
        x_px = (width / 4 + velocity_px[0] * i + size_px) % (width + size_px) - size_px
        y_px = ((height - size_px) / 2 + velocity_px[1] * i + size_px) % (height + size_px) - size_px
        place = np.array([[1, 0, x_px], [0, 1, y_px]], np.float64)
        over = cv2.warpAffine(patch, place, (width, height), flags=cv2.INTER_LINEAR)
        share = cv2.warpAffine(alpha, place, (width, height), flags=cv2.INTER_LINEAR)[..., None]
        yield (background * (1 - share) + over).round().astype(np.uint8)


def text_card(
    n: int, width: int, height: int, text: str, *, background: tuple[int, int, int] = (28, 40, 64)
) -> Iterator[Frame]:
    """``n`` times the same plain card with lines of ASCII ``text`` (parted by newlines), as large as fits."""
    card = np.full((height, width, 3), background, np.uint8)
    lines = text.split("\n")
    pitch_px = height / (len(lines) + 0.5)
    widest_px = max(_text_width_px(line) for line in lines)
    scale = min(0.9 * width / max(widest_px, 1), pitch_px / 34)
    thickness = max(1, round(scale * 2))
    for row, line in enumerate(lines):
        left_px = (width - _text_width_px(line) * scale) / 2
        at = (round(left_px), round(pitch_px * (row + 1)))
        cv2.putText(card, line, at, cv2.FONT_HERSHEY_SIMPLEX, scale, (240, 240, 240), thickness, cv2.LINE_AA)
    for _ in range(n):
        yield card.copy()


def slideshow(n: int, width: int, height: int, hold: int = 30, seed: int = 0) -> Iterator[Frame]:
    """Still pictures, each shown for ``hold`` frames."""
    for i in range(n):
        yield _shifted(width, height, seed + i // hold)


def noise(n: int, width: int, height: int, seed: int = 0) -> Iterator[Frame]:
    """Frames of independent random pixels: the worst case for every encoder and every detector."""
    rng = np.random.default_rng(seed)
    for _ in range(n):
        yield rng.integers(0, 256, (height, width, 3), np.uint8)


def crossfade(first: Iterable[Frame], second: Iterable[Frame], n: int) -> Iterator[Frame]:
    """``first`` dissolves into ``second``: its last ``n`` frames are mixed with the first ``n`` of ``second``."""
    a, b = list(first), list(second)
    n = min(n, len(a), len(b))
    yield from a[: len(a) - n]
    for i in range(n):
        share = (i + 1) / (n + 1)
        yield cv2.addWeighted(a[len(a) - n + i], 1 - share, b[i], share, 0)
    yield from b[n:]


def fade(frames: Iterable[Frame], n_in: int = 0, n_out: int = 0) -> Iterator[Frame]:
    """The first ``n_in`` frames come out of black (the first is black), the last ``n_out`` go into it."""
    given = list(frames)
    for i, frame in enumerate(given):
        rising = i / n_in if i < n_in else 1.0
        left = len(given) - 1 - i
        falling = left / n_out if left < n_out else 1.0
        level = min(rising, falling)
        yield frame if level == 1.0 else (frame * level).round().astype(np.uint8)


def letterbox(frames: Iterable[Frame], bar_px: int, side_px: int = 0) -> Iterator[Frame]:
    """Black bars of ``bar_px`` above and below, and of ``side_px`` left and right, painted over the frames."""
    for frame in frames:
        boxed = np.zeros_like(frame)
        height, width = frame.shape[:2]
        inner = (slice(bar_px, height - bar_px), slice(side_px, width - side_px))
        boxed[inner] = frame[inner]
        yield boxed


def with_flashes(frames: Iterable[Frame], at: Iterable[int], n: int = 1) -> Iterator[Frame]:
    """``n`` white frames in place of those from each index in ``at`` on, as a photographer's flash gives."""
    white = {start + i for start in at for i in range(n)}
    for i, frame in enumerate(frames):
        yield np.full_like(frame, 255) if i in white else frame


def _shifted(width: int, height: int, seed: int, x_px: float = 0.0, y_px: float = 0.0) -> Frame:
    """A window of the texture whose content is moved by any part of a pixel, by an eight-tap windowed sinc."""
    (left, x_taps), (top, y_taps) = _taps(x_px), _taps(y_px)
    rows = (np.arange(-4, height + 4) + top) % _TILE_PX
    cols = (np.arange(-4, width + 4) + left) % _TILE_PX
    window = texture(seed)[rows][:, cols].astype(np.float32)
    moved = cv2.sepFilter2D(window, -1, x_taps, y_taps, anchor=(3, 3))[4:-4, 4:-4]
    return np.clip(moved.round(), 0, 255).astype(np.uint8)


def _taps(shift_px: float) -> tuple[int, np.ndarray]:
    """Where a shifted line begins to read, and the weights of the samples -3 to 4 around each whole position."""
    whole = math.floor(-shift_px)
    distance = np.arange(-3, 5) - (-shift_px - whole)
    weights = np.sinc(distance) * np.sinc(distance / 4)
    return whole, (weights / weights.sum()).astype(np.float32)


def _sampled(width: int, height: int, seed: int, *, scale: float = 1.0, turn_deg: float = 0.0) -> Frame:
    """A window of the texture, its content turned clockwise and scaled about the window's centre."""
    centre = (width / 2 - 0.5, height / 2 - 0.5)
    place = cv2.getRotationMatrix2D(centre, -turn_deg, scale)
    flags = cv2.INTER_CUBIC
    return cv2.warpAffine(texture(seed), place, (width, height), flags=flags, borderMode=cv2.BORDER_WRAP)


def _soft_noise(rng: np.random.Generator, size_px: int, sigma_px: float) -> np.ndarray:
    soft = _low_pass(rng.standard_normal((size_px, size_px), np.float32), sigma_px)
    return soft / soft.std()


def _low_pass(plane: np.ndarray, sigma_px: float) -> np.ndarray:
    """A Gaussian blur of a float32 plane that wraps around, so that the result has no seam."""
    rows, cols = plane.shape
    kept_y = np.exp(-2 * (np.pi * sigma_px * np.fft.fftfreq(rows)) ** 2).astype(np.float32)
    kept_x = np.exp(-2 * (np.pi * sigma_px * np.fft.rfftfreq(cols)) ** 2).astype(np.float32)
    n = int(np.flatnonzero(kept_x)[-1]) + 1  # of what is finer nothing is left
    waves = np.fft.fft(np.fft.rfft(plane)[:, :n], axis=0) * kept_y[:, None] * kept_x[:n]
    return np.fft.irfft(np.fft.ifft(waves, axis=0), cols)


def _text_width_px(line: str) -> int:
    return cv2.getTextSize(line, cv2.FONT_HERSHEY_SIMPLEX, 1.0, 2)[0][0]
