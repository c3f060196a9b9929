"""Euler sampling on EDM's noise levels with guidance that grows over the frames, as the released sampler does it."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from pydantic import Field
from torch import Tensor

from curate.config import Config
from curate.train import edm
from curate.train.conditioning import Conditions
from curate.train.network import Network

__all__ = ["Sampling", "first_noise", "guidance", "sample", "sigmas"]

OnStep = Callable[[int, Tensor], None]


class Sampling(Config):
    """How a clip is drawn. The defaults are diffusers'; the releases take guidance 1 to 2.5 (14 frames), 1.5 to 3 (25).

    ``motion`` is a motion bucket, ``augmentation`` the sigma of noise on the first frame.
    """

    steps: int = Field(25, ge=1)
    guidance_first: float = 1.0
    guidance_last: float = 3.0
    fps: float = Field(7.0, gt=0)
    motion: float = Field(127.0, ge=0, le=255)
    augmentation: float = Field(0.02, ge=0)
    decode_chunk: int | None = Field(None, ge=1)


def sigmas(steps: int, sigma_min: float = 0.002, sigma_max: float = 700.0, rho: float = 7.0) -> Tensor:
    """Noise levels from ``sigma_max`` down to ``sigma_min`` and then 0, float32 (steps + 1,)."""
    ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    levels = (high + ramp * (low - high)) ** rho
    return torch.cat([levels, levels.new_zeros(1)]).float()


def guidance(num_frames: int, first: float, last: float) -> Tensor:
    """Guidance of each frame (T,): linear over the clip."""
    return torch.linspace(first, last, num_frames)


def first_noise(normal: Tensor, levels: Tensor) -> Tensor:
    """Where sampling starts: unit noise brought to the variance of a noisy latent at the highest level."""
    return normal * (levels.max() ** 2 + 1) ** 0.5


@torch.no_grad()
def sample(
    network: Network, cond: Conditions, normal: Tensor, settings: Sampling, on_step: OnStep | None = None
) -> Tensor:
    """Scaled latents (B, T, C, h, w) from unit noise of that shape; decode them with the codec.

    ``on_step`` sees the number of each finished step and the latents there. Where no frame's guidance exceeds 1, the
    unconditional half is not computed, as in diffusers.
    """
    levels = sigmas(settings.steps)
    x = first_noise(normal, levels)
    guided = max(settings.guidance_first, settings.guidance_last) > 1
    scale = guidance(x.shape[1], settings.guidance_first, settings.guidance_last).to(x)[None, :, None, None, None]
    both = cond.unconditional().followed_by(cond) if guided else cond
    for i, (sigma, following) in enumerate(itertools.pairwise(levels)):
        seen = torch.cat([x] * 2) if guided else x
        time = edm.c_noise(sigma).to(x.device).expand(len(seen))
        prediction = network(seen / (sigma**2 + 1) ** 0.5, time, both)
        if guided:
            without, with_ = prediction.chunk(2)
            prediction = without + scale * (with_ - without)
        x = euler_step(x, edm.denoised(prediction, x, sigma), sigma, following)
        if on_step is not None:
            on_step(i, x)
    return x


def euler_step(x: Tensor, clean: Tensor, sigma: Tensor, following: Tensor) -> Tensor:
    """Go from one noise level to the next along the line to the clean latent."""
    return x + (x - clean) / sigma * (following - sigma)
