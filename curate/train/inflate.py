"""From an image UNet to the spatio-temporal one, and from text to image conditioning, without changing what it gives.

diffusers initialises the layers over time at random, so a fresh network is not the image model. Zeroing the last
linear or convolution of every branch over time makes the branch equal to its input. The blend of two equal branches
is then exact too where its factor is one half: ``mix_factor`` begins at 0 here, not at the release's 0.5 (a blend of
0.62 rounds in the last bit).

diffusers gives its video blocks other epsilons in the normalisations than the image model has: 1e-6 instead of 1e-5
everywhere but in the lowest level and the middle. They are kept, because the checkpoint must mean the same in plain
diffusers. Against the image model with these epsilons (`video_epsilons`) the result is bit for bit the same in
float32, where the time's embedding is computed once a clip in both (a matrix product with more rows rounds
otherwise); with its own epsilons it differs by some 1e-5, which stage I trains away.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn

from curate.errors import ModelFileError
from curate.train.network import SpatioTemporalUNet, part_of

__all__ = ["inflate", "neutralise", "video_epsilons", "widen"]

_SUPPORTED: dict[str, Any] = {
    "act_fn": "silu",
    "addition_embed_type": None,
    "center_input_sample": False,
    "class_embed_type": None,
    "conv_in_kernel": 3,
    "conv_out_kernel": 3,
    "downsample_padding": 1,
    "dual_cross_attention": False,
    "encoder_hid_dim": None,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "mid_block_scale_factor": 1,
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "norm_num_groups": 32,
    "only_cross_attention": False,
    "resnet_time_scale_shift": "default",
    "reverse_transformer_layers_per_block": None,
    "time_cond_proj_dim": None,
    "time_embedding_act_fn": None,
    "time_embedding_dim": None,
    "time_embedding_type": "positional",
    "timestep_post_act": None,
}
"""What the spatio-temporal class has no option for."""

_BLOCKS = {
    "CrossAttnDownBlock2D": "CrossAttnDownBlockSpatioTemporal",
    "DownBlock2D": "DownBlockSpatioTemporal",
    "UpBlock2D": "UpBlockSpatioTemporal",
    "CrossAttnUpBlock2D": "CrossAttnUpBlockSpatioTemporal",
}


def inflate(image_unet: UNet2DConditionModel, num_frames: int = 14, vector_width: int = 256) -> SpatioTemporalUNet:
    """The video network that gives, for each frame of any clip, what the image network gives for it.

    ``vector_width`` is the width of each of the three sinusoids of frame rate, motion and augmentation, whose MLP
    begins without effect. The result is float32, in training mode. ModelFileError for an image network that the video
    class cannot express.
    """
    config = _video_config(dict(image_unet.config), num_frames, vector_width)
    video = SpatioTemporalUNet(**config)
    wanted = {name: value.shape for name, value in video.state_dict().items() if part_of(name) == "spatial"}
    given = {_video_name(name, wanted): value for name, value in image_unet.state_dict().items()}
    if given.keys() != wanted.keys():
        different = sorted(given.keys() ^ wanted.keys())
        raise ModelFileError(
            f"{len(different)} parameters do not match, {different[0]} the first", subject="image UNet"
        )
    video.load_state_dict({name: value.reshape(wanted[name]) for name, value in given.items()}, strict=False)
    neutralise(video)
    return video


def neutralise(video: nn.Module) -> None:
    """Take away every effect of the layers over time and of the vector, in place; gradients still reach them."""
    with torch.no_grad():
        for last in _last_of_branches(video):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
        for name, parameter in video.named_parameters():
            if name.endswith("time_mixer.mix_factor"):
                parameter.zero_()


def _last_of_branches(video: Any) -> Iterator[Any]:
    yield video.add_embedding.linear_2
    for name, module in video.named_modules():
        kind = name.rsplit(".", 1)[-1]
        if kind == "temporal_res_block":
            yield module.conv2
        elif kind == "time_pos_embed":
            yield module.linear_2
        elif "temporal_transformer_blocks" in name and kind in {"attn1", "attn2"}:
            yield module.to_out[0]
        elif "temporal_transformer_blocks" in name and kind in {"ff_in", "ff"}:
            yield module.net[2]


def _video_config(image: dict[str, Any], num_frames: int, vector_width: int) -> dict[str, Any]:
    for key, wanted in _SUPPORTED.items():
        if key in image and image[key] != wanted:
            raise ModelFileError(f"{key} is {image[key]!r}; a video network has {wanted!r}", subject="image UNet")
    unknown = {*image["down_block_types"], *image["up_block_types"]} - _BLOCKS.keys()
    if unknown:
        raise ModelFileError(f"has no video form for {', '.join(sorted(unknown))}", subject="image UNet")
    same = ("sample_size", "in_channels", "out_channels", "block_out_channels", "layers_per_block")
    return {
        **{key: image[key] for key in (*same, "cross_attention_dim", "transformer_layers_per_block")},
        "down_block_types": tuple(_BLOCKS[name] for name in image["down_block_types"]),
        "up_block_types": tuple(_BLOCKS[name] for name in image["up_block_types"]),
        # In diffusers' image class "attention_head_dim" is the number of heads, by an old mistake.
        "num_attention_heads": image["num_attention_heads"] or image["attention_head_dim"],
        "addition_time_embed_dim": vector_width,
        "projection_class_embeddings_input_dim": 3 * vector_width,
        "num_frames": num_frames,
    }


def _video_name(name: str, wanted: dict[str, Any]) -> str:
    if name in wanted:
        return name
    parts = name.split(".")
    at = parts.index("resnets") + 2 if "resnets" in parts else len(parts)
    return ".".join([*parts[:at], "spatial_res_block", *parts[at:]])


def video_epsilons(image_unet: UNet2DConditionModel) -> UNet2DConditionModel:
    """Give an image network, in place, the epsilons that diffusers' video class has at the same places."""
    video = SpatioTemporalUNet(**_video_config(dict(image_unet.config), 1, 256))
    epsilons = {name: module.eps for name, module in video.named_modules() if isinstance(module, nn.GroupNorm)}
    for name, module in image_unet.named_modules():
        if isinstance(module, nn.GroupNorm):
            module.eps = epsilons[_video_name(name, epsilons)]
    return image_unet


def widen(text_unet: SpatioTemporalUNet, in_channels: int = 8) -> SpatioTemporalUNet:
    """The image-to-video network of a text-to-video one: further input channels, whose weights begin at zero.

    The new network is float32, in training mode, and shares no memory with the old one.
    """
    config = {key: value for key, value in text_unet.config.items() if not key.startswith("_")}
    video = SpatioTemporalUNet(**{**config, "in_channels": in_channels})
    state = text_unet.state_dict()
    state["conv_in.weight"] = _with_zero_columns(state["conv_in.weight"], in_channels)
    video.load_state_dict(state)
    return video


def _with_zero_columns(weight: Tensor, in_channels: int) -> Tensor:
    if in_channels < weight.shape[1]:
        raise ModelFileError(f"cannot narrow {weight.shape[1]} input channels to {in_channels}", subject="network")
    wide = weight.new_zeros(weight.shape[0], in_channels, *weight.shape[2:])
    wide[:, : weight.shape[1]] = weight
    return wide
