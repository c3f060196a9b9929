"""Folders that plain diffusers opens as `StableVideoDiffusionPipeline`, and sampling from one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_temporal_decoder import AutoencoderKLTemporalDecoder
from diffusers.pipelines.stable_video_diffusion.pipeline_stable_video_diffusion import StableVideoDiffusionPipeline
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from torch import Tensor, nn

from curate.errors import ModelFileError
from curate.train.codecs import Codec, identity_vae
from curate.train.conditioning import Conditions, ImageEncoder, TextEncoder, first_frame_latent, image_to_video
from curate.train.folders import atomic_folder, load_part
from curate.train.network import Network, SpatioTemporalUNet, UNetNetwork, build_unet, drawn_from
from curate.train.sampler import OnStep, Sampling, sample

__all__ = [
    "Pipeline",
    "image_conditions",
    "sample_clip",
    "scheduler",
    "tiny_image_parts",
    "tiny_pipeline",
    "tiny_text_encoder",
]


@dataclass(frozen=True)
class Pipeline:
    """The parts of an image-to-video checkpoint. ``feature_extractor`` is CLIP's image processor."""

    unet: SpatioTemporalUNet
    codec: Codec
    image_encoder: ImageEncoder
    feature_extractor: Any

    @classmethod
    def load(cls, folder: Path) -> Pipeline:
        """Read such a folder; only local files, and only safetensors. ModelFileError when a part is missing."""
        for part in ("unet", "vae", "image_encoder", "feature_extractor"):
            if not (folder / part).is_dir():
                raise ModelFileError(
                    f"has no folder {part!r}, so it is no image-to-video pipeline", subject=str(folder)
                )
        return cls(
            unet=load_part(SpatioTemporalUNet, folder, "unet"),
            codec=Codec.load(folder / "vae"),
            image_encoder=ImageEncoder.load(folder),
            feature_extractor=ImageEncoder.processor(folder),
        )

    def save(self, folder: Path, unet_state: Mapping[str, Tensor] | None = None) -> None:
        """Write the folder, whole or not at all, in place of one of the same kind. ModelFileError for an image
        autoencoder, which that pipeline does not take, and where something else lies there.

        ``unet_state`` takes the place of the network's own parameters, as in `SpatioTemporalUNet.plain`.
        """
        if not isinstance(self.codec.vae, AutoencoderKLTemporalDecoder):
            raise ModelFileError("needs an autoencoder with a temporal decoder", subject=str(folder))
        if folder.exists() and not (folder / "model_index.json").exists() and any(folder.iterdir()):
            raise ModelFileError("holds something else than a pipeline; it is not replaced", subject=str(folder))
        whole = StableVideoDiffusionPipeline(
            vae=self.codec.vae,
            image_encoder=self.image_encoder.model,
            unet=self.unet.plain(unet_state),
            scheduler=scheduler(),
            feature_extractor=self.feature_extractor,
        )
        with atomic_folder(folder) as unfinished:
            whole.save_pretrained(unfinished, safe_serialization=True)

    def to(self, device: torch.device | str) -> Pipeline:
        """Move all weights there."""
        for module in (self.unet, self.codec.vae, self.image_encoder.model):
            nn.Module.to(module, device)
        return self


def scheduler() -> EulerDiscreteScheduler:
    """The scheduler of the released model."""
    return EulerDiscreteScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        interpolation_type="linear",
        use_karras_sigmas=True,
        sigma_min=0.002,
        sigma_max=700.0,
        timestep_spacing="leading",
        timestep_type="continuous",
        steps_offset=1,
    )


def image_conditions(
    codec: Codec, image_encoder: ImageEncoder, frame: Tensor, num_frames: int, settings: Sampling, noise: Tensor
) -> Conditions:
    """Conditions of a clip that begins with ``frame`` (B, 3, H, W) in [-1, 1]; ``noise`` is unit noise of its shape."""
    ones = torch.ones(len(frame), device=frame.device)
    augmentation = ones * settings.augmentation
    context = image_encoder.encode(frame)
    latent = first_frame_latent(codec, frame, augmentation, noise)
    return image_to_video(context, latent, num_frames, ones * settings.fps, ones * settings.motion, augmentation)


@torch.no_grad()
def sample_clip(
    pipeline: Pipeline,
    frame: Tensor,
    num_frames: int,
    settings: Sampling,
    generator: torch.Generator,
    on_step: OnStep | None = None,
    *,
    network: Network | None = None,
) -> Tensor:
    """Frames (B, T, 3, H, W), float32 in [-1, 1], of clips that begin with ``frame`` (B, 3, H, W) in [-1, 1].

    The noise is drawn in the order of diffusers' pipeline (first the frame's, then the latents'), so that the same
    seed gives the same clip there.
    """
    device = next(pipeline.unet.parameters()).device
    noise = torch.randn(frame.shape, generator=generator, device=generator.device).to(device)
    cond = image_conditions(pipeline.codec, pipeline.image_encoder, frame.to(device), num_frames, settings, noise).to(
        device
    )
    height, width = (side // pipeline.codec.factor for side in frame.shape[-2:])
    shape = (len(frame), num_frames, pipeline.codec.channels, height, width)
    normal = torch.randn(shape, generator=generator, device=generator.device).to(device)
    latents = sample(network or UNetNetwork(pipeline.unet), cond, normal, settings, on_step)
    return pipeline.codec.decode(pipeline.codec.unscaled(latents), settings.decode_chunk).float().clamp(-1, 1)


def tiny_image_parts(width: int = 32, seed: int = 0) -> tuple[ImageEncoder, Any]:
    """A random CLIP image model with embeddings of ``width`` numbers, and its processor: for small runs and tests."""
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

    config = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        projection_dim=width,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=ImageEncoder.size_px,
        patch_size=32,
    )
    with drawn_from(seed):
        model = CLIPVisionModelWithProjection(config)
    processor: Any = CLIPImageProcessor()
    return ImageEncoder(model, processor.image_mean, processor.image_std), processor


def tiny_text_encoder(width: int = 32, seed: int = 0) -> TextEncoder:
    """A random CLIP text model with hidden states of ``width`` numbers, which reads bytes: for small runs and tests."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = list(bytes_to_unicode().values())
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[], model_max_length=77)
    config = CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=77,
        bos_token_id=len(words) - 2,
        eos_token_id=len(words) - 1,
    )
    with drawn_from(seed):
        model = CLIPTextModel(config)
    return TextEncoder(model, tokenizer)


def tiny_pipeline(seed: int = 0) -> Pipeline:
    """A whole random pipeline in the size ``tiny``, with the exact codec."""
    with drawn_from(seed):
        unet = build_unet("tiny")
    image_encoder, processor = tiny_image_parts(unet.config["cross_attention_dim"], seed)
    return Pipeline(unet.eval(), Codec(identity_vae()), image_encoder, processor)
