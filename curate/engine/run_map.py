"""Bulk work as Ray tasks: what hashing and export are given to run on beside a Ray engine."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

from curate.errors import CurateError, EngineError

RETRIES = 3

IN_FLIGHT = 1024
"""Tasks given to Ray at once: more than a large cluster has cores, and few enough to hold."""


def ray_map(function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
    """One Ray task an item, results in order; a lost worker's task is done again, at most three times.

    Errors of ours come as they were raised; EngineError when a task's workers died, or it failed in a way unforeseen.
    """
    import ray
    from ray.exceptions import RayError, RayTaskError

    def apply(item: Any) -> Any:
        return function(item)

    task = ray.remote(num_cpus=1, max_retries=RETRIES)(apply)
    waiting: deque[Any] = deque()
    todo = iter(items)
    while True:
        waiting.extend(task.remote(item) for item in islice(todo, IN_FLIGHT - len(waiting)))
        if not waiting:
            return
        try:
            result = ray.get(waiting.popleft())
        except RayTaskError as error:
            if isinstance(error.cause, CurateError):
                raise error.cause from error
            raise EngineError(f"a Ray task failed: {error.cause!r}", fix="Run the command again") from error
        except RayError as error:
            raise EngineError(f"a Ray task was lost: {error}", fix="Run the command again") from error
        yield result
