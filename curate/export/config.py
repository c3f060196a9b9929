"""What an export is asked to do, and what it did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from curate.media.encode import EncodeOptions
from curate.shards.buckets import BucketsConfig
from curate.shards.index import Hole


class ExportConfig(EncodeOptions):
    """How a selection becomes shards.

    The keys of `EncodeOptions` (mode, crf, preset, gop_frames, audio) come on top.
    ."""

    name: str = Field(default="", pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]*)?$")
    """Name of the shard set; empty takes the selection's."""
    shard_bytes: int = Field(default=256 << 20, ge=1)
    """Size that shards aim at; sizes are estimated before anything is encoded, so the real ones scatter around it."""
    seed: int = 0
    """Of the order of clips over the whole selection."""
    crop: Literal["none", "letterbox"] = "none"
    """``letterbox`` cuts the black bars off that the `quality` stage found."""
    caption: str = "caption.template.caption"
    """Column written as text of each sample; empty for none."""
    motion: str = "motion.v2d_px16"
    """Column written as ``motion_score``, the trainer's motion conditioning; null where a clip or the run lacks it."""
    columns: tuple[str, ...] | None = None
    """Columns of the sidecars; default all of the clips' cells that are single values, and ``user.*``."""
    buckets: BucketsConfig = BucketsConfig()

    def encode_options(self) -> EncodeOptions:
        """The part that decides how a single clip is written."""
        return EncodeOptions(**{name: getattr(self, name) for name in EncodeOptions.model_fields})


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What an export did. kept = n_clips + holes + the sum of ``left_out``. ``folder`` is the URI of the set.

    ``work_s`` and ``cpu_s``: seconds that its workers took, all together.
    """

    name: str
    folder: str
    kept: int
    n_clips: int
    n_shards: int
    size_bytes: int
    left_out: Mapping[str, int]
    holes: tuple[Hole, ...]
    reused: bool
    """True when the finished set was there already and nothing was written."""
    work_s: float = 0.0
    cpu_s: float = 0.0
