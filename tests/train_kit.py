"""Small random networks for the tests of the trainer."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from curate.train.conditioning import Conditions
from curate.train.network import SpatioTemporalUNet, build_unet


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def image_unet(seed: int = 0, **options: Any) -> UNet2DConditionModel:
    """An image network of Stable Diffusion 2.1's kind, as small as can be."""
    torch.manual_seed(seed)
    return UNet2DConditionModel(
        **{
            "sample_size": 8,
            "block_out_channels": (32, 64),
            "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
            "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
            "layers_per_block": 1,
            "cross_attention_dim": 32,
            "attention_head_dim": (2, 4),
            "use_linear_projection": True,
            "norm_num_groups": 32,
            **options,
        }
    ).eval()


def video_unet(seed: int = 0, *, concat: bool = True) -> SpatioTemporalUNet:
    """A random video network whose every parameter matters: none is left at 0 or 1, where an error would not show."""
    torch.manual_seed(seed)
    unet = build_unet("tiny", concat=concat)
    return shaken(unet, seed).eval()


def shaken(network: Any, seed: int = 0) -> Any:
    """Move all parameters a little."""
    generator = seeded(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    return network


def latents(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed))


def conditions(n: int, frames: int, seed: int = 2, *, image_only: Tensor | None = None) -> Conditions:
    """Random conditions for the preset ``tiny`` on 8 x 8 latents, different for each clip."""
    generator = seeded(seed)
    return Conditions(
        context=torch.randn(n, 1, 32, generator=generator),
        added=torch.rand(n, 3, generator=generator) * torch.tensor([30.0, 255.0, 0.1]),
        concat=torch.randn(n, frames, 4, 8, 8, generator=generator),
        image_only=torch.zeros(n, dtype=torch.bool) if image_only is None else image_only,
    )


def named(module: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
