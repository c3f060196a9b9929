"""What `--plan` says, against closed forms, the paper's figures, and what a network really holds and computes."""

from __future__ import annotations

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode
from train_kit import conditions, latents

from curate.memory import peak_memory_bytes, reset_peak_memory
from curate.train import costs
from curate.train.costs import ClipShape, encoding, forward_flops, held, meta_unet
from curate.train.devices import DeviceFacts, device_facts, facts_of, mfu
from curate.train.network import Parameters, UNetNetwork, build_unet, preset_config
from curate.train.plan import make_plan, step_flops
from curate.train.recipe import load_train_recipe
from curate.train.recompute import recompute_units

SVD = preset_config("svd")
TINY = preset_config("tiny")
CLIP = ClipShape(frames=3, height=8, width=8)
CPU = DeviceFacts("CPU", 64 << 30)
GB = 1e9


@pytest.mark.parametrize(
    ("frames", "height_px", "width_px", "tera"),
    [(14, 256, 384, 6.26), (14, 320, 576, 12.14), (14, 576, 1024, 44.8), (25, 576, 1024, 79.9)],
)
def test_forward_pass_of_the_papers_network(frames, height_px, width_px, tera):
    """SVD_SPEC 2.6."""
    assert forward_flops(SVD, frames, height_px // 8, width_px // 8) == pytest.approx(tera * 1e12, rel=2e-3)


def test_attention_is_counted():
    """It alone grows with the square of the places: 4 C N^2 for each of 3 layers at 1/4 of them and 1 at 1/16."""
    one, two, three = (forward_flops(TINY, 2, 8, width) for width in (8, 16, 24))
    squared = 4 * 2 * 64**2 * (3 * 64 / 4**2 + 64 / 16**2)
    assert one - 2 * two + three == 2 * squared


def test_flops_are_those_of_a_real_pass():
    unet = build_unet("tiny")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        UNetNetwork(unet)(latents(2, 3, 4, 8, 8), torch.zeros(2), conditions(2, 3))
    assert forward_flops(TINY, *CLIP, batch=2) == counter.get_total_flops()


def test_a_text_costs_little_more_than_an_image():
    texts = {**SVD, "in_channels": 4}
    assert forward_flops(texts, 14, 40, 72, 77) == pytest.approx(12.23e12, rel=2e-3)


def test_counting_needs_no_memory_for_the_network():
    """Its parameters alone would be 6.1 GB."""
    counted, before_bytes = costs._held.cache_info().misses, (reset_peak_memory(), peak_memory_bytes())[1]
    held(SVD, ClipShape(14, 32, 48), 1, "bfloat16", checkpointing=True)
    assert peak_memory_bytes() - before_bytes < 500e6
    assert costs._held.cache_info().misses == counted + 1  # not what another test had counted


def really_held(checkpointing: bool) -> tuple[int, int]:
    """Bytes that autograd saves, and the most that the allocator hands out, in a pass of the tiny network."""
    unet = build_unet("tiny").train()
    if checkpointing:
        recompute_units(unet)
    for parameter in unet.parameters():
        parameter.grad = torch.zeros_like(parameter)
    own = {parameter.untyped_storage().data_ptr() for parameter in unet.parameters()}
    saved: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    x, times, cond = latents(2, 3, 4, 8, 8), torch.zeros(2), conditions(2, 3)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as prof:
        with saved_tensors_hooks(note, lambda tensor: tensor):
            loss = UNetNetwork(unet)(x, times, cond).float().square().mean()
        loss.backward()
    now = peak = 0
    for event in prof.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            peak = max(peak, now)
    return sum(size for at, size in saved.items() if at not in own), peak


@pytest.mark.parametrize("checkpointing", [False, True])
def test_activations_are_those_that_a_real_pass_holds(checkpointing):
    """What is saved agrees to a thousandth; the most at any time to 8 % (convolutions on a CPU need buffers)."""
    found = held(TINY, CLIP, 2, "float32", checkpointing=checkpointing)
    saved, peak = really_held(checkpointing)
    assert found.forward_bytes == pytest.approx(saved, rel=1e-3)
    assert found.peak_bytes == pytest.approx(peak, rel=0.08)


def test_autocast_halves_most_and_copies_parameters():
    single, half = (held(TINY, CLIP, 2, precision) for precision in ("float32", "bfloat16"))
    assert single.copies_bytes == 0
    assert 0.5 < half.forward_bytes / single.forward_bytes < 0.75  # normalisations stay in float32
    weights = sum(
        p.numel() for name, p in meta_unet(TINY).named_parameters() if "norm" not in name and "mix" not in name
    )
    assert half.copies_bytes == 2 * weights
    assert half.peak_with_copies_bytes >= half.peak_bytes


def test_a_step_is_three_passes_and_more_with_checkpointing():
    forward = forward_flops(TINY, *CLIP, batch=2)
    plain, again = (held(TINY, CLIP, 2, "float32", checkpointing=c) for c in (False, True))
    assert plain.flops == pytest.approx(3 * forward, rel=0.03)
    assert plain.flops < again.flops < 4 * forward
    assert again.peak_bytes < 0.8 * plain.peak_bytes


def test_recomputing_changes_nothing_but_memory():
    torch.manual_seed(0)
    unet, x, times, cond = build_unet("tiny").train(), latents(2, 3, 4, 8, 8), torch.zeros(2), conditions(2, 3)
    plain = gradients_of(unet, x, times, cond)
    names = unet.state_dict().keys()
    recompute_units(unet)
    again = gradients_of(unet, x, times, cond)
    assert plain.keys() == again.keys()
    assert all(torch.equal(plain[name], again[name]) for name in plain)
    assert unet.state_dict().keys() == names


def gradients_of(unet, *inputs) -> dict[str, torch.Tensor]:
    unet.zero_grad()
    UNetNetwork(unet)(*inputs).square().mean().backward()
    return {name: parameter.grad.clone() for name, parameter in unet.named_parameters() if parameter.grad is not None}


def recipe(name: str = "image-to-video-320x576", *overrides: str):
    return load_train_recipe(name, overrides)


def test_state_of_the_papers_network():
    """SVD_SPEC 2.5: 24.4 GB for parameters, gradients and AdamW, 6.1 GB for the average."""
    all_kept = recipe("image-to-video-320x576", "run.gradient_checkpointing=false")
    memory = make_plan(all_kept, SVD, 8, world=1, sharded=True, device=CPU).memory
    assert (memory.parameters + memory.gradients + memory.moments) / GB == pytest.approx(24.4, abs=0.05)
    assert memory.average / GB == pytest.approx(6.1, abs=0.05)
    assert memory.copies / GB == pytest.approx(2 * 1.5246, abs=0.01)
    assert memory.codec / GB == pytest.approx(4 * 0.09774, abs=0.001)  # SVD_SPEC 2.7: 34.16 M + 63.58 M


def test_shards_are_shares_but_summed_gradients_are_whole():
    whole = make_plan(tiny(), TINY, 1, world=1, sharded=True, device=CPU).memory
    one, many = (
        make_plan(tiny(f"run.micro_batch={micro}"), TINY, 1, world=4, sharded=True, device=CPU).memory
        for micro in (2, 1)
    )
    for name in ("parameters", "moments", "average"):
        assert getattr(one, name) == getattr(many, name) == getattr(whole, name) // 4
    assert (one.gradients, many.gradients) == (whole.gradients // 4, whole.gradients)
    copied = make_plan(tiny(), TINY, 1, world=4, sharded=False, device=CPU).memory
    assert (copied.parameters, copied.gradients) == (whole.parameters, whole.gradients)


def tiny(*overrides: str):
    return recipe("tiny-image-to-video", *overrides)


def test_what_does_not_learn_has_no_gradient_and_no_average():
    plan = make_plan(
        recipe("tiny-image", "ema=null"), {**TINY, "in_channels": 4}, 1, world=1, sharded=False, device=CPU
    )
    learns = plan.parameters.trainable
    assert learns == plan.parameters.spatial == Parameters.of(build_unet("tiny", concat=False)).spatial
    assert (plan.memory.gradients, plan.memory.moments, plan.memory.average) == (4 * learns, 8 * learns, 0)


def test_time_and_rows():
    device = facts_of("NVIDIA H200", 141 * 10**9, "bfloat16")
    plan = make_plan(recipe(), SVD, 8, world=64, sharded=True, device=device)
    forward, frame = 12.14e12, encoding(8, 320, 576).flops
    assert plan.flops_per_step == pytest.approx(768 * 3 * forward, rel=2e-3)
    seconds = 768 / 64 / 0.3 * (3 * forward / 989.4e12 + 15 * frame / 494.7e12)
    assert plan.step_s == pytest.approx(seconds, rel=2e-3)
    assert plan.total_s == pytest.approx(50_000 * seconds, rel=2e-3)
    rows = dict(plan.rows())
    assert rows["parameters"].startswith("1,524.62 M: 865.92 M spatial, 656.08 M temporal")
    assert rows["forward pass 576x320x14"] == "12.14 TFLOP a clip"
    assert "at 30% of 989 TFLOP/s" in rows["time"]
    assert "warning" not in rows
    memory = plan.memory
    assert memory.total == memory.state + memory.gradients + memory.copies + memory.activations


def test_latents_that_are_read_are_not_encoded():
    made, read = (
        make_plan(tiny(), TINY, 1, world=1, sharded=False, device=CPU, latents=is_read) for is_read in (False, True)
    )
    assert made.largest.encoding_flops == 7 * read.largest.encoding_flops > 0  # what is left is the noisy first frame
    texts = make_plan(recipe("tiny-video"), TINY, 1, world=1, sharded=False, device=CPU, latents=True)
    assert (texts.largest.encoding_flops, texts.memory.encoding) == (0, 0)
    assert "encoding" not in dict(texts.rows())


def test_where_the_peak_is_not_known_no_time_is_named():
    plan = make_plan(tiny(), TINY, 1, world=1, sharded=False, device=device_facts(torch.device("cpu"), "float32"))
    assert (plan.step_s, plan.total_s) == (None, None)
    assert dict(plan.rows())["time"] == "not estimated: the peak of CPU is not known"
    assert plan.device.memory_bytes > 1 << 28


def test_warnings():
    small = DeviceFacts("a small card", 1 << 20)
    plan = make_plan(tiny(), TINY, 1, world=2, sharded=False, device=small)
    (memory,) = plan.warnings()
    assert memory.startswith("needs ")
    assert "of a small card's 1.0 MiB: lower run.micro_batch, set run.gradient_checkpointing, shard" in memory
    assert ("warning", memory) in plan.rows()
    uneven = make_plan(tiny("run.micro_batch=3"), TINY, 1, world=1, sharded=False, device=CPU)
    assert uneven.warnings() == ["run.micro_batch 3 does not divide the 8 clips of a device: the last has fewer"]
    assert uneven.micro_batches == 3
    few = make_plan(tiny(), TINY, 1, world=4, sharded=True, device=CPU)
    assert (few.warnings(), few.micro_batches) == ([], 1)
    assert dict(few.rows())["batch"] == "8 clips on 4 x CPU, 1 x 2 on each"


def test_flops_of_a_step_follow_the_clips_of_the_buckets():
    both = tiny("data.buckets.frames=[3, 6]")
    plan = make_plan(both, TINY, 1, world=1, sharded=False, device=CPU)
    small, large = plan.buckets
    assert (small.bucket.frames, large.bucket.frames) == (3, 6)
    assert plan.flops_per_step == 8 * large.model_flops
    assert (
        step_flops(both, TINY, 1, {"16x16x3": 1, "16x16x6": 3}) == 8 * (small.model_flops + 3 * large.model_flops) // 4
    )
    assert step_flops(both, TINY, 1, {"16x16x6": 5}) == plan.flops_per_step


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA H100 80GB HBM3", 989.4e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H200", 989.4e12),
        ("NVIDIA H200 MIG 1g.18gb", None),
        ("NVIDIA A10", 125e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA GeForce RTX 4090", 165.2e12),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("AMD Instinct MI300X", 1307.4e12),
        ("Tesla T4", None),
    ],
)
def test_peaks(name, peak):
    assert facts_of(name, 1, "bfloat16").peak_flops == peak


def test_mfu_of_a_published_run():
    """SVD_SPEC 5: SVD-MV, 16 clips of 21 x 576 x 576 (34.6 TFLOP forward) in 4.8 s on 8 A100: 13.9 %."""
    peak_flops = facts_of("NVIDIA A100-SXM4-80GB", 1, "bfloat16").peak_flops
    assert peak_flops is not None
    assert mfu(16 * 3 * 34.6e12, 4.8, 8, peak_flops) == pytest.approx(0.139, abs=0.001)
