"""What a training stage wants of a shard set."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from curate.config import Config
from curate.errors import ConfigError
from curate.shards.buckets import BucketsConfig

MOTION_SCORE = "motion_score"
"""Sidecar column of whatever column `export` was told to write as the motion score."""


class DataConfig(Config):
    """Shapes, captions and conditioning of a stage's batches. What machines differ in (ranks, workers) is not here."""

    buckets: BucketsConfig = BucketsConfig(short_sides_px=(320,), aspects=("16:9",), frames=(14,))
    """Shapes of the batches. A clip is trained on in the largest that it fills, by the rule that export sorts it with
    (`curate.shards.buckets`); the number of frames it fills them with is counted at its smallest stride."""
    batch: int = Field(default=8, ge=1)
    """Clips of one batch, over all ranks."""
    captions: dict[str, float] = Field(default_factory=dict)
    """Weights by sidecar column, renormalised over those that a clip has. Empty: no captions are wanted."""
    motion: str = MOTION_SCORE
    """Sidecar column of the motion score; empty: none is wanted."""
    fps: tuple[float, float] = (5.0, 30.5)
    """Frames a second that training may see: of each clip every n-th frame is taken, n drawn among those that give such
    a rate. Ours: the paper does not say how it samples rates (SVD_SPEC 7). Single frames have no rate."""
    min_kept_share: float = Field(default=0.5, ge=0, le=1)
    """Share of the picture that must be left after the crop to the bucket's aspect. Ours."""
    on_empty: Literal["fail", "report"] = "fail"
    """What to do about a bucket with fewer clips than a batch: stop, or leave it out and count its clips."""
    hold_out_sources: int = Field(default=0, ge=0)
    """Sources (whole films) of which no clip is trained on: those with the lowest digests, the same for every stage."""
    max_lost_share: float = Field(default=0.01, ge=0, le=1)
    """Training stops when more of the set's clips than this (and more than one) cannot be read."""
    seed: int = 0
    """Of the order of clips and of all that is drawn for each."""

    def share(self, world: int) -> int:
        """Clips of a batch on each of ``world`` ranks; ConfigError when they do not divide."""
        if self.batch % world:
            raise ConfigError(f"a batch of {self.batch} does not divide among {world} ranks", subject="data.batch")
        return self.batch // world

    @field_validator("captions")
    @classmethod
    def _weights(cls, weights: dict[str, float]) -> dict[str, float]:
        if any(weight <= 0 for weight in weights.values()):
            raise ValueError("weights must be positive")
        return weights

    @model_validator(mode="after")
    def _rates(self) -> Self:
        if not 0 < self.fps[0] <= self.fps[1]:
            raise ValueError(f"fps {self.fps} is no range")
        return self
