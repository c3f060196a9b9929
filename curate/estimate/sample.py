"""Which inputs of a bucket are tried: drawn with a seed, the longer the likelier, and some of every length."""

from __future__ import annotations

import math
import random
import re
from dataclasses import dataclass
from typing import Self

import numpy as np

from curate.errors import ConfigError

LEAST_INPUTS = 8
"""A share of a small bucket takes as many at least: fewer say too little of how different inputs are."""


@dataclass(frozen=True, slots=True)
class SampleSize:
    """How much of a bucket is tried: a ``share`` of its inputs (0 to 1), or so many (``count``)."""

    share: float | None = None
    count: int | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """From ``1%``, ``0.01`` or ``20`` (inputs). ConfigError."""
        found = re.fullmatch(r"(\d+(?:\.\d+)?|\.\d+)(\s*%)?", text.strip())
        if found and found[1].isdigit() and not found[2] and int(found[1]) > 0:
            return cls(count=int(found[1]))
        share = float(found[1]) / (100 if found[2] else 1) if found else 0.0
        if not 0 < share <= 1:
            fix = "Say `1%`, `0.01` or `20`"
            raise ConfigError(
                f"{text!r} is neither a share of the inputs nor a number of them", subject="--sample", fix=fix
            )
        return cls(share=share)

    def of(self, n_inputs: int) -> int:
        """How many of so many inputs."""
        if self.count is not None:
            return min(self.count, n_inputs)
        assert self.share is not None
        return min(max(LEAST_INPUTS, math.ceil(self.share * n_inputs)), n_inputs)


def chances(weights: np.ndarray, n: int) -> np.ndarray:
    """How likely each input is to be among ``n``: in proportion to its weight, 1 for those that are so heavy that they
    are always taken, n in all.

    What an input costs and gives goes with its length. A draw in which all are equally likely leaves to luck which long
    ones it holds, and they make most of the total.
    """
    certain = np.zeros(len(weights), bool)
    while True:
        n_left = n - int(certain.sum())
        found = np.where(certain, 1.0, n_left * weights / max(float(weights[~certain].sum()), 1e-300))
        heavy = ~certain & (found >= 1.0)
        if not heavy.any():
            return found
        certain |= heavy


def draw(found: np.ndarray, seed: int) -> np.ndarray:
    """Positions of a sample, ascending, by these chances: each input as often as its chance says.

    They are laid end to end, from the least likely to the most, and taken at equal steps from a start drawn with
    ``seed``: so there are some of every length.
    """
    certain = np.flatnonzero(found >= 1.0)
    rest = np.array([at for at in np.argsort(found, kind="stable") if found[at] < 1.0], int)
    n = round(float(found[rest].sum())) if len(rest) else 0
    if not n:
        return certain
    ends = np.cumsum(found[rest]) * (n / found[rest].sum())
    steps = np.arange(n) + random.Random(seed).random()
    taken = rest[np.minimum(np.searchsorted(ends, steps, side="right"), len(rest) - 1)]
    return np.sort(np.concatenate([certain, taken]))
