"""The autoencoder between frames and latents. One object owns the scaling, because two that disagree darken colours.

Three words: *frames* are float (..., 3, H, W) in [-1, 1]; *latents* are what the encoder gives, unscaled; *scaled*
latents, latents times ``scaling_factor`` (0.18215), are what is diffused. Only conditioning uses unscaled ones.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_kl_temporal_decoder import AutoencoderKLTemporalDecoder
from torch import Tensor, nn

from curate.errors import ConfigError, ModelFileError
from curate.train.digest import digest_of
from curate.train.folders import load_part

__all__ = ["Codec", "identity_vae"]

SCALING_FACTOR = 0.18215
"""Of Stable Diffusion's autoencoder, hence of the paper's."""


class Codec:
    """A diffusers autoencoder, frozen, in float32, with image decoder (AutoencoderKL) or temporal decoder."""

    def __init__(self, vae: AutoencoderKL | AutoencoderKLTemporalDecoder) -> None:
        self.vae: Any = vae.float().eval().requires_grad_(False)
        self.vae.register_to_config(_name_or_path="")  # a folder of its own when it is saved names no other one
        self.scaling_factor = float(vae.config["scaling_factor"])

    @classmethod
    def load(cls, folder: Path) -> Codec:
        """From a ``vae`` folder of diffusers; ModelFileError when it holds another class."""
        kinds = {kind.__name__: kind for kind in (AutoencoderKL, AutoencoderKLTemporalDecoder)}
        try:
            name = json.loads((folder / "config.json").read_text(encoding="utf-8"))["_class_name"]
        except (OSError, ValueError, KeyError) as error:
            raise ModelFileError("is no autoencoder of diffusers", subject=str(folder)) from error
        if name not in kinds:
            raise ModelFileError(f"holds {name}; known: {', '.join(kinds)}", subject=str(folder))
        return cls(load_part(kinds[name], folder.parent, folder.name))

    @property
    def factor(self) -> int:
        """Pixels along one side of a latent."""
        return 2 ** (len(self.vae.config["block_out_channels"]) - 1)

    @property
    def channels(self) -> int:
        """Channels of a latent."""
        return self.vae.config["latent_channels"]

    @property
    def digest(self) -> str:
        """sha256 over configuration and weights: latents with the same digest may be mixed."""
        return digest_of(self.vae.config, self.vae)

    def to(self, device: torch.device | str) -> Codec:
        """Move the weights there."""
        nn.Module.to(self.vae, device)
        return self

    def _in_float32(self) -> torch.autocast:
        return torch.autocast(self._like.device.type, enabled=False)

    @torch.no_grad()
    def encode(self, frames: Tensor, chunk: int = 16) -> Tensor:
        """Latents (..., C, h, w) of frames (..., 3, H, W): the mode of their distribution, unscaled.

        ``chunk`` frames are encoded at once; frames do not see each other, so it changes memory alone.
        """
        if any(side % self.factor for side in frames.shape[-2:]):
            raise ConfigError(
                f"sides must be multiples of {self.factor}, not {tuple(frames.shape[-2:])}", subject="codec"
            )
        # Another memory layout would round otherwise; in this one pictures reach the encoder in diffusers' pipeline.
        flat = frames.reshape(-1, *frames.shape[-3:]).to(self._like, memory_format=torch.channels_last)
        with self._in_float32():
            latents = torch.cat([self.vae.encode(part).latent_dist.mode() for part in flat.split(chunk)])
        return latents.reshape(*frames.shape[:-3], *latents.shape[-3:])

    def scaled(self, latents: Tensor) -> Tensor:
        """Latents as they are diffused."""
        return self.scaling_factor * latents

    def unscaled(self, scaled: Tensor) -> Tensor:
        """Back from `scaled`."""
        return 1 / self.scaling_factor * scaled

    @torch.no_grad()
    def decode(self, latents: Tensor, chunk: int | None = None) -> Tensor:
        """Frames (B, T, 3, H, W) of unscaled latents (B, T, C, h, w), about within [-1, 1].

        ``chunk`` frames of a clip are decoded at once, None for all; a temporal decoder sees no further than its
        chunk, so small ones flicker. Chunks never reach into the next clip of a batch.
        """
        with self._in_float32():
            clips = [torch.cat([self._decode(part) for part in clip.split(chunk or len(clip))]) for clip in latents]
        return torch.stack(clips)

    def _decode(self, latents: Tensor) -> Tensor:
        temporal = isinstance(self.vae, AutoencoderKLTemporalDecoder)
        over_time: Any = {"num_frames": len(latents)} if temporal else {}
        found: Any = self.vae.decode(latents.to(self._like), **over_time)
        return found.sample

    @property
    def _like(self) -> Tensor:
        return next(self.vae.parameters())


# The weight-free codec. One block, hence no down-sampling, and 128 channels: four in each of the 32 groups that the
# normalisations of diffusers' decoder always have. Residual blocks and attention add nothing. What is left is
# conv -> group norm -> SiLU -> conv, made linear:
# - A signal s takes a group (s, -s, K, -K). Its mean is 0 whatever s is, its variance (K^2 + mean(s^2)) / 2: the norm
#   divides by a number that depends on s only in the order (s / K)^2. (Without -K the mean would be large, and
#   float32 loses s beside it.)
# - The norm's bias lifts the signal to B + g s, where SiLU is the identity but for B exp(-B); the conv takes B off.
_WIDTH, _GROUP = 128, 4
_CARRIER = 256.0
_LIFT, _GAIN = 28.0, 8.0
_MEAN_SQUARE = 0.25
"""Of the signal for which the norm is exact."""
_LATENT_GAIN = 11.0
"""About 2 / 0.18215: natural frames in [-1, 1] have a deviation of about a half, scaled latents one of about 1 then."""


def identity_vae(channels: int = 4) -> AutoencoderKLTemporalDecoder:
    """An autoencoder without training: ``decode(encode(x))`` is x to 1e-4 for any frames in [-1, 1].

    It is diffusers' class, so that what trains on it opens in plain diffusers. ``channels`` 3: red, green and blue;
    4: their mean besides (decoding takes the least squares). Latents have the frames' size and the spread of Stable
    Diffusion's; with the usual scaling factor natural frames get about unit variance. It is linear for values down to
    -2, as noise upon a first frame makes them; what is lower comes back as about -2 to -3.5, which clips to black. In
    float32: a GPU that convolves in TF32 is off by up to 3e-3, which is less than half a step of 8 bits.
    """
    if channels not in {3, 4}:
        raise ConfigError(f"the exact codec has 3 or 4 latent channels, not {channels}", subject="codec")
    vae = AutoencoderKLTemporalDecoder(
        block_out_channels=(_WIDTH,), latent_channels=channels, scaling_factor=SCALING_FACTOR
    )
    with torch.no_grad():
        for parameter in vae.parameters():
            parameter.zero_()
        _fill(vae, channels)
    return vae.eval()


def _fill(vae: Any, channels: int) -> None:
    colours = torch.eye(3)
    mixed = colours if channels == 3 else torch.cat([colours, torch.full((1, 3), 1 / 3)])
    to_latent = mixed * _LATENT_GAIN
    _linear_ends(vae.encoder, colours, to_latent)
    vae.encoder.conv_out.bias[channels:] = -30.0  # the distribution's log variance
    vae.quant_conv.weight[:, :, 0, 0] = torch.eye(2 * channels)
    _linear_ends(vae.decoder, torch.linalg.pinv(to_latent.double()).float(), colours)
    # 0 is a blend of one half, which gives back exactly what two equal branches hold.
    vae.decoder.time_conv_out.weight[:, :, 1, 0, 0] = colours


def _linear_ends(half: Any, into: Tensor, out: Tensor) -> None:
    """Let an encoder or decoder be ``out @ into`` for each pixel; ``into`` is (3, channels in), ``out`` (n, 3)."""
    signals = torch.arange(3) * _GROUP
    half.conv_in.weight[signals, :, 1, 1] = into
    half.conv_in.weight[signals + 1, :, 1, 1] = -into
    half.conv_in.bias[signals + 2] = _CARRIER
    half.conv_in.bias[signals + 3] = -_CARRIER
    _linear_norm(half.conv_norm_out, signals)
    half.conv_out.weight[: len(out), signals, 1, 1] = out / _GAIN
    half.conv_out.bias[: len(out)] = -_LIFT / _GAIN * out.sum(1)


def _linear_norm(norm: nn.GroupNorm, signals: Tensor) -> None:
    """B + g s at the signals' channels, 0 elsewhere."""
    std = ((_CARRIER**2 + _MEAN_SQUARE) / 2 + norm.eps) ** 0.5
    norm.weight[signals] = _GAIN * std
    norm.bias[signals] = _LIFT
