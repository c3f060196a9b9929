"""A stage that measures how bright a clip is, and how much brighter it becomes from its start to its end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pyarrow as pa
from pydantic import Field

from curate.config import Config
from curate.errors import StageError
from curate.stage import ClipItem, ClipStage, Column
from curate.view import ViewSpec


class BrightnessConfig(Config):
    """``short_side_px``: size at which frames are looked at."""

    short_side_px: int = Field(64, ge=16, le=540)


class Brightness(ClipStage[BrightnessConfig]):
    """Mean luma of the first, middle and last frame."""

    name = "brightness"
    version = 1
    config_type = BrightnessConfig
    columns: ClassVar[tuple[Column, ...]] = (
        Column("mean_levels", pa.float64(), "levels, 0-255", "mean luma of the three frames"),
        Column("rise_levels", pa.float64(), "levels, -255-255", "mean luma of the last frame less that of the first"),
    )

    def views(self) -> Mapping[str, ViewSpec]:
        """Three luma frames."""
        return {"ends": ViewSpec(points=(0.0, 0.5, 1.0), short_side_px=self.config.short_side_px, pixels="luma")}

    def score(self, item: ClipItem) -> Mapping[str, Any]:
        """Both columns; StageError when the view is empty."""
        frames = item.views["ends"].frames
        if not len(frames):
            raise StageError("the clip gave no frame", subject=item.clip.clip_id)
        first, *_, last = means = frames.mean(axis=(1, 2)).tolist()
        return {"mean_levels": sum(means) / len(means), "rise_levels": last - first}
