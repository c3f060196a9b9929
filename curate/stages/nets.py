"""Where a network runs and in which numbers: the same few settings for every stage that has one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from curate.config import Config
from curate.stage import Resources
from curate.weights.cards import load_card

if TYPE_CHECKING:
    import torch


class NetConfig(Config):
    """How a stage runs its network.

    ``device``: ``auto`` takes a GPU where the worker has one. ``dtype``: ``auto`` is bfloat16 on a GPU and float32 on
    a CPU. ``gpus``: share of a GPU that one worker takes where there are GPUs, so that several models fit on one.
    ``batch_size``: clips in one batch, whatever the device; smaller batches are padded to nothing, so a clip's
    result does not depend on it beyond rounding.
    """

    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    gpus: Annotated[float, Field(gt=0, le=8)] = 0.25
    batch_size: Annotated[int, Field(ge=1, le=4096)] = 32


def net_resources(config: NetConfig, cards: Sequence[str], *, cpus: float = 1.0) -> Resources:
    """What a worker of such a stage needs: a pool of its own on GPUs, a place beside the decoder without."""
    memory_bytes = sum(load_card(name).memory_bytes for name in cards)
    found = Resources(cpus=cpus, memory_bytes=memory_bytes, batch_size=config.batch_size)
    return found if config.device == "cpu" else replace(found, gpus=config.gpus, gpu_optional=config.device == "auto")


def place(config: NetConfig) -> tuple[torch.device, torch.dtype]:
    """Device and number format of a worker, as its configuration and its machine have it."""
    import torch

    gpu = config.device == "cuda" or (config.device == "auto" and torch.cuda.is_available())
    device = torch.device("cuda" if gpu else "cpu")
    if config.dtype == "auto":
        return device, torch.bfloat16 if gpu else torch.float32
    return device, getattr(torch, config.dtype)
