"""What a device can do, and which share of it a run got."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch

from curate.memory import machine_memory_bytes
from curate.train.recipe import Precision

__all__ = ["DeviceFacts", "device_facts", "facts_of", "mfu"]

TERA = 1e12


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


def facts_of(name: str, memory_bytes: int, precision: Precision) -> DeviceFacts:
    """Of a GPU with this name, as its driver gives it."""
    found = next((peaks for pattern, peaks in _PEAKS if re.search(pattern, name)), None)
    if found is None:
        return DeviceFacts(name, memory_bytes)
    half, single = (value * TERA for value in found)
    return DeviceFacts(name, memory_bytes, half if precision == "bfloat16" else single, single)


def device_facts(device: torch.device, precision: Precision) -> DeviceFacts:
    """Of a device of this machine."""
    if device.type != "cuda":
        return DeviceFacts(device.type.upper(), machine_memory_bytes())
    found = torch.cuda.get_device_properties(device)
    return facts_of(found.name, found.total_memory, precision)


def mfu(flops: float, seconds: float, world: int, peak_flops: float) -> float:
    """Share of the peak of ``world`` devices that ``flops`` of the model in ``seconds`` are.

    Model FLOPs: three times the forward pass, whatever is computed again for gradient checkpointing (SVD_SPEC 2.6).
    """
    return flops / (seconds * world * peak_flops)
