"""Ray when there is something to do: a run over a complete corpus does not wait for it to start."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from curate.engine.pipeline import Pipeline
from curate.engine.room import Room
from curate.engine.run_map import ray_map
from curate.engine.work import Machines, SourceWork, Summary
from curate.isolation import Limits
from curate.tables import Corpus

if TYPE_CHECKING:
    from curate.engine.ray_engine import RayEngine


class RayOnDemand:
    """The Ray engine, started by the first pass or the first bulk work; ``starting`` is called just before."""

    name = "ray"

    def __init__(
        self,
        address: str | None,
        starting: Callable[[], None],
        limits: Limits | None = None,
        room: Room | None = None,
    ) -> None:
        self._address = address
        self._room = room
        self._limits = limits
        self._starting = starting
        self._engine: RayEngine | None = None

    def open(self) -> None:
        """Start Ray, or join the cluster, unless that was done."""
        if self._engine is None:
            self._starting()
            from curate.engine.ray_engine import RayEngine
            from curate.engine.ray_start import RayOptions

            self._engine = RayEngine(RayOptions(self._address, room=self._room), self._limits)

    def run_pass(
        self, corpus: Corpus, pipeline: Pipeline, works: Sequence[SourceWork], *, run_id: str, single: bool
    ) -> Iterator[Summary]:
        """Give a summary for every bundle written; EngineError when the pass died."""
        self.open()
        assert self._engine is not None
        yield from self._engine.run_pass(corpus, pipeline, works, run_id=run_id, single=single)

    def map(self, function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
        """Bulk work as Ray tasks, results in order."""
        if items:
            self.open()
        yield from ray_map(function, items) if items else ()

    def in_flight(self) -> set[str]:
        """URIs of sources that were being read when the pass ended."""
        return self._engine.in_flight() if self._engine is not None else set()

    def machines(self) -> Machines:
        """What Ray runs on, once it does."""
        return self._engine.machines() if self._engine is not None else Machines()

    def close(self) -> None:
        """Stop the Ray that was started here."""
        if self._engine is not None:
            self._engine.close()
