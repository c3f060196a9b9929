"""Which clips make up which batch: a pure function of the position.

Draws rest on SHA-256 and on NumPy's raw Philox bits, which no version may change; NumPy's own shuffles may.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np


@dataclass(frozen=True, slots=True)
class Position:
    """Where a run is: ``index`` counts batches of the epoch, over all ranks."""

    seed: int
    epoch: int = 0
    index: int = 0


class Draws(NamedTuple):
    """What is drawn for one item of an epoch; ``item`` counts clips of the epoch, over all ranks."""

    seed: int
    epoch: int
    item: int

    def unit(self, name: str) -> float:
        """Uniform in [0, 1), another one for each name."""
        text = f"{self.seed}|{self.epoch}|{self.item}|{name}"
        return (int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 11) / 2**53

    def below(self, n: int, name: str) -> int:
        """Uniform among 0 ... n - 1."""
        return min(int(self.unit(name) * n), n - 1)

    def weighted(self, weights: Sequence[float], name: str) -> int:
        """An index, with the chance of its weight."""
        left = self.unit(name) * sum(weights)
        for at, weight in enumerate(weights):
            left -= weight
            if left < 0:
                return at
        return len(weights) - 1


class Planned(NamedTuple):
    """One batch of an epoch: its bucket, and the candidates of each of its items, the first choice first."""

    bucket: int
    first_item: int
    candidates: list[list[int]]


class Order:
    """The order of the rows of several buckets, epoch after epoch.

    Each epoch shuffles the rows of every bucket, cuts them into batches of one bucket each, and shuffles the batches.
    What is left over at the end of a bucket is not seen in that epoch; which rows that are changes with it.
    """

    def __init__(self, rows: Sequence[np.ndarray], batch: int, *, n_spares: int = 4) -> None:
        """``rows``: row numbers of every bucket."""
        self._rows = rows
        self._batch = batch
        self._n_spares = n_spares
        self.n_batches = sum(len(own) // batch for own in rows)
        self._made: tuple[tuple[int, int], list[np.ndarray], np.ndarray] | None = None

    def next(self, position: Position) -> Position:
        """The position after this one."""
        if position.index + 1 < self.n_batches:
            return replace(position, index=position.index + 1)
        return Position(position.seed, position.epoch + 1, 0)

    def batch(self, position: Position) -> Planned:
        """The batch at a position. The spare candidates of an item are those that follow it in its bucket's order."""
        shuffled, slots = self._epoch(position.seed, position.epoch)
        bucket, number = (int(value) for value in slots[position.index])
        rows = shuffled[bucket]
        starts = range(number * self._batch, (number + 1) * self._batch)
        n_candidates = min(1 + self._n_spares, len(rows))
        candidates = [[int(rows[(at + k) % len(rows)]) for k in range(n_candidates)] for at in starts]
        return Planned(bucket, position.index * self._batch, candidates)

    def _epoch(self, seed: int, epoch: int) -> tuple[list[np.ndarray], np.ndarray]:
        """Rows of every bucket in their order, and (bucket, number) of every batch."""
        if self._made is None or self._made[0] != (seed, epoch):
            shuffled = [own[_permutation(len(own), f"{seed}|{epoch}|{at}")] for at, own in enumerate(self._rows)]
            counts = [len(own) // self._batch for own in self._rows]
            slots = np.array([(at, k) for at, count in enumerate(counts) for k in range(count)]).reshape(-1, 2)
            self._made = (seed, epoch), shuffled, slots[_permutation(len(slots), f"{seed}|{epoch}|batches")]
        return self._made[1], self._made[2]


def _permutation(n: int, name: str) -> np.ndarray:
    key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:16], "big")
    return np.argsort(np.random.Philox(key=key).random_raw(n), kind="stable")
