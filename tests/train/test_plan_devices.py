"""Plans for devices that are not here, and all that a device holds beside the network that learns."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from curate.errors import ConfigError, UsageError
from curate.train.codecs import Codec, identity_vae
from curate.train.costs import decoding_bytes, weight_bytes
from curate.train.data.loader import Loader
from curate.train.devices import KINDS, DeviceFacts, facts_of_kind, tensor_cores
from curate.train.distributed import shards
from curate.train.encoders import Encoders
from curate.train.parts import clip_bytes, network_config
from curate.train.plan import Plan, make_plan
from curate.train.recipe import load_train_recipe


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


@pytest.mark.parametrize(("device", "within"), [("cuda", "high"), ("cpu", "highest")])
def test_float32_on_a_gpu_is_what_its_peak_counts(device, within):
    """And no longer than a run lasts."""
    with tensor_cores(torch.device(device)):
        assert torch.get_float32_matmul_precision() == within
    assert torch.get_float32_matmul_precision() == "highest"


def planned(name: str = "tiny-image-to-video", *overrides: str, world: int = 1, **more: Any) -> Plan:
    recipe = load_train_recipe(name, overrides)
    unet = network_config(recipe)
    return make_plan(recipe, unet, 1, world=world, sharded=False, device=DeviceFacts("CPU", 1 << 36), **more)


def test_a_batch_that_does_not_divide_is_refused_as_a_run_refuses_it():
    with pytest.raises(ConfigError, match="a batch of 8 does not divide among 3 ranks") as of_plan:
        planned(world=3)
    with pytest.raises(ConfigError) as of_run:
        Loader(SimpleNamespace(), load_train_recipe("tiny-image-to-video").data, world=3)
    assert str(of_plan.value) == str(of_run.value)


@pytest.mark.parametrize(
    ("name", "weights"),
    [("image-to-video-320x576", 632_076_800), ("video-320x576", 340_387_840), ("image", 340_387_840)],
)
def test_clip_of_the_paper(name, weights):
    """ViT-H/14 with its projection; the text model of Stable Diffusion 2.1."""
    assert clip_bytes(load_train_recipe(name)) == 4 * weights


@pytest.mark.parametrize(("name", "own"), [("tiny-image-to-video", "image"), ("tiny-video", "text")])
def test_clip_is_that_which_a_run_holds(name, own, tmp_path):
    recipe = load_train_recipe(name)
    encoders = Encoders.tiny(network_config(recipe)["cross_attention_dim"])
    real = {part: weight_bytes(getattr(encoders, part).model) for part in ("image", "text")}
    assert clip_bytes(recipe) == real[own] == weight_bytes(encoders.clip(recipe.kind))
    encoders.save(tmp_path)
    assert clip_bytes(recipe, encoders=str(tmp_path)) == clip_bytes(recipe, str(tmp_path)) == real[own]
    memory = planned(name, clip_bytes=real[own]).memory
    assert memory.state - planned(name).memory.state == memory.clip == real[own]


def test_only_the_clip_model_that_a_stage_needs_is_moved():
    encoders = Encoders.tiny()
    encoders.to("meta", "video")
    assert [next(part.model.parameters()).device.type for part in (encoders.text, encoders.image)] == ["meta", "cpu"]
    assert next(encoders.codec.vae.parameters()).device.type == "meta"


def test_drawing_of_validation_clips_is_counted_where_they_are_drawn():
    memory, none = (planned("tiny-image-to-video", f"run.validation.samples={n}").memory for n in (1, 0))
    assert (memory.drawing > 0, none.drawing) == (True, 0)
    at_most = replace(memory, drawing=memory.activations + 5)
    assert at_most.total == memory.total + 5 == memory.state + memory.gradients + memory.activations + 5


def test_memory_of_decoding_is_that_of_a_real_decoder():
    """To 15 %: convolutions on a CPU need buffers."""
    codec, latents = Codec(identity_vae()), torch.randn(1, 3, 4, 16, 16)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as prof:
        codec.decode(latents)
    now = peak = 0
    for event in prof.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            peak = max(peak, now)
    assert decoding_bytes(1, 16, 16, 3) == pytest.approx(peak, rel=0.15)
