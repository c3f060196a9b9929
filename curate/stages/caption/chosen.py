"""The caption that stands for the language model's: the fused sentence, or a single one where it made something up.

No model: a fused sentence with a word of its own is replaced by the single caption that CLIP finds nearer to the
pictures; without CLIP by the first one named, CoCa, which came out first in the paper's comparison (E.2.2).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import pyarrow as pa
from pydantic import Field

from curate.config import Config
from curate.errors import ConfigError, StageError
from curate.stage import ClipItem, Column, Resources, Stage
from curate.stages.caption.base import CaptionStage, check_captions, own_name
from curate.stages.caption.fused import CAPTIONERS

_FUSERS = "Name the stage that makes one sentence of several, such as `caption.fused`"


class ChosenConfig(Config):
    """``fused``: stage of the fused sentence. ``captions``: stages of the single ones, the better first.

    ``similarity``: stage whose cell holds, for each of them, a list of CLIP similarities under the last part of its
    name; null where none is in the recipe.
    """

    fused: str = "caption.fused"
    captions: Annotated[tuple[str, ...], Field(min_length=1)] = CAPTIONERS
    similarity: str | None = "clip.similarity"


class ChosenCaption(CaptionStage[ChosenConfig]):
    """Copies caption and ``frames`` of the one that is taken."""

    name = "caption.chosen"
    version = 1
    config_type = ChosenConfig
    reads_pixels = False
    resources = Resources(cpus=0.1, memory_bytes=16 << 20)
    columns: ClassVar[tuple[Column, ...]] = (
        *CaptionStage.columns,
        Column("source", pa.string(), "", "who made the sentence: `fused`, or a single captioner such as `coca`"),
        Column("replaced", pa.bool_(), "", "the fused sentence was marked and a single caption is taken"),
    )

    def __init__(self, config: ChosenConfig) -> None:
        super().__init__(config)
        self.reads = (config.fused, *config.captions, *([config.similarity] if config.similarity else []))

    def check_reads(self, above: Mapping[str, Stage[Any]]) -> None:
        """ConfigError unless the fused sentence can be marked, and the single captions have similarities to go by."""
        config = self.config
        check_captions(above, [config.fused], f"{self.name}.fused", "marked", fix=_FUSERS)
        check_captions(above, config.captions, f"{self.name}.captions")
        if config.similarity is None:
            return
        compared = {column.name for column in above[config.similarity].columns}
        absent = [name for name in config.captions if own_name(name) not in compared]
        if absent:
            raise ConfigError(
                f"{config.similarity!r} says nothing of {', '.join(absent)}",
                subject=f"{self.name}.similarity",
                fix=f"Add {', '.join(absent)} to {config.similarity}.captions, or set {self.name}.similarity=null",
            )

    def score(self, item: ClipItem) -> Mapping[str, Any]:
        """The caption that is taken; StageError when the sentence is marked and every single caption is empty."""
        replaced = bool(item.cells[self.config.fused]["marked"])
        taken = self._best(item) if replaced else self.config.fused
        cell = item.cells[taken]
        return {
            "caption": cell["caption"],
            "frames": cell["frames"],
            "source": own_name(taken),
            "replaced": replaced,
        }

    def _best(self, item: ClipItem) -> str:
        """The single caption with the highest mean similarity, the first of equals."""
        usable = [name for name in self.config.captions if item.cells[name]["caption"]]
        if not usable:
            raise StageError("every single caption is empty", subject=item.clip.clip_id)
        if self.config.similarity is None:
            return usable[0]
        found = item.cells[self.config.similarity]
        absent = [own_name(name) for name in usable if not found.get(own_name(name))]
        if absent:
            raise StageError(
                f"{self.config.similarity!r} says nothing of {', '.join(absent)}", subject=item.clip.clip_id
            )
        return max(usable, key=lambda name: sum(found[own_name(name)]) / len(found[own_name(name)]))
