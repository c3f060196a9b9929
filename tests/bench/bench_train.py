"""The trainer's step on the paper's network: time, clips/s, MFU and memory beside a plain diffusers + accelerate loop.

    python tests/bench/bench_train.py [--stages NAME ...] [--ways NAME ...] [--batch N] [--steps N] [--profile FILE]
    python tests/bench/bench_train.py --tiny

A stage is a recipe of `pipelines/train/` at its own size, on random weights; latents and embeddings lie in memory, as
`curate latents` leaves them. Ways to take its step:

    plain, checkpointing, compile, both    `curate.train.step.Step`, as a run makes it
    peer, peer-checkpointing               diffusers' network, EMA and gradient checkpointing in accelerate's loop

All have the same weights, batch, precision, AdamW, clipping and average, and encode the noisy first frame of an
image-to-video stage anew in every step. MFU: three forward passes (recomputation is not counted) over the device's
dense peak in the precision that it computes in. On a CPU seconds are of CPU time, of one thread. Memory: the most that
was allocated on a GPU, resident on a CPU. A way that does not fit says so in its row. `--profile` appends what the time
of each way goes to, by kernels. `--tiny` takes the small stages, for a CPU, and compiles without generating code.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_kit import machine, markdown, middle
from diffusers.models.autoencoders.autoencoder_kl_temporal_decoder import AutoencoderKLTemporalDecoder
from torch import nn
from torch.profiler import ProfilerActivity, profile

from curate.memory import peak_memory_bytes, reset_peak_memory
from curate.shards.buckets import Bucket
from curate.train.codecs import Codec, identity_vae
from curate.train.data.catalogue import all_buckets
from curate.train.data.order import Position
from curate.train.data.worker import Batch
from curate.train.devices import device_facts, mfu
from curate.train.distributed import World, torch_device
from curate.train.encoders import Encoders
from curate.train.examples import Examples
from curate.train.motion import MotionCalibration
from curate.train.network import SpatioTemporalUNet, build_unet, set_trainable
from curate.train.plan import TEXT_TOKENS, step_flops
from curate.train.recipe import TrainRecipe, load_train_recipe
from curate.train.recompute import compile_units, recompute_units
from curate.train.step import Step

FULL = ("video-256x384", "image-to-video-320x576", "image-to-video-576x1024")
TINY = ("tiny-video", "tiny-image-to-video")
OURS = {"plain": (False, False), "checkpointing": (False, True), "compile": (True, False), "both": (True, True)}
"""Compiled and checkpointed or not."""
PEERS = {"peer": False, "peer-checkpointing": True}
COLUMNS = ("stage", "clip", "batch", "way", "step, s", "clips/s", "MFU", "memory", "of peer's time")
KERNELS = 25

Work = Callable[[int], float]
"""Takes the step of this number and gives its loss."""


@dataclass(frozen=True)
class Setting:
    """What all ways of a stage share; the batch lies in main memory, as the loader leaves it."""

    recipe: TrainRecipe
    bucket: Bucket
    batch: Batch
    encoders: Encoders
    device: torch.device
    backend: str

    @property
    def wide(self) -> bool:
        """Whether the first frame is given."""
        return self.recipe.kind == "image-to-video"

    def unet(self) -> SpatioTemporalUNet:
        """The network, its weights the same each time."""
        torch.manual_seed(0)
        with self.device:
            unet = build_unet(self.recipe.network, concat=self.wide)
        nn.Module.to(unet, self.device)
        unet.train()
        return unet

    def examples(self) -> Examples:
        """What turns the batch into what a step needs."""
        scores = MotionCalibration.of_scores(np.linspace(0, 10, 100), "motion_score")
        return Examples(self.recipe, self.encoders, scores)


def main(argv: list[str] | None = None) -> list[list[str]]:
    """Print a table; gives its rows."""
    args = _arguments(argv)
    torch.set_num_threads(1 if args.tiny else torch.get_num_threads())
    device = torch_device("cpu" if args.tiny else "auto")
    rows: list[list[str]] = []
    chip = device_facts(device, "float32" if device.type == "cpu" else "bfloat16").name
    for name in args.stages or (TINY if args.tiny else FULL):
        setting = made(name, args, device)
        facts = device_facts(device, setting.recipe.precision)
        peak = args.peak_tflops * 1e12 if args.peak_tflops else facts.peak_flops
        flops = step_flops(setting.recipe, setting.unet().config, setting.encoders.codec.factor)
        found: dict[str, list[float] | str] = {}
        for way in args.ways:
            memory, found[way] = measured(setting, way, args)
            rows.append(_row(name, setting, way, found[way], memory, flops, peak))
            print(markdown(COLUMNS, rows[-1:]), flush=True)
        _compared(rows[-len(args.ways) :], found)
    print(f"\n{chip}; {machine()}")
    print(markdown(COLUMNS, rows))
    return rows


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stages", nargs="+", metavar="NAME", help=f"default: {', '.join(FULL)}")
    parser.add_argument("--ways", nargs="+", choices=[*OURS, *PEERS], default=[*OURS, *PEERS])
    parser.add_argument("--batch", type=int, default=1, metavar="N", help="clips in a step, all at once")
    parser.add_argument("--steps", type=int, default=10, metavar="N", help="that are timed")
    parser.add_argument("--warmup", type=int, default=3, metavar="N", help="steps before those")
    parser.add_argument("--peak-tflops", type=float, help="of the device, where its name is not known")
    parser.add_argument("--profile", type=Path, metavar="FILE", help="append the kernels that take most time")
    parser.add_argument("--tiny", action="store_true")
    return parser.parse_args(argv)


def made(name: str, args: argparse.Namespace, device: torch.device) -> Setting:
    """The stage with one micro-batch a step, and its batch on the device."""
    sets = [f"data.batch={args.batch}", f"run.micro_batch={args.batch}"]
    recipe = load_train_recipe(name, [*sets, *(["precision=float32"] if device.type == "cpu" else [])])
    bucket = Bucket.parse(all_buckets(recipe.data)[-1])
    encoders = Encoders(Codec(identity_vae() if args.tiny else _real_vae(device)).to(device), None, None, None)
    backend = "aot_eager" if args.tiny else "inductor"
    batch = batch_of(recipe, bucket, encoders.codec)
    pinned = batch.pin_memory() if device.type == "cuda" else batch
    return Setting(recipe, bucket, pinned, encoders, device, backend)


def _real_vae(device: torch.device) -> AutoencoderKLTemporalDecoder:
    """In the size of Stable Video Diffusion's."""
    channels = (128, 256, 512, 512)
    config: dict[str, Any] = {"block_out_channels": channels, "down_block_types": ("DownEncoderBlock2D",) * 4}
    with device:
        return AutoencoderKLTemporalDecoder(**config, layers_per_block=2)


def batch_of(recipe: TrainRecipe, bucket: Bucket, codec: Codec) -> Batch:
    """Clips as the loader gives them where `curate latents` was run: random numbers of the right shapes."""
    n, generator = recipe.data.batch, torch.Generator().manual_seed(1)
    height, width = bucket.height_px // codec.factor, bucket.width_px // codec.factor
    latents = torch.randn(n, bucket.frames, codec.channels, height, width, generator=generator)
    with torch.device("meta"):
        dim = build_unet(recipe.network).config["cross_attention_dim"]
    context = torch.randn(n, TEXT_TOKENS, dim, generator=generator)
    first = torch.randint(0, 256, (n, bucket.height_px, bucket.width_px, 3), dtype=torch.uint8, generator=generator)
    wide = recipe.kind == "image-to-video"
    return Batch(
        position=Position(0),
        bucket=bucket,
        clip_ids=[f"{at:032x}" for at in range(n)],
        captions=[""] * n,
        fps=torch.full((n,), 7.0),
        motion=torch.full((n,), 5.0),
        start=torch.zeros(n, dtype=torch.int64),
        stride=torch.ones(n, dtype=torch.int64),
        latents=latents / codec.scaling_factor,
        first=first if wide else None,
        image=context[:, :1] if wide else None,
        text=None if wide else context,
    )


def ours(setting: Setting, way: str) -> Work:
    """The step that a run of one process takes (`curate.train.run` puts the same parts together)."""
    compiled, checkpointed = OURS[way]
    unet = setting.unet()
    set_trainable(unet, setting.recipe.trainable)
    if compiled:
        compile_units(unet, setting.backend)
    if checkpointed:
        recompute_units(unet)
    step = Step(setting.recipe, unet, setting.examples(), World(device=setting.device))
    return lambda number: step(number, setting.batch).loss


def peer(setting: Setting, way: str) -> Work:
    """The loop of diffusers' examples, with the loss of EDM as trainers of this network write it."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from diffusers.training_utils import EMAModel

    AcceleratorState._reset_state(reset_partial_state=True)
    half = setting.recipe.precision == "bfloat16"
    accelerator = Accelerator(mixed_precision="bf16" if half else "no", cpu=setting.device.type == "cpu")
    config = setting.recipe.optimiser
    unet: Any = setting.unet().plain().train()
    if PEERS[way]:
        unet.enable_gradient_checkpointing()
    average = EMAModel(unet.parameters(), decay=setting.recipe.ema or 0.9999, foreach=True)
    average.to(setting.device)
    optimiser = torch.optim.AdamW(unet.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    unet, optimiser = accelerator.prepare(unet, optimiser)

    def take(number: int) -> float:
        with accelerator.accumulate(unet):
            loss = _edm_loss(unet, setting)
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(unet.parameters(), config.clip_norm)
            optimiser.step()
            optimiser.zero_grad()
        average.step(unet.parameters())
        return loss.item()

    return take


def _edm_loss(unet: Any, setting: Setting) -> torch.Tensor:
    batch, codec, levels = setting.batch.to(setting.device), setting.encoders.codec, setting.recipe.objective
    assert batch.latents is not None
    latents = batch.latents * codec.scaling_factor
    sigma = (levels.p_mean + levels.p_std * torch.randn(len(latents), device=latents.device)).exp()
    context, augmentation, given = batch.text, torch.zeros_like(sigma), None
    if setting.wide:
        assert batch.first is not None
        augmentation = (-3 + 0.5 * torch.randn_like(sigma)).exp()
        frame = batch.first.permute(0, 3, 1, 2).float() / 127.5 - 1
        frame = frame + augmentation.view(-1, 1, 1, 1) * torch.randn_like(frame)
        with torch.no_grad():
            given = codec.vae.encode(frame).latent_dist.mode()[:, None].expand(-1, latents.shape[1], -1, -1, -1)
        context = batch.image
    added = torch.stack([batch.fps - 1, batch.motion, augmentation], dim=1)
    return weighted_loss(unet, latents, sigma, torch.randn_like(latents), given, (context, added))


def weighted_loss(
    unet: Any, x0: torch.Tensor, sigma: torch.Tensor, noise: torch.Tensor, given: torch.Tensor | None, cond: Any
) -> torch.Tensor:
    """EDM's loss of diffusers' network, with its preconditioning and weights written out."""
    at = sigma.view(-1, 1, 1, 1, 1)
    noisy = x0 + at * noise
    seen = noisy / (at**2 + 1).sqrt()
    seen = seen if given is None else torch.cat([seen, given], dim=2)
    output = unet(seen, sigma.log() / 4, cond[0], added_time_ids=cond[1]).sample.float()
    denoised = output * (-at / (at**2 + 1).sqrt()) + noisy / (at**2 + 1)
    return ((1 + at**2) / at**2 * (denoised - x0).square()).mean()


def measured(setting: Setting, way: str, args: argparse.Namespace) -> tuple[int, list[float] | str]:
    """Bytes, and seconds of every timed step; or what is to be said in their place."""
    free(setting.device)
    try:
        take = (ours if way in OURS else peer)(setting, way)
        seconds = timed(take, args.warmup, args.steps, setting.device)
        memory = allocated_bytes(setting.device)
        if args.profile:
            note_kernels(take, args.profile, f"{setting.recipe.name}, {way}", setting.device)
    except torch.OutOfMemoryError:
        return 0, "out of memory"
    return memory, seconds


def timed(take: Work, warmup: int, steps: int, device: torch.device) -> list[float]:
    """Seconds of each step, after those that warm up, of the clock on a GPU and of CPU time on a CPU."""
    found, clock = [], time.perf_counter if device.type == "cuda" else time.process_time
    for number in range(warmup + steps):
        if number == warmup:
            reset_memory(device)
        began_s = clock()
        loss = take(number)
        if device.type == "cuda":
            torch.cuda.synchronize()
        found.append(clock() - began_s)
        if not np.isfinite(loss):
            raise SystemExit(f"step {number}: the loss is {loss}")
    return found[warmup:]


def note_kernels(take: Work, file: Path, title: str, device: torch.device, steps: int = 1) -> None:
    """Append the operations that take most time, by their own, over a further step."""
    on_gpu = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    began_s = time.perf_counter()
    with profile(activities=activities) as found:
        for number in range(steps):
            take(number)
    wall_s = time.perf_counter() - began_s
    averages = found.key_averages()
    own_us = sum(one.self_device_time_total if on_gpu else one.self_cpu_time_total for one in averages)
    key = "self_cuda_time_total" if on_gpu else "self_cpu_time_total"
    table = averages.table(sort_by=key, row_limit=KERNELS, max_name_column_width=60)
    busy = f"{own_us / 1e6 / wall_s:.0%} of {wall_s / steps:.3f} s a step in operations (profiler running)"
    with file.open("a", encoding="utf-8") as out:
        out.write(f"{title}: {busy}\n{table}\n")


def free(device: torch.device) -> None:
    """Let go of what the last way held."""
    torch.compiler.reset()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def reset_memory(device: torch.device) -> None:
    """Count the most memory from now on."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        reset_peak_memory()


def allocated_bytes(device: torch.device) -> int:
    """The most since then."""
    return torch.cuda.max_memory_allocated() if device.type == "cuda" else peak_memory_bytes()


def _row(
    name: str, setting: Setting, way: str, found: list[float] | str, memory: int, flops: int, peak: float | None
) -> list[str]:
    head = [f"`{name}`", setting.bucket.name, str(len(setting.batch)), way]
    if isinstance(found, str):
        return [*head, found, *["-"] * 4]
    step_s = statistics.median(found)
    share = "-" if peak is None else f"{mfu(flops, step_s, 1, peak):.1%}"
    return [*head, middle(found, 3), f"{len(setting.batch) / step_s:.3g}", share, f"{memory / 2**30:.1f} GiB", "-"]


def _compared(rows: list[list[str]], found: dict[str, list[float] | str]) -> None:
    """Fill in the last column: against the peer that checkpoints as this way does, where it ran."""
    for row in rows:
        way, seconds = row[3], found[row[3]]
        against = "peer-checkpointing" if way in {"checkpointing", "both"} else "peer"
        other = found.get(against, "")
        if way in OURS and isinstance(seconds, list) and isinstance(other, list):
            row[-1] = f"{statistics.median(seconds) / statistics.median(other):.2f}"


if __name__ == "__main__":
    main()
