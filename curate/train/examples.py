"""From a batch of clips to what a training step needs: latents, noise, levels, conditions.

Whatever is random is drawn for each clip by itself, from the seed, the epoch and the clip's number in it: the same
clips get the same noise whatever the number of ranks, of clips at once, or of times that a run was killed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from curate.train.conditioning import Conditions, first_frame_latent, image_to_video, pictures, text_to_video
from curate.train.data.worker import Batch
from curate.train.distributed import sent
from curate.train.edm import NoiseDistribution
from curate.train.encoders import Encoders
from curate.train.motion import MotionCalibration
from curate.train.objective import EDM, DiscreteV, Objective
from curate.train.recipe import Kind, ObjectiveConfig, TrainRecipe

__all__ = ["Example", "Examples", "first_frame", "generator_of", "objective_of"]


@dataclass(frozen=True)
class Example:
    """``x0`` and ``noise`` (B, T, C, h, w), ``level`` (B,) in the objective's unit, conditions of all clips, and
    ``keep``, bool (B,): which of them are not withheld."""

    x0: Tensor
    noise: Tensor
    level: Tensor
    cond: Conditions
    keep: Tensor


def objective_of(config: ObjectiveConfig) -> Objective:
    """The objective that a recipe names."""
    if config.kind == "discrete-v":
        return DiscreteV()
    return EDM(NoiseDistribution(config.p_mean, config.p_std))


def generator_of(*numbers: object) -> torch.Generator:
    """A generator of its own for these numbers."""
    digest = hashlib.sha256("|".join(str(number) for number in numbers).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


@dataclass(frozen=True)
class _Drawn:
    """What is drawn for one clip."""

    level: Tensor
    noise: Tensor
    keep: Tensor
    augmentation: Tensor
    frame_noise: Tensor


class Examples:
    """Makes examples of batches. ``calibration`` is None in an image stage."""

    def __init__(self, recipe: TrainRecipe, encoders: Encoders, calibration: MotionCalibration | None) -> None:
        self.objective = objective_of(recipe.objective)
        self._kind: Kind = recipe.kind
        self._dropout = recipe.dropout
        self._augmentation = NoiseDistribution(recipe.augmentation.p_mean, recipe.augmentation.p_std)
        self._seed = recipe.seed
        self._encoders = encoders
        self._calibration = calibration

    @torch.no_grad()
    def of(self, batch: Batch, items: Sequence[int], device: torch.device) -> Example:
        """The example of a batch; ``items``: numbers of its clips in the epoch."""
        motion = self._buckets(batch)  # while it is on the CPU: to ask a device for it would wait for the device
        batch = batch.to(device)
        x0 = self._latents(batch)
        drawn = [self._draw(batch, item, x0.shape[1:]) for item in items]
        together = {
            field.name: sent(torch.stack([getattr(one, field.name) for one in drawn]), device)
            for field in fields(_Drawn)
        }
        cond = self._conditions(batch, sent(motion, device), together["augmentation"], together["frame_noise"])
        return Example(x0, together["noise"], together["level"], cond, together["keep"])

    def _draw(self, batch: Batch, item: int, shape: Sequence[int]) -> _Drawn:
        generator = generator_of("train", self._seed, batch.position.epoch, item)
        level = self.objective.draw(1, generator)[0]
        keep = torch.rand((), generator=generator) >= self._dropout
        augmentation = self._augmentation.sample(1, generator)[0]
        noise = torch.randn(*shape, generator=generator)
        size = (3, batch.bucket.height_px, batch.bucket.width_px) if self._kind == "image-to-video" else (0,)
        return _Drawn(level, noise, keep, augmentation, torch.randn(*size, generator=generator))

    def _latents(self, batch: Batch) -> Tensor:
        codec = self._encoders.codec
        latents = codec.encode(batch.pixels()) if batch.latents is None else batch.latents.float()
        return codec.scaled(latents)

    def _conditions(self, batch: Batch, motion: Tensor, augmentation: Tensor, frame_noise: Tensor) -> Conditions:
        if self._kind == "image":
            return pictures(self._text(batch))
        if self._kind == "video":
            return text_to_video(self._text(batch), batch.fps, motion)
        frame = first_frame(batch)
        latent = first_frame_latent(self._encoders.codec, frame, augmentation, frame_noise)
        return image_to_video(self._image(batch, frame), latent, batch.bucket.frames, batch.fps, motion, augmentation)

    def _buckets(self, batch: Batch) -> Tensor:
        if self._kind == "image":
            return torch.zeros(len(batch))
        assert self._calibration is not None
        return torch.from_numpy(self._calibration.bucket(batch.motion.numpy())).float()

    def _text(self, batch: Batch) -> Tensor:
        if batch.text is not None:
            return batch.text.float()
        assert self._encoders.text is not None
        return self._encoders.text.encode(batch.captions).float().to(batch.fps.device)

    def _image(self, batch: Batch, frame: Tensor) -> Tensor:
        if batch.image is not None:
            return batch.image.float()
        assert self._encoders.image is not None
        return self._encoders.image.encode(frame).float()


def first_frame(batch: Batch) -> Tensor:
    """First frames (B, 3, H, W) in [-1, 1]."""
    frames = batch.first if batch.video is None else batch.video[:, 0]
    assert frames is not None
    return frames.permute(0, 3, 1, 2).float().div(127.5).sub(1)
