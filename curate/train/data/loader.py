"""Batches in the order of the run, decoded ahead by worker processes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from curate.errors import ConfigError, CorpusError, CurateError, EngineError
from curate.train.data.catalogue import Catalogue
from curate.train.data.config import DataConfig
from curate.train.data.order import Order, Position
from curate.train.data.worker import Ahead, Batch, Lost, Sources, Task, Tasks, in_workers


@dataclass(slots=True)
class Stall:
    """How long the consumer waited for batches. ``first_s``: for the first one, while workers started; it is not in
    ``wait_s`` and ``wall_s``."""

    wait_s: float = 0.0
    wall_s: float = 0.0
    first_s: float = 0.0
    n_batches: int = 0

    @property
    def share(self) -> float:
        """Share of the time that was spent waiting."""
        return self.wait_s / self.wall_s if self.wall_s else 0.0


class Loader:
    """An endless iterator over a rank's batches from a position on.

    Every batch of ``config.batch`` clips is one of the whole run: rank r gets its items r, r + world, ... so that the
    same clips make up the same batches whatever the number of ranks. ``ahead``: worker processes. ``sources``: what
    was encoded beforehand. ``on_lost`` is told of every clip when it is lost first; by default a warning is logged.
    ``stall`` and ``lost`` (by clip id) are of this loader's life.

    Iterating raises CorpusError when too many clips are lost, or one and all that might replace it, and EngineError
    when a worker process dies.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        config: DataConfig,
        *,
        rank: int = 0,
        world: int = 1,
        ahead: Ahead | None = None,
        sources: Sources | None = None,
        on_lost: Callable[[Lost], None] | None = None,
    ) -> None:
        config.share(world)  # or an error
        self.stall = Stall()
        self.lost: dict[str, Lost] = {}
        self._catalogue = catalogue
        self._config = config
        self._order = Order(catalogue.rows, config.batch)
        self._next = Position(config.seed)
        self._share = rank, world
        self._ahead = ahead or Ahead()
        self._sources = sources or Sources()
        self._on_lost = on_lost or _warn
        self._batches: Iterator[Batch | CurateError] | None = None
        self._asked_s: float | None = None

    @property
    def position(self) -> Position:
        """Of the next batch that the consumer gets."""
        return self._next

    @property
    def batches_per_epoch(self) -> int:
        """Batches of the whole run in one pass over the clips."""
        return self._order.n_batches

    def state(self) -> dict[str, Any]:
        """What `resume` takes: JSON, the same on all ranks."""
        return {**asdict(self._next), "of": self._catalogue.digest}

    def resume(self, state: Mapping[str, Any]) -> None:
        """Go on from a state; ConfigError when it is of other shards or another configuration."""
        if state["of"] != self._catalogue.digest:
            raise ConfigError("the shards or the data settings are not those of the checkpoint", subject="data")
        self.seek(Position(int(state["seed"]), int(state["epoch"]), int(state["index"])))

    def seek(self, position: Position) -> None:
        """Go on from a position."""
        self.close()
        self._next = position

    def close(self) -> None:
        """Stop the workers; iterating starts them again."""
        self._batches = None

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        began_s = time.perf_counter()
        if self._batches is None:
            self._batches = self._start()
            self._asked_s = None
        batch = _next(self._batches) if self._ahead.workers else next(self._batches)
        if isinstance(batch, CurateError):
            raise batch
        self._count(began_s, time.perf_counter())
        self._next = self._order.next(batch.position)
        self._note(batch.lost)
        return batch

    def _count(self, began_s: float, ended_s: float) -> None:
        if self._asked_s is None:
            self.stall.first_s += ended_s - began_s
        else:
            self.stall.wait_s += ended_s - began_s
            self.stall.wall_s += ended_s - self._asked_s
        self.stall.n_batches += 1
        self._asked_s = ended_s

    def _start(self) -> Iterator[Batch | CurateError]:
        dataset = Tasks(self._catalogue, self._config, self._sources)
        return in_workers(dataset, self._tasks(self._next), self._ahead)

    def _tasks(self, position: Position) -> Iterator[Task]:
        rank, world = self._share
        while True:
            plan = self._order.batch(position)
            refs = [[self._catalogue.ref(row) for row in rows] for rows in plan.candidates[rank::world]]
            numbers = range(plan.first_item + rank, plan.first_item + self._config.batch, world)
            items = list(zip(numbers, refs, strict=True))
            yield Task(position, self._catalogue.buckets[plan.bucket], items)
            position = self._order.next(position)

    def _note(self, lost: tuple[Lost, ...]) -> None:
        """Count what was lost; CorpusError when that is too much."""
        for loss in lost:
            if loss.clip_id not in self.lost:
                self.lost[loss.clip_id] = loss
                self._on_lost(loss)
        if len(self.lost) > max(1, self._config.max_lost_share * self._catalogue.n_clips):
            last = next(reversed(self.lost.values()))
            counts = f"{len(self.lost)} of {self._catalogue.n_clips} clips"
            message = f"{counts} cannot be read, the last one {last.clip_id}: {last.reason}"
            raise CorpusError(message, subject=last.shard, fix="Export again, or raise data.max_lost_share")


def _next(batches: Iterator[Batch | CurateError]) -> Batch | CurateError:
    """The next batch of worker processes. A dead one shows as PyTorch's error, or as a batch that cannot be fetched."""
    try:
        return next(batches)
    except (RuntimeError, OSError, EOFError) as error:
        if str(error).startswith("Caught "):  # an error inside a worker that lives
            raise
        text = f"a process that reads clips died: {error}"
        raise EngineError(text, fix="Run again: it goes on from the last checkpoint") from error


def _warn(loss: Lost) -> None:
    text = "%s: clip %s cannot be read, the next one is taken instead (%s)"
    logging.getLogger(__name__).warning(text, loss.shard, loss.clip_id, loss.reason)
