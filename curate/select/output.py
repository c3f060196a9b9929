"""Writing selection.parquet: sorted by clip, in one stream, appearing whole."""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from curate.query import RunTables
from curate.query.parts import id_text_sql
from curate.storage import Place, storage_error

SELECTION = pa.schema(
    [
        ("clip_id", pa.string()),
        ("verdict", pa.string()),
        ("reason", pa.string()),
        ("failing", pa.list_(pa.string())),
        ("bucket", pa.string()),
        ("duplicate_of", pa.string()),
    ]
)
"""One row a clip of the run: ``reason`` is null for kept ones, ``failing`` names every judge it fails."""

_BATCH_ROWS = 1 << 17


@dataclass(frozen=True, slots=True)
class Verdict:
    """kept, dropped or failed, the reason in words, all failing judges, and the judge that decided."""

    verdict: str
    reason: str = ""
    failing: tuple[str, ...] = ()
    decided_by: str = ""


def write_selection(tables: RunTables, into: Place, verdicts: list[Verdict]) -> str:
    """Write table ``decided`` with its verdicts spelt out into a folder; gives the file's sha256."""
    place = into.child("selection.parquet")
    try:
        if place.is_local:
            Path(place.path).parent.mkdir(parents=True, exist_ok=True)
        folder = str(Path(place.path).parent) if place.is_local else None
        with tempfile.TemporaryDirectory(prefix=".selection-", dir=folder) as scratch:
            file = Path(scratch) / "selection.parquet"
            _write(tables, file, verdicts)
            digest = _sha256(file)
            place.put(file)
        return digest
    except OSError as error:
        raise storage_error(error, place.uri, writing=True) from error


def _write(tables: RunTables, file: Path, verdicts: list[Verdict]) -> None:
    spelt = {
        "verdict": pa.array([v.verdict for v in verdicts], pa.string()),
        "reason": pa.array([v.reason or None for v in verdicts], pa.string()),
        "failing": pa.array([list(v.failing) for v in verdicts], pa.list_(pa.string())),
    }
    rows = tables.con.sql(
        f"""SELECT {id_text_sql("clip")} AS clip_id, code, bucket,
        {id_text_sql("keeper")} AS duplicate_of FROM decided ORDER BY clip"""
    ).to_arrow_reader(_BATCH_ROWS)
    with pq.ParquetWriter(file, SELECTION, compression="zstd") as writer:
        for batch in rows:
            columns = {key: values.take(batch["code"]) for key, values in spelt.items()}
            same = {key: batch[key] for key in ("clip_id", "bucket", "duplicate_of")}
            writer.write_batch(pa.record_batch({**columns, **same}).select(SELECTION.names).cast(SELECTION))


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
