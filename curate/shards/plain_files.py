"""A shard set as plain files, with the lists that other trainers read.

    FOLDER/videos/<clip_id>.mp4
    FOLDER/videos.txt      path of each clip below FOLDER, one a line
    FOLDER/prompts.txt     its caption, in the same order
    FOLDER/clips.parquet   path, text, num_frames, height, width, aspect_ratio, resolution, fps

Some readers of such lists skip empty lines and would give every later clip the caption of another one, so clips without
a caption are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import pyarrow as pa

from curate.config import nearest
from curate.errors import UsageError
from curate.shards.reader import ReadSample, ShardSet
from curate.storage import storage_error
from curate.tables import parquet_bytes

VIDEOS, PATHS, PROMPTS, CLIPS = "videos", "videos.txt", "prompts.txt", "clips.parquet"


@dataclass(frozen=True, slots=True)
class Unpacked:
    """How many clips were written, and how many were not for want of a caption."""

    n_clips: int
    without_caption: int


@dataclass(frozen=True, slots=True)
class _Row:
    """A clip as a table of clips has it: sides and ``resolution`` in pixels, ``aspect_ratio`` height over width."""

    path: str
    text: str
    num_frames: int
    height: int
    width: int
    aspect_ratio: float
    resolution: int
    fps: float


def unpack(shards: ShardSet, folder: Path, bucket: str = "") -> Unpacked:
    """Write all clips of a shard set, or those of one bucket. Lists come last, so they name nothing that is not there.

    A file that has the right size already is not written again. UsageError for a bucket that the set lacks, CorpusError
    for a damaged shard, StorageError where the folder cannot be written.
    """
    buckets = {shard.bucket for shard in shards.shards()}
    if bucket and bucket not in buckets:
        raise UsageError(f"the set has no bucket {bucket!r}, {nearest(bucket, buckets)}", subject=shards.folder.uri)
    rows, without = list[_Row](), 0
    for sample in shards.samples(bucket):
        caption = " ".join(sample.caption.split())
        if caption:
            rows.append(_row(sample, _write(folder / VIDEOS / f"{sample.clip_id}.mp4", sample.video), caption))
        else:
            without += 1
    _write(folder / PATHS, _lines(f"{VIDEOS}/{Path(row.path).name}" for row in rows))
    _write(folder / PROMPTS, _lines(row.text for row in rows))
    _write(folder / CLIPS, _table(rows))
    return Unpacked(len(rows), without)


def _row(sample: ReadSample, path: Path, caption: str) -> _Row:
    width, height = sample.facts["width_px"], sample.facts["height_px"]
    frames, fps = sample.facts["n_frames"], round(sample.facts["fps"], 3)
    return _Row(str(path.absolute()), caption, frames, height, width, height / width, height * width, fps)


def _write(path: Path, data: bytes) -> Path:
    """The file with this content: whole, or as it was."""
    try:
        if not (path.suffix == ".mp4" and path.is_file() and path.stat().st_size == len(data)):
            path.parent.mkdir(parents=True, exist_ok=True)
            unfinished = path.with_name(f".{path.name}.part")
            unfinished.write_bytes(data)
            unfinished.replace(path)
    except OSError as error:
        raise storage_error(error, str(path), writing=True) from error
    return path


def _lines(texts: Iterable[str]) -> bytes:
    return "".join(f"{text}\n" for text in texts).encode()


def _table(rows: Sequence[_Row]) -> bytes:
    return parquet_bytes(pa.table({field.name: [getattr(row, field.name) for row in rows] for field in fields(_Row)}))
