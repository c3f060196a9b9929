"""The quality stage: sharpness, exposure, contrast, colour, black bars, black frames and flashes."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import cv2
import numpy as np
import pyarrow as pa

from curate.config import Config
from curate.errors import StageError
from curate.stage import ClipItem, ClipStage, Column
from curate.view import MASTER_SHORT_SIDE_PX, View, ViewSpec

DARK_LEVEL = 5
BRIGHT_LEVEL = 250
"""8-bit luma at and beyond which a pixel counts as clipped (codecs spread clipped pixels over a few levels)."""

BLACK_LEVEL = 16
BLACK_SHARE = 0.98
"""A frame is black when this share of its pixels is not brighter than BLACK_LEVEL."""

FLASH_LEVELS = 25.0
FLASH_S = 0.17
"""A flash lifts or drops a frame's mean luma by FLASH_LEVELS against the median of the frames within FLASH_S."""

BAR_MAX_LEVEL = 24
BAR_SPREAD_LEVELS = 6
BAR_EDGE_LEVELS = 8
BAR_MIN_ACTIVE = 0.3
"""A bar is at most BAR_MAX_LEVEL bright, and even within BAR_SPREAD_LEVELS, in all frames; the picture beside it is
brighter than BAR_EDGE_LEVELS in some frame along most of the edge, and keeps BAR_MIN_ACTIVE of either side at least."""

_POINTS = (0.15, 0.5, 0.85)
_FRAMES_SHORT_PX = 360
_COLOUR_SHORT_PX = 90
_GRID_SHORT_PX = 90
_EDGE_DEPTH_PX = 3
_BRIGHT_SHARE = 0.02
_PAIR_LIT = 0.5
_SINGLE_LIT = 0.9


_OPPONENT = np.array([[1, -1, 0], [0.5, 0.5, -1]], np.float32)
"""Red-green and yellow-blue of R, G, B."""


@dataclass(frozen=True, slots=True)
class Rectangle:
    """A part of a picture in whole pixels."""

    x_px: int
    y_px: int
    w_px: int
    h_px: int


class QualityConfig(Config):
    """Nothing to set: thresholds belong to gates and selections."""


def _number(name: str, unit: str, doc: str) -> Column:
    return Column(name, pa.float64(), unit, doc)


def _whole(name: str, unit: str, doc: str) -> Column:
    return Column(name, pa.int32(), unit, doc)


class Quality(ClipStage[QualityConfig]):
    """Picture quality of three frames inside the active picture, bars of all views, flashes in two dense windows.

    Colour is seen at a short side of 90 px. Sharpness depends on the size it is taken at: a short side of 360 px, or
    the source's where that is smaller.
    Bars are seen from 2 px of that size on (6 px of a source with 1080 rows), and their rectangle may give up as much.
    Colourfulness is the measure of Hasler and Suesstrunk, "Measuring colourfulness in natural images" (2003).
    """

    name = "quality"
    version = 2
    config_type = QualityConfig
    columns: ClassVar[tuple[Column, ...]] = (
        _number("sharpness", "levels^2", "variance of the Laplacian at a short side of 360 px, median of three frames"),
        _number("exposure_mean", "0..1", "mean luma"),
        _number("clipped_dark_share", "share", "pixels at 5 or less of 255"),
        _number("clipped_bright_share", "share", "pixels at 250 or more of 255"),
        _number("contrast", "0..1", "5th to 95th percentile of luma, median of three frames"),
        _number("colourfulness", "", "Hasler-Suesstrunk M3, median of three frames: 0 grey, 33 moderate, 109 extreme"),
        _whole("active_x_px", "px", "left edge of the picture without black bars, displayed source pixels"),
        _whole("active_y_px", "px", "top edge of the picture without black bars"),
        _whole("active_w_px", "px", "width of the picture without black bars, no bar pixel inside"),
        _whole("active_h_px", "px", "height of the picture without black bars, no bar pixel inside"),
        _number("bar_area_share", "share", "of the frame outside the active picture"),
        _number("black_ratio", "share", "black frames among those of every 1/4 s"),
        _whole("n_flashes", "flashes", "in the reference frames of two windows of 1 s"),
        _number("flash_ratio", "share", "reference frames of the two windows that are part of a flash"),
    )

    def views(self) -> Mapping[str, ViewSpec]:
        """Three frames in luma and, smaller, in colour, grid frames for black, two windows for flashes."""
        return {
            "frames": ViewSpec(points=_POINTS, short_side_px=_FRAMES_SHORT_PX, pixels="luma"),
            "colour": ViewSpec(points=_POINTS, short_side_px=_COLOUR_SHORT_PX),
            "grid": ViewSpec(sampling="every", every_s=0.25, short_side_px=_GRID_SHORT_PX, pixels="luma"),
            "windows": ViewSpec(sampling="windows", windows=2, window_s=1.0, pixels="luma"),
        }

    def setup(self) -> None:
        """One thread per worker."""
        cv2.setNumThreads(1)

    def score(self, item: ClipItem) -> Mapping[str, Any]:
        """StageError when a view holds no frame."""
        views = item.views
        empty = [name for name in self.views() if len(views[name].frames) == 0]
        if empty:
            raise StageError(f"no frame in the view {', '.join(empty)}")
        width_px, height_px = item.facts.width_px, item.facts.height_px
        luma, colour = views["frames"].frames, views["colour"].frames
        inner = active_rectangle(luma, views["grid"].frames)
        active = _in_source(inner, views["frames"], width_px, height_px)
        colours = [colourfulness(_cut(frame, _scaled(inner, luma[0], frame))) for frame in colour]
        n_flashes, flash_ratio = flashes(views["windows"])
        return {
            **_picture([_cut(frame, inner) for frame in luma]),
            "colourfulness": float(np.median(colours)),
            "active_x_px": active.x_px,
            "active_y_px": active.y_px,
            "active_w_px": active.w_px,
            "active_h_px": active.h_px,
            "bar_area_share": 1.0 - active.w_px * active.h_px / (width_px * height_px),
            "black_ratio": float(np.mean([is_black(frame) for frame in views["grid"].frames])),
            "n_flashes": n_flashes,
            "flash_ratio": flash_ratio,
        }


def is_black(luma: np.ndarray) -> bool:
    """True for a black uint8 frame."""
    return bool(np.count_nonzero(luma <= BLACK_LEVEL) >= BLACK_SHARE * luma.size)


def colourfulness(rgb: np.ndarray) -> float:
    """Hasler and Suesstrunk's M3 of a uint8 (h, w, 3) picture: spread plus 0.3 times the mean of opponent colours."""
    opponent = cv2.transform(rgb.astype(np.float32), _OPPONENT)
    mean, deviation = cv2.meanStdDev(opponent)
    return math.hypot(*deviation.ravel().tolist()) + 0.3 * math.hypot(*mean.ravel().tolist())


def flashes(windows: View) -> tuple[int, float]:
    """Number of flashes in a window view, and the share of its frames that are part of one."""
    count, lit, total = 0, 0, 0
    for group in np.unique(windows.groups):
        chosen = windows.groups == group
        frames = windows.frames[chosen]
        mean = cv2.reduce(frames.reshape(len(frames), -1), 1, cv2.REDUCE_AVG, dtype=cv2.CV_64F).ravel()
        flash = _in_flash(mean, windows.times_s[chosen])
        count += int(np.sum(flash & ~np.concatenate([[False], flash[:-1]])))
        lit, total = lit + int(flash.sum()), total + len(flash)
    return count, lit / total


def _in_flash(mean: np.ndarray, times_s: np.ndarray) -> np.ndarray:
    """Bool (n,): the mean luma stands out from the median around it, and from a frame before and a frame after it."""
    flash = np.zeros(len(mean), bool)
    if float(np.ptp(mean)) < FLASH_LEVELS:
        return flash
    near = np.abs(times_s[:, None] - times_s) <= FLASH_S
    rise = np.where(near, mean[:, None] - mean, 0.0)
    for sign in (1, -1):
        outstanding = sign * rise >= FLASH_LEVELS
        for i in np.flatnonzero(np.tril(outstanding).any(axis=1) & np.triu(outstanding).any(axis=1)):
            flash[i] |= sign * (mean[i] - np.median(mean[near[i]])) >= FLASH_LEVELS
    return flash


def active_rectangle(luma: np.ndarray, grid: np.ndarray) -> Rectangle:
    """The picture without bars in uint8 (n, h, w) luma frames; all of it where there are none.

    ``grid`` holds further, smaller frames of the clip: a bar that lights up in one of them is none.
    """
    brightest = functools.reduce(cv2.max, luma)
    height, width = brightest.shape
    lit_elsewhere = cv2.resize(grid.max(axis=0), (width, height), interpolation=cv2.INTER_NEAREST)
    coarse_px = math.ceil(max(height / grid.shape[1], width / grid.shape[2]))
    top, bottom = _dark_ends(brightest, lit_elsewhere, coarse_px)
    left, right = _dark_ends(cv2.transpose(brightest), cv2.transpose(lit_elsewhere), coarse_px)
    inner = brightest[top : height - bottom, left : width - right]
    if inner.shape[0] < BAR_MIN_ACTIVE * height or inner.shape[1] < BAR_MIN_ACTIVE * width:
        return Rectangle(0, 0, width, height)
    top, bottom = _straight_bars(inner, top, bottom)
    left, right = _straight_bars(inner.T, left, right)
    return Rectangle(left, top, width - left - right, height - top - bottom)


def _dark_ends(brightest: np.ndarray, lit_elsewhere: np.ndarray, coarse_px: int) -> tuple[int, int]:
    """Numbers of even, black rows at the start and the end of a picture (0, 0 where all of it is)."""
    ends = []
    for step in (1, -1):
        fine, coarse = _bar_rows(brightest[::step]), _bar_rows(lit_elsewhere[::step])
        ends.append(0 if fine.all() else int(min(np.argmin(fine), np.argmin(coarse) + coarse_px)))
    return ends[0], ends[1]


def _bar_rows(brightest: np.ndarray) -> np.ndarray:
    """Bool (h,): rows as black and even as the first one."""
    level = float(np.median(brightest[0]))
    if level > BAR_MAX_LEVEL:
        return np.zeros(len(brightest), bool)
    n_brighter = np.count_nonzero(brightest > level + BAR_SPREAD_LEVELS, axis=1)
    return n_brighter <= _BRIGHT_SHARE * brightest.shape[1]


def _straight_bars(inner: np.ndarray, before: int, after: int) -> tuple[int, int]:
    """Keep the bars beside a picture whose edge is straight: lit along its length, right from its first rows.

    Bars of like size on both sides need half of the edge lit, a bar on one side nine tenths: a dark sky has no straight
    edge.
    """
    lit_first = _lit_share(inner[:_EDGE_DEPTH_PX]) if before else 0.0
    lit_last = _lit_share(inner[-_EDGE_DEPTH_PX:]) if after else 0.0
    alike = abs(before - after) <= max(3, 0.2 * max(before, after))
    if before and after and alike and min(lit_first, lit_last) >= _PAIR_LIT:
        return before, after
    return before if lit_first >= _SINGLE_LIT else 0, after if lit_last >= _SINGLE_LIT else 0


def _lit_share(edge: np.ndarray) -> float:
    return float(np.mean(edge.max(axis=0) >= BAR_EDGE_LEVELS))


def _in_source(inner: Rectangle, view: View, width_px: int, height_px: int) -> Rectangle:
    """A rectangle of view pixels in displayed source pixels, rounded inward to even edges."""
    rows, columns = view.frames.shape[1:3]
    x_px, right_px = _inward(inner.x_px, columns - inner.x_px - inner.w_px, view.px_scale[0], width_px)
    y_px, bottom_px = _inward(inner.y_px, rows - inner.y_px - inner.h_px, view.px_scale[1], height_px)
    return Rectangle(x_px, y_px, right_px - x_px, bottom_px - y_px)


def _inward(before: int, after: int, scale: float, size_px: int) -> tuple[int, int]:
    """First and last edge in source pixels from view pixels of bar on both sides.

    A reduced view blends bar and picture: its own edge row, and as much again as one row of the frame that views are
    reduced from. Chroma of most sources is sampled at every second pixel, hence even edges.
    """
    blended_px = scale * (1 + _FRAMES_SHORT_PX / MASTER_SHORT_SIDE_PX) if scale > 1 else 0.0
    first = 2 * math.ceil((before * scale + blended_px) / 2 - 1e-6) if before else 0
    last = 2 * math.floor((size_px - after * scale - blended_px) / 2 + 1e-6) if after else size_px
    return first, last


def _cut(picture: np.ndarray, part: Rectangle) -> np.ndarray:
    return picture[part.y_px : part.y_px + part.h_px, part.x_px : part.x_px + part.w_px]


def _scaled(part: Rectangle, of: np.ndarray, to: np.ndarray) -> Rectangle:
    """A part of one picture in whole pixels of a smaller one that shows the same, rounded inward."""
    y, x = to.shape[0] / of.shape[0], to.shape[1] / of.shape[1]
    left, top = math.ceil(part.x_px * x - 1e-6), math.ceil(part.y_px * y - 1e-6)
    right, bottom = math.floor((part.x_px + part.w_px) * x + 1e-6), math.floor((part.y_px + part.h_px) * y + 1e-6)
    return Rectangle(left, top, max(right - left, 1), max(bottom - top, 1))


def _picture(pictures: Sequence[np.ndarray]) -> dict[str, float]:
    """What the active picture looks like in uint8 (h, w) luma frames."""
    histograms = np.stack([_histogram(luma) for luma in pictures])
    shares = histograms / histograms.sum(axis=1, keepdims=True)
    total, reached = shares.mean(axis=0), np.cumsum(shares, axis=1)
    low, high = (np.argmax(reached >= share, axis=1) for share in (0.05, 0.95))
    return {
        "sharpness": float(np.median([_sharpness(luma) for luma in pictures])),
        "exposure_mean": float(total @ np.arange(256) / 255),
        "clipped_dark_share": float(total[: DARK_LEVEL + 1].sum()),
        "clipped_bright_share": float(total[BRIGHT_LEVEL:].sum()),
        "contrast": float(np.median(high - low) / 255),
    }


def _histogram(luma: np.ndarray) -> np.ndarray:
    """float64 (256,): pixels at each level, in every second row."""
    return cv2.calcHist([luma[::2]], [0], None, [256], [0, 256]).ravel().astype(np.float64)


def _sharpness(luma: np.ndarray) -> float:
    """Variance of the Laplacian (four neighbours). Every row counts: lines of text put all of it into a few."""
    laplacian = cv2.Laplacian(luma, cv2.CV_16S)
    return max(0.0, cv2.norm(laplacian, cv2.NORM_L2SQR) / laplacian.size - cv2.mean(laplacian)[0] ** 2)
