"""Pixels of a clip: what a stage asks for, and what it gets."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np

from curate.errors import StageError

GRID_PER_S = 4
"""View positions snap to the first reference frame at or after k/4 s of the stream's clock (DESIGN section 2)."""

MASTER_SHORT_SIDE_PX = 540
"""Views are taken from a grid frame reduced to this short side, so that an open clip stays small in memory."""

VECTOR_CELL_PX = 8
"""Motion vectors are given for squares of this side: no codec whose vectors FFmpeg gives has smaller blocks there."""

VECTORS_PER_PX = 4
"""Units of a motion vector in a pixel: quarters, as H.264 has them."""

NO_VECTOR = -(1 << 15)
"""Both numbers of a square that has no vector: it was not predicted from another frame."""

THUMB_WIDTH_PX = 64
"""Width of the luma thumbnail that is kept of every decoded frame, for window views."""


@dataclass(frozen=True, slots=True)
class ViewSpec:
    """Pixels a stage asks for.

    sampling: ``points`` takes the grid frame nearest to each fraction of the clip in ``points``; ``every`` takes one
    grid frame per ``every_s`` (a multiple of 1/4 s); ``windows`` takes every reference frame of ``windows`` stretches
    of ``window_s`` seconds spread evenly, as luma thumbnails of THUMB_WIDTH_PX (size and pixels do not apply).
    Size: ``short_side_px`` keeps the displayed aspect and never enlarges; ``size_px`` = (width, height) is exact.
    Rotation and pixel aspect are applied. RGB is full range, from the stream's own matrix.
    pixels ``vectors`` are no pixels but what the codec says of motion, see `View`: for grid frames, without a size.
    """

    sampling: Literal["points", "every", "windows"] = "points"
    points: tuple[float, ...] = ()
    every_s: float = 0.0
    windows: int = 0
    window_s: float = 0.0
    short_side_px: int = 0
    size_px: tuple[int, int] | None = None
    pixels: Literal["rgb", "luma", "vectors"] = "rgb"

    def __post_init__(self) -> None:
        ok = {
            "points": bool(self.points) and all(0 <= p <= 1 for p in self.points),
            "every": self.every_s > 0 and (Fraction(str(self.every_s)) * GRID_PER_S).denominator == 1,
            "windows": self.windows > 0 and self.window_s > 0,
        }[self.sampling]
        n_sizes = (self.short_side_px > 0) + (self.size_px is not None)
        vectors = self.pixels == "vectors"
        sized = (self.sampling == "windows" and not vectors) or n_sizes == (0 if vectors else 1)
        ok = ok and not (vectors and self.sampling == "windows")
        small = self.short_side_px <= MASTER_SHORT_SIDE_PX
        if not (ok and sized and small):
            raise StageError(f"impossible view: {self}")


@dataclass(frozen=True, slots=True)
class View:
    """Sampled pixels: ``frames`` uint8 (n, height, width, 3) for RGB, (n, height, width) for luma; ``pts`` int64 (n,).

    ``groups`` gives the window number of each frame for window views (zeros otherwise). ``px_scale`` is displayed
    source pixels per view pixel along x and y.

    Motion vectors: ``frames`` int16 (n, rows, columns, 2), for each square of VECTOR_CELL_PX stored pixels x and y of
    the way to where it was predicted from, in quarters of a stored pixel, or NO_VECTOR. Squares begin at the upper left
    of the picture as stored (neither turned nor stretched), the last ones may reach over its edge. Which frame it was
    predicted from, and how far away in time, the codec's list does not tell; of two frames the one named later counts.
    ``px_scale`` is VECTOR_CELL_PX.
    """

    frames: np.ndarray
    pts: np.ndarray
    time_base: Fraction
    groups: np.ndarray
    px_scale: tuple[float, float] = (1.0, 1.0)

    @property
    def times_s(self) -> np.ndarray:
        """float64 (n,): seconds on the stream's clock."""
        return self.pts.astype(np.float64) * float(self.time_base)
