"""The one rule of which training shape a clip fits: used by export (which shard) and by the trainer (which batch).

A bucket is a resolution x aspect x number of frames. A clip *fills* it when it has at least that width, height and
number of frames, so that it is scaled down and cropped to the bucket and never enlarged, repeated or padded.

Defaults: short sides 128 to 1024 with long sides rounded to multiples of 64, because the SVD network halves latents
(1/8 of a pixel) three times; they hold the paper's 320x576 and 576x1024 (SVD_SPEC 2). 720p footage fills 1280x704,
1080p footage 1792x1024. Frames: 14 (SVD) and 25 (SVD-XT), 8 for short clips, 49 and 97 (4k+1, 8k+1) for backbones
whose autoencoder also compresses time.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple, Self

from pydantic import field_validator, model_validator

from curate.config import Config


class Bucket(NamedTuple):
    """A training shape; ``name`` is also the folder of its shards."""

    width_px: int
    height_px: int
    frames: int

    @property
    def name(self) -> str:
        """``1024x576x25``."""
        return f"{self.width_px}x{self.height_px}x{self.frames}"

    @classmethod
    def parse(cls, name: str) -> Self:
        """The bucket of this name; ValueError when it is none."""
        width_px, height_px, frames = (int(part) for part in name.split("x"))
        return cls(width_px, height_px, frames)


class BucketsConfig(Config):
    """Short sides x aspects x frame counts."""

    short_sides_px: tuple[int, ...] = (128, 192, 256, 320, 448, 576, 704, 1024)
    aspects: tuple[str, ...] = ("9:16", "3:4", "1:1", "4:3", "16:9")
    """Width to height. A clip takes the nearest one (by the logarithm) of which it fills any resolution."""
    frames: tuple[int, ...] = (8, 14, 25, 49, 97)
    multiple_px: int = 64
    """Long sides are rounded to the nearest multiple; short sides must be multiples."""

    @field_validator("short_sides_px", "frames")
    @classmethod
    def _rising(cls, values: tuple[int, ...]) -> tuple[int, ...]:
        if not values or min(values) < 1 or len(set(values)) < len(values):
            raise ValueError("give at least one positive number, each once")
        return tuple(sorted(values))

    @field_validator("aspects")
    @classmethod
    def _ratios(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        if not values or any(_ratio(value) <= 0 for value in values):
            raise ValueError("give at least one aspect as W:H, both positive")
        return values

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.multiple_px < 1 or any(side % self.multiple_px for side in self.short_sides_px):
            raise ValueError(f"every short side must be a multiple of multiple_px = {self.multiple_px}")
        return self


def _ratio(text: str) -> float:
    width, _, height = text.partition(":")
    if not (width.isdigit() and height.isdigit() and int(height)):
        raise ValueError(f"{text!r} is not W:H")
    return int(width) / int(height)


def bucket_of(width_px: int, height_px: int, n_frames: int, config: BucketsConfig) -> tuple[str | None, str]:
    """Name of the largest bucket that the clip fills, and "" - or None, and the reason why there is none."""
    if min(width_px, height_px) < 1:
        return None, "bucket: nothing left of the picture"
    size = _largest_size(width_px, height_px, config)
    if size is None:
        return None, f"bucket: smaller than {config.short_sides_px[0]} px on a side"
    frames = max((count for count in config.frames if count <= n_frames), default=None)
    if frames is None:
        return None, f"bucket: shorter than {config.frames[0]} frames"
    return Bucket(*size, frames).name, ""


def buckets_filled_by(name: str, config: BucketsConfig) -> list[str]:
    """Every bucket that all clips of the bucket ``name`` fill, itself included: where a trainer may read them too."""
    have = Bucket.parse(name)
    sizes = [size for aspect in config.aspects for size in _sizes(aspect, config.short_sides_px, config.multiple_px)]
    return [
        Bucket(width_px, height_px, frames).name
        for width_px, height_px in sizes
        for frames in config.frames
        if width_px <= have.width_px and height_px <= have.height_px and frames <= have.frames
    ]


def _largest_size(width_px: int, height_px: int, config: BucketsConfig) -> tuple[int, int] | None:
    """Of the nearest aspect that has any size inside the picture, the largest such size."""
    shape = math.log(width_px / height_px)
    near = sorted(config.aspects, key=lambda aspect: (round(abs(shape - math.log(_ratio(aspect))), 9), aspect))
    for aspect in near:
        sizes = _sizes(aspect, config.short_sides_px, config.multiple_px)
        inside = [size for size in sizes if size[0] <= width_px and size[1] <= height_px]
        if inside:
            return inside[-1]
    return None


@lru_cache(maxsize=256)
def _sizes(aspect: str, short_sides_px: tuple[int, ...], multiple_px: int) -> tuple[tuple[int, int], ...]:
    """(width, height) of one aspect, rising."""
    return tuple(_size(side, _ratio(aspect), multiple_px) for side in short_sides_px)


def _size(short_px: int, ratio: float, multiple_px: int) -> tuple[int, int]:
    long_px = max(round(short_px * max(ratio, 1 / ratio) / multiple_px) * multiple_px, short_px)
    return (long_px, short_px) if ratio >= 1 else (short_px, long_px)
