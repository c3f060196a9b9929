"""What travels between planner, workers and writer. Plain picklable records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from curate.records import Clip, InputRef, SourceFacts
from curate.stage import ClipItem


@dataclass(frozen=True, slots=True)
class ClipWork:
    """A clip that lacks cells: ``missing`` stages, values it ``has`` that others read, stages whose cell ``failed``."""

    clip: Clip
    missing: frozenset[str]
    has: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    failed: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class SourceWork:
    """All that is missing for one source. ``facts`` None: probe it; ``clips`` None: cut it (and score every clip).

    ``attempts`` counts earlier attempts by (stage, key), ``attempt`` those at the source as a whole.
    """

    ref: InputRef
    digest: str | None = None
    facts: SourceFacts | None = None
    clips: tuple[ClipWork, ...] | None = None
    attempt: int = 1
    attempts: Mapping[tuple[str, str], int] = field(default_factory=dict)


@dataclass
class Use:
    """What the workers of a stage did: clips, seconds at work, seconds without any.

    A stage waits between two batches, of one bundle or of two, and for what it prepares of its own input. ``load_s``:
    seconds of getting ready before the first clip, of ``loads`` workers.
    """

    items: int = 0
    busy_s: float = 0.0
    waited_s: float = 0.0
    load_s: float = 0.0
    loads: int = 0

    def add(self, other: Use) -> None:
        """Add another use to this one."""
        self.items += other.items
        self.busy_s += other.busy_s
        self.waited_s += other.waited_s
        self.load_s += other.load_s
        self.loads += other.loads


@dataclass(frozen=True, slots=True)
class Ended:
    """How a source ended: ``digest`` of its content where it was read, its size as far as it was, clips that were
    scored; class and message of the error where it failed."""

    digest: str = ""
    seconds: float = 0.0
    read_bytes: int = 0
    clips: int = 0
    error_class: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class FailedCell:
    """A cell that failed: of a clip, or of a source (probe, cut) where ``clip`` is empty."""

    stage: str
    digest: str
    clip: str
    error_class: str
    message: str


@dataclass
class Summary:
    """Counts of one bundle for progress and statistics; summaries add, but for what names single sources and cells."""

    sources: int = 0
    failed_sources: int = 0
    clips: int = 0
    failed_cells: int = 0
    video_s: float = 0.0
    stage_seconds: dict[str, float] = field(default_factory=dict)
    stage_use: dict[str, Use] = field(default_factory=dict)
    cpu_s: float = 0.0
    """CPU seconds of the workers and their decoding processes, from their first source or bundle on."""
    cells: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Cells by (stage, outcome)."""
    read_bytes: int = 0
    written_bytes: int = 0
    ended: dict[str, Ended] = field(default_factory=dict)
    """By URI of each source of this one bundle. Not added up."""
    failed: list[FailedCell] = field(default_factory=list)
    """Of this one bundle. Not added up."""

    def add(self, other: Summary) -> None:
        """Add another summary to this one."""
        self.sources += other.sources
        self.failed_sources += other.failed_sources
        self.clips += other.clips
        self.failed_cells += other.failed_cells
        self.video_s += other.video_s
        self.cpu_s += other.cpu_s
        for name, seconds in other.stage_seconds.items():
            self.stage_seconds[name] = self.stage_seconds.get(name, 0.0) + seconds
        for name, use in other.stage_use.items():
            self.stage_use.setdefault(name, Use()).add(use)
        self.cells.update(other.cells)
        self.read_bytes += other.read_bytes
        self.written_bytes += other.written_bytes


@dataclass(frozen=True, slots=True)
class Machines:
    """What an engine works on, and where Ray's dashboard is, if it runs."""

    nodes: int = 0
    cpus: float = 0.0
    gpus: float = 0.0
    dashboard_url: str = ""


@dataclass(frozen=True)
class TableBundle:
    """Tables to write, in this order, each below its folder (relative to the corpus)."""

    tables: tuple[tuple[str, pa.Table], ...]
    summary: Summary


@dataclass(frozen=True)
class ClipBundle:
    """Clips on their way to the next group: each with the views it needs there and what it still lacks."""

    items: tuple[tuple[ClipItem, ClipWork], ...]
    attempts: Mapping[tuple[str, str], int] = field(default_factory=dict)


Bundle = TableBundle | ClipBundle
