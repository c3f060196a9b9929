"""The buffer between scoring and the table writer: rows by table, given out in the order that is safe to write."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from curate.engine.pipeline import Pipeline
from curate.engine.work import Summary, TableBundle, Use
from curate.records import Cell, Clip, Outcome
from curate.stage import ClipStage, Stage
from curate.tables import CLIPS, SOURCES, cells_table, rows_table

FLUSH_ROWS = 4096
FLUSH_S = 60.0


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

    def add_cell(self, stage: Stage[Any], cell: Cell) -> None:
        """A cell of any stage."""
        self._cells.setdefault(stage.name, []).append(cell)
        self._summary.failed_cells += cell.outcome is Outcome.FAILED and isinstance(stage, ClipStage)
        seconds = self._summary.stage_seconds
        seconds[stage.name] = seconds.get(stage.name, 0.0) + cell.seconds

    def add_use(self, stage: str, use: Use) -> None:
        """What a stage's worker did since it was last told."""
        self._summary.stage_use.setdefault(stage, Use()).add(use)

    def add_clip(self, clip: Clip) -> None:
        """A clip that `cut` found."""
        self._clips.append(clip)

    def scored(self, clip: Clip) -> None:
        """Count a clip that has been through a group of stages."""
        self._summary.clips += 1
        self._summary.video_s += float(clip.duration_s)

    def add_source(self, row: Mapping[str, Any]) -> None:
        """The row of a source that is done, well or not."""
        self._sources.append({**row, "host": self._host, "run_id": self._run_id})
        self._summary.sources += 1
        failed = row["outcome"] == Outcome.FAILED
        self._summary.failed_sources += failed
        reason = (row.get("error_class") or "", row.get("error_message") or "")
        self._summary.ended[row["uri"]] = reason if failed else None

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
