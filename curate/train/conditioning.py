"""What a network is told beside the noisy latents, and how some of it is withheld.

In the image-to-video stages (paper, App. D.3; layout of the released model): the projected CLIP embedding of the
noise-free first frame as one token of cross-attention; the encoder's UNSCALED latent of the first frame with noise
beside every frame's channels; frame rate less one, motion bucket and that noise's strength as a vector.

In the text stages, the hidden states of a CLIP text model are the cross-attention, there is no latent beside, and the
vector holds frame rate less one, motion bucket and 0. A single picture has neither rate nor motion: 0, 0, 0. Both are
our choice: the paper does not say what its text stages were told, and later stages keep the same vector.

What is withheld for guidance is zero, in training as in sampling, in cross-attention and latent together: the
released sampler zeroes both at once, and drops that are independent would hardly ever train that case.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from curate.train.codecs import Codec
from curate.train.digest import digest_of
from curate.train.distributed import sent
from curate.train.edm import NoiseDistribution, per_item
from curate.train.folders import load_part, reading

__all__ = [
    "AUGMENTATION",
    "Conditions",
    "ImageEncoder",
    "TextEncoder",
    "add_time_ids",
    "first_frame_latent",
    "image_to_video",
    "pictures",
    "text_to_video",
]

AUGMENTATION = NoiseDistribution(p_mean=-3.0, p_std=0.5)
"""Noise on the first frame before it is encoded, in training (App. D.3): median 0.05. Sampling takes 0.02."""


@dataclass(frozen=True)
class Conditions:
    """Conditions of a batch of B clips.

    ``context`` (B, L, D) for cross-attention; ``added`` (B, 3) the vector's numbers, float32; ``concat`` None or
    (B, T, C, h, w), unscaled; ``image_only`` bool (B,), True where the clip is a single picture. ``all_pictures``: that
    is known to be everywhere, without asking the device.
    """

    context: Tensor
    added: Tensor
    concat: Tensor | None
    image_only: Tensor
    all_pictures: bool = False

    def to(self, device: torch.device | str) -> Conditions:
        """The same on another device."""
        concat = None if self.concat is None else self.concat.to(device)
        context, added, image_only = (one.to(device) for one in (self.context, self.added, self.image_only))
        return replace(self, context=context, added=added, concat=concat, image_only=image_only)

    def without(self, dropped: Tensor) -> Conditions:
        """Cross-attention and latent set to zero together where ``dropped``, bool (B,), says so; the vector stays."""
        context = self.context.masked_fill(per_item(dropped, self.context), 0)
        concat = None if self.concat is None else self.concat.masked_fill(per_item(dropped, self.concat), 0)
        return replace(self, context=context, concat=concat)

    def unconditional(self) -> Conditions:
        """Nothing but the vector: the other end of guidance."""
        return self.without(torch.ones_like(self.image_only))

    def followed_by(self, other: Conditions) -> Conditions:
        """Both batches as one."""
        concat = None
        if self.concat is not None and other.concat is not None:
            concat = torch.cat([self.concat, other.concat])
        return Conditions(
            torch.cat([self.context, other.context]),
            torch.cat([self.added, other.added]),
            concat,
            torch.cat([self.image_only, other.image_only]),
            self.all_pictures and other.all_pictures,
        )


def add_time_ids(fps: Tensor, motion_bucket: Tensor, augmentation: Tensor) -> Tensor:
    """The vector's numbers (B, 3), float32: fps - 1, motion bucket (0 to 255), augmentation sigma, each from (B,).

    The released model was trained on the rate less one, and diffusers' pipeline takes one off what it is given.
    """
    return torch.stack([fps.float() - 1, motion_bucket.float(), augmentation.float()], dim=1)


def pictures(context: Tensor) -> Conditions:
    """Conditions of single pictures, from their text (B, L, D)."""
    n, device = len(context), context.device
    marks = torch.ones(n, dtype=torch.bool, device=device)
    return Conditions(context, torch.zeros(n, 3, device=device), None, marks, all_pictures=True)


def text_to_video(context: Tensor, fps: Tensor, motion_bucket: Tensor) -> Conditions:
    """Conditions of clips, from their text (B, L, D), true frame rates (B,) and motion buckets (B,)."""
    added = add_time_ids(fps, motion_bucket, torch.zeros_like(fps)).to(context.device)
    return Conditions(context, added, None, torch.zeros(len(context), dtype=torch.bool, device=context.device))


def image_to_video(
    context: Tensor, latent: Tensor, num_frames: int, fps: Tensor, motion_bucket: Tensor, augmentation: Tensor
) -> Conditions:
    """Conditions of clips, from the embedding (B, 1, D) and the unscaled latent (B, C, h, w) of their first frame.

    ``augmentation`` (B,) is the sigma of the noise that `first_frame_latent` put on the frame.
    """
    added = add_time_ids(fps, motion_bucket, augmentation).to(context.device)
    concat = latent[:, None].expand(-1, num_frames, -1, -1, -1)
    return Conditions(context, added, concat, torch.zeros(len(context), dtype=torch.bool, device=context.device))


def first_frame_latent(codec: Codec, frame: Tensor, augmentation: Tensor, noise: Tensor) -> Tensor:
    """Unscaled latent (B, C, h, w) of frames (B, 3, H, W) in [-1, 1] with noise of sigma (B,) upon each.

    The diffusion target is scaled, this is not: so the released model was trained, and so it is sampled.
    """
    return codec.encode(frame + per_item(augmentation.to(frame), frame) * noise)


class ImageEncoder:
    """CLIP's image model with its projection, as the pipeline uses it: 224 x 224 by a bicubic resize without crop."""

    size_px = 224

    def __init__(self, model: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        self.model: Any = model.eval().requires_grad_(False)
        self._mean, self._std = (torch.tensor(values).view(1, 3, 1, 1) for values in (mean, std))

    @classmethod
    def load(cls, pipeline: Path) -> ImageEncoder:
        """From the folders ``image_encoder`` and ``feature_extractor`` of a pipeline folder."""
        from transformers import CLIPVisionModelWithProjection

        model = load_part(CLIPVisionModelWithProjection, pipeline, "image_encoder")
        processor = cls.processor(pipeline)
        return cls(model, processor.image_mean, processor.image_std)

    @staticmethod
    def processor(pipeline: Path) -> Any:
        """CLIP's image processor, of the folder ``feature_extractor``."""
        from transformers import CLIPImageProcessor

        with reading(pipeline, "feature_extractor") as folder:
            return CLIPImageProcessor.from_pretrained(folder, local_files_only=True)

    def to(self, device: torch.device | str) -> None:
        """Move the weights there."""
        nn.Module.to(self.model, device)

    @property
    def digest(self) -> str:
        """sha256 over configuration, weights and what pictures are normalised by."""
        normal = {"mean": self._mean.flatten().tolist(), "std": self._std.flatten().tolist()}
        return digest_of({**self.model.config.to_dict(), **normal}, self.model)

    @torch.no_grad()
    def encode(self, frame: Tensor) -> Tensor:
        """Embedding (B, 1, D) of frames (B, 3, H, W) in [-1, 1], without noise."""
        from diffusers.pipelines.stable_video_diffusion.pipeline_stable_video_diffusion import (
            _resize_with_antialiasing,
        )

        found = next(self.model.parameters())
        small = (_resize_with_antialiasing(frame.float().contiguous(), (self.size_px, self.size_px)) + 1.0) / 2.0
        pixels = (small - sent(self._mean, small.device)) / sent(self._std, small.device)
        return self.model(pixels.to(found)).image_embeds[:, None]


class TextEncoder:
    """CLIP's text model, as Stable Diffusion 2.1 uses it: the last hidden states of 77 tokens."""

    def __init__(self, model: nn.Module, tokenizer: Any) -> None:
        self.model: Any = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer

    @classmethod
    def load(cls, pipeline: Path) -> TextEncoder:
        """From the folders ``text_encoder`` and ``tokenizer`` of a Stable Diffusion folder."""
        from transformers import CLIPTextModel, CLIPTokenizer

        model = load_part(CLIPTextModel, pipeline, "text_encoder")
        with reading(pipeline, "tokenizer") as folder:
            return cls(model, CLIPTokenizer.from_pretrained(folder, local_files_only=True))

    def to(self, device: torch.device | str) -> None:
        """Move the weights there."""
        nn.Module.to(self.model, device)

    @property
    def digest(self) -> str:
        """sha256 over configuration, weights and tokeniser."""
        tokenizer = json.loads(self.tokenizer.backend_tokenizer.to_str())
        for state in ("truncation", "padding"):  # of the last call
            tokenizer.pop(state)
        own = {"tokenizer": tokenizer, "tokens": self.tokenizer.model_max_length}
        return digest_of({**self.model.config.to_dict(), **own}, self.model)

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> Tensor:
        """Hidden states (B, 77, D); what does not fit into 77 tokens is cut off."""
        found = next(self.model.parameters())
        tokens = self.tokenizer(
            list(texts),
            padding="max_length",
            max_length=self.tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        return self.model(sent(tokens.input_ids, found.device)).last_hidden_state
