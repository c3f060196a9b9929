"""What a training stage will take, said before anything starts: parameters, memory, FLOPs, time.

Memory is what tensors hold. A GPU needs about a gigabyte more for its driver and kernels, and some share of the rest is
lost between tensors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn

from curate.errors import UsageError
from curate.shards.buckets import Bucket
from curate.train.costs import (
    ClipShape,
    Encoding,
    Held,
    decoding_bytes,
    encoding,
    forward_flops,
    held,
    meta_unet,
    sampling,
)
from curate.train.data.catalogue import all_buckets
from curate.train.devices import TERA, DeviceFacts, device_facts, mfu
from curate.train.distributed import units
from curate.train.network import Parameters, SpatioTemporalUNet, set_trainable
from curate.train.recipe import Precision, TrainRecipe
from curate.train.validation import DECODE_CHUNK
from curate.units import format_bytes, format_duration

__all__ = [
    "BucketCost",
    "DeviceFacts",
    "Memory",
    "Plan",
    "Spread",
    "device_facts",
    "fitting",
    "make_plan",
    "mfu",
    "relief",
    "step_flops",
]

TEXT_TOKENS = 77
UTILISATION = 0.3
"""MFU to reckon with: ours."""
MODEL_PASSES = 3
"""A step is worth three forward passes; what checkpointing computes again is not counted (SVD_SPEC 2.6)."""
_SINGLE_BYTES, _HALF_BYTES = 4, 2
_DAY_S = 24 * 3600


@dataclass(frozen=True)
class BucketCost:
    """FLOPs of one clip of a bucket: a forward pass, and what the codec needs to encode it."""

    bucket: Bucket
    forward_flops: int
    encoding_flops: int

    @property
    def model_flops(self) -> int:
        """Of a training step's share, as MFU counts them."""
        return MODEL_PASSES * self.forward_flops


@dataclass(frozen=True)
class Memory:
    """Bytes on one device, at the largest bucket.

    ``gradients``, ``moments`` (of AdamW) and ``average`` are of what learns, in float32. ``copies``: parameters in the
    precision of computing, whole ones where they are sharded. ``activations``: of one micro-batch, forward and
    backward. ``codec`` and ``clip``: their weights. ``encoding``: while the codec works, before the network does.
    ``drawing``: while a validation clip is drawn or decoded, with the last step's gradients still there.
    """

    parameters: int
    gradients: int
    moments: int
    average: int
    copies: int
    activations: int
    codec: int
    clip: int
    encoding: int
    drawing: int

    @property
    def state(self) -> int:
        """What stays from step to step."""
        return self.parameters + self.moments + self.average + self.codec + self.clip

    @property
    def total(self) -> int:
        """The most at any time."""
        return self.state + self.gradients + max(self.copies + self.activations, self.encoding, self.drawing)


@dataclass(frozen=True)
class Spread:
    """How a network lies on ``world`` devices. ``several``: a step takes more than one micro-batch."""

    world: int
    sharded: bool
    several: bool

    @property
    def whole_gradients(self) -> bool:
        """FSDP2 divides gradients among devices after the last micro-batch only; until then each sums whole ones."""
        return not self.sharded or self.several


@dataclass(frozen=True)
class Plan:
    """What a stage will take. ``buckets``: from small to large. ``computed_flops``: of a clip of the largest bucket,
    forward and backward and again."""

    recipe: TrainRecipe
    parameters: Parameters
    buckets: tuple[BucketCost, ...]
    computed_flops: int
    memory: Memory
    spread: Spread
    device: DeviceFacts

    @property
    def largest(self) -> BucketCost:
        """The bucket that takes most."""
        return self.buckets[-1]

    @property
    def flops_per_step(self) -> int:
        """Of a batch of the largest bucket on all devices, as MFU counts them."""
        return self.recipe.data.batch * self.largest.model_flops

    @property
    def micro_batches(self) -> int:
        """Times that a device runs the network in a step."""
        return -(-self.recipe.data.batch // (self.spread.world * self.recipe.run.micro_batch))

    @property
    def step_s(self) -> float | None:
        """Seconds a step, at most: all batches of the largest bucket. None where the device's peak is not known."""
        if self.device.peak_flops is None:
            return None
        seconds = self.flops_per_step / self.device.peak_flops
        if self.device.peak_float32_flops is not None:
            seconds += self.recipe.data.batch * self.largest.encoding_flops / self.device.peak_float32_flops
        return seconds / (self.spread.world * UTILISATION)

    @property
    def total_s(self) -> float | None:
        """Seconds for all steps, without validation and checkpoints."""
        return None if self.step_s is None else self.recipe.steps * self.step_s

    def warnings(self) -> list[str]:
        """What will not do, or not well."""
        micro, found = self.recipe.run.micro_batch, []
        share = self.recipe.data.share(self.spread.world)
        if share > micro and share % micro:
            found.append(f"run.micro_batch {micro} does not divide the {share} clips of a device: the last has fewer")
        if 0 < self.device.memory_bytes < self.memory.total:
            have, need = format_bytes(self.device.memory_bytes), format_bytes(self.memory.total)
            found.append(
                f"needs {need} of {self.device.name}'s {have}: {relief(self.recipe, sharded=self.spread.sharded)}"
            )
        return found

    def rows(self) -> list[tuple[str, str]]:
        """For printing: names and values."""
        return [
            *self._size_rows(),
            *self._memory_rows(),
            *self._work_rows(),
            *(("warning", w) for w in self.warnings()),
        ]

    def _size_rows(self) -> list[tuple[str, str]]:
        of, recipe = self.parameters, self.recipe
        batch = f"{recipe.data.batch} clips on {self.spread.world} x {self.device.name}"
        batch += f", {self.micro_batches} x {_micro_batch(recipe, self.spread.world)} on each"
        parts = (("spatial", of.spatial), ("temporal", of.temporal), ("vector", of.vector))
        return [
            ("parameters", f"{_millions(of.total)}: {', '.join(f'{_millions(n)} {part}' for part, n in parts)}"),
            ("trainable", f"{_millions(of.trainable)} ({recipe.trainable})"),
            ("batch", batch),
        ]

    def _memory_rows(self) -> list[tuple[str, str]]:
        memory = self.memory
        shared = f", 1/{self.spread.world} of all" if self.spread.sharded else ""
        again = "gradient checkpointing" if self.recipe.run.gradient_checkpointing else "no gradient checkpointing"
        lines = [
            ("parameters", memory.parameters, shared),
            ("gradients", memory.gradients, "" if self.spread.whole_gradients else shared),
            ("AdamW", memory.moments, shared),
            ("average", memory.average, shared),
            ("copies to compute with", memory.copies, ""),
            ("activations", memory.activations, f", {self.largest.bucket.name}, {again}"),
            ("codec", memory.codec, ""),
            ("CLIP", memory.clip, ""),
            ("while encoding", memory.encoding, ", before activations"),
            ("while drawing a validation clip", memory.drawing, ", in place of activations"),
        ]
        rows = [(f"memory: {name}", format_bytes(size) + note) for name, size, note in lines if size]
        have = f" of {format_bytes(self.device.memory_bytes)}" if self.device.memory_bytes else ""
        return [*rows, ("memory of a device", f"{format_bytes(memory.total)}{have}")]

    def _work_rows(self) -> list[tuple[str, str]]:
        rows = [(f"forward pass {cost.bucket.name}", _flops(cost.forward_flops) + " a clip") for cost in self.buckets]
        ratio = self.computed_flops / self.largest.forward_flops
        rows.append(("a step", f"{_flops(self.flops_per_step)} (3 x forward; computed: {ratio:.1f} x)"))
        if self.largest.encoding_flops:
            rows.append(("encoding", f"{_flops(self.largest.encoding_flops)} a clip besides, in float32"))
        rows.append(("steps", f"{self.recipe.steps}, {self.recipe.steps * self.recipe.data.batch:,} clips"))
        return [*rows, *self._time_rows()]

    def _time_rows(self) -> list[tuple[str, str]]:
        step_s, total_s = self.step_s, self.total_s
        if step_s is None or total_s is None or self.device.peak_flops is None:
            return [("time", f"not estimated: the peak of {self.device.name} is not known")]
        at = f"at {UTILISATION:.0%} of {self.device.peak_flops / TERA:.0f} TFLOP/s"
        hours = total_s * self.spread.world / 3600
        return [("time", f"about {_duration(total_s)}, {format_duration(step_s)} a step, {hours:,.0f} GPU hours, {at}")]


def make_plan(
    recipe: TrainRecipe,
    unet_config: Mapping[str, Any],
    codec_factor: int,
    *,
    world: int,
    sharded: bool,
    device: DeviceFacts,
    latents: bool = False,
    clip_bytes: int = 0,
) -> Plan:
    """The plan of a stage for a network of this configuration. Takes seconds for each bucket, and no memory.

    ``latents``: they are read, so nothing is encoded but the first frames of an image-to-video stage. ``clip_bytes``:
    of the CLIP model beside. ConfigError where a run would refuse the batch.
    """
    clips = _clips(recipe, codec_factor, latents=latents)
    micro = _micro_batch(recipe, world)
    codecs = [encoding(codec_factor, c.bucket.height_px, c.bucket.width_px, c.n_encoded * micro) for c in clips]
    costs = tuple(
        BucketCost(clip.bucket, forward_flops(unet_config, *clip.shape), clip.n_encoded * codec.flops)
        for clip, codec in zip(clips, codecs, strict=True)
    )
    unet = meta_unet(unet_config)
    parameters = set_trainable(unet, recipe.trainable)
    spread = Spread(world, sharded and world > 1, several=world * micro < recipe.data.batch)
    drawing = _drawing_bytes(recipe, unet, spread, clips[-1], codec_factor)
    again = recipe.run.gradient_checkpointing
    shape, precision, learns = clips[-1].shape, recipe.precision, recipe.trainable
    found = held(unet_config, shape, micro, precision, trainable=learns, checkpointing=again)
    memory = _memory(recipe, unet, spread, found, codecs[-1], clip_bytes, drawing)
    return Plan(recipe, parameters, costs, found.flops // micro, memory, spread, device)


def step_flops(
    recipe: TrainRecipe, unet_config: Mapping[str, Any], codec_factor: int, counts: Mapping[str, int] | None = None
) -> int:
    """Of a step on all devices, as MFU counts them: the mean over buckets, by ``counts`` of their clips.

    Takes a second for each bucket the first time, and nothing after.
    """
    clips = _clips(recipe, codec_factor)
    weights = [counts.get(clip.bucket.name, 0) if counts else 1 for clip in clips]
    passes = sum(n * forward_flops(unet_config, *clip.shape) for clip, n in zip(clips, weights, strict=True) if n)
    return MODEL_PASSES * recipe.data.batch * passes // sum(weights)


def relief(recipe: TrainRecipe, *, sharded: bool) -> str:
    """What makes a stage need less memory of a device, of all that its recipe does not do yet."""
    ways = []
    if recipe.run.micro_batch > 1:
        ways.append("lower run.micro_batch")
    if not recipe.run.gradient_checkpointing:
        ways.append("set run.gradient_checkpointing")
    if not sharded:
        ways.append("shard over more devices (run.sharding fsdp)")
    return ", ".join(ways) or "train on more or larger devices"


@contextmanager
def fitting(recipe: TrainRecipe, *, sharded: bool) -> Iterator[None]:
    """Within, the memory of a device that does not do is a UsageError that says what would help."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        ways = relief(recipe, sharded=sharded)
        fix = f"To need less: {ways}. `--plan` says what it takes; the same command goes on from the last checkpoint"
        raise UsageError("the stage does not fit into the device's memory", subject=recipe.name, fix=fix) from error


def _micro_batch(recipe: TrainRecipe, world: int) -> int:
    """Clips that a device computes at once: no more than its share of the batch."""
    return min(recipe.run.micro_batch, recipe.data.share(world))


class _Clip(NamedTuple):
    """A clip of a bucket as the network sees it, and how many of its frames are encoded on the way."""

    bucket: Bucket
    shape: ClipShape
    n_encoded: int


def _clips(recipe: TrainRecipe, factor: int, *, latents: bool = False) -> list[_Clip]:
    """One of each bucket, from small to large."""
    from_image, pictures = recipe.kind == "image-to-video", recipe.kind == "image"
    found = []
    for bucket in map(Bucket.parse, all_buckets(recipe.data)):
        tokens = 1 if from_image else TEXT_TOKENS
        shape = ClipShape(bucket.frames, bucket.height_px // factor, bucket.width_px // factor, tokens, pictures)
        # The first frame is encoded with noise that is drawn anew each time.
        found.append(_Clip(bucket, shape, (0 if latents else bucket.frames) + from_image))
    return sorted(found, key=lambda clip: (clip.shape.frames * clip.shape.height * clip.shape.width, clip.bucket))


def _memory(
    recipe: TrainRecipe, unet: nn.Module, spread: Spread, found: Held, codec: Encoding, clip_bytes: int, drawing: int
) -> Memory:
    of = Parameters.of(unet)
    shares = spread.world if spread.sharded else 1
    copies, activations = _working_bytes(recipe, unet, spread, found)
    return Memory(
        parameters=_SINGLE_BYTES * of.total // shares,
        gradients=_SINGLE_BYTES * of.trainable // (1 if spread.whole_gradients else shares),
        moments=2 * _SINGLE_BYTES * of.trainable // shares,
        average=0 if recipe.ema is None else _SINGLE_BYTES * of.trainable // shares,
        copies=copies,
        activations=activations,
        codec=codec.weight_bytes,
        clip=clip_bytes,
        encoding=codec.peak_bytes,
        drawing=drawing,
    )


def _working_bytes(recipe: TrainRecipe, unet: nn.Module, spread: Spread, found: Held) -> tuple[int, int]:
    """Of parameters to compute with, and of all else, when most is held."""
    if spread.sharded:
        return _gathered_bytes(unet, recipe.precision), found.peak_bytes
    return found.copies_bytes, found.peak_with_copies_bytes - found.copies_bytes


def _drawing_bytes(recipe: TrainRecipe, unet: SpatioTemporalUNet, spread: Spread, clip: _Clip, factor: int) -> int:
    """The most while a validation clip is drawn: in the network, or in the codec after it. 0 where none is drawn."""
    if recipe.kind != "image-to-video" or not (recipe.data.hold_out_sources and recipe.run.validation.samples):
        return 0
    drawn = sampling(unet.config, clip.shape, recipe.precision, trainable=recipe.trainable)
    working = sum(_working_bytes(recipe, unet, spread, drawn))
    return max(working, decoding_bytes(factor, clip.bucket.height_px, clip.bucket.width_px, DECODE_CHUNK))


def _gathered_bytes(unet: nn.Module, precision: Precision) -> int:
    """Whole parameters beside the shares: what is in no unit, a unit in use, the one after it, gradients of one."""
    sizes = [sum(parameter.numel() for parameter in unit.parameters()) for unit in units(unet)]
    rest = sum(parameter.numel() for parameter in unet.parameters()) - sum(sizes)
    each = _HALF_BYTES if precision == "bfloat16" else _SINGLE_BYTES
    return each * (rest + 2 * max(sizes)) + (each + _SINGLE_BYTES) * max(sizes)


def _millions(count: int) -> str:
    return f"{count / 1e6:,.2f} M"


def _flops(count: float) -> str:
    for unit, size in (("PFLOP", 1e15), ("TFLOP", 1e12)):
        if count >= size:
            return f"{count / size:.2f} {unit}"
    return f"{count / 1e9:.2f} GFLOP"


def _duration(seconds: float) -> str:
    return f"{seconds / _DAY_S:,.1f} days" if seconds > 2 * _DAY_S else format_duration(seconds)
