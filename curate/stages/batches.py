"""How a network is fed: prepared ahead, in batches of one shape, as large as its share of the GPU's memory holds."""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from curate.errors import DeviceMemoryError, NoRoomError, StageError, causes, is_device_lost
from curate.stage import boundary

if TYPE_CHECKING:
    import torch

CONTEXT_BYTES = 512 << 20
"""What a process takes of a GPU before its first tensor: driver and kernels, which PyTorch does not count."""

ItemT = TypeVar("ItemT")
FoundT = TypeVar("FoundT")
BatchT = TypeVar("BatchT")


class Memory(Protocol):
    """The memory of a GPU, as far as this process uses it."""

    @property
    def total_bytes(self) -> int:
        """What the device has."""
        ...

    def held_bytes(self) -> int:
        """What this process's tensors take now."""
        ...

    def taken_bytes(self, work: Callable[[], object]) -> int:
        """What ``work`` takes beyond that, at most, once what it leaves behind for good is there."""
        ...


@dataclass(frozen=True)
class GpuMemory:
    """As PyTorch counts it."""

    device: torch.device

    @property
    def total_bytes(self) -> int:
        """What the device has."""
        import torch

        return torch.cuda.get_device_properties(self.device).total_memory

    def held_bytes(self) -> int:
        """What this process's tensors take now."""
        import torch

        return torch.cuda.memory_allocated(self.device)

    def taken_bytes(self, work: Callable[[], object]) -> int:
        """Measured in the second of two runs: the first one makes workspaces that stay."""
        import torch

        work()
        torch.cuda.reset_peak_memory_stats(self.device)
        before_bytes = self.held_bytes()
        work()
        return torch.cuda.max_memory_allocated(self.device) - before_bytes


def rows_within(most: int, budget_bytes: int, row_bytes: int) -> int:
    """The largest of ``most``, its half, its quarter ... that the budget holds; at least one."""
    rows = most
    while rows > 1 and rows * row_bytes > budget_bytes:
        rows //= 2
    return rows


@dataclass(frozen=True)
class _Batch(Generic[ItemT]):
    """Items of one shape, by their place in the call, with what was prepared of each.

    ``rows`` of them are ``joined``, the last one repeated where there are fewer.
    """

    places: Sequence[int]
    items: Sequence[ItemT]
    parts: Sequence[Any]
    rows: int
    joined: Any


@dataclass(frozen=True)
class Ready(Generic[ItemT]):
    """What was prepared of some items: batches, and by place why an item is in none."""

    n: int
    batches: Sequence[_Batch[ItemT]]
    errors: dict[int, Exception]


class Batched(ABC, Generic[ItemT, FoundT]):
    """A network with its way from items to results. Authors write ``prepare`` and ``infer``.

    A batch always has ``rows`` items of one `shape`, the last one repeated to fill it, so that no item's result
    depends on what came with it (DESIGN section 4). On a CPU that number is one. On a GPU it is the largest number
    asked for, halved until the network and one batch fit into its share of the memory, which one item is run to find
    out; and halved again, for good, where the memory does not do all the same. An item that cannot be prepared, or
    does not fit alone, is answered with its error, and nothing else is computed again for it.
    """

    rows: int = 1
    waited_s: float = 0.0
    """Seconds in which there was nothing to infer because it was still being prepared."""
    _pins = False

    @abstractmethod
    def prepare(self, item: ItemT) -> Any:
        """What the network is shown of one item, on the CPU. Called in another thread: may not touch the network."""

    @abstractmethod
    def infer(self, items: Sequence[ItemT], prepared: Any) -> Sequence[FoundT | Exception]:
        """The result of each item, or its error, from what `join` made of their parts."""

    def join(self, parts: Sequence[Any]) -> Any:
        """One batch of what ``prepare`` gave of each item: tensors are joined along their first dimension."""
        import torch

        return self.pinned(torch.cat(list(parts)))

    def shape(self, part: Any) -> Hashable:
        """Parts that differ in this go into different batches."""
        return None

    def sample(self) -> ItemT | None:
        """An item as large as they come, to find out what memory one takes; None where that cannot be said."""
        return None

    def memory_of(self, device: torch.device) -> Memory | None:
        """The memory that batches must fit into; None on a CPU, where they are of one item."""
        return GpuMemory(device) if device.type == "cuda" else None

    def pinned(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor in memory from which a GPU takes it without a copy; itself where there is none."""
        return tensor.pin_memory() if self._pins else tensor

    def bring(
        self,
        load: Callable[[torch.device, torch.dtype], None],
        where: tuple[torch.device, torch.dtype],
        *,
        share: float,
        most: int,
    ) -> None:
        """Load the network to a device and settle on ``rows``: ``most`` at most, in this ``share`` of its memory.

        DeviceMemoryError where there is no room for it.
        """
        device, dtype = where
        memory = self.memory_of(device)
        self._pins = device.type == "cuda"
        held_bytes = memory.held_bytes() if memory else 0
        with _room():
            load(device, dtype)
            if memory is not None:
                model_bytes = memory.held_bytes() - held_bytes
                budget_bytes = int(share * memory.total_bytes) - CONTEXT_BYTES - model_bytes
                self.rows = self._rows_within(most, budget_bytes, memory)

    def ahead(
        self, batches: Iterable[BatchT], items_of: Callable[[BatchT], Sequence[ItemT]]
    ) -> Iterator[tuple[BatchT, Callable[[], list[FoundT | Exception]]]]:
        """Each batch with what gives its results; while that is called the next batch is prepared in a thread."""
        with ThreadPoolExecutor(1) as thread:
            waiting: tuple[BatchT, Future[Ready[ItemT]]] | None = None
            for batch in batches:
                ready, waiting = waiting, (batch, thread.submit(self._ready, batch, items_of))
                if ready is not None:
                    yield ready[0], partial(self._finished, ready[1])
            if waiting is not None:
                yield waiting[0], partial(self._finished, waiting[1])

    def results(self, items: Sequence[ItemT]) -> list[FoundT | Exception]:
        """The result of each item, or its error."""
        return self._all(self._ready(items, list))

    def _finished(self, prepared: Future[Ready[ItemT]]) -> list[FoundT | Exception]:
        began = time.perf_counter()
        ready = prepared.result()
        self.waited_s += time.perf_counter() - began
        return self._all(ready)

    def _ready(self, given: BatchT, items_of: Callable[[BatchT], Sequence[ItemT]]) -> Ready[ItemT]:
        items = items_of(given)
        errors: dict[int, Exception] = {}
        shapes: dict[Hashable, list[tuple[int, ItemT, Any]]] = defaultdict(list)
        for number, item in enumerate(items):
            with boundary() as caught:
                part = self.prepare(item)
                shapes[self.shape(part)].append((number, item, part))
            if caught.error is not None:
                errors[number] = caught.error
        return Ready(len(items), [batch for same in shapes.values() for batch in self._cut(same)], errors)

    def _cut(self, known: Sequence[tuple[int, ItemT, Any]]) -> Iterator[_Batch[ItemT]]:
        """Batches of items of one shape."""
        rows = self.rows
        for start in range(0, len(known), rows):
            places, items, parts = zip(*known[start : start + rows], strict=True)
            joined = self.join([*parts, *[parts[-1]] * (rows - len(parts))])
            yield _Batch(places, items, parts, rows, joined)

    def _all(self, ready: Ready[ItemT]) -> list[FoundT | Exception]:
        found: dict[int, FoundT | Exception] = {**ready.errors}
        for batch in ready.batches:
            found.update(self._one(batch))
        return [found[number] for number in range(ready.n)]

    def _one(self, batch: _Batch[ItemT]) -> Iterator[tuple[int, FoundT | Exception]]:
        """Results by place."""
        if batch.rows <= self.rows:
            found = self._unless_too_large(batch)
            if found is not None:
                yield from zip(batch.places, found, strict=False)
                return
            self.rows = max(1, batch.rows // 2)
        for smaller in self._cut(list(zip(batch.places, batch.items, batch.parts, strict=True))):
            yield from self._one(smaller)

    def _unless_too_large(self, batch: _Batch[ItemT]) -> Sequence[FoundT | Exception] | None:
        """None where the memory does not do for the batch; for a single item that is its error."""
        import torch

        with boundary() as caught:
            items = [*batch.items, *[batch.items[-1]] * (batch.rows - len(batch.items))]
            found = self.infer(items, batch.joined)
            if len(found) != len(items):
                raise StageError(f"the network gave {len(found)} results for {len(items)} items")
            return found
        error = caught.error
        assert error is not None
        if not lacks_memory(error):
            raise error
        if batch.rows == 1:
            told = NoRoomError(f"the device's memory does not do for one item: {error}")
            told.__cause__ = error
            return [told]
        del error, caught  # with them go the tensors that their traceback holds
        torch.cuda.empty_cache()
        return None

    def _rows_within(self, most: int, budget_bytes: int, memory: Memory) -> int:
        """What fits; ``most`` where no item could be run to find out: batches that do not fit are halved then."""
        sample = self.sample()
        if sample is None:
            return most
        with boundary() as caught:
            joined = self.join([self.prepare(sample)])
            return rows_within(most, budget_bytes, memory.taken_bytes(lambda: self.infer([sample], joined)))
        assert caught.error is not None
        if lacks_memory(caught.error):
            raise caught.error
        logging.getLogger(__name__).warning("the memory of a batch is not known beforehand: %s", caught.error)
        return most


@contextmanager
def _room() -> Iterator[None]:
    """Lack of memory in here is one clear error."""
    with boundary() as caught:
        yield
    if caught.error is None:
        return
    if not lacks_memory(caught.error):
        raise caught.error
    raise DeviceMemoryError(
        f"the GPU has no room for its network: {caught.error}",
        fix="Let fewer stages share a GPU (raise their `gpus`), or set `device: cpu` for some",
    ) from caught.error


def lacks_memory(error: BaseException) -> bool:
    """Whether the GPU's memory did not do, for PyTorch, the driver, or a library such as cuBLAS."""
    import torch

    return any(
        isinstance(each, torch.OutOfMemoryError)
        or (isinstance(each, torch.AcceleratorError) and not is_device_lost(each))
        or "_STATUS_ALLOC_FAILED" in str(each)
        for each in causes(error)
    )
