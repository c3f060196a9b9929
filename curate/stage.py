"""What a stage is: the contract between the engine and everything that measures.

A *source stage* looks at a whole source: `probe` finds its facts, `cut` its clips. A *clip stage* gets views and cells
of one clip and gives one cell. Scorers never drop, gates and selections never compute.

Lifecycle of a clip stage: constructor on the driver (light, picklable) -> ``setup`` on the worker (loads weights) ->
``process`` (base class) -> ``score`` (the stage author's one method).
"""

from __future__ import annotations

import hashlib
import json
import math
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import numpy as np
import pyarrow as pa

from curate.config import Config
from curate.errors import (
    CurateError,
    DependencyError,
    DeviceError,
    DeviceLostError,
    StageError,
    class_name,
    is_device_lost,
)
from curate.memory import peak_memory_bytes
from curate.packages import Package
from curate.records import Cell, Clip, Failure, Outcome, SourceFacts, Span
from curate.redaction import redacted
from curate.view import THUMB_WIDTH_PX, View, ViewSpec

DECODE_POLICY_VERSION = 2
"""Part of every fingerprint that reads pixels: raise it when the pixels or positions of views change."""

LOOKS_PER_S = 12
"""A cut stage is shown the first reference frame at or after each k/12 s, and those between only where it asks."""

ConfigT = TypeVar("ConfigT", bound=Config)

Values = Mapping[str, Any]
"""Values of a cell by column."""

Scored = Values | Exception
"""Values of a clip's columns, or why it has none."""


@dataclass(frozen=True, slots=True)
class Column:
    """One typed column of a cell. The unit is part of the name too, where it is not obvious."""

    name: str
    dtype: pa.DataType
    unit: str
    doc: str


@dataclass(frozen=True, slots=True)
class Resources:
    """What one worker needs. ``pool`` asks for workers of its own instead of a place beside the decoder.

    ``gpu_optional``: where there is no GPU the stage runs without, beside the decoder.
    """

    cpus: float = 1.0
    gpus: float = 0.0
    gpu_optional: bool = False
    memory_bytes: int = 256 << 20
    batch_size: int = 1
    pool: bool = False


@dataclass(frozen=True, slots=True)
class ClipItem:
    """One clip on its way through the clip stages: views by name, values of the cells it reads by stage name."""

    clip: Clip
    facts: SourceFacts
    views: Mapping[str, View]
    cells: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


class Stage(ABC, Generic[ConfigT]):
    """What source stages and clip stages share: identity, configuration, columns."""

    name: ClassVar[str]
    version: ClassVar[int]
    config_type: ClassVar[type[Config]] = Config
    columns: ClassVar[tuple[Column, ...]]
    resources: Resources = Resources()
    packages: tuple[Package, ...] = ()
    """What it imports beyond what every installation has; a run does not begin without them."""
    reads_pixels: ClassVar[bool] = True
    stand_in: ClassVar[str] = ""
    """Said in the terminal, the manifest and the statistics where a stage only stands in for a real model."""

    def __init__(self, config: ConfigT) -> None:
        self.config = config

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" in vars(cls):
            missing = [attr for attr in ("version", "columns") if not hasattr(cls, attr)]
            twice = (
                {c.name for c in cls.columns if [d.name for d in cls.columns].count(c.name) > 1}
                if not missing
                else set()
            )
            if missing or twice:
                raise StageError(
                    f"stage class lacks {missing} or repeats columns {sorted(twice)}", subject=cls.__name__
                )

    def model_digests(self) -> Mapping[str, str]:
        """sha256 by model file; part of the fingerprint."""
        return {}

    def check_environment(self) -> None:
        """ConfigError where this machine lacks what else ``setup`` needs, such as a key in the environment."""

    def identity(self) -> dict[str, Any]:
        """All that decides this stage's values, apart from the cells it reads."""
        return {
            "name": self.name,
            "version": self.version,
            "config": self.config.deciding(),
            "models": dict(self.model_digests()),
            "decode_policy": DECODE_POLICY_VERSION if self.reads_pixels else 0,
        }

    def fingerprint(self, reads: Mapping[str, str]) -> str:
        """Digest of the identity and of the fingerprints of the cells it reads (by stage name), 16 hex digits."""
        text = json.dumps({**self.identity(), "reads": dict(reads)}, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def setup(self) -> None:
        """Load weights and sessions, once per worker."""


class Reading(StrEnum):
    """How a file is read: ``NORMAL``; ``TOLERANT``, when a part may be missing or broken; ``RECLOCKED``, when its time
    stamps are not to be used either: frames are counted at the declared rate, as in a file muxed anew."""

    NORMAL = "normal"
    TOLERANT = "tolerant"
    RECLOCKED = "reclocked"


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A source lying on local disk. ``digest`` is the sha256 of its bytes.

    ``identity`` is what told the file apart when it was hashed, where it is the user's own; empty for a copy of ours.
    ``reading`` is how much of its word is taken.
    """

    path: str
    uri: str
    digest: str
    size_bytes: int
    identity: tuple[int, ...] = ()
    reading: Reading = Reading.NORMAL


class ProbeStage(Stage[ConfigT]):
    """The source stage that reads a file's facts without decoding it."""

    reads_pixels = False

    @abstractmethod
    def probe(self, source: SourceFile) -> SourceFacts:
        """Facts of the best video stream; InputError when there is none."""


@dataclass(frozen=True, slots=True)
class Thumb:
    """A small picture of one frame for cut detection: uint8 (height, width, 3), Y U V, unrotated, averaged.

    ``skipped``: pts, ascending, of frames between the thumb before and this one. ``reference``: others may need this.
    """

    pts: int
    yuv: np.ndarray
    skipped: tuple[int, ...] = ()
    reference: bool = True


class CutDetector(Protocol):
    """Streaming cut detection over one source. Spans come in order, never overlap, and may come late."""

    def wants_between(self, thumb: Thumb) -> bool:
        """Whether frames that ``thumb`` skips are to be pushed before it: first the reference frames there, then, where
        it is asked and wants them again, the others. Depends on the thumbs alone."""
        ...

    def push(self, thumb: Thumb) -> list[Span]:
        """Take the next frame in display order; give the spans that are now certain."""
        ...

    def finish(self, end_pts: int, skipped: tuple[int, ...] = ()) -> list[Span]:
        """The stream ended at ``end_pts``, after frames that were not shown; give the remaining spans."""
        ...

    @property
    def needed_pts(self) -> int:
        """No span to come begins before this pts: what lies before it need not be held any longer."""
        ...

    def summary(self) -> dict[str, Any]:
        """Values of the cut cell except ``n_clips``; valid after finish."""
        ...


class CutStage(Stage[ConfigT]):
    """The source stage that finds a source's clips. What its detector wants: thumbs of ``thumb_width_px``, of every
    frame or not; ``s_per_frame`` is the time it may take for one beyond what decoding may take."""

    thumb_width_px: int = THUMB_WIDTH_PX
    every_frame: bool = False
    blind: bool = False
    """Its detector goes by time stamps alone: only frames that views may need are decoded."""
    s_per_frame: float = 0.0

    @abstractmethod
    def detector(self, facts: SourceFacts) -> CutDetector:
        """A fresh detector for one source."""

    def longest_clip_s(self) -> float:
        """Upper bound of a clip's length in seconds, for the memory check at plan time."""
        return math.inf


class ClipStage(Stage[ConfigT]):
    """A stage that gives one cell per clip. Authors write ``score``; the base owns loop, timing and failures."""

    reads: tuple[str, ...] = ()
    """Names of the clip stages whose cells ``score`` sees in ``item.cells``."""
    waited_s: float = 0.0
    """Seconds that `process_batches` has waited for the stage's own preparation of its input, all calls together."""

    def views(self) -> Mapping[str, ViewSpec]:
        """Views ``score`` sees in ``item.views``."""
        return {}

    def check_reads(self, above: Mapping[str, Stage[Any]]) -> None:
        """ConfigError where a stage whose cells it reads (``above``, by name) is set up so that it cannot use them."""

    def identity(self) -> dict[str, Any]:
        """As for any stage, with the view specifications."""
        views = {name: asdict(spec) for name, spec in self.views().items()}
        return {**super().identity(), "views": views, "decode_policy": DECODE_POLICY_VERSION if views else 0}

    @abstractmethod
    def score(self, item: ClipItem) -> Mapping[str, Any]:
        """Values of the declared columns for one clip. Raise CurateError where it cannot be measured."""

    def score_batch(self, items: Sequence[ClipItem]) -> Sequence[Scored]:
        """Override where a batch is cheaper; an item's result must not depend on its batch-mates.

        An item that cannot be measured may be answered with its error: it alone fails, and no other is scored again.
        """
        return [self.score(item) for item in items]

    def process(self, items: Sequence[ClipItem]) -> list[Cell]:
        """Score items; one that fails becomes a failed cell and takes nothing else with it."""
        return self.cells_of(items, lambda: self.score_batch(items))

    def cells_of(self, items: Sequence[ClipItem], scored: Callable[[], Sequence[Scored]]) -> list[Cell]:
        """The cells of a batch from what ``scored`` gives; where that fails each item is scored again by itself."""
        began = time.perf_counter()
        values: list[Scored] = []
        with boundary() as caught:
            values = [self._judged(value) for value in scored()]
            if len(values) != len(items):
                raise StageError(f"gave {len(values)} results for {len(items)} clips", subject=self.name)
        seconds = (time.perf_counter() - began) / len(items)
        if caught.error is None:
            return [_cell(item.clip.clip_id, value, seconds) for item, value in zip(items, values, strict=True)]
        if len(items) > 1:
            return [cell for item in items for cell in self.process([item])]
        return [failed_cell(items[0].clip.clip_id, caught.error, seconds)]

    def process_batches(self, batches: Iterable[Sequence[ClipItem]]) -> Iterator[list[Cell]]:
        """`process` for each batch. Override to get the next batch ready while one is being scored."""
        return map(self.process, batches)

    def _judged(self, value: Scored) -> Scored:
        """The value, or in its place what is wrong with it: it fails alone."""
        try:
            return value if isinstance(value, Exception) else self._checked(value)
        except StageError as error:
            return error

    def _checked(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        declared = {column.name for column in self.columns}
        if set(values) != declared:
            raise StageError(
                f"gave columns {sorted(set(values) - declared)} beyond and lacked {sorted(declared - set(values))}",
                subject=self.name,
            )
        for column in self.columns:
            _check_value(self.name, column, values[column.name])
        return values


def only(found: Sequence[Scored]) -> Values:
    """The values of a batch of one; raises its error where it has none."""
    (one,) = found
    if isinstance(one, Exception):
        raise one
    return one


def _check_value(stage: str, column: Column, value: Any) -> None:
    """StageError unless the value fits its column; here, where the clip fails alone, and not in the table writer."""
    try:
        array = _as_array(value, column.dtype)
    except (pa.ArrowException, OverflowError, ValueError) as error:
        raise StageError(
            f"a value does not fit its declared type in {column.name!r}: {error}", subject=stage
        ) from error
    if pa.types.is_integer(column.dtype) and isinstance(value, float) and not value.is_integer():
        raise StageError(f"a value does not fit its declared type in {column.name!r}: {value}", subject=stage)
    while pa.types.is_list(array.type):
        array = array.flatten()
    if pa.types.is_floating(array.type) and not np.isfinite(array.drop_null().to_numpy(zero_copy_only=False)).all():
        raise StageError(f"gave a value that is not finite in {column.name!r}", subject=stage)


def _as_array(value: Any, dtype: pa.DataType) -> pa.Array:
    """The value as Arrow holds it; NumPy vectors of the right type whole, which is a thousand times faster."""
    if isinstance(value, np.ndarray) and value.ndim == 1 and pa.types.is_list(dtype):
        array = pa.array(value)
        if array.type == dtype.value_type:
            return array
    return pa.array([value], dtype)


@dataclass
class Caught:
    """What a boundary caught."""

    error: Exception | None = None


@contextmanager
def boundary() -> Iterator[Caught]:
    """The one place that stops an unforeseen error: the caller records what failed inside, and the run goes on.

    A DeviceError alone passes: it would fail every clip to come. DeviceLostError is raised for PyTorch's own error.
    """
    caught = Caught()
    try:
        yield caught
    except DeviceError:
        raise
    except Exception as error:
        if is_device_lost(error):
            raise DeviceLostError(
                f"the GPU failed: {error}",
                fix="Look at the driver's log; the same command goes on with what is missing",
            ) from error
        caught.error = error


def _cell(key: str, value: Scored, seconds: float) -> Cell:
    if isinstance(value, Exception):
        return failed_cell(key, value, seconds)
    return Cell(key, Outcome.OK, value, seconds)


def failed_cell(key: str, error: BaseException, seconds: float, attempt: int = 1) -> Cell:
    """The cell of a failed measurement, with the error in full, less the secrets in it.

    An error that comes from another process says how much memory that one took (``peak_memory_bytes``).
    """
    message = error.message if isinstance(error, CurateError) else str(error) or type(error).__name__
    if isinstance(error, CurateError) and error.fix:
        message = f"{message}. {error.fix}"
    trace = "".join(traceback.format_exception(error))
    peak_bytes = getattr(error, "peak_memory_bytes", None) or peak_memory_bytes()
    failure = Failure(class_name(error), redacted(message), redacted(trace), peak_bytes)
    return Cell(key, Outcome.FAILED, {}, seconds, failure, attempt)


def missing_dependency(clip_id: str, stage: str, needs: str) -> Cell:
    """The cell of a stage that could not run because a cell it reads is not there."""
    return failed_cell(clip_id, DependencyError(f"needs the cell of {needs!r}, which failed", subject=stage), 0.0)
