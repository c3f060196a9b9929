"""The places of a picture at which flow is measured: the middles of square tiles."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from curate.stages.motion.fit import Similarity
from curate.view import View

TILE_PX = 8
"""Side of a tile. The patch that is followed is the tile itself, so that every pixel is looked at once."""

LEAST_SIDE_PX = 64
"""Smaller pictures are enlarged to this short side."""

BLACK_LEVEL = 24
"""Rows and columns at the picture's border that never get brighter (8-bit luma) are bars and take no part."""

_BAR_MARGIN_PX = 2


@dataclass(frozen=True, slots=True)
class Grid:
    """Tiles of a view without its black bars.

    ``points``: float32 (m, 1, 2), middles of the tiles in pixels of the pictures. ``places``: the same as complex (m,),
    in widths from the view's centre. ``per_px``: widths per pixel along x and y. ``size_px``: (width, height) of the
    pictures, whole tiles.
    """

    points: np.ndarray
    places: np.ndarray
    per_px: tuple[float, float]
    size_px: tuple[int, int]

    @staticmethod
    def of(view: View) -> tuple[Grid, list[np.ndarray]]:
        """The grid of a view of luma frames, and its frames cut to it: uint8 (height, width)."""
        frames = _large_enough(view.frames)
        height, width = frames.shape[1:]
        brightest = frames.max(axis=0)
        left, right = _whole_tiles(*_lit_range(brightest.max(axis=0)))
        top, bottom = _whole_tiles(*_lit_range(brightest.max(axis=1)))
        x, y = np.meshgrid(*[np.arange((b - a) // TILE_PX) * TILE_PX for a, b in ((left, right), (top, bottom))])
        middle = (TILE_PX - 1) / 2
        points = np.stack([x.ravel() + middle, y.ravel() + middle], axis=1).astype(np.float32)[:, None]
        per_px = (1.0 / width, view.px_scale[1] / (view.px_scale[0] * width))
        x_px, y_px = points[:, 0, 0] + left + 0.5 - width / 2, points[:, 0, 1] + top + 0.5 - height / 2
        places = x_px * per_px[0] + 1j * y_px * per_px[1]
        grid = Grid(points, places, per_px, (right - left, bottom - top))
        return grid, [frame[top:bottom, left:right] for frame in frames]

    def flow(self, ends: np.ndarray) -> np.ndarray:
        """Complex (m,) flow in widths of points that were followed to float32 (m, 1, 2) ``ends``."""
        way = (ends - self.points).astype(np.float64)[:, 0]
        return way[:, 0] * self.per_px[0] + 1j * way[:, 1] * self.per_px[1]

    def inside(self, flow: np.ndarray) -> np.ndarray:
        """Bool (p, m): complex (p, m) flow leads to a place in the pictures."""
        x = self.points[:, 0, 0] + np.real(flow) / self.per_px[0]
        y = self.points[:, 0, 1] + np.imag(flow) / self.per_px[1]
        return (x >= 0) & (y >= 0) & (x <= self.size_px[0] - 1) & (y <= self.size_px[1] - 1)

    def followed(self, picture: np.ndarray, camera: Similarity) -> np.ndarray:
        """A picture where a similarity leads: what lies at x + f(x) is put at x."""
        (a, b), centre = self.per_px, self.places[0] - complex(*self.points[0, 0] * self.per_px)
        first = camera.shift + camera.growth * complex(centre)  # the flow at pixel (0, 0)
        growth = camera.growth
        place = np.array(
            [
                [1 + growth.real, -growth.imag * b / a, first.real / a],
                [growth.imag * a / b, 1 + growth.real, first.imag / b],
            ]
        )
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return cv2.warpAffine(picture, place, self.size_px, flags=flags, borderMode=cv2.BORDER_REPLICATE)

    def left(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """float32 (m,): mean absolute difference of two pictures over each tile, in levels."""
        tiles = (self.size_px[0] // TILE_PX, self.size_px[1] // TILE_PX)
        difference = cv2.absdiff(first, second).astype(np.float32)
        return cv2.resize(difference, tiles, interpolation=cv2.INTER_AREA).ravel()


def _large_enough(frames: np.ndarray) -> np.ndarray:
    short = min(frames.shape[1:3])
    if short >= LEAST_SIDE_PX:
        return frames
    scale = LEAST_SIDE_PX / short
    size_px = (round(frames.shape[2] * scale), round(frames.shape[1] * scale))
    return np.stack([cv2.resize(frame, size_px, interpolation=cv2.INTER_LINEAR) for frame in frames])


def _lit_range(brightest: np.ndarray) -> tuple[int, int]:
    """[first, last) of what is brighter than black, a little inward from bars; everything when too little is."""
    lit = np.flatnonzero(brightest > BLACK_LEVEL)
    if len(lit) == 0:
        return 0, len(brightest)
    first = int(lit[0]) + _BAR_MARGIN_PX if lit[0] > 0 else 0
    last = int(lit[-1]) + 1 - _BAR_MARGIN_PX if lit[-1] + 1 < len(brightest) else len(brightest)
    return (first, last) if last - first >= 2 * TILE_PX else (0, len(brightest))


def _whole_tiles(first: int, last: int) -> tuple[int, int]:
    beyond = (last - first) % TILE_PX
    return first + beyond // 2, last - (beyond + 1) // 2
