"""The records that rooms hand to each other: inputs, source facts, spans, clips, cells."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from fractions import Fraction
from typing import Any, Self

from curate.units import fraction_text, parse_fraction, pts_to_s


class Outcome(StrEnum):
    """How a cell, a source or an input ended."""

    OK = "ok"
    FAILED = "failed"
    SKIPPED = "skipped"


class CutKind(StrEnum):
    """What bounds a clip on one side."""

    SOURCE_START = "source_start"
    SOURCE_END = "source_end"
    HARD = "hard"
    DISSOLVE = "dissolve"
    FADE = "fade"
    WIPE = "wipe"
    GRADUAL = "gradual"
    MAX_LEN = "max_len"
    STRIDE = "stride"
    DAMAGE = "damage"


@dataclass(frozen=True, slots=True)
class InputRef:
    """One listed input before anything of it was read.

    ``version`` is the etag or the modification time as text: with uri and size it says whether the content may have
    changed. ``cause`` is set when the listing already skips the input (symlink out of the root, not a video name ...).
    ``user`` holds the extra columns of a source list. ``uri`` is the name that tables keep; where the place is only
    reached with a secret (a signed address, a password), ``address`` has it. It is never stored, printed or logged.
    """

    uri: str
    size_bytes: int | None = None
    version: str = ""
    cause: str = ""
    user: Mapping[str, str] = field(default_factory=dict)
    address: str = field(default="", repr=False, compare=False)

    @property
    def place(self) -> str:
        """Where to read it."""
        return self.address or self.uri


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """What `probe` finds in a file, as stored in its cell. Sizes in pixels after rotation and pixel aspect.

    ``key_frames_pts`` and ``key_frames_closed`` run in parallel; a closed key frame can be decoded from with nothing
    shown before it missing. ``end_pts`` is the pts of the first instant after the last frame.
    When ``has_pts`` is False the stream carries no usable time stamps: pts is then the frame index, and ``time_base``
    is one over the declared rate.
    """

    stream: int
    container: str
    codec: str
    pix_fmt: str
    bit_depth: int
    coded_width_px: int
    coded_height_px: int
    width_px: int
    height_px: int
    rotation_deg: int
    sar: str
    rate: str
    rate_fps: float
    vfr: bool
    has_pts: bool
    time_base: str
    start_pts: int
    end_pts: int
    duration_s: float
    n_frames: int
    key_frames_pts: list[int]
    key_frames_closed: list[bool]
    bit_rate_bps: int
    streams_json: str

    @property
    def time_base_fraction(self) -> Fraction:
        """Seconds of one tick."""
        return parse_fraction(self.time_base)

    @classmethod
    def from_cell(cls, values: Mapping[str, Any]) -> Self:
        """Facts from a stored `probe` cell (its other columns are ignored)."""
        return cls(**{name: values[name] for name in cls.__dataclass_fields__})

    def to_cell(self) -> dict[str, Any]:
        """The typed values of a `probe` cell."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Span:
    """A half-open stretch of a stream, [start_pts, end_pts), what bounds it, and its frames where they were counted."""

    start_pts: int
    end_pts: int
    start_kind: CutKind = CutKind.SOURCE_START
    end_kind: CutKind = CutKind.SOURCE_END
    start_detector: str = ""
    end_detector: str = ""
    n_frames: int | None = None


def clip_id(source_digest: str, stream: int, start_pts: int, end_pts: int, time_base: Fraction) -> str:
    """128 bits of sha256 over what identifies a clip, as 32 hex digits: the same span has the same id for ever."""
    text = f"{source_digest}|{stream}|{start_pts}|{end_pts}|{fraction_text(time_base)}"
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Clip:
    """A half-open span of one source. ``end_pts`` is the pts of the first frame outside.

    ``n_frames`` is None where the cut stage did not count.
    """

    clip_id: str
    source_digest: str
    stream: int
    start_pts: int
    end_pts: int
    time_base: Fraction
    start_kind: CutKind = CutKind.SOURCE_START
    end_kind: CutKind = CutKind.SOURCE_END
    start_detector: str = ""
    end_detector: str = ""
    n_frames: int | None = None

    @classmethod
    def of_span(cls, source_digest: str, stream: int, time_base: Fraction, span: Span) -> Self:
        """The clip that a span of this source is."""
        return cls(
            clip_id(source_digest, stream, span.start_pts, span.end_pts, time_base),
            source_digest,
            stream,
            span.start_pts,
            span.end_pts,
            time_base,
            span.start_kind,
            span.end_kind,
            span.start_detector,
            span.end_detector,
            span.n_frames,
        )

    @property
    def start_s(self) -> Fraction:
        """Exact start in seconds of the stream's clock."""
        return pts_to_s(self.start_pts, self.time_base)

    @property
    def end_s(self) -> Fraction:
        """Exact end in seconds of the stream's clock."""
        return pts_to_s(self.end_pts, self.time_base)

    @property
    def duration_s(self) -> Fraction:
        """Exact length in seconds."""
        return pts_to_s(self.end_pts - self.start_pts, self.time_base)

    def to_row(self) -> dict[str, Any]:
        """The row of the clips table."""
        return {
            "clip_id": self.clip_id,
            "source_digest": self.source_digest,
            "stream": self.stream,
            "start_pts": self.start_pts,
            "end_pts": self.end_pts,
            "time_base": fraction_text(self.time_base),
            "start_s": float(self.start_s),
            "end_s": float(self.end_s),
            "start_kind": str(self.start_kind),
            "end_kind": str(self.end_kind),
            "start_detector": self.start_detector,
            "end_detector": self.end_detector,
            "n_frames": self.n_frames,
        }

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        """A clip from its table row."""
        return cls(
            row["clip_id"],
            sys.intern(row["source_digest"]),  # many clips share it, and those below
            row["stream"],
            row["start_pts"],
            row["end_pts"],
            parse_fraction(row["time_base"]),
            CutKind(row["start_kind"]),
            CutKind(row["end_kind"]),
            sys.intern(row["start_detector"]),
            sys.intern(row["end_detector"]),
            row["n_frames"],
        )


@dataclass(frozen=True, slots=True)
class Failure:
    """Why something failed, in full. ``peak_memory_bytes`` is the most that the process held while it tried."""

    error_class: str
    message: str
    traceback: str = ""
    peak_memory_bytes: int | None = None

    def columns(self) -> dict[str, Any]:
        """Its columns in a table."""
        return {
            "error_class": self.error_class,
            "error_message": self.message,
            "error_traceback": self.traceback,
            "peak_memory_bytes": self.peak_memory_bytes,
        }


@dataclass(frozen=True, slots=True)
class Cell:
    """One stage's result for one source or clip (``key``). ``values`` is empty when it failed."""

    key: str
    outcome: Outcome
    values: Mapping[str, Any]
    seconds: float
    failure: Failure | None = None
    attempt: int = 1
