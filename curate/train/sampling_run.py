"""Clips out of a checkpoint: which folder, which size, which motion, and clips that go on where the last one ended."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from curate.errors import ConfigError, ModelFileError, UsageError
from curate.storage import Place
from curate.train.folders import MOTION, TRAINED, reading, resolve_model
from curate.train.motion import MotionCalibration
from curate.train.movie import to_uint8
from curate.train.pipeline_folder import Pipeline, sample_clip
from curate.train.sampler import Sampling

__all__ = ["Checkpoint", "Shape", "draw"]

_INDEX = "model_index.json"
_PIPELINE = "StableVideoDiffusionPipeline"
_USUAL_PX = 1024, 576
"""What the released models were trained in; folders of plain diffusers do not say it."""

OnProgress = Callable[[int, int], None]
"""Told how many of how many steps are done."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Size of a clip."""

    width_px: int
    height_px: int
    frames: int


@dataclass(frozen=True)
class Checkpoint:
    """What a model folder says of itself, before its weights are read.

    ``shape``: what the network was trained in. ``multiple_px``: what sides must be multiples of. ``calibration``: what
    motion scores were, None where the folder does not say.
    """

    folder: Path
    shape: Shape
    multiple_px: int
    calibration: MotionCalibration | None

    @classmethod
    def read(cls, path: Path) -> Self:
        """From a model folder or a training run's folder. UsageError when it is none, or a part of it is wrong."""
        folder = resolve_model(path, _INDEX)
        _check_kind(folder)
        levels, frames = _config(folder, "unet", "block_out_channels", "num_frames")
        (codec_levels,) = _config(folder, "vae", "block_out_channels")
        shape = Shape(*_USUAL_PX, frames)
        motion = Place(str(folder / MOTION))
        calibration = MotionCalibration.read(motion) if motion.exists() else None
        return cls(folder, _trained(folder, shape), 2 ** (len(levels) + len(codec_levels) - 2), calibration)

    def load(self, device: torch.device) -> Pipeline:
        """The weights."""
        return Pipeline.load(self.folder).to(device)

    def fitting(self, width_px: int | None = None, height_px: int | None = None, frames: int | None = None) -> Shape:
        """A shape to draw in; what is not given is as in training. ConfigError, with the nearest one, when it does not
        fit the network."""
        own = self.shape
        wanted = Shape(width_px or own.width_px, height_px or own.height_px, frames or own.frames)
        near = [
            max(1, round(side / self.multiple_px)) * self.multiple_px for side in (wanted.width_px, wanted.height_px)
        ]
        if near != [wanted.width_px, wanted.height_px]:
            raise ConfigError(
                f"sides must be multiples of {self.multiple_px} pixels",
                subject=f"size {wanted.width_px}x{wanted.height_px}",
                fix=f"The nearest size is {near[0]}x{near[1]}",
            )
        return wanted

    def motion_of(self, score: float) -> float:
        """The motion bucket of a score in the unit of the calibration's column. UsageError without a calibration."""
        if self.calibration is None:
            message = f"has no {MOTION}, so nothing says which bucket a motion score is"
            raise UsageError(message, subject=str(self.folder), fix="Give the bucket, 0 to 255")
        return float(self.calibration.bucket(score))


def _check_kind(folder: Path) -> None:
    index = folder / _INDEX
    try:
        found = json.loads(index.read_text(encoding="utf-8"))["_class_name"]
    except (ValueError, KeyError, TypeError) as error:
        raise ModelFileError("does not say which pipeline it is of", subject=str(index)) from error
    if found != _PIPELINE:
        raise ModelFileError(f"holds a {found}; clips are drawn by a {_PIPELINE}", subject=str(folder))


def _config(folder: Path, part: str, *keys: str) -> list[Any]:
    with reading(folder, part) as found:
        config = json.loads((found / "config.json").read_text(encoding="utf-8"))
        return [config[key] for key in keys]


def _trained(folder: Path, usual: Shape) -> Shape:
    """The shape in ``train.json``, or the usual one where there is no such file."""
    place = folder / TRAINED
    if not place.exists():
        return usual
    try:
        found = json.loads(place.read_text(encoding="utf-8"))
        return Shape(int(found["width_px"]), int(found["height_px"]), int(found["frames"]))
    except (ValueError, KeyError, TypeError) as error:
        raise ModelFileError(f"does not say width_px, height_px and frames: {error}", subject=str(place)) from error


def draw(
    pipeline: Pipeline,
    picture: Tensor,
    num_frames: int,
    settings: Sampling,
    seed: int,
    *,
    chain: int = 1,
    on_progress: OnProgress | None = None,
) -> np.ndarray:
    """Frames, uint8 (T, H, W, 3), of a clip that begins with ``picture``, float (1, 3, H, W) in [-1, 1].

    ``chain`` clips follow one another, number i drawn with seed ``seed + i`` from the last frame of the one before,
    which is not repeated: T is chain * (num_frames - 1) + 1. Noise is drawn on the CPU, so that a seed means the same
    everywhere. UsageError when the device's memory does not suffice, ConfigError when there is nothing to chain by.
    """
    if chain > 1 and num_frames < 2:
        raise ConfigError("clips of one frame cannot follow one another", subject="chain")
    drawn: list[Tensor] = []
    for number in range(chain):

        def tell(step: int, _: Tensor, before: int = number * settings.steps) -> None:
            if on_progress is not None:
                on_progress(before + step + 1, chain * settings.steps)

        generator = torch.Generator().manual_seed(seed + number)
        try:
            clip = sample_clip(pipeline, picture, num_frames, settings, generator, tell)[0]
        except torch.OutOfMemoryError as error:
            fix = "Decode fewer frames at once, draw fewer frames, or smaller ones"
            raise UsageError("the clip does not fit into the device's memory", fix=fix) from error
        drawn.append(clip[1 if drawn else 0 :])
        picture = clip[None, -1]
    return to_uint8(torch.cat(drawn))
