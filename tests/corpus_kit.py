"""A small corpus written by hand: sources, clips and cells with known values, and the run that owns them."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from fractions import Fraction
from pathlib import Path
from typing import Any

import pyarrow as pa

from curate.records import Clip, Span
from curate.tables import CLIPS, INPUTS, SOURCES, Corpus, parquet_bytes, rows_table, write_part

TAIL = [
    ("outcome", pa.string()),
    ("error_class", pa.string()),
    ("error_message", pa.string()),
    ("error_traceback", pa.string()),
    ("attempt", pa.int32()),
    ("seconds", pa.float64()),
    ("host", pa.string()),
    ("run_id", pa.string()),
]
PROBE = {
    "codec": pa.string(),
    "width_px": pa.int32(),
    "height_px": pa.int32(),
    "rate_fps": pa.float64(),
    "duration_s": pa.float64(),
}
CUT = {"n_clips": pa.int32(), "n_cuts": pa.int32()}
TIME_BASE = Fraction(1, 1000)


def digest_of(name: str) -> str:
    """A sha256 that stands for the content of this name."""
    return hashlib.sha256(name.encode()).hexdigest()


def cells_schema(columns: dict[str, pa.DataType]) -> pa.Schema:
    """Schema of cells with these value columns."""
    return pa.schema([("key", pa.string()), *columns.items(), *TAIL])


class CorpusKit:
    """Collects rows, then writes them as parts with a manifest.

    ``stages`` maps clip stages, in recipe order, to their columns; `probe` and `cut` stand before them.
    ``gates`` are manifest entries; ``after_index`` counts probe as 0 and cut as 1.
    """

    def __init__(self, path: Path, stages: dict[str, dict[str, pa.DataType]], gates: list[dict[str, Any]] = ()) -> None:
        self.corpus = Corpus(str(path))
        self.corpus.create()
        self.stages = {"probe": PROBE, "cut": CUT, **stages}
        self.gates = [{"min": None, "max": None, "in": [], "not_in": [], **gate} for gate in gates]
        self.inputs: list[dict[str, Any]] = []
        self.source_rows: list[dict[str, Any]] = []
        self.clips: list[Clip] = []
        self.cells: dict[str, list[dict[str, Any]]] = defaultdict(list)

    def fingerprint(self, stage: str) -> str:
        """The fingerprint under which this kit stores a stage."""
        return hashlib.sha256(stage.encode()).hexdigest()[:16]

    def input(
        self, uri: str, outcome: str = "skipped", cause: str = "", digest: str | None = None, **user: str
    ) -> None:
        """One input of the run, as it ended."""
        row = {"uri": uri, "size_bytes": 1, "version": "1", "source_digest": digest, "outcome": outcome, "cause": cause}
        self.inputs.append({**row, "user": list(user.items())})
        if outcome != "skipped":
            error = cause.partition(":")[0] if outcome == "failed" else None
            same = {"uri": uri, "size_bytes": 1, "version": "1", "source_digest": digest, "outcome": outcome}
            self.source_rows.append({**same, "error_class": error, "error_message": cause, "attempt": 1})

    def source(
        self, uri: str, lengths_s: list[float] = (), user: dict[str, str] | None = None, **facts: Any
    ) -> list[str]:
        """A source whose clips follow each other; gives their ids."""
        digest = digest_of(uri)
        self.input(uri, "ok", digest=digest, **(user or {}))
        spans, start = [], 0
        for length_s in lengths_s:
            end = start + round(length_s * 1000)
            spans.append(Span(start, end))
            start = end
        clips = [Clip.of_span(digest, 0, TIME_BASE, span) for span in spans]
        self.clips += clips
        known = {"codec": "h264", "width_px": 1280, "height_px": 720, "rate_fps": 25.0, "duration_s": start / 1000}
        self.cell("probe", digest, **{**known, **facts})
        self.cell("cut", digest, n_clips=len(clips), n_cuts=len(clips))
        return [clip.clip_id for clip in clips]

    def cell(self, stage: str, key: str, *, attempt: int = 1, seconds: float = 0.5, **values: Any) -> None:
        """An ok cell."""
        tail = {"outcome": "ok", "attempt": attempt, "seconds": seconds, "host": "h", "run_id": "r"}
        self.cells[stage].append({"key": key, **values, **tail})

    def failed(
        self, stage: str, key: str, error: str = "StageError", message: str = "no luck", attempt: int = 1
    ) -> None:
        """A failed cell."""
        tail = {"outcome": "failed", "error_class": error, "error_message": message, "error_traceback": "..."}
        self.cells[stage].append({"key": key, **tail, "attempt": attempt, "seconds": 0.1, "host": "h", "run_id": "r"})

    def write(self, run_id: str = "run-1", *, complete: bool = True) -> Corpus:
        """Write everything collected since the last call as one part a table, then the run."""
        for stage, rows in self.cells.items():
            schema = cells_schema(self.stages[stage])
            write_part(self.corpus.cells(stage, self.fingerprint(stage)), rows_table(schema, rows))
        if self.clips:
            rows = [clip.to_row() for clip in self.clips]
            write_part(self.corpus.clips(self.fingerprint("cut")), rows_table(CLIPS, rows))
        if self.source_rows:
            write_part(self.corpus.sources(), rows_table(SOURCES, self.source_rows))
        run = self.corpus.runs().child(run_id)
        run.child("inputs.parquet").write_bytes(parquet_bytes(rows_table(INPUTS, self.inputs)))
        run.child("manifest.json").write_text(json.dumps(self.manifest(run_id, complete)))
        self.cells.clear()
        self.clips.clear()
        self.source_rows.clear()
        return self.corpus

    def manifest(self, run_id: str, complete: bool) -> dict[str, Any]:
        """The manifest of a run over this kit's stages."""
        kinds = {"probe": "probe", "cut": "cut"}
        stages = [
            {"name": n, "kind": kinds.get(n, "clip"), "fingerprint": self.fingerprint(n), "columns": list(columns)}
            for n, columns in self.stages.items()
        ]
        return {"run_id": run_id, "recipe": "kit", "complete": complete, "stages": stages, "gates": self.gates}
