"""The buffer between scoring and the table writer: rows by table, given out in the order that is safe to write."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from curate.engine.pipeline import Pipeline
from curate.engine.work import Ended, FailedCell, Summary, TableBundle, Use
from curate.records import Cell, Clip, Outcome
from curate.stage import ClipStage, Stage
from curate.tables import CLIPS, SOURCES, cells_table, rows_table

FLUSH_ROWS = 4096
FLUSH_S = 60.0
MESSAGE_CHARS = 1000
"""Of the message of a failed cell or source that go to who listens; the table has all of it."""


class RowBuffer:
    """Collects rows until FLUSH_ROWS of one table or FLUSH_S seconds (DESIGN section 4).

    Clips go before the cut cell that makes them count, everything of a source before its row in `sources`.
    """

    def __init__(self, pipeline: Pipeline, *, host: str, run_id: str) -> None:
        self._pipeline = pipeline
        self._host = host
        self._run_id = run_id
        self._clear()

    def _clear(self) -> None:
        self._cells: dict[str, list[Cell]] = {}
        self._clips: list[Clip] = []
        self._sources: list[Mapping[str, Any]] = []
        self._summary = Summary()
        self._since = time.monotonic()

    def add_cell(self, stage: Stage[Any], cell: Cell, digest: str = "") -> None:
        """A cell of any stage; ``digest`` is that of the source where it is a clip's."""
        self._cells.setdefault(stage.name, []).append(cell)
        self._summary.cells[stage.name, str(cell.outcome)] += 1
        if cell.failure is not None:
            is_clip = isinstance(stage, ClipStage)
            self._summary.failed_cells += is_clip
            ids = (digest, cell.key) if is_clip else (cell.key, "")
            told = cell.failure.error_class, cell.failure.message[:MESSAGE_CHARS]
            self._summary.failed.append(FailedCell(stage.name, *ids, *told))
        seconds = self._summary.stage_seconds
        seconds[stage.name] = seconds.get(stage.name, 0.0) + cell.seconds

    def add_use(self, stage: str, use: Use) -> None:
        """What a stage's worker did since it was last told."""
        self._summary.stage_use.setdefault(stage, Use()).add(use)

    def add_cpu(self, seconds: float) -> None:
        """CPU seconds that were spent since this was last told."""
        self._summary.cpu_s += seconds

    def add_clip(self, clip: Clip) -> None:
        """A clip that `cut` found."""
        self._clips.append(clip)

    def scored(self, clip: Clip) -> None:
        """Count a clip that has been through a group of stages."""
        self._summary.clips += 1
        self._summary.video_s += float(clip.duration_s)

    def add_source(self, row: Mapping[str, Any], *, read_bytes: int = 0, clips: int = 0) -> None:
        """The row of a source that is done, well or not, with its size where it was read, and the clips scored."""
        self._sources.append({**row, "host": self._host, "run_id": self._run_id})
        self._summary.sources += 1
        self._summary.read_bytes += read_bytes
        failed = row["outcome"] == Outcome.FAILED
        self._summary.failed_sources += failed
        error = (row.get("error_class") or "", (row.get("error_message") or "")[:MESSAGE_CHARS]) if failed else ("", "")
        known = row.get("source_digest") or "", row.get("seconds") or 0.0
        self._summary.ended[row["uri"]] = Ended(*known, read_bytes, clips, *error)

    def is_due(self) -> bool:
        """Whether it is time to write."""
        rows = max([len(self._clips), len(self._sources), *map(len, self._cells.values())])
        return rows >= FLUSH_ROWS or time.monotonic() - self._since >= FLUSH_S

    def take(self) -> TableBundle:
        """All rows so far as tables in writing order; the buffer is empty afterwards."""
        pipe = self._pipeline
        tables = []
        if self._clips:
            rows = [clip.to_row() for clip in self._clips]
            tables.append((f"tables/clips/{pipe.cut_fingerprint}", rows_table(CLIPS, rows)))
        for _, stage, fingerprint in sorted(pipe.stages(), key=lambda entry: entry[0] == "cut"):
            if cells := self._cells.get(stage.name):
                tables.append((f"tables/cells/{stage.name}/{fingerprint}", self._table(stage, cells)))
        if self._sources:
            tables.append(("tables/sources", rows_table(SOURCES, self._sources)))
        bundle = TableBundle(tuple(tables), self._summary)
        self._clear()
        return bundle

    def _table(self, stage: Stage[Any], cells: Sequence[Cell]) -> Any:
        return cells_table(stage, cells, host=self._host, run_id=self._run_id)
