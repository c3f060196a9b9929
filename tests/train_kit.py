"""Small random networks for the tests of the trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import (
    AutoencoderKLTemporalDecoder,
    StableVideoDiffusionPipeline,
    UNet2DConditionModel,
    UNetSpatioTemporalConditionModel,
)
from PIL import Image
from torch import Tensor, nn

from curate.train.conditioning import Conditions
from curate.train.encoders import Encoders
from curate.train.network import SpatioTemporalUNet, build_unet, preset_config
from curate.train.pipeline_folder import Pipeline, sample_clip, scheduler, tiny_image_parts
from curate.train.sampler import Sampling

PICTURE = np.random.default_rng(1).integers(0, 256, (16, 24, 3), np.uint8)
"""What clips are drawn from."""


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


def small_recipe(kind: str = "image-to-video", steps: int = 2, **more: Any) -> dict[str, Any]:
    """A stage that trains in seconds, as its YAML has it; ``run`` in ``more`` changes single keys of it."""
    frames, text = 1 if kind == "image" else 2, kind != "image-to-video"
    run = {
        "micro_batch": 2,
        "gradient_checkpointing": False,
        "workers": 0,
        "log_every_steps": 1,
        "checkpoint": {"every_steps": 2, "keep": 2},
        "validation": {"every_steps": 2, "sigmas": [1.0], "clips": 2, "samples": 0},
    }
    return {
        "name": "test",
        "kind": kind,
        "network": "tiny",
        "data": {
            "buckets": {"short_sides_px": [16], "multiple_px": 16, "aspects": ["1:1"], "frames": [frames]},
            "batch": 4,
            "hold_out_sources": 1,
            **({"captions": {"caption.coca.caption": 1.0}} if text else {}),
            **({"motion": ""} if kind == "image" else {}),
        },
        "objective": {"p_mean": 0.7, "p_std": 1.6},
        "trainable": "spatial" if kind == "image" else "all",
        "optimiser": {"lr": 1.0e-3, "warmup_steps": 2},
        "ema": 0.9,
        "precision": "float32",
        "steps": steps,
        **more,
        "run": {**run, **more.get("run", {})},
    }


def smallest_model(folder: Path) -> str:
    """Write a folder that any stage may start from: all encoders, and a text network of one level; gives its path.

    What takes time in small runs is the number of parameters, not their sizes.
    """
    one = {"block_out_channels": (64,), "num_attention_heads": (2,)}
    blocks = {"down_block_types": ("DownBlockSpatioTemporal",), "up_block_types": ("UpBlockSpatioTemporal",)}
    torch.manual_seed(0)
    unet = build_unet("tiny", concat=False, **one, **blocks)
    Encoders.tiny().save(folder)
    unet.save_pretrained(folder / "unet")
    return str(folder)


def diffusers_folder(folder: Path) -> None:
    """Write an image-to-video pipeline by plain diffusers, of other sizes than our tiny ones: a wider embedding, and an
    autoencoder that is not exact, of two levels, so that latents have half the size."""
    torch.manual_seed(3)
    levels: Any = {"down_block_types": ("DownEncoderBlock2D",) * 2, "block_out_channels": (32, 64)}
    encoder, processor = tiny_image_parts(width=64, seed=5)
    StableVideoDiffusionPipeline(
        vae=shaken(AutoencoderKLTemporalDecoder(**levels, latent_channels=4)),
        image_encoder=encoder.model,
        unet=shaken(UNetSpatioTemporalConditionModel(**preset_config("tiny") | {"cross_attention_dim": 64})),
        scheduler=scheduler(),
        feature_extractor=processor,
    ).save_pretrained(folder)


def drawn_by_diffusers(folder: Path, settings: Sampling, seed: int, num_frames: int = 5) -> Tensor:
    """A clip (1, T, 3, H, W) in [0, 1] from `PICTURE`, by diffusers' own pipeline."""
    theirs: Any = StableVideoDiffusionPipeline.from_pretrained(folder)
    theirs.set_progress_bar_config(disable=True)
    return theirs(
        Image.fromarray(PICTURE),
        height=16,
        width=24,
        num_frames=num_frames,
        num_inference_steps=settings.steps,
        min_guidance_scale=settings.guidance_first,
        max_guidance_scale=settings.guidance_last,
        fps=settings.fps,
        motion_bucket_id=settings.motion,
        noise_aug_strength=settings.augmentation,
        decode_chunk_size=settings.decode_chunk,
        generator=seeded(seed),
        output_type="pt",
    ).frames


def drawn_here(folder: Path, settings: Sampling, seed: int, num_frames: int = 5) -> Tensor:
    """The same by ours."""
    frame = torch.from_numpy(PICTURE).permute(2, 0, 1)[None].float() / 127.5 - 1
    return (sample_clip(Pipeline.load(folder), frame, num_frames, settings, seeded(seed)) + 1) / 2
