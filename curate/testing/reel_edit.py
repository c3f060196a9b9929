"""The editor's tools: takes of footage, camera pans, flashes, and how two shots are mixed at a joint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np

from curate.testing.reel_footage import Shot
from curate.testing.scenes import Frame

EXPOSURE_FRAMES = 0.5
"""How long the shutter of a panning camera is open: the picture's way in that time is blurred."""


@dataclass(frozen=True)
class Take:
    """A shot as the reel shows it; ``view`` makes the reel's picture of one of its ``frames``, given the frame's
    number on the take. A shot that is too short is shown forwards and backwards in turn."""

    frames: np.ndarray
    view: Callable[[Frame, int], Frame]
    offset: int = 0

    def frame(self, number: int) -> Frame:
        """uint8 (height, width, 3)."""
        turn, at = divmod(number + self.offset, max(1, len(self.frames) - 1))
        return self.view(self.frames[at if turn % 2 == 0 else len(self.frames) - 1 - at], number)

    def later(self, frames: int) -> Take:
        """The same camera, so many frames later."""
        return replace(self, offset=self.offset + frames)


@dataclass(frozen=True)
class Joint:
    """From one take to the next in frames [first, clean). A fade is at full black or white from ``black`` to
    ``enters``."""

    kind: str
    first: int
    clean: int
    black: int = 0
    enters: int = 0
    seed: int = 0


def shot_take(shot: Shot, size_px: tuple[int, int], rng: np.random.Generator) -> Take:
    """A shot seen through a window of the reel's shape that stands still, mirrored at times."""
    return Take(shot.frames, _window(shot, size_px, rng), int(rng.integers(0, max(1, len(shot.frames) // 2))))


def still_take(shot: Shot, size_px: tuple[int, int], rng: np.random.Generator) -> Take:
    """One frame of a shot with faint noise."""
    window = _window(shot, size_px, rng)
    picture = window(shot.frames[int(rng.integers(len(shot.frames)))], 0)
    seed = int(rng.integers(1 << 30))

    def view(_frame: Frame, number: int) -> Frame:
        noise = np.random.default_rng((seed, number)).integers(-1, 2, picture.shape[:2], np.int8)[..., None]
        return np.clip(picture.astype(np.int16) + noise, 0, 255).astype(np.uint8)

    return Take(shot.frames[:1], view)


def pan_take(shot: Shot, size_px: tuple[int, int], rng: np.random.Generator, begins: int, n: int) -> Take:
    """The camera turns by 0.6 to 1.6 picture widths in the ``n`` frames from ``begins`` on, with motion blur.

    The picture goes on beyond its edges as its mirror image, so that no edge is seen.
    """
    window = _window(shot, size_px, rng)
    width = size_px[0]
    way_px = float(rng.uniform(0.6, 1.6)) * width * (1 if rng.random() < 0.5 else -1)

    def place_px(number: float) -> float:
        share = min(max((number - begins + 1) / n, 0.0), 1.0)
        return way_px * (share * share * (3 - 2 * share))

    def view(frame: Frame, number: int) -> Frame:
        picture = window(frame, number)
        wide = np.hstack([picture, picture[:, ::-1]])
        margin = width // 2  # the blur reaches beyond the frame's edges, and finds the real neighbours there
        seen = np.roll(wide, margin - round(place_px(number)), axis=1)[:, : width + 2 * margin]
        blur_px = round(abs(place_px(number) - place_px(number - EXPOSURE_FRAMES)))
        if blur_px > 1:
            seen = cv2.blur(seen, (blur_px, 1))
        return np.ascontiguousarray(seen[:, margin : margin + width])

    return Take(shot.frames, view)


def _window(shot: Shot, size_px: tuple[int, int], rng: np.random.Generator) -> Callable[[Frame, int], Frame]:
    height, width = shot.frames.shape[1:3]
    most = min(width / size_px[0], height / size_px[1])
    scale = most * float(rng.uniform(0.75, 1.0))
    seen = round(size_px[0] * scale), round(size_px[1] * scale)
    left, top = int(rng.integers(0, width - seen[0] + 1)), int(rng.integers(0, height - seen[1] + 1))
    mirrored = bool(rng.random() < 0.5)

    def view(frame: Frame, _number: int) -> Frame:
        part = frame[top : top + seen[1], left : left + seen[0]]
        method = cv2.INTER_AREA if scale >= 1 else cv2.INTER_CUBIC
        picture = cv2.resize(part, size_px, interpolation=method)
        return np.ascontiguousarray(picture[:, ::-1]) if mirrored else picture

    return view


def flashed(frame: Frame, number: int, seed: int) -> Frame:
    """A photographer's flash on its ``number``-th frame: strongest first, on all of the picture or a soft part."""
    rng = np.random.default_rng(seed)
    strength = float(rng.uniform(60, 170)) * 0.75**number
    height, width = frame.shape[:2]
    if rng.random() < 0.4:
        y, x = np.mgrid[0:height, 0:width]
        centre = rng.uniform(0.2, 0.8, 2) * (width, height)
        far = np.hypot(x - centre[0], y - centre[1]) / (0.6 * width)
        share = np.exp(-(far**2))[..., None]
    else:
        share = np.ones((1, 1, 1))
    return np.clip(frame * (1 + 0.3 * share) + strength * share, 0, 255).astype(np.uint8)


def mixed(joint: Joint, number: int, before: Frame, after: Frame) -> Frame:
    """The frame at ``number`` of a joint, out of those of the shots on its two sides."""
    if joint.kind == "fade":
        return _faded(joint, number, before, after)
    share = (number - joint.first + 1) / (joint.clean - joint.first + 1)
    if joint.kind == "dissolve":
        return cv2.addWeighted(before, 1 - share, after, share, 0)
    mask = wipe_mask(before.shape[:2], share, joint.seed)[..., None]
    return np.rint(before * (1 - mask) + after * mask).astype(np.uint8)


def _faded(joint: Joint, number: int, before: Frame, after: Frame) -> Frame:
    end = np.full_like(before, 255 if joint.seed % 4 == 0 else 0)
    if number < joint.black:
        share = (number - joint.first + 1) / (joint.black - joint.first + 1)
        return cv2.addWeighted(before, 1 - share, end, share, 0)
    if number < joint.enters:
        return end
    share = (number - joint.enters + 1) / (joint.clean - joint.enters + 1)
    return cv2.addWeighted(end, 1 - share, after, share, 0)


def wipe_mask(shape: tuple[int, int], share: float, seed: int) -> np.ndarray:
    """Share of the new shot at each place, float64 (height, width), of a wipe that is ``share`` on its way: along a
    straight line or an opening or closing circle, with an edge between hard and a fifth of the picture wide."""
    rng = np.random.default_rng(seed)
    kind = rng.choice(["right", "left", "down", "up", "diagonal", "opens", "closes"])
    soft = float(rng.choice([0.01, 0.05, 0.2]))
    y, x = ((np.mgrid[0 : shape[0], 0 : shape[1]] + 0.5).T / (shape[0], shape[1])).T
    far = np.hypot(x - 0.5, y - 0.5) / np.hypot(0.5, 0.5)
    order = {
        "right": x, "left": 1 - x, "down": y, "up": 1 - y, "diagonal": (x + y) / 2, "opens": far, "closes": 1 - far,
    }[str(kind)]  # fmt: skip
    return np.clip((share * (1 + soft) - order) / soft, 0, 1)
