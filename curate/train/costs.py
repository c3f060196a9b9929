"""What a training step takes, counted without taking it: the network runs on the meta device, which has shapes alone.

Counted are FLOPs (two for a multiply-add; matrix products, convolutions and attention, as is usual) and the bytes of
every tensor that is alive, through forward and backward pass. Two things are put in place of what a GPU does by itself:
attention that keeps no score matrix, and autocast.
"""

from __future__ import annotations

import json
import weakref
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, NamedTuple

import torch
from diffusers.models.autoencoders.autoencoder_kl_temporal_decoder import AutoencoderKLTemporalDecoder
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map_only
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from curate.train.conditioning import Conditions
from curate.train.network import SpatioTemporalUNet, Trainable, UNetNetwork, set_trainable
from curate.train.recipe import Precision
from curate.train.recompute import recompute_units

__all__ = [
    "ClipShape",
    "Encoding",
    "Held",
    "clip_weight_bytes",
    "decoding_bytes",
    "encoding",
    "forward_flops",
    "held",
    "meta_unet",
    "sampling",
    "weight_bytes",
]

ENCODER_CHUNK = 16
"""Frames that `Codec.encode` takes at once."""

_HALF = frozenset(
    {
        functional.linear,
        functional.conv1d,
        functional.conv2d,
        functional.conv3d,
        torch.matmul,
        torch.bmm,
        torch.baddbmm,
        functional.scaled_dot_product_attention,
    }
)
_SINGLE = frozenset({functional.group_norm, functional.layer_norm, functional.softmax})
"""What CUDA's autocast does in bfloat16 and in float32, of the functions that these networks call."""


class ClipShape(NamedTuple):
    """Of one clip's latents, and of the text or image that it comes with. ``pictures``: its frames are unrelated."""

    frames: int
    height: int
    width: int
    context_tokens: int = 1
    pictures: bool = False


def meta_unet(config: Mapping[str, Any]) -> SpatioTemporalUNet:
    """The network without its numbers; ``config`` as diffusers keeps it."""
    with torch.device("meta"):
        unet: Any = SpatioTemporalUNet(**{key: value for key, value in config.items() if not key.startswith("_")})
    return unet.to("meta")  # diffusers makes the mixing factors on the CPU, wherever it is told to


def weight_bytes(module: nn.Module) -> int:
    """Bytes of all parameters."""
    return sum(parameter.numel() * parameter.element_size() for parameter in module.parameters())


def clip_weight_bytes(config: Mapping[str, Any]) -> int:
    """Of CLIP's image model with its projection, or of its text model, in float32; ``config`` is transformers'."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPVisionConfig, CLIPVisionModelWithProjection

    with torch.device("meta"):
        if "patch_size" in config:
            return weight_bytes(CLIPVisionModelWithProjection(CLIPVisionConfig.from_dict(dict(config))).float())
        return weight_bytes(CLIPTextModel(CLIPTextConfig.from_dict(dict(config))).float())


def forward_flops(
    unet_config: Mapping[str, Any],
    frames: int,
    height: int,
    width: int,
    context_tokens: int = 1,
    pictures: bool = False,
    *,
    batch: int = 1,
) -> int:
    """FLOPs of one pass over ``batch`` clips; ``height`` and ``width`` are those of latents.

    ``context_tokens``: 1 for an image's embedding, 77 for a text. ``pictures``: nothing over time is computed. With 14
    frames of 40 x 72, the paper's network needs 12.1 TFLOP (SVD_SPEC 2.6), and 12.2 with a text.
    """
    return _counted(_key(unet_config), ClipShape(frames, height, width, context_tokens, pictures), batch)


def _key(unet_config: Mapping[str, Any]) -> str:
    """What is counted once for networks of this configuration is kept by it."""
    return json.dumps({key: value for key, value in unet_config.items() if not key.startswith("_")}, sort_keys=True)


@lru_cache(maxsize=256)
def _counted(config: str, clip: ClipShape, batch: int) -> int:
    with torch.no_grad(), _LikeGpus(), FlopCounterMode(display=False) as counter:
        _pass(meta_unet(json.loads(config)), clip, batch)
    return counter.get_total_flops()


def _pass(unet: SpatioTemporalUNet, clip: ClipShape, batch: int) -> Tensor:
    config: Any = unet.config
    channels, beside = config.out_channels, config.in_channels - config.out_channels
    with torch.device("meta"):
        cond = Conditions(
            torch.zeros(batch, clip.context_tokens, config.cross_attention_dim),
            torch.zeros(batch, 3),
            torch.zeros(batch, clip.frames, beside, clip.height, clip.width) if beside else None,
            torch.zeros(batch, dtype=torch.bool),
            clip.pictures,
        )
        x = torch.zeros(batch, clip.frames, channels, clip.height, clip.width)
        times = torch.zeros(batch)
    return UNetNetwork(unet)(x, times, cond)


class _LikeGpus(TorchFunctionMode):
    """Attention by the kernel of GPUs (the meta device has only the one that holds all scores), and their autocast.

    ``copied`` is told of every bfloat16 copy of a parameter; None where nothing is cast.
    """

    def __init__(self, copied: Callable[[Tensor], None] | None = None) -> None:
        super().__init__()
        self._copied = copied
        self._kept: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        kind = torch.bfloat16 if func in _HALF else torch.float32 if func in _SINGLE else None
        if kind is not None and self._copied is not None:
            args, kwargs = tree_map_only(Tensor, lambda tensor: self._cast(tensor, kind), (args, kwargs))
        if func is functional.scaled_dot_product_attention and kwargs.get("attn_mask") is None:
            return torch.ops.aten._scaled_dot_product_flash_attention(*args[:3])[0]
        return func(*args, **kwargs)

    def _cast(self, tensor: Tensor, kind: torch.dtype) -> Tensor:
        if not tensor.is_floating_point() or tensor.dtype is kind:
            return tensor
        found = tensor.to(kind)
        if isinstance(tensor, nn.Parameter) and self._copied is not None:
            self._copied(found)
            if tensor.requires_grad:  # autocast keeps these until it is left
                self._kept.append(found)
        return found

    def __exit__(self, *error: object) -> None:
        self._kept.clear()
        super().__exit__(*error)


class _Alive(TorchDispatchMode):
    """Adds up the storages of all tensors that operations made and that are still alive, and the operations' FLOPs.

    (`FlopCounterMode` itself cannot be used here: it keeps tensors longer than they live.)
    """

    def __init__(self, known: list[Tensor]) -> None:
        super().__init__()
        self._sizes = {tensor.untyped_storage()._cdata: 0 for tensor in known}
        self._copies: dict[int, int] = {}
        self.flops = 0
        self.now = self.copies_now = self.peak = self.peak_with_copies = self.copies_at_peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if (formula := flop_registry.get(func.overloadpacket)) is not None:
            self.flops += formula(*args, **kwargs, out_val=result)
        for tensor in tree_iter(result):
            if isinstance(tensor, Tensor):
                self._see(tensor.untyped_storage())
        return result

    def _see(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._sizes:
            return
        self._sizes[key] = storage.nbytes()
        weakref.finalize(storage, self._gone, key)
        self.now += storage.nbytes()
        self._note()

    def _gone(self, key: int) -> None:
        self.now -= self._sizes.pop(key)
        self.copies_now -= self._copies.pop(key, 0)

    def is_copy(self, tensor: Tensor) -> None:
        """Count this one beside the others: a parameter in another precision."""
        key = tensor.untyped_storage()._cdata
        size = self._sizes[key]
        self._sizes[key], self._copies[key] = 0, size
        self.now -= size
        self.copies_now += size
        self._note()

    def _note(self) -> None:
        self.peak = max(self.peak, self.now)
        if self.now + self.copies_now > self.peak_with_copies:
            self.peak_with_copies, self.copies_at_peak = self.now + self.copies_now, self.copies_now


@dataclass(frozen=True)
class Held:
    """Bytes beside parameters, gradients and optimiser.

    ``forward_bytes``: what the backward pass needs, after the forward pass. ``peak_bytes``: the most at any time of
    both. ``copies_bytes``: bfloat16 copies of parameters that are there besides when, with them, most is held;
    ``peak_with_copies_bytes`` is that most. ``flops``: of both passes, with what checkpointing computes again.
    """

    forward_bytes: int
    peak_bytes: int
    peak_with_copies_bytes: int
    copies_bytes: int
    flops: int


def held(
    unet_config: Mapping[str, Any],
    clip: ClipShape,
    batch: int,
    precision: Precision,
    *,
    trainable: Trainable = "all",
    checkpointing: bool = False,
) -> Held:
    """What a forward and backward pass of ``batch`` clips holds. Takes seconds the first time, and nothing after.

    ``checkpointing`` changes the network as `recompute_units` does.
    """
    return _held(_key(unet_config), clip, batch, precision, trainable, checkpointing)


@lru_cache(maxsize=256)
def _held(
    config: str, clip: ClipShape, batch: int, precision: Precision, trainable: Trainable, checkpointing: bool
) -> Held:
    unet = meta_unet(json.loads(config))
    set_trainable(unet, trainable)
    learning = [parameter for parameter in unet.parameters() if parameter.requires_grad]
    for parameter in learning:
        parameter.grad = torch.empty_like(parameter)
    gradients = [parameter.grad for parameter in learning if parameter.grad is not None]
    alive = _Alive([*unet.parameters(), *gradients])
    like_gpus = _LikeGpus(alive.is_copy if precision == "bfloat16" else None)
    if checkpointing:
        # The backward pass leaves modes of this kind, so what it computes again must enter this one.
        recompute_units(unet, partial(checkpoint, use_reentrant=False, context_fn=lambda: (nullcontext(), like_gpus)))
    with alive:
        with like_gpus:
            loss = _pass(unet.train(), clip, batch).float().square().mean()
        forward_bytes = alive.now
        loss.backward()
    return Held(forward_bytes, alive.peak, alive.peak_with_copies, alive.copies_at_peak, flops=alive.flops)


def sampling(
    unet_config: Mapping[str, Any], clip: ClipShape, precision: Precision, *, trainable: Trainable = "all"
) -> Held:
    """What drawing a clip holds beside parameters: a forward pass of two, with conditions and without."""
    return _sampling(_key(unet_config), clip, precision, trainable)


@lru_cache(maxsize=256)
def _sampling(config: str, clip: ClipShape, precision: Precision, trainable: Trainable) -> Held:
    unet = meta_unet(json.loads(config))
    set_trainable(unet, trainable)  # autocast keeps copies of what learns
    alive = _Alive(list(unet.parameters()))
    with torch.no_grad(), alive, _LikeGpus(alive.is_copy if precision == "bfloat16" else None):
        _pass(unet.eval(), clip, 2)
    return Held(0, alive.peak, alive.peak_with_copies, alive.copies_at_peak, flops=alive.flops)


@dataclass(frozen=True)
class Encoding:
    """What the codec takes: FLOPs of a frame, bytes of weights (encoder and decoder), most bytes while it encodes."""

    flops: int
    weight_bytes: int
    peak_bytes: int


def encoding(factor: int, height_px: int, width_px: int, frames: int = ENCODER_CHUNK) -> Encoding:
    """Of a codec with this reduction, which encodes ``frames`` at once, or `ENCODER_CHUNK` where they are more."""
    return _encoding(factor, height_px, width_px, min(frames, ENCODER_CHUNK))


@lru_cache(maxsize=256)
def _encoding(factor: int, height_px: int, width_px: int, frames: int) -> Encoding:
    vae = _meta_codec(factor)
    pixels = torch.zeros(max(1, frames), 3, height_px, width_px, device="meta")
    alive = _Alive(list(vae.parameters()))
    with torch.no_grad(), _LikeGpus(), FlopCounterMode(display=False) as counter, alive:
        vae.encode(pixels)
    return Encoding(counter.get_total_flops() // len(pixels), weight_bytes(vae), alive.peak if frames else 0)


@lru_cache(maxsize=256)
def decoding_bytes(factor: int, height_px: int, width_px: int, frames: int) -> int:
    """Most bytes while such a codec decodes ``frames`` at once."""
    vae = _meta_codec(factor)
    latents = torch.zeros(frames, vae.config.latent_channels, height_px // factor, width_px // factor, device="meta")
    alive = _Alive(list(vae.parameters()))
    with torch.no_grad(), _LikeGpus(), alive:
        vae.decode(latents, num_frames=frames)
    return alive.peak


def _meta_codec(factor: int) -> Any:
    """Codecs of factor 8 are of Stable Diffusion's size, that of factor 1 is the exact one; those between have the
    first levels of the former."""
    levels = factor.bit_length()
    config: dict[str, Any] = {
        "block_out_channels": (128, 256, *[512] * levels)[:levels],
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "layers_per_block": 2 if factor > 1 else 1,
    }
    with torch.device("meta"):
        vae: Any = AutoencoderKLTemporalDecoder(**config)
    return vae.to("meta")
