"""What the cascade remembers of the frames it was shown: a window of small arrays over the newest ones."""

from __future__ import annotations

from bisect import bisect_left
from fractions import Fraction

import cv2
import numpy as np

from curate.stage import LOOKS_PER_S, Thumb

GREY_PX = (64, 36)
"""Width and height of the luma that is kept, whatever the size of the thumbs."""

TINY_PX = (16, 9)
"""Width and height of the Y U V picture on which frames are compared."""

INNER_ROWS = slice(5, 31)
"""Rows of the grey picture whose mean and contrast are taken: inside the bars of a letterboxed film."""

_MEAN, _CONTRAST, _STEP, _DETAIL, _TIME = range(5)


class FeatureWindow:
    """Features of the frames that were shown, addressed by number; those of the newest ``keep`` samples are held.

    A *sample* is the first frame shown in a slot of 1/12 s: samples are about evenly spaced however many frames were
    shown between them. ``after``: pts of the first frame of the stream after the one shown before, which is the
    frame's own pts unless frames between were not shown.
    ``grey`` uint8 (36, 64); ``tiny`` float32 (432,), Y U V of a 16x9 picture minus 128, whole numbers, so that sums
    over them are exact; mean and contrast (standard deviation) of luma inside the letterbox; detail, the energy of its
    differences; ``step`` root mean square change of ``tiny`` since the frame shown before (0 for the first).
    """

    def __init__(self, time_base: Fraction, keep: int) -> None:
        size = 2 * keep + 64
        self.n = 0
        self.walls: list[int] = []
        self.samples: list[int] = []
        self.first_sample = 0
        self._keep = keep
        self._base = 0
        self._per_tick = LOOKS_PER_S * time_base
        self.tick_s = float(time_base)
        self._slot: int | None = None
        self._staged: np.ndarray | None = None
        self._pts = np.zeros(size, np.int64)
        self._after = np.zeros(size, np.int64)
        self._grey = np.zeros((size, GREY_PX[1], GREY_PX[0]), np.uint8)
        self._tiny = np.zeros((size, TINY_PX[0] * TINY_PX[1] * 3), np.float32)
        self._scalars = np.zeros((size, 5), np.float64)

    @property
    def n_samples(self) -> int:
        """Samples seen."""
        return self.first_sample + len(self.samples)

    def stage(self, thumb: Thumb) -> None:
        """Measure a frame as if it came next: until one is added, number ``n`` is this frame."""
        at = self._room()
        if thumb.yuv is self._staged:
            return
        self._staged = thumb.yuv
        picture = thumb.yuv
        if picture.shape[:2] != GREY_PX[::-1]:
            picture = cv2.resize(picture, GREY_PX, interpolation=cv2.INTER_AREA)
        grey, tiny = self._grey[at], self._tiny[at]
        cv2.extractChannel(picture, 0, grey)
        np.subtract(cv2.resize(picture, TINY_PX, interpolation=cv2.INTER_AREA).ravel(), 128, out=tiny, dtype=np.float32)
        mean, contrast = cv2.meanStdDev(grey[INNER_ROWS])
        change = tiny - self._tiny[at - 1] if self.n else np.zeros(1, np.float32)
        step = float(change.dot(change) / tiny.size) ** 0.5
        self._scalars[at] = mean[0, 0], contrast[0, 0], step, _detail(grey), thumb.pts * self.tick_s

    def add(self, thumb: Thumb) -> None:
        """Take the next frame."""
        self.stage(thumb)
        self._staged = None
        at = self.n - self._base
        self._pts[at] = thumb.pts
        self._scalars[at, _TIME] = thumb.pts * self.tick_s
        self._after[at] = thumb.skipped[0] if thumb.skipped else thumb.pts
        slot = thumb.pts * self._per_tick.numerator // self._per_tick.denominator
        if slot != self._slot:
            self._slot = slot
            self.samples.append(self.n)
        self.n += 1

    def _room(self) -> int:
        """The next row; when there is none, what is no longer needed goes, or the arrays grow."""
        at = self.n - self._base
        if at < len(self._pts):
            return at
        drop = max(len(self.samples) - self._keep, 0)
        del self.samples[:drop]
        self.first_sample += drop
        self.walls = [wall for wall in self.walls if wall > self.samples[0]]
        first = self.samples[0] - self._base
        arrays = [self._pts, self._after, self._grey, self._tiny, self._scalars]
        if 2 * first < at:
            arrays = [np.concatenate([array, np.zeros_like(array)]) for array in arrays]
        for array in arrays:
            array[: at - first] = array[first:at]
        self._pts, self._after, self._grey, self._tiny, self._scalars = arrays
        self._base += first
        return at - first

    def _index(self, frame: int) -> int:
        """Row of a frame; frames beyond either end of what is held stand for the frame at that end."""
        return min(max(frame, self._base), self.n - 1) - self._base

    def _slice(self, first: int, end: int) -> slice:
        return slice(max(first, self._base) - self._base, max(end, self._base) - self._base)

    def sample_number(self, frame: int) -> int:
        """Number of the first sample at or after a frame."""
        return self.first_sample + bisect_left(self.samples, frame)

    def shots(self, first: int, end: int) -> tuple[np.ndarray, np.ndarray]:
        """First and last sample of the stretch without a wall around each of samples [first, end), as far as held."""
        low = np.full(end - first, self.first_sample)
        high = np.full(end - first, self.n_samples - 1)
        for wall in self.walls:
            k = self.sample_number(wall)
            low[max(k - first, 0) :] = np.maximum(low[max(k - first, 0) :], k)
            high[: max(k - first, 0)] = np.minimum(high[: max(k - first, 0)], k - 1)
        return low, high

    def frames_of(self, samples: np.ndarray) -> np.ndarray:
        """Frame numbers of samples that are held."""
        return self._numbers()[samples - self.first_sample]

    def around(self, centre: int, reach_s: float) -> np.ndarray:
        """Frame numbers of the samples that are no further from one than ``reach_s``, without any beyond a wall."""
        low, high = self.shots(centre, centre + 1)
        frames = self.frames_of(np.arange(low[0], high[0] + 1))
        return frames[np.abs(self.seconds(frames) - self.time_s(self.sample_at(centre))) <= reach_s]

    def _numbers(self) -> np.ndarray:
        return np.array(self.samples)

    def sample_at(self, k: int) -> int:
        """Frame number of a sample, as in `span`."""
        return self.samples[min(max(k - self.first_sample, 0), len(self.samples) - 1)]

    def pts(self, frame: int) -> int:
        """pts of a frame."""
        return int(self._pts[self._index(frame)])

    def after(self, frame: int) -> int:
        """pts of the first frame of the stream, shown or not, after a frame; of the newest one its own."""
        return int(self._after[self._index(frame + 1)]) if frame + 1 < self.n else self.pts(frame)

    def time_s(self, frame: int) -> float:
        """Time of a frame, or of the staged one."""
        return float(self._scalars[max(frame, self._base) - self._base, _TIME])

    def step(self, frame: int) -> float:
        """Change since the frame shown before, of a frame or of the staged one."""
        return float(self._scalars[max(frame, self._base) - self._base, _STEP])

    def grey(self, frame: int) -> np.ndarray:
        """Luma of a frame or of the staged one, uint8 (36, 64)."""
        return self._grey[max(frame, self._base) - self._base]

    def tiny(self, frame: int) -> np.ndarray:
        """Tiny picture of a frame or of the staged one, float32 (432,)."""
        return self._tiny[max(frame, self._base) - self._base]

    def tinies(self, frames: np.ndarray) -> np.ndarray:
        """Tiny pictures of frames by number, float32 (n, 432)."""
        return self._tiny[np.clip(frames - self._base, 0, None)]

    def near(self, frame: int, first: int, end: int) -> np.ndarray:
        """Root mean square differences, 0-255, of a frame from frames [first, end) as far as they are held."""
        change = self._tiny[self._slice(first, min(end, self.n))] - self.tiny(frame)
        return np.sqrt(dots(change, change) / change.shape[1])

    def times(self, first: int, end: int) -> np.ndarray:
        """Times, in s, of frames [first, end) as far as they are held."""
        return self._scalars[self._slice(first, min(end, self.n)), _TIME]

    def steps(self, first: int, end: int) -> np.ndarray:
        """Steps of frames [first, end) as far as they are held."""
        return self._scalars[self._slice(first, min(end, self.n)), _STEP]

    def luma(self, frame: int) -> tuple[float, float]:
        """Mean and contrast of a frame."""
        row = self._scalars[max(frame, self._base) - self._base]
        return float(row[_MEAN]), float(row[_CONTRAST])

    def means(self, frames: np.ndarray) -> np.ndarray:
        """Mean luma of frames by number."""
        return self._scalars[np.clip(frames - self._base, 0, None), _MEAN]

    def contrasts(self, frames: np.ndarray) -> np.ndarray:
        """Standard deviation of luma of frames by number."""
        return self._scalars[np.clip(frames - self._base, 0, None), _CONTRAST]

    def details(self, frames: np.ndarray) -> np.ndarray:
        """Energy of fine detail of frames by number: mean square difference of neighbouring luma pixels."""
        return self._scalars[np.clip(frames - self._base, 0, None), _DETAIL]

    def seconds(self, frames: np.ndarray) -> np.ndarray:
        """Times, in s, of frames by number."""
        return self._scalars[np.clip(frames - self._base, 0, None), _TIME]

    def held(self, frame: int) -> int:
        """The frame, or the oldest one held where that is later."""
        return max(frame, self._base)

    def distance(self, a: int, b: int) -> float:
        """Root mean square difference of two frames' tiny pictures, 0-255."""
        change = self.tiny(a) - self.tiny(b)
        return float(np.sqrt(change.dot(change) / change.size))

    def spread(self, a: int, b: int) -> float:
        """How evenly two frames' difference lies over the picture: about 0.6 to 1 where all of it changed (0.4 between
        black bars), under 0.3 where only a title or a near object did."""
        change = np.abs(self.tiny(a) - self.tiny(b)).reshape(-1, 3).sum(axis=1)
        return float(change.mean() ** 2 / max(np.square(change).mean(), 1e-9))

    def lift(self, a: int, b: int) -> float:
        """How much of two frames' difference in luma is one of brightness alone: 1 where all of it has one sign."""
        change = (self.tiny(a) - self.tiny(b))[::3]
        return float(abs(change.sum()) / max(np.abs(change).sum(), 1.0))


def dots(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Inner products of the rows of two arrays; exact for tiny pictures."""
    return np.einsum("ij,ij->i", a, b)


def _detail(grey: np.ndarray) -> float:
    across = cv2.norm(grey[:, 1:], grey[:, :-1], cv2.NORM_L2SQR)
    return (across + cv2.norm(grey[1:], grey[:-1], cv2.NORM_L2SQR)) / grey.size
