"""Dense flow of frame pairs, split into the camera's part and what moves by itself."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np

from curate.errors import StageError
from curate.stage import View
from curate.stages.motion.fit import STILL, Rates, Similarity, fit_similarity, refined, typical_rates
from curate.stages.motion.grid import Grid

MIN_SIDE_PX = 16
"""Frames with a smaller side than this hold too little for optical flow."""

_HOLD = 1e-5
"""Least smaller eigenvalue of the structure tensor (cv2.cornerMinEigenVal, 8-bit luma blurred with sigma 1) of a place
that gives flow a hold. Noise with sigma 2 has 2e-6 to 8e-6, a texture of full contrast 1e-4 to 1e-3."""

_FEWEST_HOLDS = 0.02
_EXPLAINS = 0.7
"""A motion explains a difference when it leaves less than this share of it."""

_AMBIGUOUS = 0.5
_OBJECT_FLOOR_PX = 0.5
_OBJECT_FLOOR_LEVELS = 2.0
_TOLERANCE_PX = 1.0
_TOLERANCE_SHARE = 0.05


@dataclass(frozen=True, slots=True)
class PairMotion:
    """What happened between two frames ``dt_s`` apart; distances in picture widths, differences in luma levels.

    ``distance`` is the mean over the picture of the content's way, ``object_distance`` that of its way against the
    camera, ``object_share`` the share of the picture that moves against the camera. ``left_levels`` is the mean
    difference of the two frames that the flow leaves unexplained.
    """

    dt_s: float
    camera: Similarity
    distance: float
    object_distance: float
    object_share: float
    left_levels: float


@dataclass(frozen=True, slots=True)
class _Pair:
    """Two softened frames, the flow between them, the places that hold it and the camera motion they agree on best."""

    first: np.ndarray
    second: np.ndarray
    dt_s: float
    flow: np.ndarray
    hold: np.ndarray
    few: bool
    tolerance: float
    fit: Similarity


def v2d_score(frames: np.ndarray) -> float:
    """video2dataset's global motion score of uint8 (n, h, w) frames at 2 fps with a short side of 16 px, n >= 2.

    The mean over pairs of the mean length of Farneback flow, in pixels of these frames per pair; parameters as in its
    optical flow subsampler.
    """
    lengths = [
        np.linalg.norm(cv2.calcOpticalFlowFarneback(a, b, np.empty(0), 0.5, 3, 15, 3, 5, 1.2, 0), axis=2).mean()
        for a, b in pairwise(frames)
    ]
    return float(np.mean(lengths))


def pair_motions(view: View) -> list[PairMotion]:
    """Motion of each consecutive pair of a luma view; StageError when there is no pair or the frames are too small."""
    height, width = view.frames.shape[1:3]
    if len(view.frames) < 2:
        raise StageError(f"motion needs two frames at least 1/4 s apart, this clip has {len(view.frames)}")
    if min(height, width) < MIN_SIDE_PX:
        raise StageError(f"too small for optical flow: {width}x{height} px, needs {MIN_SIDE_PX} px a side")
    grid = Grid.of(view)
    pairs = _pairs(grid, view)
    usual = typical_rates([pair.fit for pair in pairs], np.array([pair.dt_s for pair in pairs]))
    return [_motion(grid, pair, _camera(grid, pair, usual)) for pair in pairs]


def _pairs(grid: Grid, view: View) -> list[_Pair]:
    dis = _dense_flow()
    soft = [cv2.GaussianBlur(frame, (5, 5), 1.0) for frame in view.frames]
    found = []
    for i, dt_s in enumerate(np.diff(view.times_s)):
        flow = grid.flow(dis.calc(view.frames[i], view.frames[i + 1], np.empty(0)))
        inside = grid.inside(flow)
        eigen = grid.cells(cv2.cornerMinEigenVal(soft[i], 7))
        hold = (eigen > _HOLD) & inside
        few = bool(hold.mean() < _FEWEST_HOLDS)
        if few:
            hold = (eigen > np.quantile(eigen, 1 - 2 * _FEWEST_HOLDS)) & inside
        tolerance = _TOLERANCE_PX * grid.per_px[0] + _TOLERANCE_SHARE * float(np.median(np.abs(flow)))
        fit = fit_similarity(grid.places[hold], flow[hold], tolerance)
        found.append(_Pair(soft[i], soft[i + 1], float(dt_s), flow, hold, few, tolerance, fit))
    return found


def _dense_flow() -> cv2.DISOpticalFlow:
    """Flow down to half the view's size, without variational refinement.

    Measured on 320 x 180: 1.1 ms a pair and slow zooms, rolls and pans within 2 %. The preset's own quarter size takes
    0.3 ms but loses 9 % of a slow zoom or roll and half of a small object; the refinement of the slower presets costs
    up to 4 ms and lets a large object drag the background along.
    """
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
    dis.setFinestScale(1)
    return dis


def _camera(grid: Grid, pair: _Pair, usual: Rates) -> Similarity:
    """The camera's motion between two frames, in the light of its usual motion in the clip.

    When less than half of the places agree, something large moves by itself: the clip's usual motion is taken for the
    camera's if about as many agree with it. Where hardly any place gives a hold, the camera stands still unless its
    motion explains how the picture changed.
    """
    camera = pair.fit
    if camera.inlier_share < _AMBIGUOUS:
        other = refined(grid.places[pair.hold], pair.flow[pair.hold], pair.tolerance, usual.over(pair.dt_s))
        camera = other if other.inlier_share >= _AMBIGUOUS * camera.inlier_share else camera
    return STILL if pair.few and not _explains(grid, pair, camera) else camera


def _explains(grid: Grid, pair: _Pair, camera: Similarity) -> bool:
    judges = pair.hold & grid.inside(camera.at(grid.places))
    before = grid.cells(pair.first)[judges].astype(np.float32)
    standing = grid.cells(pair.second)[judges] - before
    moving = grid.sample(pair.second, camera.at(grid.places))[judges] - before
    return float(np.sum(moving**2)) < _EXPLAINS * float(np.sum(standing**2))


def _motion(grid: Grid, pair: _Pair, camera: Similarity) -> PairMotion:
    """Split the flow: a place moves by itself when its way is not the camera's and explains the picture better.

    Everywhere else the camera's motion stands for the flow, which is noise where the picture has no texture.
    """
    of_camera = camera.at(grid.places)
    inside = grid.inside(pair.flow) & grid.inside(of_camera)
    left_by_flow = _left_levels(grid, pair, pair.flow, inside)
    left_by_camera = _left_levels(grid, pair, of_camera, inside)
    against = np.abs(pair.flow - of_camera)
    moving = inside & (against > _OBJECT_FLOOR_PX * grid.per_px[0] + _TOLERANCE_SHARE * np.abs(of_camera))
    moving &= (left_by_camera > _OBJECT_FLOOR_LEVELS) & (left_by_flow < _EXPLAINS * left_by_camera)
    return PairMotion(
        dt_s=pair.dt_s,
        camera=camera,
        distance=float(np.abs(np.where(moving, pair.flow, of_camera)).mean()),
        object_distance=float(np.where(moving, against, 0.0).mean()),
        object_share=float(moving.mean()),
        left_levels=float(left_by_flow[inside].mean()) if inside.any() else 0.0,
    )


def _left_levels(grid: Grid, pair: _Pair, flow: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Local root mean square (3 x 3 places) of what a motion leaves of the difference, brightness as a whole apart."""
    left = grid.sample(pair.second, flow) - grid.cells(pair.first)
    offset = float(np.median(left[inside])) if inside.any() else 0.0
    return np.sqrt(cv2.blur((left - offset) ** 2, (3, 3)))
