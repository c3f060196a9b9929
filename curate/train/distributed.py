"""One process or many: what a rank is, how a network is spread over devices, what ranks tell each other.

`torchrun` starts the processes and says in the environment which is which; without it there is one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from textwrap import shorten
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from curate.errors import TrainingError, UsageError

_TIMEOUT = timedelta(minutes=30)
"""The first rank writes exports and validation clips while others wait."""

_PEER_GONE = re.compile(r"closed by peer|reset by peer|broken pipe|likely closed|remote process exited", re.IGNORECASE)
"""What backends say when the process at the other end has ended: gloo in a plain RuntimeError."""

_SOURCE = re.compile(r"\[?/?[\w./-]+\.(?:cc|cpp|h):\d+\]?,?\s*")
"""Where in a backend's source an error was raised: nothing to its users."""
_SAID_CHARS = 200

_TOLD = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}
"""What torchrun says in the environment, and what holds without it."""

_CPU = torch.device("cpu")

Sharding = Literal["auto", "ddp", "fsdp"]


@dataclass(frozen=True)
class World:
    """This process among all."""

    rank: int = 0
    size: int = 1
    device: torch.device = _CPU

    @property
    def is_first(self) -> bool:
        """Whether this one prints and writes."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """The sum over ranks, on each of them."""
        if self.size == 1:
            return values
        total = values.clone()
        distributed.all_reduce(total)
        return total

    def mean(self, values: Tensor) -> Tensor:
        """The mean over ranks, on each of them."""
        return self.sum(values) / self.size

    def first(self, value: Any) -> Any:
        """What the first rank has, on each of them."""
        if self.size == 1:
            return value
        values = [value]
        distributed.broadcast_object_list(values, device=self.device)
        return values[0]

    def wait(self) -> None:
        """For all others."""
        if self.size > 1:
            distributed.barrier()


class Process(NamedTuple):
    """One of ``size`` processes, and its device."""

    rank: int
    size: int
    device: torch.device


def this_process(device: str = "auto") -> Process:
    """Which of the processes that `torchrun` started this one is; the only one where it did not. UsageError for a
    device that is not there, and for numbers that are none."""
    try:
        rank, size, local = (int(os.environ.get(name) or usual) for name, usual in _TOLD.items())
    except ValueError as error:
        raise UsageError(f"must be whole numbers: {error}", subject=", ".join(_TOLD)) from error
    if not 0 <= rank < size:
        raise UsageError(f"there is no rank {rank} among {size}", subject="RANK, WORLD_SIZE", fix="Start with torchrun")
    return Process(rank, size, torch_device(device, local))


@contextmanager
def joined(device: str = "auto") -> Iterator[World]:
    """The world that `torchrun` made, or this process alone. UsageError for a device that is not there, TrainingError
    when another process ends before this one does."""
    rank, size, found = this_process(device)
    if size > 1:
        distributed.init_process_group("nccl" if found.type == "cuda" else "gloo", timeout=_TIMEOUT)
    try:
        yield World(rank, size, found)
    except RuntimeError as error:
        if size == 1 or not (isinstance(error, distributed.DistError) or _PEER_GONE.search(str(error))):
            raise
        raise _others_gone(rank, size, error) from error
    finally:
        if size > 1:
            distributed.destroy_process_group()


def _others_gone(rank: int, size: int, error: RuntimeError) -> TrainingError:
    said = shorten(_SOURCE.sub("", str(error)), _SAID_CHARS, placeholder=" ...")
    return TrainingError(
        f"another of the {size} processes ended, or cannot be reached ({said})",
        subject=f"rank {rank}",
        fix="What it said itself is the cause. The same command goes on from the last checkpoint",
    )


def torch_device(name: str, local: int = 0) -> torch.device:
    """``auto`` is a GPU where there is one; ``local`` says which. UsageError for a GPU that is not there."""
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "cpu" or (name == "auto" and not there):
        return torch.device("cpu")
    if local >= there:
        raise UsageError(f"PyTorch sees {there} GPUs here", subject=f"device {name}", fix="Use `auto` or `cpu`")
    torch.cuda.set_device(local)
    return torch.device("cuda", local)


def units(unet: Any) -> Iterator[nn.Module]:
    """The parts that are sharded and compiled one by one: every residual block and attention, over space and time."""
    for block in (*unet.down_blocks, unet.mid_block, *unet.up_blocks):
        yield from block.resnets
        yield from getattr(block, "attentions", None) or ()


def shards(sharding: Sharding, device_type: str) -> bool:
    """Whether several devices of this type divide a network (FSDP2), or copy it (DDP)."""
    return sharding == "fsdp" or (sharding == "auto" and device_type != "cpu")


def spread(unet: nn.Module, world: World, sharding: Sharding, precision: str) -> nn.Module:
    """The network on all devices: copied, or sharded in place (FSDP2). One process leaves it as it is."""
    if world.size == 1:
        return unet
    if not shards(sharding, world.device.type):
        where = [world.device] if world.device.type == "cuda" else None
        return DistributedDataParallel(unet, device_ids=where, gradient_as_bucket_view=True)
    # Inputs stay as they are: a motion bucket or a time has more digits than bfloat16.
    half = torch.bfloat16 if precision == "bfloat16" else None
    policy = MixedPrecisionPolicy(param_dtype=half, reduce_dtype=torch.float32, cast_forward_inputs=False)
    mesh = init_device_mesh(world.device.type, (world.size,))
    for unit in units(unet):
        fully_shard(unit, mesh=mesh, mp_policy=policy)
    fully_shard(unet, mesh=mesh, mp_policy=policy)
    return unet


@contextmanager
def summing(network: nn.Module, *, last: bool) -> Iterator[None]:
    """Around a micro-batch: gradients are shared between ranks after the ``last`` one alone."""
    if isinstance(network, DistributedDataParallel) and not last:
        with network.no_sync():
            yield
        return
    if isinstance(network, FSDPModule):
        network.set_requires_gradient_sync(last)
    yield


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the CPU on a device, without waiting for what the device does."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def forget_gathered(network: nn.Module) -> None:
    """Let go of what FSDP gathered for a forward pass: without a backward pass it would be used again."""
    if isinstance(network, FSDPModule):
        network.reshard()


def plain(network: nn.Module) -> nn.Module:
    """The network without DDP's wrapping."""
    return network.module if isinstance(network, DistributedDataParallel) else network


def local(tensor: Tensor) -> Tensor:
    """This rank's share of a tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor, on every rank; all of them must ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
