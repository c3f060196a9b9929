"""Bulk work as a function and its items, so that who has the work need not know where it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

RunMap = Callable[[Callable[[Any], Any], Sequence[Any]], Iterator[Any]]
"""Applies a picklable function to items, somewhere, in any order of work; results in order."""


def inline_map(function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
    """One after the other in this process."""
    yield from map(function, items)
