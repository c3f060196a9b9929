"""The passes of the cascade: content change between frames sampled at several rates (SVD_SPEC 1.2)."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from curate.stages.cut.features import content_change


class RatePass:
    """Content change between frames sampled at one rate, exact on any time stamps.

    A frame is sampled when it is the first at or after a point of the grid k / fps that begins at the first frame, or
    when ``most_frames`` came since the last sample (so that no rate makes the decision wait for ever).
    ``sampled`` is the number of the last sampled frame.
    """

    def __init__(self, rate_fps: Fraction, threshold: float, time_base: Fraction, most_frames: int) -> None:
        self.name = f"cascade@{float(rate_fps):g}" if rate_fps else "cascade@native"
        self.sampled = -1
        self._per_tick = rate_fps * time_base
        self._threshold = threshold
        self._most_frames = most_frames
        self._origin = 0
        self._slot = 0
        self._hsv: np.ndarray | None = None

    @property
    def coarse(self) -> bool:
        """Whether it samples below the native rate."""
        return bool(self._per_tick)

    def push(self, frame: int, pts: int, hsv: np.ndarray, *, last: bool = False) -> tuple[int, int] | None:
        """Take a frame; the ``last`` one is sampled whatever the grid says (it may have been pushed before).

        Where the change since the last sample reaches the threshold: the frames [first, end) of which one may begin
        a new shot, else None.
        """
        if self._hsv is None:
            self._origin = pts
        slot = (pts - self._origin) * self._per_tick.numerator // self._per_tick.denominator
        waits = self._hsv is not None and self.coarse and slot == self._slot
        if waits and not last and frame - self.sampled < self._most_frames:
            return None
        before, since = self._hsv, self.sampled
        self._hsv, self._slot, self.sampled = hsv, slot, frame
        if before is None or frame == since or content_change(before, hsv) < self._threshold:
            return None
        return since + 1, frame + 1
