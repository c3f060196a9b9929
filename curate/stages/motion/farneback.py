"""Dense flow at the size of the source, as Data-Juicer filters by: two frames a second, Farneback's method."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import cv2
import pyarrow as pa
from pydantic import Field

from curate.config import Config
from curate.errors import StageError
from curate.stage import ClipItem, ClipStage, Column
from curate.stages.motion.flow import MIN_SIDE_PX, v2d_score
from curate.view import MASTER_SHORT_SIDE_PX, ViewSpec


class FarnebackConfig(Config):
    """``short_side_px``: frames are reduced to it; smaller ones stay as they are."""

    short_side_px: Annotated[int, Field(ge=MIN_SIDE_PX, le=MASTER_SHORT_SIDE_PX)] = 480


class Farneback(ClipStage[FarnebackConfig]):
    """Mean length of Farneback's flow between luma frames half a second apart, in displayed pixels of the source.

    Pixels and pairs count alike; nothing is divided by true time. The measure and its parameters are those of
    `motion.v2d_px16`, which looks at 16 px. A clip with a single frame on the 1/2 s grid fails.
    """

    name = "motion.farneback"
    version = 1
    config_type = FarnebackConfig
    columns: ClassVar[tuple[Column, ...]] = (
        Column("mean_px", pa.float64(), "px per 0.5 s", "mean length of the flow, displayed source pixels"),
        Column("n_pairs", pa.int32(), "pairs", "frame pairs behind it"),
    )

    def views(self) -> Mapping[str, ViewSpec]:
        """Grid frames for the flow."""
        size_px = self.config.short_side_px
        return {"flow": ViewSpec(sampling="every", every_s=0.5, short_side_px=size_px, pixels="luma")}

    def setup(self) -> None:
        """One thread per worker; the flow's result depends on the number of threads."""
        cv2.setNumThreads(1)

    def score(self, item: ClipItem) -> Mapping[str, Any]:
        """StageError for a clip with fewer than two frames on the grid, or too small for flow."""
        view = item.views["flow"]
        n_pairs, (height, width) = len(view.frames) - 1, view.frames.shape[1:3]
        if n_pairs < 1:
            raise StageError("flow needs two frames at least 1/2 s apart, this clip has one")
        if min(height, width) < MIN_SIDE_PX:
            raise StageError(f"too small for optical flow: {width}x{height} px, needs {MIN_SIDE_PX} px a side")
        return {"mean_px": v2d_score(view.frames) * sum(view.px_scale) / 2, "n_pairs": n_pairs}
