"""The corpus on disk: where each table lies, its schema, and parts that appear whole (DESIGN section 4)."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curate import __version__
from curate.errors import CorpusError
from curate.records import Cell
from curate.stage import Column, Stage
from curate.storage import Place, is_remote

FORMAT_VERSION = 1
_ROWS_AT_ONCE = 1 << 14

STATUS = "status.json"
"""In the folder of a run: how it goes (`curate.watch.status`). It makes no run complete, and nothing is read by it."""

TIMES = "times.json"
"""Of a run's folder: what the steps of its job took, by the clock; written after all of them."""

SOURCES = pa.schema(
    [
        ("uri", pa.string()),
        ("size_bytes", pa.int64()),
        ("version", pa.string()),
        ("source_digest", pa.string()),
        ("stream", pa.int32()),
        ("container", pa.string()),
        ("codec", pa.string()),
        ("width_px", pa.int32()),
        ("height_px", pa.int32()),
        ("rate_fps", pa.float64()),
        ("duration_s", pa.float64()),
        ("outcome", pa.string()),
        ("error_class", pa.string()),
        ("error_message", pa.string()),
        ("attempt", pa.int32()),
        ("seconds", pa.float64()),
        ("host", pa.string()),
        ("run_id", pa.string()),
        ("error_traceback", pa.string()),
        ("peak_memory_bytes", pa.int64()),
    ]
)
"""One row per uri, size and version read: what content it holds, or why it could not be read."""

CLIPS = pa.schema(
    [
        ("clip_id", pa.string()),
        ("source_digest", pa.string()),
        ("stream", pa.int32()),
        ("start_pts", pa.int64()),
        ("end_pts", pa.int64()),
        ("time_base", pa.string()),
        ("start_s", pa.float64()),
        ("end_s", pa.float64()),
        ("start_kind", pa.string()),
        ("end_kind", pa.string()),
        ("start_detector", pa.string()),
        ("end_detector", pa.string()),
        ("n_frames", pa.int64()),
    ]
)

INPUTS = pa.schema(
    [
        ("uri", pa.string()),
        ("size_bytes", pa.int64()),
        ("version", pa.string()),
        ("source_digest", pa.string()),
        ("outcome", pa.string()),
        ("cause", pa.string()),
        ("user", pa.map_(pa.string(), pa.string())),
    ]
)
"""One row per input of a run: ok, failed or skipped, and why."""

_CELL_TAIL = [
    ("outcome", pa.string()),
    ("error_class", pa.string()),
    ("error_message", pa.string()),
    ("error_traceback", pa.string()),
    ("attempt", pa.int32()),
    ("seconds", pa.float64()),
    ("host", pa.string()),
    ("run_id", pa.string()),
    ("peak_memory_bytes", pa.int64()),
]

BOOKKEEPING = frozenset({"seconds", "host", "attempt", "run_id", "error_traceback", "peak_memory_bytes"})
"""Columns in which two identical tables may differ."""


def cell_schema(stage: Stage[Any]) -> pa.Schema:
    """Schema of a stage's cells: ``key``, the declared columns, then how each cell came about."""
    return cells_schema(stage.columns)


def cells_schema(columns: Iterable[Column]) -> pa.Schema:
    """The same for these columns."""
    values = [pa.field(c.name, c.dtype, metadata={"unit": c.unit, "doc": c.doc}) for c in columns]
    return pa.schema([pa.field("key", pa.string()), *values, *[pa.field(*tail) for tail in _CELL_TAIL]])


def cells_table(stage: Stage[Any], cells: Sequence[Cell], *, host: str, run_id: str) -> pa.Table:
    """Cells of one stage as a table. CorpusError when a value does not fit its declared type."""
    schema = cell_schema(stage)
    rows = [_cell_row(cell, host, run_id) for cell in cells]
    try:
        return pa.Table.from_pylist(rows, schema=schema)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise CorpusError(f"a value does not fit its declared type: {error}", subject=stage.name) from error


def _cell_row(cell: Cell, host: str, run_id: str) -> dict[str, Any]:
    failure = cell.failure
    return {
        "key": cell.key,
        **cell.values,
        "outcome": str(cell.outcome),
        **(failure.columns() if failure else {}),
        "attempt": cell.attempt,
        "seconds": cell.seconds,
        "host": host,
        "run_id": run_id,
    }


@dataclass(frozen=True)
class Corpus:
    """A corpus folder. Only knows places; DuckDB questions are in `curate.query`.

    A local path is made absolute at once: workers may live in other folders.
    """

    uri: str

    def __post_init__(self) -> None:
        if not is_remote(self.uri):
            object.__setattr__(self, "uri", str(Path(self.uri.removeprefix("file://")).expanduser().absolute()))

    @cached_property
    def root(self) -> Place:
        """The corpus folder."""
        return Place(self.uri.rstrip("/"))

    def create(self) -> None:
        """Make the folder with its format mark, or check the mark of an existing one."""
        mark = self.root.child("corpus.json")
        if not mark.exists():
            mark.write_text(json.dumps({"format_version": FORMAT_VERSION, "tool_version": __version__}) + "\n")
        self.check()

    def check(self) -> None:
        """CorpusError unless this is a corpus of a format that this version reads."""
        mark = self.root.child("corpus.json")
        if not mark.exists():
            raise CorpusError(
                "is not a corpus (no corpus.json)", subject=self.uri, fix="`curate run SOURCE --out` makes one"
            )
        try:
            found = json.loads(mark.read_text())["format_version"]
        except (ValueError, TypeError, KeyError) as error:
            raise CorpusError("is not a corpus (its corpus.json is not ours)", subject=self.uri) from error
        if found != FORMAT_VERSION:
            raise CorpusError(f"has format {found}, this version reads {FORMAT_VERSION}", subject=self.uri)

    def sources(self) -> Place:
        """Folder of the sources table."""
        return self.root.child("tables", "sources")

    def clips(self, cut_fingerprint: str) -> Place:
        """Folder of the clips that one cut configuration found."""
        return self.root.child("tables", "clips", cut_fingerprint)

    def cells(self, stage: str, fingerprint: str) -> Place:
        """Folder of one stage's cells under one fingerprint."""
        return self.root.child("tables", "cells", stage, fingerprint)

    def tombstones(self) -> Place:
        """Folder of the sources that were taken down."""
        return self.root.child("tables", "tombstones")

    def runs(self) -> Place:
        """Folder of runs."""
        return self.root.child("runs")

    def selections(self) -> Place:
        """Folder of selections."""
        return self.root.child("selections")

    def shards(self, name: str) -> Place:
        """Folder of one shard set."""
        return self.root.child("shards", name)

    def run_ids(self) -> list[str]:
        """Ids of complete runs (those with a manifest), oldest first."""
        runs = self.runs()
        return [name for name in runs.folders() if runs.child(name, "manifest.json").exists()]

    def manifest(self, run_id: str) -> dict[str, Any]:
        """The manifest of a complete run."""
        return json.loads(self.runs().child(run_id, "manifest.json").read_text())


def write_part(folder: Place, table: pa.Table) -> str:
    """Add an immutable part; its name is derived from its content, so writing it twice leaves one. Gives its path."""
    return put_part(folder, parquet_bytes(table))


def put_part(folder: Place, data: bytes) -> str:
    """The same of a table that is Parquet already."""
    part = folder.child(f"part-{hashlib.sha256(data).hexdigest()[:20]}.parquet")
    part.write_bytes(data)
    return part.path


def parquet_bytes(table: pa.Table) -> bytes:
    """A table as one Parquet file."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def read_parquet(place: Place) -> pa.Table:
    """A whole Parquet file."""
    return parquet_table(place.read_bytes())


def parquet_table(data: bytes, columns: Sequence[str] | None = None) -> pa.Table:
    """A Parquet file's content as a table; pa.ArrowInvalid when it is none.

    Not by pyarrow's ``read_table``: its background threads let go of their input some time after the rows are there,
    and when that is while the interpreter ends, they abort the process (seen in one of ten commands).
    """
    return pq.ParquetFile(pa.BufferReader(data)).read(columns=list(columns) if columns else None, use_threads=False)


def rows_of(table: pa.Table) -> Iterator[dict[str, Any]]:
    """The rows of a table as dictionaries, some at a time: all together take many times the memory of the table."""
    for batch in table.to_batches(max_chunksize=_ROWS_AT_ONCE):
        yield from batch.to_pylist()


def kept_ids(place: Place) -> pa.Array:
    """Ids of the clips that a selection.parquet keeps, in order."""
    table = parquet_table(place.read_bytes(), ["clip_id", "verdict"])
    return table.filter(pc.field("verdict") == "kept").sort_by("clip_id")["clip_id"].combine_chunks()


def rows_table(schema: pa.Schema, rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Rows as a table of this schema; missing keys become null."""
    return pa.Table.from_pylist([dict(row) for row in rows], schema=schema)
