"""What the cascade remembers of each frame: a window of small arrays over the newest frames."""

from __future__ import annotations

import cv2
import numpy as np

from curate.stage import Thumb

GREY_PX = (64, 36)
"""Width and height of the luma that is kept, whatever the size of the thumbs."""

TINY_PX = (16, 9)
"""Width and height of the Y U V picture on which frames are compared."""

INNER_ROWS = slice(5, 31)
"""Rows of the grey picture whose mean and contrast are taken: inside the bars of a letterboxed film."""

_LUMA, _CHROMA = 255 / 219, 255 / 224
_Y_U_V = np.array([[1, 1.772, 0], [1, -0.344136, -0.714136], [1, 0, 1.402]])
_SCALED = _Y_U_V * [_LUMA, _CHROMA, _CHROMA]
_TO_BGR = np.hstack([_SCALED, -_SCALED @ np.array([[16.0], [128.0], [128.0]])])


def yuv_to_bgr(yuv: np.ndarray) -> np.ndarray:
    """uint8 (h, w, 3) Y U V of limited range, BT.601 -> uint8 (h, w, 3) B G R of full range."""
    return cv2.transform(yuv, _TO_BGR)


def content_change(first_hsv: np.ndarray, second_hsv: np.ndarray) -> float:
    """Mean absolute difference over hue, saturation and value, 0-255: PySceneDetect's content value."""
    return cv2.norm(first_hsv, second_hsv, cv2.NORM_L1) / first_hsv.size


class FeatureWindow:
    """Features of the newest frames, addressed by frame number; at least ``keep`` frames are held.

    ``pts`` int64; ``grey`` uint8 (36, 64); ``tiny`` float32 (432,), Y U V of a 16x9 picture minus 128, whole numbers,
    so that sums over them are exact; mean and contrast (standard deviation) of luma inside
    the letterbox; detail, the energy of its differences; ``step`` root mean
    square change of ``tiny`` since the frame before (0 for the first). ``hsv`` is that of the newest frame alone.
    """

    def __init__(self, keep: int) -> None:
        size = 2 * keep + 64
        self.keep = keep
        self.n = 0
        self._base = 0
        self.hsv = np.zeros((GREY_PX[1], GREY_PX[0], 3), np.uint8)
        self._pts = np.zeros(size, np.int64)
        self._grey = np.zeros((size, GREY_PX[1], GREY_PX[0]), np.uint8)
        self._tiny = np.zeros((size, TINY_PX[0] * TINY_PX[1] * 3), np.float32)
        self._scalars = np.zeros((4, size), np.float64)

    @property
    def first(self) -> int:
        """Number of the oldest frame held."""
        return self._base

    def add(self, thumb: Thumb) -> None:
        """Take the next frame."""
        at = self._room()
        yuv = cv2.resize(thumb.yuv, GREY_PX, interpolation=cv2.INTER_AREA)
        self.hsv = cv2.cvtColor(yuv_to_bgr(yuv), cv2.COLOR_BGR2HSV)
        grey = self._grey[at]
        cv2.extractChannel(yuv, 0, grey)
        tiny = self._tiny[at]
        np.subtract(cv2.resize(yuv, TINY_PX, interpolation=cv2.INTER_AREA).ravel(), 128, out=tiny, dtype=np.float32)
        mean, contrast = cv2.meanStdDev(grey[INNER_ROWS])
        change = tiny - self._tiny[at - 1] if self.n else np.zeros(1, np.float32)
        self._scalars[:, at] = mean[0, 0], contrast[0, 0], np.sqrt(change.dot(change) / tiny.size), _detail(grey)
        self._pts[at] = thumb.pts
        self.n += 1

    def _room(self) -> int:
        at = self.n - self._base
        if at == len(self._pts):
            keep = slice(at - self.keep, at)
            for array in (self._pts, self._grey, self._tiny, self._scalars.T):
                array[: self.keep] = array[keep]
            self._base += at - self.keep
            at = self.keep
        return at

    def _index(self, frame: int) -> int:
        """Row of a frame; frames beyond either end of what is held stand for the frame at that end."""
        return min(max(frame, self._base), self.n - 1) - self._base

    def _indices(self, first: int, end: int) -> slice | np.ndarray:
        if first >= self._base and end <= self.n:
            return slice(first - self._base, end - self._base)
        return np.clip(np.arange(first, end), self._base, self.n - 1) - self._base

    def pts(self, frame: int) -> int:
        """pts of a frame."""
        return int(self._pts[self._index(frame)])

    def grey(self, frame: int) -> np.ndarray:
        """Luma of a frame, uint8 (36, 64)."""
        return self._grey[self._index(frame)]

    def tiny(self, frame: int) -> np.ndarray:
        """Tiny picture of a frame, float32 (432,)."""
        return self._tiny[self._index(frame)]

    def tinies(self, first: int, end: int) -> np.ndarray:
        """Tiny pictures of frames [first, end), float32 (n, 432)."""
        return self._tiny[self._indices(first, end)]

    def means(self, first: int, end: int) -> np.ndarray:
        """Mean luma of frames [first, end)."""
        return self._scalars[0, self._indices(first, end)]

    def contrasts(self, first: int, end: int) -> np.ndarray:
        """Standard deviation of luma of frames [first, end)."""
        return self._scalars[1, self._indices(first, end)]

    def steps(self, first: int, end: int) -> np.ndarray:
        """Change since the frame before, of frames [first, end)."""
        return self._scalars[2, self._indices(first, end)]

    def details(self, first: int, end: int) -> np.ndarray:
        """Energy of fine detail of frames [first, end): mean square difference of neighbouring luma pixels."""
        return self._scalars[3, self._indices(first, end)]

    def distance(self, a: int, b: int) -> float:
        """Root mean square difference of two frames' tiny pictures, 0-255."""
        change = self.tiny(a) - self.tiny(b)
        return float(np.sqrt(change.dot(change) / change.size))

    def spread(self, a: int, b: int) -> float:
        """How evenly two frames' difference lies over the picture: about 0.6 to 1 where all of it changed (0.4 between
        black bars), under 0.3 where only a title or a near object did."""
        change = np.abs(self.tiny(a) - self.tiny(b)).reshape(-1, 3).sum(axis=1)
        return float(change.mean() ** 2 / max(np.square(change).mean(), 1e-9))


def _detail(grey: np.ndarray) -> float:
    across = cv2.norm(grey[:, 1:], grey[:, :-1], cv2.NORM_L2SQR)
    return (across + cv2.norm(grey[1:], grey[:-1], cv2.NORM_L2SQR)) / grey.size
