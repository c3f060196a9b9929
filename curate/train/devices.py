"""What a device can do, and which share of it a run got."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from curate.config import nearest
from curate.errors import UsageError
from curate.memory import machine_memory_bytes
from curate.train.recipe import Precision

__all__ = ["KINDS", "DeviceFacts", "device_facts", "facts_of", "facts_of_kind", "mfu", "tensor_cores"]

TERA = 1e12
GIGA = 10**9


@dataclass(frozen=True)
class DeviceFacts:
    """One device. ``memory_bytes`` is 0 where that is not known.

    ``peak_flops`` is a second's, dense, in the precision that the network computes in; ``peak_float32_flops`` is that
    of float32 operands (TF32), in which the frozen codec computes. Both are None for CPUs and unknown cards.
    """

    name: str
    memory_bytes: int
    peak_flops: float | None = None
    peak_float32_flops: float | None = None


# Dense peaks, without structured sparsity, in TFLOP/s: bfloat16 with float32 sums, then TF32. From the makers' public
# data sheets of each product; where a sheet gives the number with 2:4 sparsity alone (H100, H200, B200), half of it.
# The first pattern that a device's name contains counts. Parts of a card (MIG) and laptop chips have others: unknown.
_PEAKS: tuple[tuple[str, tuple[float, float] | None], ...] = (
    (r"\bMIG\b|Laptop|Max-Q", None),
    (r"\bA100\b|\bA800\b", (312.0, 156.0)),
    (r"\bA40\b", (149.7, 74.8)),
    (r"\bRTX A6000\b", (154.8, 77.4)),
    (r"\bA10G\b", (70.0, 35.0)),
    (r"\bA10\b", (125.0, 62.5)),
    (r"\bH100 PCIe\b", (756.0, 378.0)),
    (r"\bH[12]00 NVL\b", (835.0, 417.5)),
    (r"\bH100\b|\bH800\b|\bH200\b|\bGH200\b", (989.4, 494.7)),
    (r"\bGB200\b", (2500.0, 1250.0)),
    (r"\bB200\b", (2250.0, 1125.0)),
    (r"\bL40S\b", (362.0, 183.0)),
    (r"\bL40\b", (181.0, 90.5)),
    (r"\bL4\b", (121.0, 60.0)),
    (r"\bRTX 3090\b(?! Ti)", (71.0, 35.6)),
    (r"\bRTX 4090\b(?! D)", (165.2, 82.6)),
    (r"\bRTX 5090\b(?! D)", (209.5, 104.8)),
    (r"\bMI300X\b|\bMI325X\b", (1307.4, 653.7)),
)

KINDS: dict[str, int] = {
    "A100": 80,
    "A100-40GB": 40,
    "A40": 48,
    "RTX A6000": 48,
    "A10G": 24,
    "A10": 24,
    "H100": 80,
    "H100 PCIe": 80,
    "H100 NVL": 94,
    "H200": 141,
    "H200 NVL": 141,
    "B200": 180,
    "L40S": 48,
    "L40": 48,
    "L4": 24,
    "RTX 3090": 24,
    "RTX 4090": 24,
    "RTX 5090": 32,
    "MI300X": 192,
    "MI325X": 256,
}
"""Kinds that a plan can be asked for by name, with the gigabytes (10^9 bytes) of their data sheets. A driver reports
some percent more or less."""


def facts_of(name: str, memory_bytes: int, precision: Precision) -> DeviceFacts:
    """Of a GPU with this name, as its driver gives it."""
    found = next((peaks for pattern, peaks in _PEAKS if re.search(pattern, name)), None)
    if found is None:
        return DeviceFacts(name, memory_bytes)
    half, single = (value * TERA for value in found)
    return DeviceFacts(name, memory_bytes, half if precision == "bfloat16" else single, single)


def facts_of_kind(name: str, precision: Precision) -> DeviceFacts:
    """Of a kind of `KINDS`, however its name is capitalised; UsageError for another."""
    found = {kind.casefold(): kind for kind in KINDS}.get(name.casefold())
    if found is None:
        raise UsageError(f"unknown kind {name!r}, {nearest(name.upper(), KINDS)}", subject="--device-kind")
    return facts_of(found, KINDS[found] * GIGA, precision)


def device_facts(device: torch.device, precision: Precision) -> DeviceFacts:
    """Of a device of this machine."""
    if device.type != "cuda":
        return DeviceFacts(device.type.upper(), machine_memory_bytes())
    found = torch.cuda.get_device_properties(device)
    return facts_of(found.name, found.total_memory, precision)


@contextmanager
def tensor_cores(device: torch.device) -> Iterator[None]:
    """Within, a GPU multiplies float32 matrices as TF32, as PyTorch's convolutions do anyway: the peaks above count so.
    What is multiplied is rounded to 11 bits, sums stay in float32. CPUs compute as ever."""
    before = torch.get_float32_matmul_precision()
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def mfu(flops: float, seconds: float, world: int, peak_flops: float) -> float:
    """Share of the peak of ``world`` devices that ``flops`` of the model in ``seconds`` are.

    Model FLOPs: three times the forward pass, whatever is computed again for gradient checkpointing (SVD_SPEC 2.6).
    """
    return flops / (seconds * world * peak_flops)
