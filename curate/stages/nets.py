"""Where a network runs, in which numbers and in what batches: the same for every stage that has one."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import Field

from curate.config import Config
from curate.errors import CurateError
from curate.records import Cell
from curate.stage import ClipItem, ClipStage, Resources, only
from curate.weights.cards import load_card

if TYPE_CHECKING:
    import torch


class NetConfig(Config):
    """How a stage runs its network.

    ``device``: ``auto`` takes a GPU where the worker has one. ``dtype``: ``auto`` is bfloat16 on a GPU and float32 on
    a CPU. ``gpus``: share of a GPU that one worker takes where there are GPUs, so that several models fit on one.
    ``batch_size``: clips in one batch on a GPU, fewer where they do not fit; on a CPU it is one clip, which costs
    nothing there. Of these ``dtype`` alone decides values beyond rounding, and ``device`` where it chooses that.
    """

    placement: ClassVar[frozenset[str]] = frozenset({"device", "gpus", "batch_size"})

    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    gpus: Annotated[float, Field(gt=0, le=1)] = 0.25
    batch_size: Annotated[int, Field(ge=1, le=4096)] = 32

    def deciding(self) -> dict[str, Any]:
        """As for any configuration, with ``device`` where that decides the number format."""
        return {**super().deciding(), **({"device": self.device} if self.dtype == "auto" else {})}


Scored = Mapping[str, Any] | CurateError
"""Values of a clip's columns, or why it has none."""

NetConfigT = TypeVar("NetConfigT", bound=NetConfig)


def net_resources(config: NetConfig, cards: Sequence[str], *, cpus: float = 1.0) -> Resources:
    """What a worker of such a stage needs: a pool of its own on GPUs, a place beside the decoder without."""
    memory_bytes = sum(load_card(name).memory_bytes for name in cards)
    found = Resources(cpus=cpus, memory_bytes=memory_bytes, batch_size=config.batch_size)
    return found if config.device == "cpu" else replace(found, gpus=config.gpus, gpu_optional=config.device == "auto")


def place(config: NetConfig) -> tuple[torch.device, torch.dtype]:
    """Device and number format of a worker, as its configuration and its machine have it."""
    import torch

    gpu = config.device == "cuda" or (config.device == "auto" and torch.cuda.is_available())
    device = torch.device("cuda" if gpu else "cpu")
    if not gpu:
        torch.set_num_threads(1)  # one worker per core is cheaper than threads inside a worker
    if config.dtype == "auto":
        return device, torch.bfloat16 if gpu else torch.float32
    return device, getattr(torch, config.dtype)


@dataclass(frozen=True)
class _Batch:
    """Items with their tensors; ``padded`` repeats the last item up to the shape at which the network runs."""

    items: Sequence[ClipItem]
    padded: Sequence[ClipItem]
    tensors: Any


class NetStage(ClipStage[NetConfigT]):
    """A clip stage whose work is a network's: ``prepare`` on the CPU, then ``infer`` where the network is.

    While one batch is inferred the next one is prepared in a thread. Every batch has the configured number of clips,
    the last one padded, so that a clip's values do not depend on how many came with it (DESIGN section 4); on a CPU
    that number is one. Where a GPU lacks memory for a batch its size is halved, for good; a clip that does not fit
    alone fails.
    """

    rows = 1
    """Clips that the network sees at a time, once it is set up."""
    _on_gpu = False

    @abstractmethod
    def prepare(self, items: Sequence[ClipItem]) -> Any:
        """Tensors for the network, on the CPU. Called in another thread: may not touch the network."""

    @abstractmethod
    def infer(self, items: Sequence[ClipItem], prepared: Any) -> Sequence[Scored]:
        """Values of the columns for each item, from what ``prepare`` gave for these items."""

    def settle(self) -> tuple[torch.device, torch.dtype]:
        """For ``setup``: where to put the network, and in which numbers."""
        device, dtype = place(self.config)
        self._on_gpu = device.type == "cuda"
        self.rows = self.config.batch_size if self._on_gpu else 1
        return device, dtype

    def pinned(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor in memory from which a GPU takes it without a copy; itself where there is none."""
        return tensor.pin_memory() if self._on_gpu else tensor

    def score(self, item: ClipItem) -> Mapping[str, Any]:
        """Values for one clip."""
        return only(self.score_batch([item]))

    def score_batch(self, items: Sequence[ClipItem]) -> list[Scored]:
        """Values for several clips, in batches that the device takes."""
        return self._infer_all(self._prepare_all(items))

    def process_batches(self, batches: Iterable[Sequence[ClipItem]]) -> Iterator[list[Cell]]:
        """As for any stage; the next batch is prepared meanwhile."""
        with ThreadPoolExecutor(1) as thread:
            waiting: tuple[Sequence[ClipItem], Future[list[_Batch]]] | None = None
            for items in batches:
                ready, waiting = waiting, (items, thread.submit(self._prepare_all, items))
                if ready is not None:
                    yield self._finished(*ready)
            if waiting is not None:
                yield self._finished(*waiting)

    def _finished(self, items: Sequence[ClipItem], prepared: Future[list[_Batch]]) -> list[Cell]:
        return self.cells_of(items, lambda: self._infer_all(prepared.result()))

    def _prepare_all(self, items: Sequence[ClipItem]) -> list[_Batch]:
        size, batches = self.rows, []
        for start in range(0, len(items), size):
            part = items[start : start + size]
            padded = [*part, *[part[-1]] * (size - len(part))]
            batches.append(_Batch(part, padded, self.prepare(padded)))
        return batches

    def _infer_all(self, batches: Sequence[_Batch]) -> list[Scored]:
        return list(chain.from_iterable(map(self._infer_batch, batches)))

    def _infer_batch(self, batch: _Batch) -> Sequence[Scored]:
        size = len(batch.padded)
        if size <= self.rows:
            found = _unless_out_of_memory(lambda: self.infer(batch.padded, batch.tensors), alone=size == 1)
            if found is not None:
                return found[: len(batch.items)]
            self.rows = size // 2
        return self.score_batch(batch.items)


def _unless_out_of_memory(infer: Callable[[], Sequence[Scored]], *, alone: bool) -> Sequence[Scored] | None:
    """None when the GPU's memory did not do for the batch; for one clip ``alone`` that is an error."""
    import torch

    try:
        return infer()
    except torch.OutOfMemoryError:
        if alone:
            raise
    torch.cuda.empty_cache()
    return None
