"""The motion stage: speed, camera, object motion, stillness."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import cv2
import numpy as np
import pyarrow as pa
from pydantic import Field

from curate.config import Config
from curate.errors import StageError
from curate.stage import ClipItem, ClipStage, Column
from curate.stages.motion.camera import camera_motion
from curate.stages.motion.flow import PairMotion, Tracker, v2d_score
from curate.stages.motion.stillness import repeats, slideshow_share
from curate.view import ViewSpec

_JUMP_INLIERS = 0.5
_JUMP_LEVELS = 8.0


class MotionConfig(Config):
    """Where camera classes begin."""

    static_width_s: float = Field(0.004, gt=0)
    """A camera whose motion moves the picture by less than this (mean, widths/s) is static."""

    dominant_share: float = Field(0.5, gt=0, le=1)
    """A camera whose steady motion is less than this share of its speed from moment to moment is handheld."""


def _number(name: str, unit: str, doc: str) -> Column:
    return Column(name, pa.float64(), unit, doc)


class Motion(ClipStage[MotionConfig]):
    """Optical flow over quarters of a second, split into camera and object motion; repeats in two dense windows.

    Speeds rest on all frame pairs of a clip up to 2 s, and on 8 to 12 pairs spread evenly over a longer one.
    ``v2d_px16`` alone follows video2dataset: 2 fps, short side 16 px, no regard to time stamps. All other speeds are
    divided by the true time between frames. A clip with a single frame on the 1/4 s or 1/2 s grid fails.
    """

    name = "motion"
    version = 2
    config_type = MotionConfig
    columns: ClassVar[tuple[Column, ...]] = (
        _number("v2d_px16", "px of a 16 px short side per 0.5 s", "video2dataset's global motion score"),
        _number("speed_native_px_s", "px/s", "mean speed of the content, displayed source pixels"),
        _number("speed_width_s", "widths/s", "mean speed of the content"),
        Column("camera", pa.string(), "", "static, pan_*, tilt_*, zoom_*, roll or handheld"),
        _number("camera_pan_width_s", "widths/s", "positive: camera turns right, content moves left"),
        _number("camera_tilt_height_s", "heights/s", "positive: camera turns up, content moves down"),
        _number("camera_zoom_per_s", "1/s", "rate of the log scale; positive: zooms in"),
        _number("camera_roll_deg_s", "degrees/s", "positive: camera turns clockwise, content anticlockwise"),
        _number(
            "camera_shake_width_s", "widths/s", "median change of the camera's velocity between neighbouring pairs"
        ),
        _number("camera_inlier_share", "share", "places that move with the camera; 0: nothing to hold on to"),
        _number(
            "object_speed_width_s", "widths/s", "mean over the picture (black bars apart) of motion against the camera"
        ),
        _number("object_area_share", "share", "mean share of the picture that moves against the camera"),
        _number(
            "freeze_ratio",
            "share",
            "pairs of neighbouring reference frames in the windows that lie in repeats of 0.2 s and more",
        ),
        _number("slideshow", "share", "time on still pictures that replace one another"),
        _number(
            "duplicate_frame_ratio",
            "share",
            "pairs of neighbouring reference frames in the windows that repeat a frame; repeats that the codec stores "
            "as frames no other frame needs are not seen",
        ),
        Column("n_pairs", pa.int32(), "pairs", "frame pairs behind the speeds"),
    )

    def views(self) -> Mapping[str, ViewSpec]:
        """Grid frames for the two flows, and two windows of every reference frame."""
        return {
            "px16": ViewSpec(sampling="every", every_s=0.5, short_side_px=16, pixels="luma"),
            "flow": ViewSpec(sampling="every", every_s=0.25, short_side_px=90, pixels="luma"),
            "windows": ViewSpec(sampling="windows", windows=2, window_s=1.0, pixels="luma"),
        }

    def setup(self) -> None:
        """One thread per worker; the flow's result depends on the number of threads."""
        cv2.setNumThreads(1)

    def score(self, item: ClipItem) -> Mapping[str, Any]:
        """StageError for a clip with fewer than two frames on the grid, or too small for flow."""
        px16, flow = item.views["px16"], item.views["flow"]
        if len(px16.frames) < 2:
            raise StageError(f"motion needs two frames at least 1/2 s apart, this clip has {len(px16.frames)}")
        tracker = Tracker(flow)
        pairs = tracker.spread
        height, width = flow.frames.shape[1:3]
        width_px, height_px = width * flow.px_scale[0], height * flow.px_scale[1]
        camera = camera_motion(
            pairs,
            width_px / height_px,
            static_width_s=self.config.static_width_s,
            dominant_share=self.config.dominant_share,
        )
        repeated = repeats(item.views["windows"], flow)
        speeds = _speeds(pairs)
        return {
            "v2d_px16": v2d_score(px16.frames),
            "speed_native_px_s": speeds["speed_width_s"] * width_px,
            **speeds,
            "camera": camera.label,
            "camera_pan_width_s": camera.pan_width_s,
            "camera_tilt_height_s": camera.tilt_height_s,
            "camera_zoom_per_s": camera.zoom_per_s,
            "camera_roll_deg_s": camera.roll_deg_s,
            "camera_shake_width_s": camera.shake_width_s,
            "camera_inlier_share": camera.inlier_share,
            "freeze_ratio": repeated.freeze_ratio,
            "slideshow": slideshow_share(tracker),
            "duplicate_frame_ratio": repeated.duplicate_ratio,
            "n_pairs": len(pairs),
        }


def _speeds(pairs: Sequence[PairMotion]) -> dict[str, float]:
    """Means over time. A jump to another picture is no motion, so such pairs count only where there is nothing else."""
    counted = [pair for pair in pairs if not _is_jump(pair)] or pairs
    dt_s = np.array([pair.dt_s for pair in counted])
    return {
        "speed_width_s": float(sum(pair.distance for pair in counted) / dt_s.sum()),
        "object_speed_width_s": float(sum(pair.object_distance for pair in counted) / dt_s.sum()),
        "object_area_share": float(np.average([pair.object_share for pair in counted], weights=dt_s)),
    }


def _is_jump(pair: PairMotion) -> bool:
    return pair.camera.inlier_share < _JUMP_INLIERS and pair.left_levels > _JUMP_LEVELS
