"""Flow of frame pairs at the tiles of a picture, split into the camera's part and what moves by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np

from curate.errors import StageError
from curate.stages.motion.fit import STILL, Rates, Similarity, fit_similarities, refined, typical_rates
from curate.stages.motion.grid import TILE_PX, Grid
from curate.view import View

MIN_SIDE_PX = 16
"""Frames with a smaller side than this hold too little for optical flow."""

FEWEST_PAIRS, MOST_PAIRS = 8, 12
"""Pairs that the speeds of a long clip rest on. A clip with up to FEWEST_PAIRS is measured at all of them."""

_HOLD = 5e-4
"""Least smaller eigenvalue of a tile's structure tensor, as cv2.calcOpticalFlowPyrLK has it, that gives flow a hold:
a gradient of about 1 level a pixel in every direction. Noise with sigma 1 has up to 4e-4."""

_FEWEST_HOLDS = 0.04
_EXPLAINS = 0.7
_EXPLAINS_NOISE = 0.5
"""A motion explains a difference when it leaves less than this share of it; where there is hardly anything but noise it
must leave less still, for interpolation softens noise."""

_AMBIGUOUS = 0.5
_OBJECT_FLOOR_PX = 0.3
_OBJECT_FLOOR_LEVELS = 2.0
_TOLERANCE_PX = 0.5
_TOLERANCE_SHARE = 0.05
_LEVELS = 3
_STEPS = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 7, 0.02)
_FLICKER_LEVELS = 2.0
_DETAIL_PX = 17
"""Of frames whose mean luma differs by more only the detail is compared, luma against the mean of _DETAIL_PX squared:
flow would take a fade or a flicker for motion."""


@dataclass(frozen=True, slots=True)
class PairMotion:
    """What happened between frame ``at`` and the next, ``dt_s`` later; distances in widths, differences in luma levels.

    ``distance`` is the mean over the picture of the content's way, ``object_distance`` that of its way against the
    camera, ``object_share`` the share of the picture that moves against the camera. ``left_levels`` is the mean
    difference of the two frames that the flow leaves unexplained.
    """

    at: int
    dt_s: float
    camera: Similarity
    distance: float
    object_distance: float
    object_share: float
    left_levels: float


@dataclass(frozen=True, slots=True)
class _Flow:
    """Complex (m,) flow between frame ``at`` and the next, where it has a hold, and the difference it leaves."""

    at: int
    first: np.ndarray
    second: np.ndarray
    flow: np.ndarray
    hold: np.ndarray
    left: np.ndarray
    few: bool


def v2d_score(frames: np.ndarray) -> float:
    """video2dataset's global motion score of uint8 (n, h, w) frames at 2 fps with a short side of 16 px, n >= 2.

    The mean over pairs of the mean length of Farneback flow, in pixels of these frames per pair; parameters as in its
    optical flow subsampler.
    """
    flows = [cv2.calcOpticalFlowFarneback(a, b, np.empty(0), 0.5, 3, 15, 3, 5, 1.2, 0) for a, b in pairwise(frames)]
    # Not cv2.magnitude, whose last bit depends on where its arguments lie in memory.
    return sum(float(np.linalg.norm(flow, axis=2).mean(dtype=np.float64)) for flow in flows) / len(flows)


class Tracker:
    """Motion of the consecutive pairs of a luma view, each measured once and only when asked for.

    StageError when there is no pair or the frames are too small.
    """

    def __init__(self, view: View) -> None:
        height, width = view.frames.shape[1:3]
        if len(view.frames) < 2:
            raise StageError(f"motion needs two frames at least 1/4 s apart, this clip has {len(view.frames)}")
        if min(height, width) < MIN_SIDE_PX:
            raise StageError(f"too small for optical flow: {width}x{height} px, needs {MIN_SIDE_PX} px a side")
        self.times_s = view.times_s - view.times_s[0]
        self.dt_s = np.diff(view.times_s)
        self.grid, self.pictures = Grid.of(view)
        self._usual = Rates(0j, 0j)
        self._known: dict[int, PairMotion] = {}
        self.spread = self._first_look()

    def motion(self, at: int) -> PairMotion:
        """Motion from frame ``at`` to the next."""
        if at not in self._known:
            flow = self._follow(at)
            self._known[at] = self._motion(flow, self._fitted([flow])[0])
        return self._known[at]

    def _first_look(self) -> list[PairMotion]:
        """Pairs spread over the clip; what they have in common is the camera's usual motion."""
        flows = [self._follow(at) for at in spread(len(self.dt_s))]
        fits = self._fitted(flows)
        self._usual = typical_rates(fits, self.dt_s[[flow.at for flow in flows]])
        self._known = {flow.at: self._motion(flow, fit) for flow, fit in zip(flows, fits, strict=True)}
        return list(self._known.values())

    def _follow(self, at: int) -> _Flow:
        """Lucas and Kanade's flow of every tile, through a pyramid.

        Measured on 160 x 90: 0.2 ms a pair, pans, zooms and rolls within 3 %; dense DIS flow on 320 x 180 takes 1.2 ms.
        """
        first, second = self._comparable(at)
        ends, hold, left = self._lucas_kanade(first, second, _HOLD)
        few = bool(np.count_nonzero(hold) < _FEWEST_HOLDS * len(hold))
        if few:
            ends, found, left = self._lucas_kanade(first, second, 0.0)
            _, _, eigen = self._lucas_kanade(first, second, 0.0, cv2.OPTFLOW_LK_GET_MIN_EIGENVALS)
            hold = found & (eigen > np.quantile(eigen, 1 - 2 * _FEWEST_HOLDS))
        flow = self.grid.flow(ends)
        return _Flow(at, first, second, flow, hold & self.grid.inside(flow), left, few)

    def _comparable(self, at: int) -> tuple[np.ndarray, np.ndarray]:
        first, second = self.pictures[at], self.pictures[at + 1]
        if abs(cv2.mean(second)[0] - cv2.mean(first)[0]) <= _FLICKER_LEVELS:
            return first, second
        return _detail(first), _detail(second)

    def _lucas_kanade(
        self, first: np.ndarray, second: np.ndarray, least_eigen: float, flags: int = 0
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Where the points went, whether they were found, and the error (left levels, or the eigenvalue by flag)."""
        ends, found, error = cv2.calcOpticalFlowPyrLK(
            first,
            second,
            self.grid.points,
            np.empty(0, np.float32),
            winSize=(TILE_PX, TILE_PX),
            maxLevel=_LEVELS,
            criteria=_STEPS,
            flags=flags,
            minEigThreshold=least_eigen,
        )
        is_found = found.ravel() > 0
        # What OpenCV leaves as the error of a point that it did not find is whatever lay in memory.
        return ends, is_found, np.where(is_found, error.ravel(), 0.0)

    def _fitted(self, flows: Sequence[_Flow]) -> list[Similarity]:
        flow, hold = np.stack([f.flow for f in flows]), np.stack([f.hold for f in flows])
        return fit_similarities(self.grid.places, flow, hold, self._tolerance(flow))

    def _tolerance(self, flow: np.ndarray) -> np.ndarray:
        return _TOLERANCE_PX * self.grid.per_px[0] + _TOLERANCE_SHARE * np.median(np.abs(flow), axis=1)

    def _camera(self, flow: _Flow, fit: Similarity) -> Similarity:
        """The camera's motion between two frames, in the light of its usual motion in the clip.

        When less than half of the places agree, something large moves by itself: the clip's usual motion is taken for
        the camera's if about as many agree with it. Where hardly any place gives a hold, the camera stands still unless
        its motion explains how the picture changed.
        """
        camera = fit
        if camera.inlier_share < _AMBIGUOUS:
            usual = self._usual.over(float(self.dt_s[flow.at]))
            field, hold = flow.flow[None], flow.hold[None]
            other = refined(self.grid.places, field, hold, self._tolerance(field), [usual])[0]
            camera = other if other.inlier_share >= _AMBIGUOUS * camera.inlier_share else camera
        return STILL if flow.few and not self._explains(flow, camera) else camera

    def _explains(self, flow: _Flow, camera: Similarity) -> bool:
        judges = flow.hold & self.grid.inside(camera.at(self.grid.places))
        standing = self.grid.left(flow.first, flow.second)[judges]
        moving = self.grid.left(flow.first, self.grid.followed(flow.second, camera))[judges]
        return float(np.sum(moving**2)) < _EXPLAINS_NOISE * float(np.sum(standing**2))

    def _motion(self, flow: _Flow, fit: Similarity) -> PairMotion:
        """Split the flow: a tile moves by itself when its way is not the camera's and explains the picture better.

        Everywhere else the camera's motion stands for the flow, which is noise where the picture has no texture.
        """
        camera = self._camera(flow, fit)
        of_camera = camera.at(self.grid.places)
        against = np.abs(flow.flow - of_camera)
        floor = _OBJECT_FLOOR_PX * self.grid.per_px[0] + _TOLERANCE_SHARE * np.abs(of_camera)
        moving = flow.hold & (against > floor)
        left = self.grid.left(flow.first, self.grid.followed(flow.second, camera))
        moving &= self.grid.inside(of_camera) & (left > _OBJECT_FLOOR_LEVELS) & (flow.left < _EXPLAINS * left)
        return PairMotion(
            at=flow.at,
            dt_s=float(self.dt_s[flow.at]),
            camera=camera,
            distance=float(np.abs(np.where(moving, flow.flow, of_camera)).sum() / len(moving)),
            object_distance=float(against[moving].sum() / len(moving)),
            object_share=np.count_nonzero(moving) / len(moving),
            left_levels=float(flow.left[flow.hold].mean()) if flow.hold.any() else float(left.mean()),
        )


def _detail(picture: np.ndarray) -> np.ndarray:
    return cv2.addWeighted(picture, 1.0, cv2.blur(picture, (_DETAIL_PX, _DETAIL_PX)), -1.0, 128.0)


def spread(n: int) -> list[int]:
    """Indices of the pairs to measure among ``n`` consecutive ones: all, or runs of two spread evenly."""
    if n <= FEWEST_PAIRS:
        return list(range(n))
    runs = min(max(n // 3, FEWEST_PAIRS), MOST_PAIRS) // 2
    starts = [round(i * (n - 2) / (runs - 1)) for i in range(runs)]
    return [start + i for start in starts for i in (0, 1)]
