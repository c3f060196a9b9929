"""What a selection asks for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container
from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from curate.config import Config

Scalar = bool | int | float | str
Share = Annotated[float, Field(ge=0, lt=1)]


class Condition(Config):
    """What a clip must fulfil in one column.

    Exactly one of: ``min`` and/or ``max`` (both inclusive), ``in``, ``not_in``, ``equals``, ``drop_lowest``,
    ``drop_highest``. On a column that holds lists, ``in`` asks for at least one of the values and ``not_in`` for none.
    A cell that is ok but holds no value fulfils only ``not_in``.

    ``drop_lowest: 0.25`` drops at most a quarter: with N values, the floor(0.25 N) lowest, and none that ties with the
    lowest one kept. That one is the nearest-rank percentile counted from the kept end (rank ceil(0.75 N) from above);
    ``drop_highest`` is its mirror image. N counts the clips of the run with an ok cell and a value, before every other
    condition; ``population: after_gate`` counts only clips that pass the gates above the column.

    ``aggregate`` makes one number of a column of lists of numbers, for ``min``, ``max`` and percentiles: the ``mean``,
    ``min`` or ``max`` of the list, or what stands ``first``, in the ``middle`` or ``last``. An empty list has no value.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, allow_inf_nan=False)

    column: str
    min: float | None = None
    max: float | None = None
    one_of: tuple[Scalar, ...] | None = Field(None, alias="in", min_length=1)
    not_in: tuple[Scalar, ...] | None = Field(None, min_length=1)
    equals: Scalar | None = None
    drop_lowest: Share | None = None
    drop_highest: Share | None = None
    aggregate: Literal["mean", "min", "max", "first", "middle", "last"] | None = None
    on_failed: Literal["failed", "drop", "keep"] = "failed"
    """Verdict of a clip whose cell failed."""
    name: str = ""
    """How reasons call it; the column's name when empty."""
    population: Literal["all", "after_gate"] = "all"

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        ranged = self.min is not None or self.max is not None
        others = (self.one_of, self.not_in, self.equals, self.drop_lowest, self.drop_highest)
        if ranged + sum(value is not None for value in others) != 1:
            raise ValueError("give exactly one of min/max, in, not_in, equals, drop_lowest, drop_highest")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError("min is above max: nothing could pass")
        if self.aggregate and not (ranged or self.share is not None):
            raise ValueError("aggregate makes a number: it goes with min, max, drop_lowest or drop_highest")
        return self

    @property
    def label(self) -> str:
        """The name that reasons use."""
        return self.name or self.column

    @property
    def measure(self) -> str:
        """What is compared: the column, or what is made of it."""
        return f"{self.aggregate} of {self.column}" if self.aggregate else self.column

    @property
    def share(self) -> float | None:
        """The share to drop, when this is a percentile."""
        return self.drop_lowest if self.drop_lowest is not None else self.drop_highest


class DedupConfig(Config):
    """How near-duplicates among the survivors are found.

    ``hash``: two clips match when the perceptual hashes of their first, middle and last view each differ in at most
    ``hamming`` of 64 bits and their durations by at most ``duration_tolerance`` of the longer one. Clips of one source
    match only where their spans overlap; a flat picture (black, white) matches nothing. ``embedding``: as ``hash``,
    but the embeddings of the three frames must each have a cosine of at least ``cosine`` (ours, no published number).
    ``auto``: by embedding where the run has the stage, else by hash.

    Clips are taken from best to worst, by ``keep`` (a column, higher is better; none or failed last), then by clip_id;
    one that matches a clip already kept goes. So each one removed is within the thresholds of the one kept for it, and
    no two kept match.
    """

    method: Literal["hash", "embedding", "auto", "none"] = "hash"
    hamming: int = Field(default=3, ge=0, le=7)
    cosine: float = Field(default=0.95, gt=0, lt=1)
    duration_tolerance: Share = 0.1
    keep: str = ""
    stage: str = "features"
    """The stage that writes phash_first, phash_middle, phash_last and phash_flat."""
    embedding_stage: str = "clip"
    """The stage that writes the embeddings first, middle and last."""
    on_failed: Literal["failed", "drop", "keep"] = "failed"
    """Verdict of a survivor whose hashes or embeddings failed; ``keep`` keeps it without comparison."""

    def method_of(self, stages: Container[str]) -> Literal["hash", "embedding", "none"]:
        """The method in a run with these stages."""
        if self.method == "auto":
            return "embedding" if self.embedding_stage in stages else "hash"
        return self.method


class SelectConfig(Config):
    """A selection: conditions in order, then near-duplicates."""

    name: str = Field("default", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    conditions: tuple[Condition, ...] = Field((), max_length=48)
    dedup: DedupConfig = DedupConfig()

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        twice = [name for name, n in Counter(c.label for c in self.conditions).items() if n > 1]
        if twice:
            raise ValueError(f"several conditions are called {', '.join(twice)}: give each a `name`")
        return self
