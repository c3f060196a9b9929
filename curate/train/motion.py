"""Motion scores as the motion buckets that networks are conditioned on, and back.

SVD conditions on a motion bucket from 0 to 255 and never said how a score becomes one (SVD_SPEC 2.4, 7). Here a bucket
is a quantile: the calibration holds the scores at evenly spaced quantiles of the clips that a network is trained on,
and interpolates linearly between them. So bucket 127.5 is the median motion of the training clips, each bucket is seen
equally often, and a sampled clip's bucket has a score that can be measured. It is stored with each checkpoint: the
same number means the same motion in a later stage, on other clips, only with the same calibration.

Where many clips share one score (still footage), the run of equal quantiles is made to rise by steps so small that they
do not matter, so that the table stays invertible; such a score has the first bucket of its run.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Self

import numpy as np

from curate.errors import ConfigError
from curate.storage import Place

FORMAT = 2
HIGHEST = 255.0
"""Buckets are real numbers from 0 to this; 127 is the default of SVD's own pipelines."""

KNOTS = 256
_AGAIN = "Train the stage anew that wrote it"


@dataclass(frozen=True)
class MotionCalibration:
    """``scores``: rising, one for each of evenly spaced buckets from 0 to 255. ``column``: what was measured, as the
    run calls it, which says their unit. ``n_clips``: how many clips they were taken over."""

    scores: tuple[float, ...]
    column: str
    n_clips: int

    def __post_init__(self) -> None:
        values = np.asarray(self.scores, np.float64)
        if len(values) < 2 or not np.isfinite(values).all() or (np.diff(values) <= 0).any():
            raise ConfigError("scores must be finite and rise, two at least", subject="motion calibration")

    @classmethod
    def of_scores(cls, scores: np.ndarray | Sequence[float], column: str, knots: int = KNOTS) -> Self:
        """The calibration of these clips; NaN counts as none. ConfigError when there is none, or all move alike."""
        known = np.sort(np.asarray(scores, np.float64))
        known = known[np.isfinite(known)]
        if not len(known) or known[0] == known[-1]:
            text = f"{len(known)} clips have a motion score, and no two differ"
            raise ConfigError(text, subject=f"column {column!r}", fix="Run the motion stage and export again")
        table = np.quantile(known, np.linspace(0, 1, knots))
        return cls(tuple(_rising(table).tolist()), column, len(known))

    @property
    def buckets(self) -> np.ndarray:
        """The bucket of every score of the table."""
        return np.linspace(0, HIGHEST, len(self.scores))

    def bucket(self, scores: np.ndarray | Sequence[float] | float) -> np.ndarray:
        """float64 buckets, the shape of ``scores``; scores beyond the table get 0 or 255, NaN stays."""
        return np.interp(np.asarray(scores, np.float64), np.asarray(self.scores), self.buckets)

    def score(self, buckets: np.ndarray | Sequence[float] | float) -> np.ndarray:
        """float64 scores of buckets; ConfigError outside of 0 to 255."""
        wanted = np.asarray(buckets, np.float64)
        if ((wanted < 0) | (wanted > HIGHEST)).any():
            raise ConfigError(f"a motion bucket lies between 0 and {HIGHEST:.0f}", subject=str(buckets))
        return np.interp(wanted, self.buckets, np.asarray(self.scores))

    def check_unit(self, column: str) -> None:
        """ConfigError when ``column`` is measured in another unit than that of the table."""
        if column != self.column:
            text = f"the shards hold {column}, and the stage before was calibrated on {self.column}: another unit"
            fix = f"Export with motion: {self.column}, or begin without the stage before"
            raise ConfigError(text, subject="data.motion", fix=fix)

    def share_outside(self, scores: np.ndarray | Sequence[float]) -> float:
        """Share of the clips that have a score which lies below or above the table: all those get bucket 0 or 255."""
        known = np.asarray(scores, np.float64)
        known = known[np.isfinite(known)]
        outside = (known < self.scores[0]) | (known > self.scores[-1])
        return float(outside.mean()) if len(known) else 0.0

    def to_json(self) -> str:
        """The text that checkpoints hold; scores to the last bit."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str, where: str = "motion calibration") -> Self:
        """A calibration from its text; ConfigError when it is none of this format."""
        try:
            data = json.loads(text)
            found = data.pop("format", None)
            if found != FORMAT:
                raise ConfigError(f"has format {found}, this version reads {FORMAT}", subject=where, fix=_AGAIN)
            return cls(tuple(float(score) for score in data.pop("scores")), **data)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"is no motion calibration: {error}", subject=where) from error

    @classmethod
    def read(cls, place: Place) -> Self:
        """The calibration in a file."""
        return cls.from_json(place.read_text(), place.uri)


def _rising(table: np.ndarray) -> np.ndarray:
    """The table with each run of equal scores spread evenly up to the next higher one, by a thousandth of the step.

    A run at the end is spread downwards from the highest score, so that the range stays what it was.
    """
    out = table.copy()
    starts = np.flatnonzero(np.diff(table, prepend=-np.inf) > _EQUAL * (table[-1] - table[0]))
    for start, end in zip(starts, [*starts[1:], len(table)], strict=True):
        if end - start == 1:
            continue
        if end < len(table):
            share = (table[end] - table[start]) * _SPREAD
            out[start:end] = table[start] + np.linspace(0, share, end - start)
        else:
            below = out[start - 1]
            out[start:end] = table[start] - np.linspace((table[start] - below) * _SPREAD, 0, end - start)
    return out


_SPREAD = 1e-3
_EQUAL = 1e-6
"""Quantiles nearer to each other than this share of the range count as equal: below, numbers have no digits left."""
