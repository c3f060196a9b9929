"""Shards as bytes: a WebDataset tar that depends on its samples alone, and the Parquet sidecar beside it."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from curate.tables import parquet_bytes

SIDECAR = pa.schema(
    [
        ("clip_id", pa.string()),
        ("bucket", pa.string()),
        ("caption", pa.string()),
        ("fps", pa.float64()),
        ("motion_score", pa.float64()),
        ("width_px", pa.int32()),
        ("height_px", pa.int32()),
        ("n_frames", pa.int32()),
        ("duration_s", pa.float64()),
        ("codec", pa.string()),
        ("mode", pa.string()),
        ("has_audio", pa.bool_()),
        ("source_digest", pa.string()),
        ("stream", pa.int32()),
        ("start_pts", pa.int64()),
        ("end_pts", pa.int64()),
        ("time_base", pa.string()),
        ("start_s", pa.float64()),
        ("end_s", pa.float64()),
        ("crop_px", pa.list_(pa.int32())),
        ("video_offset_bytes", pa.int64()),
        ("video_bytes", pa.int64()),
    ]
)
"""Columns of every sidecar; the cell and ``user.*`` columns of the export follow. ``video_offset_bytes`` is where the
clip's MP4 begins in the tar, so that one range request reads it. ``fps`` is the true mean rate of the clip."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One clip of a shard: its MP4, its caption, its facts by the names of SIDECAR."""

    clip_id: str
    video: bytes
    caption: str
    facts: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ShardBytes:
    """A finished shard. ``sidecar`` is the Parquet file."""

    tar: bytes
    sidecar: bytes
    count: int

    @property
    def sha256(self) -> str:
        """Digest of the tar."""
        return hashlib.sha256(self.tar).hexdigest()


def build_shard(samples: Sequence[Sample], columns: pa.Table) -> ShardBytes:
    """Tar and sidecar. ``columns`` has one row a sample, in the same order: what else the sidecar and the JSON hold."""
    buffer = io.BytesIO()
    places = []
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        extras = columns.to_pylist() if columns.num_columns else [{}] * len(samples)
        for sample, extra in zip(samples, extras, strict=True):
            offset_bytes = _add(tar, f"{sample.clip_id}.mp4", sample.video)
            _add(tar, f"{sample.clip_id}.json", _json_bytes({**sample.facts, **extra}))
            _add(tar, f"{sample.clip_id}.txt", sample.caption.encode())
            places.append({"video_offset_bytes": offset_bytes, "video_bytes": len(sample.video)})
    rows = [{**sample.facts, **place} for sample, place in zip(samples, places, strict=True)]
    table = pa.Table.from_pylist(rows, schema=SIDECAR)
    for name in columns.column_names:
        table = table.append_column(columns.schema.field(name), columns[name])
    return ShardBytes(buffer.getvalue(), parquet_bytes(table), len(samples))


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> int:
    """Append a member without time, owner or host; gives the offset of its content."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))
    return tar.offset - -(-len(data) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def _json_bytes(facts: Mapping[str, Any]) -> bytes:
    return json.dumps(facts, ensure_ascii=False, sort_keys=True, default=str).encode()
