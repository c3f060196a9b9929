"""Plans for devices that are not here, and all that a device holds beside the network that learns."""

from __future__ import annotations

import pytest

from curate.errors import UsageError
from curate.train.devices import KINDS, facts_of_kind
from curate.train.distributed import shards


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_a_peak_and_memory(kind):
    half, single = (facts_of_kind(kind, precision) for precision in ("bfloat16", "float32"))
    assert half.peak_flops and half.peak_flops > single.peak_flops == half.peak_float32_flops
    assert half.memory_bytes == KINDS[kind] * 10**9


@pytest.mark.parametrize(
    ("name", "peak", "gigabytes"), [("H100", 989.4e12, 80), ("h100 pcie", 756e12, 80), ("A100-40GB", 312e12, 40)]
)
def test_a_kind_is_what_its_data_sheet_says(name, peak, gigabytes):
    found = facts_of_kind(name, "bfloat16")
    assert (found.peak_flops, found.memory_bytes) == (peak, gigabytes * 10**9)


def test_an_unknown_kind_is_told_the_nearest():
    with pytest.raises(UsageError, match=r"unknown kind 'H10', did you mean 'H100'\?"):
        facts_of_kind("H10", "bfloat16")
    with pytest.raises(UsageError, match="valid: A10, A100, "):
        facts_of_kind("a toaster", "bfloat16")


@pytest.mark.parametrize(
    ("sharding", "device", "wanted"),
    [("auto", "cpu", False), ("auto", "cuda", True), ("ddp", "cuda", False), ("fsdp", "cpu", True)],
)
def test_networks_are_sharded_on_gpus_unless_told(sharding, device, wanted):
    assert shards(sharding, device) is wanted
