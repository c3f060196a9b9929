"""The network: diffusers' spatio-temporal UNet with a path for single pictures, and its parameters by part."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import torch
from diffusers.models.unets.unet_spatio_temporal_condition import (
    UNetSpatioTemporalConditionModel,
    UNetSpatioTemporalConditionOutput,
)
from torch import Tensor, nn

from curate.config import nearest
from curate.datafiles import find_data_dir, parse_yaml, read_text
from curate.errors import ConfigError
from curate.train.conditioning import Conditions
from curate.train.layers import lighten

__all__ = [
    "Network",
    "Parameters",
    "Part",
    "SpatioTemporalUNet",
    "Trainable",
    "UNetNetwork",
    "build_unet",
    "drawn_from",
    "part_of",
    "preset_config",
    "set_trainable",
    "trainable_by_part",
]

Part = Literal["spatial", "temporal", "vector"]
"""Where a parameter belongs: the image model, the layers over time, the MLP of frame rate, motion and noise."""

Trainable = Literal["all", "spatial", "temporal", "time_embedding"]
"""Which parameters learn. "spatial" is for single pictures, which give nothing to the others (but weight decay would
shrink them). "temporal" leaves the image model as it was; the MLP of the vector learns too. "time_embedding" is stage
I-a, which teaches an image model the continuous noise levels (App. D.1)."""

_TEMPORAL = ("temporal_res_block", "temporal_transformer_blocks", "time_pos_embed", "time_mixer")


class Network(Protocol):
    """Anything that predicts from noisy latents: a UNet now, a transformer later."""

    def __call__(self, x: Tensor, time: Tensor, cond: Conditions) -> Tensor:
        """Prediction (B, T, C, h, w) for noisy latents of that shape and times (B,)."""
        ...


class SpatioTemporalUNet(UNetSpatioTemporalConditionModel):
    """diffusers' class with one more argument, ``image_only``; parameters, keys and configuration are the same.

    diffusers tells every block that its clips are videos. Here a clip may be marked as a single picture (or a row of
    unrelated ones): its layers over time are then without effect and without gradient, as in the paper's image stage.
    Where it is known that all are, those layers are not computed (`curate.train.layers`).
    """

    @functools.wraps(UNetSpatioTemporalConditionModel.__init__)  # diffusers reads the configuration's keys from it
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        lighten(self)
        self._image_only: Tensor | Literal[True] | None = None
        for block in (*self.down_blocks, self.mid_block, *self.up_blocks):
            # Before the block, not inside it: what gradient checkpointing repeats then gets it as an argument.
            block.register_forward_pre_hook(self._mark_pictures, with_kwargs=True)

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor | float,
        encoder_hidden_states: Tensor,
        added_time_ids: Tensor,
        return_dict: bool = True,
        image_only: Tensor | Literal[True] | None = None,
    ) -> Any:
        """As diffusers' forward; ``image_only`` is a bool (B,), True for pictures alone, None for videos alone."""
        self._image_only = image_only
        try:
            found = super().forward(sample, timestep, encoder_hidden_states, added_time_ids, return_dict=False)[0]
        finally:
            self._image_only = None
        found = found.clone()  # else a view, which nobody may change in place beneath FSDP2
        return UNetSpatioTemporalConditionOutput(sample=found) if return_dict else (found,)

    def _mark_pictures(self, _block: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        if self._image_only is None:
            return args, kwargs
        zeros, marks = kwargs["image_only_indicator"], None
        if self._image_only is not True:
            marks = self._image_only.to(zeros)[:, None].expand_as(zeros)
        return args, {**kwargs, "image_only_indicator": marks}

    def plain(self, state: Mapping[str, Tensor] | None = None) -> UNetSpatioTemporalConditionModel:
        """The same parameters (not copies) under diffusers' own class, which is what is saved.

        ``state`` takes the place of the network's own parameters: an average, or what was gathered from many devices.
        """
        config = {key: value for key, value in self.config.items() if not key.startswith("_")}
        with torch.device("meta"):
            found = UNetSpatioTemporalConditionModel(**config)
        found.load_state_dict(self.state_dict() if state is None else state, assign=True)
        return found.eval()

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> None:
        """Write a folder that plain diffusers opens as UNetSpatioTemporalConditionModel."""
        self.plain().save_pretrained(save_directory, *args, **kwargs)


@dataclass(frozen=True)
class UNetNetwork:
    """The `Network` that a spatio-temporal UNet is, also when DDP, FSDP or compile have wrapped it."""

    unet: nn.Module

    def __call__(self, x: Tensor, time: Tensor, cond: Conditions) -> Tensor:
        """Prediction for noisy latents; the conditioning latent goes beside them as further channels."""
        if cond.concat is not None:
            x = torch.cat([x, cond.concat.to(x)], dim=2)
        image_only = True if cond.all_pictures else cond.image_only
        return self.unet(x, time, cond.context.to(x), cond.added, return_dict=False, image_only=image_only)[0]


def part_of(name: str) -> Part:
    """The part that a parameter of this name belongs to."""
    if name.startswith("add_embedding."):
        return "vector"
    return "temporal" if any(part in _TEMPORAL for part in name.split(".")) else "spatial"


@dataclass(frozen=True)
class Parameters:
    """How many parameters a network has, by part, and how many of them learn."""

    spatial: int
    temporal: int
    vector: int
    trainable: int

    @classmethod
    def of(cls, network: nn.Module) -> Parameters:
        """Count them; works on the meta device."""
        counts = {"spatial": 0, "temporal": 0, "vector": 0}
        trainable = 0
        for name, parameter in network.named_parameters():
            counts[part_of(name)] += parameter.numel()
            trainable += parameter.numel() * parameter.requires_grad
        return cls(**counts, trainable=trainable)

    @property
    def total(self) -> int:
        """All of them."""
        return self.spatial + self.temporal + self.vector


def _learns(name: str, what: Trainable) -> bool:
    if what == "time_embedding":
        return name.startswith("time_embedding.")
    return what == "all" or (part_of(name) == "spatial") == (what == "spatial")


def set_trainable(network: nn.Module, what: Trainable) -> Parameters:
    """Let these parameters learn and no others; says how many that are."""
    if what not in get_args(Trainable):
        raise ConfigError(f"unknown choice {what!r}, {nearest(what, get_args(Trainable))}", subject="trainable")
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(_learns(name, what))
    return Parameters.of(network)


def trainable_by_part(network: nn.Module) -> dict[Part, list[tuple[str, nn.Parameter]]]:
    """What learns, in parts that may have learning rates of their own; parts in which nothing learns are left out."""
    found: dict[Part, list[tuple[str, nn.Parameter]]] = {}
    for name, parameter in _learning(network):
        found.setdefault(part_of(name), []).append((name, parameter))
    return found


def _learning(network: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    return ((name, parameter) for name, parameter in network.named_parameters() if parameter.requires_grad)


def preset_files() -> dict[str, Path]:
    """Sizes of networks that ship with the package, by name."""
    return {path.stem: path for path in sorted((find_data_dir("models") / "nets").glob("*.yaml"))}


def preset_config(name: str, part: str = "unet") -> dict[str, Any]:
    """Arguments of `SpatioTemporalUNet` for an image-to-video network of this size; ConfigError for an unknown name.

    ``part``: those of CLIP's models beside it, `image_encoder` or `text_encoder`.
    """
    files = preset_files()
    if name not in files:
        raise ConfigError(f"unknown network size {name!r}, {nearest(name, files)}", subject="network")
    found = parse_yaml(read_text(files[name]), str(files[name]))
    if not isinstance(found, dict) or not isinstance(found.get(part), dict):
        raise ConfigError(f"needs a mapping {part!r}", subject=str(files[name]))
    return {key: tuple(value) if isinstance(value, list) else value for key, value in found[part].items()}


@contextmanager
def drawn_from(seed: int) -> Iterator[None]:
    """Within, what PyTorch draws on the CPU begins with ``seed``; afterwards it goes on as if nothing had been."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def build_unet(name: str, *, concat: bool = True, **overrides: Any) -> SpatioTemporalUNet:
    """A randomly initialised network of a preset size, on the current default device.

    ``concat`` is False for the text stages, whose networks see no conditioning latent: half the input channels.
    """
    config = {**preset_config(name), **overrides}
    if not concat:
        config["in_channels"] = config["out_channels"]
    return SpatioTemporalUNet(**config)
