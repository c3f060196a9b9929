"""Apply a function to items, here or on Ray; what selection's and export's bulk work is given to run on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

RETRIES = 3


def inline_map(function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
    """One after the other in this process."""
    yield from map(function, items)


def ray_map(function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
    """One Ray task an item, results in order; a lost worker's task is done again, at most three times."""
    import ray

    def apply(item: Any) -> Any:
        return function(item)

    task = ray.remote(num_cpus=1, max_retries=RETRIES)(apply)
    for reference in [task.remote(item) for item in items]:
        yield ray.get(reference)
