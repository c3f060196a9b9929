"""The networks of `svd` in their real sizes with random weights: clips/s, memory, share of the peak, waiting.

    python tests/bench/bench_models.py [--stages clip text ...] [--clips 64] [--peak-tflops 989]

`naive` is the same stage for one clip after the other, float32, prepared and then inferred. `busy` is the share of the
time spent in `infer`. Batches are full, which in a run they are not always. FLOPs are counted by PyTorch in one batch;
the share of the peak needs --peak-tflops (dense bf16 of the device: 989 for an H100 or H200). Random weights cost what
real ones do, but for captions, whose length they decide. CRAFT has a bench of its own (`bench_text.py`).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from bench_kit import machine, markdown

sys.path.insert(0, str(Path(__file__).parents[1]))

from clip_kit import kit_beside, write_open_clip
from model_kit import ModelKit
from tiny_models import byte_tokenizer
from torch.utils.flop_counter import FlopCounterMode

from curate.records import Clip, Span
from curate.stage import ClipItem
from curate.stages.nets import NetStage
from curate.stages.registry import stage_class
from curate.view import View

FULL = {"clip": "ViT-L-14-quickgelu", "caption.coca": "coca_ViT-L-14"}
CAPTIONS = {"caption": "a dog runs over the grass beside a river", "frames": "0" * 32}


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stages", nargs="+", choices=sorted(MAKERS), default=sorted(MAKERS))
    parser.add_argument("--clips", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--peak-tflops", type=float, default=0.0)
    args = parser.parse_args()
    rows: list[list[str]] = []
    for name in args.stages:
        with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
            kit = kit_beside(Path(folder) / "kit", patch, ("craft",))
            config = MAKERS[name](kit, Path(folder) / "made")
            rows.append([name, *measured(name, config, args)])
            print(markdown([*COLUMNS], [rows[-1]]), flush=True)
    print(machine())
    print(markdown([*COLUMNS], rows))


COLUMNS = ("stage", "clips/s", "naive clips/s", "ratio", "busy", "GPU memory", "share of peak")


def measured(name: str, config: dict[str, Any], args: argparse.Namespace) -> list[str]:
    """A row of the table. The two models are never in memory together."""
    per_s, busy, memory, peak = ours(name, {**config, "batch_size": args.batch_size}, args)
    naive_per_s = naive(name, config, max(2, args.clips // 8))
    return [f"{per_s:.2f}", f"{naive_per_s:.2f}", f"{per_s / naive_per_s:.1f}x", f"{busy:.0%}", memory, peak]


def ours(name: str, config: dict[str, Any], args: argparse.Namespace) -> tuple[float, float, str, str]:
    """Clips/s, busy share, memory and share of the peak of the stage as the engine runs it."""
    stage = made(name, config)
    batches = in_batches([item_of(stage, seed) for seed in range(args.clips)], args.batch_size)
    busy = Busy(stage)
    list(stage.process_batches(batches[:1]))
    busy.seconds = 0.0
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    seconds = spent(lambda: list(stage.process_batches(batches)))
    share = busy.seconds / seconds
    memory = f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB" if torch.cuda.is_available() else "-"
    peak = "-"
    if args.peak_tflops:
        with FlopCounterMode(display=False) as counter:
            stage.process(batches[0])
        flops = counter.get_total_flops() * args.clips / len(batches[0])
        peak = f"{flops / seconds / args.peak_tflops / 1e12:.0%}"
    return args.clips / seconds, share, memory, peak


def naive(name: str, config: dict[str, Any], clips: int) -> float:
    """Clips/s one after the other."""
    stage = made(name, {**config, "batch_size": 1, "dtype": "float32"})
    items = [item_of(stage, seed) for seed in range(clips)]
    stage.process(items[:1])
    return clips / spent(lambda: [stage.process([item]) for item in items])


class Busy:
    """Seconds in which a stage's network runs."""

    def __init__(self, stage: NetStage[Any]) -> None:
        self.seconds = 0.0
        infer = stage.infer

        def timed(items: Sequence[ClipItem], prepared: Any) -> Any:
            began = time.perf_counter()
            found = infer(items, prepared)
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self.seconds += time.perf_counter() - began
            return found

        stage.infer = timed  # type: ignore[method-assign]


def made(name: str, config: dict[str, Any]) -> NetStage[Any]:
    cls = stage_class(name)
    stage: Any = cls(cls.config_type.model_validate(config))
    stage.setup()
    return stage


def item_of(stage: NetStage[Any], seed: int) -> ClipItem:
    """A clip whose views are random 16:9 pictures of the size that the stage asks for."""
    rng = np.random.default_rng(seed)
    clip = Clip.of_span(f"{seed:064x}", 0, Fraction(1, 90000), Span(0, 90000))
    views = {}
    for name, spec in stage.views().items():
        short, n = spec.short_side_px, len(spec.points)
        frames = rng.integers(0, 256, (n, short, short * 16 // 9, 3), np.uint8)
        views[name] = View(frames, np.arange(n) * 3000, Fraction(1, 90000), np.zeros(n, np.int64))
    unit = np.ones(768, np.float16) / 768**0.5
    cells = {name: {**CAPTIONS, "first": unit, "middle": unit, "last": unit} for name in stage.reads}
    return ClipItem(clip, None, views, cells)  # type: ignore[arg-type]


def in_batches(items: Sequence[ClipItem], size: int) -> list[Sequence[ClipItem]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def spent(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _open_clip(name: str) -> Callable[[ModelKit, Path], dict[str, Any]]:
    def make(kit: ModelKit, folder: Path) -> dict[str, Any]:
        config = {"model_cfg": open_clip.get_model_config(FULL[name]), "preprocess_cfg": {}}
        write_open_clip(folder, config)
        kit.add("full", folder, {"image_px": 224, "embedding": 768, "family": "full"})
        return {"model": "full", **({"min_tokens": 29} if name == "caption.coca" else {})}

    return make


def _vblip(kit: ModelKit, folder: Path) -> dict[str, Any]:
    """ViT-g, the Q-Former and OPT-2.7b, as Blip2Config has them by default but for the language model."""
    from transformers import Blip2Config, Blip2ForConditionalGeneration, BlipImageProcessor, OPTConfig

    folder.mkdir(parents=True)
    byte_tokenizer(folder, "</s> $A")
    text = OPTConfig(hidden_size=2560, ffn_dim=10240, num_hidden_layers=32, num_attention_heads=32, vocab_size=50304)
    torch.set_default_dtype(torch.bfloat16)
    model = Blip2ForConditionalGeneration(Blip2Config(text_config=text.to_dict()))
    torch.set_default_dtype(torch.float32)
    model.save_pretrained(folder)
    BlipImageProcessor(size={"height": 224, "width": 224}).save_pretrained(folder)
    kit.add("full", folder, {"image_px": 224, "frames": 8})
    return {"model": "full"}


MAKERS: dict[str, Callable[[ModelKit, Path], dict[str, Any]]] = {
    "clip": _open_clip("clip"),
    "caption.coca": _open_clip("caption.coca"),
    "caption.vblip": _vblip,
    "clip.similarity": _open_clip("clip"),
}

if __name__ == "__main__":
    main()
