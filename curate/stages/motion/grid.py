"""The places of a picture at which a flow field is judged."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from curate.stage import View

STEP_PX = 4
"""Distance of neighbouring places, half the side of the flow's patches."""


BLACK_LEVEL = 24
"""Rows and columns at the picture's border that never get brighter (8-bit luma) are bars and take no part."""

_BAR_MARGIN_PX = 4


@dataclass(frozen=True, slots=True)
class Box:
    """A part of a view, [left, right) x [top, bottom) in its pixels."""

    left: int
    top: int
    right: int
    bottom: int


@dataclass(frozen=True, slots=True)
class Grid:
    """Places of shape (h, w): float32 pixel coordinates, and complex ``places`` in widths from the picture's centre.

    ``per_px`` is widths per view pixel along x and y, ``box`` the view without black bars, in which all places lie.
    """

    x_px: np.ndarray
    y_px: np.ndarray
    places: np.ndarray
    per_px: tuple[float, float]
    box: Box

    @staticmethod
    def of(view: View) -> Grid:
        """The grid of a view of luma frames."""
        height, width = view.frames.shape[1:3]
        brightest = view.frames.max(axis=0)
        left, right = _lit_range(brightest.max(axis=0))
        top, bottom = _lit_range(brightest.max(axis=1))
        x_px, y_px = np.meshgrid(
            np.arange(left + STEP_PX // 2, right, STEP_PX, dtype=np.float32),
            np.arange(top + STEP_PX // 2, bottom, STEP_PX, dtype=np.float32),
        )
        per_px = (1.0 / width, view.px_scale[1] / (view.px_scale[0] * width))
        places = (x_px + 0.5 - width / 2) * per_px[0] + 1j * (y_px + 0.5 - height / 2) * per_px[1]
        return Grid(x_px, y_px, places, per_px, Box(left, top, right, bottom))

    def flow(self, field: np.ndarray) -> np.ndarray:
        """Complex (h, w) flow in widths from a dense float32 (height, width, 2) field in pixels."""
        cells = self.cells(field).astype(np.float64)
        return cells[..., 0] * self.per_px[0] + 1j * cells[..., 1] * self.per_px[1]

    def cells(self, plane: np.ndarray) -> np.ndarray:
        """A dense plane at the grid's places."""
        half = STEP_PX // 2
        return plane[self.box.top + half : self.box.bottom : STEP_PX, self.box.left + half : self.box.right : STEP_PX]

    def sample(self, plane: np.ndarray, flow: np.ndarray) -> np.ndarray:
        """A uint8 (height, width) plane where the flow leads, float32 (h, w)."""
        x, y = self._targets(flow)
        return cv2.remap(plane, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE).astype(np.float32)

    def inside(self, flow: np.ndarray) -> np.ndarray:
        """Bool (h, w): the flow leads to a place in the box."""
        x, y = self._targets(flow)
        box = self.box
        return (x >= box.left) & (y >= box.top) & (x <= box.right - 1) & (y <= box.bottom - 1)

    def _targets(self, flow: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        x = self.x_px + (np.real(flow) / self.per_px[0]).astype(np.float32)
        return x, self.y_px + (np.imag(flow) / self.per_px[1]).astype(np.float32)


def _lit_range(brightest: np.ndarray) -> tuple[int, int]:
    """[first, last) of what is brighter than black, a little inward from bars; everything when too little is."""
    lit = np.flatnonzero(brightest > BLACK_LEVEL)
    if len(lit) == 0:
        return 0, len(brightest)
    first = int(lit[0]) + _BAR_MARGIN_PX if lit[0] > 0 else 0
    last = int(lit[-1]) + 1 - _BAR_MARGIN_PX if lit[-1] + 1 < len(brightest) else len(brightest)
    return (first, last) if last - first >= 4 * STEP_PX else (0, len(brightest))
