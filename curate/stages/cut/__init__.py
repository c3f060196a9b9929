"""The `cut` stage: where one shot ends and the next begins, and which spans become clips."""

from curate.stages.cut.config import CutConfig
from curate.stages.cut.stage import Cut

__all__ = ["Cut", "CutConfig"]
