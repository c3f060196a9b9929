"""The error tree.

CurateError
├── UsageError              what was asked for cannot be done; the command ends with exit status 2
│   ├── ConfigError         a recipe, card or option is wrong; says where and what would be right
│   ├── MissingModelError   weights or packages are not here; says the command that fetches them
│   └── ModelFileError      weights are here, but hold something else or would run code
├── InputError              one input is at fault; recorded, its neighbours go on
│   ├── EmptyFileError      zero bytes
│   ├── NotMediaError       no demuxer reads it
│   ├── NoVideoStreamError  media without a video stream
│   ├── DecodeError         a stream that cannot be decoded to its end
│   │   ├── ClockError      its time stamps cannot be used
│   │   ├── DecoderCrashError   it killed the process that decoded it
│   │   └── DecodeLimitError    it takes more time or memory than a file may
│   └── SourceChangedError  the file is no longer the one that was scored
├── StorageError            a place could not be read or written
│   └── TransientStorageError   worth another attempt (time-outs, throttling)
│       └── TruncatedReadError  fewer bytes came than there are
├── StageError              a stage broke its contract or could not measure an item
│   ├── DependencyError     a cell that the stage reads is missing or failed
│   ├── NoMotionVectorsError    the codec stored none, or its decoder gives none
│   ├── NoRoomError         the memory of a device did not do for one clip; worth another attempt
│   └── EndpointError       a model's endpoint refused a request
│       └── EndpointUnavailableError    it did not answer, or not usably; worth another attempt
├── UnexpectedError         in the decoding process something failed that is not ours
├── CorpusError             the corpus folder does not hold what its tables say
├── TrainingError           training cannot go on as it is
└── EngineError             the engine gave up (workers died)
    ├── ClusterError        the cluster cannot hold the workers that the recipe needs
    ├── DeviceError         a GPU gives no more results to this process
    │   ├── DeviceLostError     after an error from which only a new process recovers
    │   └── DeviceMemoryError   because a model does not fit
    ├── TooManyFailuresError    more sources failed than the user allowed
    └── WorkerDiedError     the source was in flight in two dead passes
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import ClassVar

_TRAVELLING = frozenset({"__notes__", "peak_memory_bytes"})
"""What goes along with an error from process to process, beside its words."""


class CurateError(Exception):
    """Root of all errors raised on purpose.

    ``subject`` is the id, path or URI concerned; ``fix`` is what the user can do.
    ``transient`` says whether the same work may succeed when it is done again.
    """

    transient: ClassVar[bool] = False
    peak_memory_bytes: int | None = None
    """Peak memory of the process in which it happened, where that was another one."""

    def __init__(self, message: str, *, subject: str = "", fix: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.subject = subject
        self.fix = fix

    def __str__(self) -> str:
        head = f"{self.subject}: {self.message}" if self.subject else self.message
        return f"{head}. {self.fix}" if self.fix else head

    def __reduce__(self) -> tuple[object, ...]:
        kept = {name: value for name, value in vars(self).items() if name in _TRAVELLING}
        return (_rebuild, (type(self), self.message, self.subject, self.fix), kept or None)


def _rebuild(cls: type[CurateError], message: str, subject: str, fix: str) -> CurateError:
    return cls(message, subject=subject, fix=fix)


class UsageError(CurateError):
    """What was asked for cannot be done."""


class ConfigError(UsageError):
    """A recipe, card or option is wrong."""


class MissingModelError(UsageError):
    """Weights or packages are not on this machine: no fault of the clip, which is scored once they are."""

    transient = True


class ModelFileError(UsageError):
    """A model file cannot be read safely, or is of another model."""


class InputError(CurateError):
    """One input is at fault."""


class EmptyFileError(InputError):
    """The file has no bytes."""


class NotMediaError(InputError):
    """No demuxer reads the file."""


class NoVideoStreamError(InputError):
    """The file is media, but has no video stream."""


class DecodeError(InputError):
    """The video stream cannot be decoded to its end."""


class ClockError(DecodeError):
    """The time stamps of the stream cannot be used."""


class DecoderCrashError(DecodeError):
    """The file killed the process that decoded it."""


class DecodeLimitError(DecodeError):
    """Decoding the file takes more time or memory than it may."""


class SourceChangedError(InputError):
    """The file is no longer the one that was scored."""

    transient = True


class StorageError(CurateError):
    """A place could not be read or written."""


class TransientStorageError(StorageError):
    """A place could not be read or written just now."""

    transient = True


class TruncatedReadError(TransientStorageError):
    """Fewer bytes came than the place says there are."""


class StageError(CurateError):
    """A stage broke its contract or could not measure an item."""


class DependencyError(StageError):
    """A cell that the stage reads is missing or failed; done again once that cell is there."""

    transient = True


class NoMotionVectorsError(StageError):
    """A clip has no motion vectors: its codec stored none, or the decoder gives none of that codec."""


class NoRoomError(StageError):
    """The memory of a device did not do for a single item: others may have taken it just then."""

    transient = True


class EndpointError(StageError):
    """A model's endpoint refused a request."""


class EndpointUnavailableError(EndpointError):
    """A model's endpoint did not answer as often as it was asked, or answered nothing of use."""

    transient = True


class CorpusError(CurateError):
    """The corpus does not hold what its tables say."""


class UnexpectedError(CurateError):
    """An error that is not ours in the decoding process; ``subject`` is its class."""


class EngineError(CurateError):
    """The engine gave up."""


class ClusterError(EngineError):
    """The cluster cannot hold the workers that the recipe needs; another pass would not change that."""


class DeviceError(EngineError):
    """A GPU gives no more results to this process: no fault of a clip, and never recorded as one."""


class DeviceLostError(DeviceError):
    """The process lost its GPU: every further call fails, a new process may go on."""


class DeviceMemoryError(DeviceError):
    """A GPU has no room for a model, or with it for a single clip; another attempt would not change that."""


_OUT_OF_MEMORY = 2
"""Of the errors of a GPU's driver the one that leaves the process as it was (``cudaErrorMemoryAllocation``)."""


def is_device_lost(error: BaseException) -> bool:
    """Whether PyTorch says that the driver failed: whatever runs on the GPU of this process fails from then on."""
    torch = sys.modules.get("torch")  # if it is not loaded it has not raised; this floor must not load it
    lost = getattr(torch, "AcceleratorError", ())
    return any(isinstance(each, lost) and getattr(each, "error_code", None) != _OUT_OF_MEMORY for each in causes(error))


def causes(error: BaseException) -> Iterator[BaseException]:
    """The error, and what it was raised from; each once, for errors may be raised from themselves."""
    seen: list[BaseException] = []
    each: BaseException | None = error
    while each is not None and not any(each is other for other in seen):
        seen.append(each)
        yield each
        each = each.__cause__


_QUERY_STOPPED = "Query interrupted"
"""What DuckDB makes of Ctrl-C during a query: a RuntimeError of these words."""


def is_stop(error: BaseException | None) -> bool:
    """Whether somebody stopped it: Ctrl-C, as Python or as DuckDB tells of it."""
    return isinstance(error, KeyboardInterrupt) or (isinstance(error, RuntimeError) and str(error) == _QUERY_STOPPED)


class TooManyFailuresError(EngineError):
    """More sources failed than the user allowed; what is finished is kept."""


class WorkerDiedError(EngineError):
    """The source was being read in two passes whose workers died."""


class TrainingError(CurateError):
    """Training cannot go on as it is."""


def class_name(error: BaseException) -> str:
    """The class of an error as tables record it: that of the original, where it happened in the decoding process."""
    return error.subject if isinstance(error, UnexpectedError) else type(error).__name__


def transient_names() -> list[str]:
    """Names of all error classes for which `is_transient` holds."""
    found: set[str] = set()
    todo: list[type[BaseException]] = [CurateError, TimeoutError, ConnectionError, MemoryError]
    while todo:
        cls = todo.pop()
        todo += cls.__subclasses__()
        if not issubclass(cls, CurateError) or cls.transient:
            found.add(cls.__name__)
    return sorted(found)


def is_transient(class_name: str) -> bool:
    """True when a failed cell with this error class is worth another attempt on resume."""
    return class_name in transient_names()
