"""What a Ray engine's workers tell of themselves. A module of its own, and a light one: the process in which the
registry lives, for which all workers wait, needs neither Ray Data nor decoders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ray
from ray import cloudpickle


@ray.remote(num_cpus=0)
class Registry:
    """Knows which sources are in flight and on which node each worker lives."""

    def __init__(self) -> None:
        self._in_flight: dict[str, str] = {}
        self._last_words: dict[str, str] = {}
        self._workers: dict[str, tuple[bytes, str]] = {}

    def on_source(self, event: str, uri: str, worker: str) -> None:
        """A worker starts or ends a source."""
        if event == "start":
            self._in_flight[uri] = worker
        else:
            self._in_flight.pop(uri, None)

    def on_worker(self, worker: str, handle: bytes, node: str) -> None:
        """A worker is there, for the first time or again after a restart."""
        self._workers[worker] = (handle, node)
        self._last_words.pop(worker, None)

    def on_death(self, worker: str, words: str) -> None:
        """A worker that lost its GPU ends itself, and says why."""
        self._last_words[worker] = words

    def last_words(self) -> str:
        """Of the last worker that ended itself and has not come back; empty where there is none."""
        return next(reversed(self._last_words.values()), "")

    def in_flight(self) -> list[str]:
        """URIs being read."""
        return sorted(self._in_flight)

    def workers_on(self, nodes: Sequence[str] | None) -> list[bytes]:
        """Pickled handles of the workers last seen on these nodes; of all workers for None."""
        return [handle for handle, node in self._workers.values() if nodes is None or node in nodes]


def register(registry: Any) -> str:
    """Tell of the worker that this process is; gives its id. Its handle travels pickled: whoever reads one of Ray
    Data's workers imports Ray Data."""
    context = ray.get_runtime_context()
    worker = context.get_actor_id() or ""
    handle = cloudpickle.dumps(context.current_actor)  # pyright: ignore[reportPrivateImportUsage]
    ray.get(registry.on_worker.remote(worker, handle, context.get_node_id()))
    return worker


@ray.remote(num_cpus=0, max_retries=0)
def ping() -> bool:
    """A sign of life."""
    return True
