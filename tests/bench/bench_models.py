"""The networks of `svd` with random weights: clips/s beside the library alone, memory, share of the peak, waiting.

    python tests/bench/bench_models.py [--tiny] [--stages clip text ...] [--clips N] [--peak-tflops 989]

Stages get full batches, as `process_batches` has them from the engine. "alone" is the library called as its README
does, one clip after the other (`model_peers.py` says how). `--tiny` takes smaller architectures, for a CPU.

On a GPU: clips a second of the clock. "busy" is the driver's own figure (share of the time in which a kernel ran, asked
ten times a second). On a CPU all run with one thread, and clips are counted a second of CPU time, so that other work on
the machine changes little; nothing is said of busy and memory there.

"waited": share of the time in which no network was in its forward, in a turn of its own, as looking costs time. FLOPs
are those that PyTorch counts in one batch of the stage. `aesthetic` is NumPy: neither is said of it. The peak is given,
or measured first: a large matrix product or convolution, bfloat16 on a GPU, float32 on a CPU.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bench_kit import machine, markdown

sys.path.insert(0, str(Path(__file__).parents[1]))

from clip_kit import kit_beside
from model_peers import SUBJECTS, Subject
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules import module as hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from curate.records import Clip, Span
from curate.stage import ClipItem, ClipStage
from curate.stages.registry import stage_class
from curate.testing.footage import text_card
from curate.view import View

GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if GPU else "cpu")
CAPTIONS = (
    "a dog runs over the grass beside a river",
    "a man in a red coat opens the door of an old house and looks out into the snow",
    "two boats on the water",
)
COLUMNS = ("stage", "batch", "clips/s", "alone, clips/s", "ratio", "busy", "waited", "GPU memory", "share of peak")


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stages", nargs="+", choices=SUBJECTS, default=list(SUBJECTS))
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--clips", type=int, default=128 if GPU else 3)
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--peak-tflops", type=float)
    args = parser.parse_args()
    torch.set_num_threads(1)
    peak = args.peak_tflops or measured_tflops()
    rows: list[list[str]] = []
    for name in args.stages:
        with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
            kit = kit_beside(Path(folder) / "kit", patch, ("craft", "smollm2-135m-instruct"))
            subject = SUBJECTS[name](kit, Path(folder) / "made", args.tiny)
            found = ours(name, subject, args)
            alone = on_its_own(found["items"], subject)
        share = f"{found['flops'] * found['rate'] / peak / 1e12:.1%}"
        rows.append(
            [
                f"`{name}`",
                str(found["batch"]),
                f"{found['rate']:.3g}",
                f"{alone:.3g}",
                f"{found['rate'] / alone:.2f}",
                found["busy"],
                f"{found['waited']:.0%}" if found["flops"] else "-",
                found["memory"],
                share if found["flops"] else "-",
            ]
        )
        print(markdown(COLUMNS, rows[-1:]), flush=True)
    print(f"\n{torch.cuda.get_device_name() if GPU else 'no GPU, one thread'}; {machine()}; peak {peak:.3g} TFLOP/s")
    print(markdown(COLUMNS, rows))


def ours(name: str, subject: Subject, args: argparse.Namespace) -> dict[str, Any]:
    """The stage as the engine runs it: clips/s, waiting, memory, FLOPs a clip, and the items it was given."""
    free()
    stage = made(name, subject.config, args.batch_size)
    items = [item_of(stage, seed, subject.embedding) for seed in range(args.clips)]
    size = stage.resources.batch_size if GPU else 1
    batches = [items[start : start + size] for start in range(0, len(items), size)]

    score(stage, batches[:1])
    with gpu_busy() as busy:
        seconds = spent(lambda: score(stage, batches))
    memory = f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB" if GPU else "-"
    with Forwards() as forwards:
        watched_s = spent(lambda: score(stage, batches))
    flops = flops_of(lambda: score(stage, batches[:1])) / len(batches[0])
    return {
        "rate": len(items) / seconds,
        "batch": size,
        "busy": f"{statistics.mean(busy):.0f} %" if busy else "-",
        "waited": 1 - forwards.seconds() / watched_s,
        "memory": memory,
        "flops": flops,
        "items": items,
    }


def score(stage: ClipStage[Any], batches: Sequence[Sequence[ClipItem]]) -> None:
    """As the engine has it done; a clip that fails ends the bench."""
    cells = [cell for cells in stage.process_batches(batches) for cell in cells]
    wrong = next((cell.failure for cell in cells if cell.failure), None)
    if wrong is not None:
        raise SystemExit(f"{stage.name}: {wrong.traceback}")


def on_its_own(items: Sequence[ClipItem], subject: Subject) -> float:
    """Clips/s of the library. Fewer clips on a GPU, where all take alike long."""
    free()
    one = subject.alone(DEVICE)
    some = items[: max(2, len(items) // 8)] if GPU else items
    one(some[0])
    return len(some) / spent(lambda: [one(item) for item in some])


def free() -> None:
    """Let go of what the last measurement held."""
    gc.collect()
    if GPU:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def made(name: str, config: dict[str, Any], batch_size: int | None) -> ClipStage[Any]:
    """The stage, set up. CRAFT's place is a part of the configuration of `text`."""
    more = {"batch_size": batch_size} if batch_size and name != "aesthetic" else {}
    cls = stage_class(name)
    stage: Any = cls(cls.config_type.model_validate({**config, **({"craft": more} if name == "text" else more)}))
    stage.setup()
    return stage


def item_of(stage: ClipStage[Any], seed: int, embedding: int) -> ClipItem:
    """A clip whose views are 16:9 cards with text, of the size that the stage asks for; noise over them."""
    rng = np.random.default_rng(seed)
    clip = Clip.of_span(f"{seed:064x}", 0, Fraction(1, 90000), Span(0, 90000))
    views = {}
    for name, spec in stage.views().items():
        short, n = spec.short_side_px, len(spec.points)
        cards = np.stack(list(text_card(n, short * 16 // 9, short, f"CLIP {seed}\nIN THE BENCH")))
        frames = cards // 2 + rng.integers(0, 128, cards.shape, np.uint8)
        views[name] = View(frames, np.arange(n) * 3000, Fraction(1, 90000), np.zeros(n, np.int64))
    vectors = rng.normal(size=(3, embedding))
    units = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
    cells: dict[str, dict[str, Any]] = {
        name: {"caption": CAPTIONS[(seed + at) % len(CAPTIONS)], "frames": "0" * 32}
        for at, name in enumerate(stage.reads)
    }
    if "clip" in cells:
        cells["clip"] = dict(zip(("first", "middle", "last"), units, strict=True))
    return ClipItem(clip, None, views, cells)  # type: ignore[arg-type]


def spent(work: Callable[[], object]) -> float:
    """Seconds: of the clock on a GPU, of CPU time on a CPU."""
    clock = time.perf_counter if GPU else time.process_time
    began = clock()
    work()
    if GPU:
        torch.cuda.synchronize()
    return clock() - began


class Forwards:
    """Seconds in the outermost forwards of networks in any thread: of CPU time, or between two marks on the GPU."""

    def __enter__(self) -> Forwards:
        self._own = threading.local()
        self._found: list[tuple[Any, Any]] = []
        self._hooks = (
            hooks.register_module_forward_pre_hook(self._enters),
            hooks.register_module_forward_hook(self._leaves, always_call=True),
        )
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def seconds(self) -> float:
        """Of all of them."""
        if not GPU:
            return sum(end - start for start, end in self._found)
        torch.cuda.synchronize()
        return sum(start.elapsed_time(end) for start, end in self._found) / 1e3

    def _enters(self, module: torch.nn.Module, _: Any) -> None:
        # The steps of a picture's preparation are modules too, without weights.
        if getattr(self._own, "module", None) is None and next(module.parameters(), None) is not None:
            self._own.module, self._own.began = module, _mark()

    def _leaves(self, module: torch.nn.Module, _: Any, __: Any) -> None:
        if getattr(self._own, "module", None) is module:
            self._found.append((self._own.began, _mark()))
            self._own.module = None


def _mark() -> Any:
    if not GPU:
        return time.thread_time()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


class _Flops(TorchDispatchMode):
    """Adds up what PyTorch's own formulas say (its `FlopCounterMode` cannot follow a parameter into a module)."""

    total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        formula = flop_registry.get(func._overloadpacket)
        if formula is None:
            with self:
                found = func.decompose(*args, **kwargs)
            return func(*args, **kwargs) if found is NotImplemented else found
        found = func(*args, **kwargs)
        self.total += formula(*args, **kwargs, out_val=found)
        return found


def flops_of(work: Callable[[], object]) -> int:
    """FLOPs of what runs in this thread. Fused attention, which has no formula on a CPU, is left out meanwhile."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    with sdpa_kernel(SDPBackend.MATH), _Flops() as counter:
        work()
    torch.backends.mha.set_fastpath_enabled(fused)
    return counter.total


@contextmanager
def gpu_busy() -> Iterator[list[float]]:
    """Per cent of the time in which a kernel ran, ten readings a second, there afterwards; none without a GPU."""
    found: list[float] = []
    if not GPU:
        yield found
        return
    gpu = f"GPU-{torch.cuda.get_device_properties(0).uuid}"
    command = ["nvidia-smi", "-i", gpu, "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-lms", "100"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield found
    finally:
        process.terminate()
        found += [float(each) for each in process.communicate()[0].split() if each.isdigit()]


def measured_tflops() -> float:
    """The better of a product of square matrices and a convolution, best of five each."""
    n, dtype = (8192, torch.bfloat16) if GPU else (1024, torch.float32)
    a, b = (torch.randn(n, n, device=DEVICE, dtype=dtype) for _ in range(2))
    x, w = (torch.randn(*shape, device=DEVICE, dtype=dtype) for shape in ((8, 256, 64, 64), (256, 256, 3, 3)))
    found = []
    for flops, work in (
        (2 * n**3, lambda: a @ b),
        (2 * 8 * 64 * 64 * 9 * 256**2, lambda: torch.nn.functional.conv2d(x, w, padding=1)),
    ):
        spent(work)
        found.append(flops / min(spent(work) for _ in range(5)) / 1e12)
    return max(found)


if __name__ == "__main__":
    main()
