"""Every clip that a stage can train on: where it lies, what the tables say of it, and which bucket takes it."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curate.config import nearest
from curate.errors import ConfigError, CorpusError
from curate.shards.buckets import Bucket, bucket_of, buckets_filled_by
from curate.shards.index import ShardEntry
from curate.shards.reader import ShardSet
from curate.tables import parquet_table
from curate.train.data.config import MOTION_SCORE, DataConfig

SIDECARS_AT_ONCE = 16
_HEADER_BYTES = 512
_FACTS = (
    "clip_id",
    "source_digest",
    "width_px",
    "height_px",
    "n_frames",
    "fps",
    "mode",
    "video_offset_bytes",
    "video_bytes",
)
_NO_LIMIT = 1 << 40
_HELD_OUT = "held out: for validation"
_EPSILON = 1e-6
"""Rates of 30000/1001 and the like are within a limit that names them rounded."""


class ClipRef(NamedTuple):
    """One clip and where it lies. ``sample_bytes`` reach from the start of its MP4 to the end of its JSON and text.

    ``fps`` is the clip's own rate, ``motion`` its score (NaN: none). ``closed``: every key frame can be entered.
    """

    shard: int
    clip_id: str
    offset_bytes: int
    video_bytes: int
    sample_bytes: int
    width_px: int
    height_px: int
    n_frames: int
    fps: float
    motion: float
    closed: bool


@dataclass(frozen=True)
class Catalogue:
    """The clips of a shard set that a stage takes, as columns with one entry a clip.

    ``rows``: the clips of every bucket in ``buckets``, which all have at least one batch. ``left_out`` counts the
    others by reason; ``unfilled`` has the clips of every bucket without a batch, by name. ``digest`` stands for all
    that decides the batches.
    """

    shards: ShardSet
    entries: tuple[ShardEntry, ...]
    clip_ids: pa.LargeStringArray
    columns: Mapping[str, np.ndarray]
    buckets: tuple[Bucket, ...]
    rows: tuple[np.ndarray, ...]
    left_out: Mapping[str, int]
    unfilled: Mapping[str, int]
    digest: str

    @classmethod
    def read(cls, shards: ShardSet, config: DataConfig, *, held_out: bool = False) -> Catalogue:
        """The clips to train on, or those that are held out.

        ConfigError for a column that the set lacks and for a bucket without a batch, CorpusError for a sidecar that
        does not fit its index.
        """
        entries = tuple(shards.index.shards)
        with ThreadPoolExecutor(SIDECARS_AT_ONCE) as pool:
            parts = list(pool.map(lambda at: _part(shards, entries[at], at, config), range(len(entries))))
        _check_columns(parts, config)
        names = parts[0].columns if parts else ()
        columns = {name: np.concatenate([part.columns[name] for part in parts]) for name in names}
        clip_ids = pa.chunked_array([part.clip_ids for part in parts], pa.large_string()).combine_chunks()
        left_out = sum((part.left_out for part in parts), Counter[str]())
        wanted = _held_out(parts, config) == held_out
        left_out["held out: not" if held_out else _HELD_OUT] += int((~wanted).sum())
        in_bucket = [name for part in parts for name in part.buckets]
        members, unfilled = _filled(in_bucket, wanted, config, left_out)
        buckets, rows = tuple(Bucket.parse(name) for name in members), tuple(members.values())
        about = [shards.index.plan, config.model_dump(mode="json"), held_out]
        digest = hashlib.sha256(json.dumps(about).encode()).hexdigest()
        counts = {reason: count for reason, count in sorted(left_out.items()) if count}
        return cls(shards, entries, clip_ids, columns, buckets, rows, counts, unfilled, digest)

    @property
    def n_clips(self) -> int:
        """Clips that are trained on."""
        return sum(len(own) for own in self.rows)

    def counts(self) -> dict[str, int]:
        """Clips by the name of their bucket."""
        return {bucket.name: len(own) for bucket, own in zip(self.buckets, self.rows, strict=True)}

    def motion_measured(self, column: str) -> str:
        """What was measured in a sidecar column of motion: the usual one has a general name, and export noted which."""
        return str(self.shards.index.export.get("motion", column)) if column == MOTION_SCORE else column

    def motion_scores(self) -> np.ndarray:
        """float64, of all clips that are trained on; NaN where there is none."""
        return self.columns["motion"][np.concatenate(self.rows)]

    def ref(self, row: int) -> ClipRef:
        """The clip of a row."""
        values = {name: column[row].item() for name, column in self.columns.items()}
        return ClipRef(clip_id=self.clip_ids[row].as_py(), **values)


class _Part(NamedTuple):
    """One sidecar: its clips that some bucket takes, and the other ones counted."""

    names: frozenset[str]
    all_sources: frozenset[str]
    columns: dict[str, np.ndarray]
    clip_ids: pa.Array
    sources: list[str]
    buckets: list[str]
    left_out: Counter[str]


def _part(shards: ShardSet, entry: ShardEntry, at: int, config: DataConfig) -> _Part:
    table, names = _sidecar(shards, entry, config)
    offsets = table["video_offset_bytes"].to_numpy()
    ends = np.append(offsets[1:] - _HEADER_BYTES, entry.bytes)
    if len(table) != entry.count or (ends < offsets + table["video_bytes"].to_numpy()).any():
        raise CorpusError("does not fit its shard", subject=shards.place(entry.sidecar).uri, fix="Export again")
    columns = {
        "shard": np.full(len(table), at, np.int32),
        "offset_bytes": offsets,
        "sample_bytes": ends - offsets,
        **{name: table[name].to_numpy() for name in ("video_bytes", "width_px", "height_px", "n_frames", "fps")},
        "motion": _numbers(table, config.motion),
        "closed": np.array([mode == "encode" for mode in table["mode"].to_pylist()], bool),
    }
    shapes = zip(*(columns[name].tolist() for name in ("width_px", "height_px", "n_frames", "fps")), strict=True)

    @cache
    def memo(width_px: int, height_px: int, n_frames: int, fps: float) -> tuple[str | None, str]:
        return bucket_for(width_px, height_px, n_frames, fps, config)

    found = [memo(*shape) for shape in shapes]
    lacking = _lacking(table, columns["motion"], config)
    reasons = [reason or lack for (_, reason), lack in zip(found, lacking, strict=True)]
    taken = np.array([not reason for reason in reasons], bool)
    sources = table["source_digest"].to_pylist()
    return _Part(
        names,
        frozenset(sources) if config.hold_out_sources else frozenset(),
        {name: column[taken] for name, column in columns.items()},
        table["clip_id"].combine_chunks().filter(pa.array(taken)).cast(pa.large_string()),
        [source for source, take in zip(sources, taken, strict=True) if take] if config.hold_out_sources else [],
        [bucket for (bucket, _), take in zip(found, taken, strict=True) if take and bucket],
        Counter(reason for reason in reasons if reason),
    )


def _sidecar(shards: ShardSet, entry: ShardEntry, config: DataConfig) -> tuple[pa.Table, frozenset[str]]:
    """What is needed of a sidecar, and the names of all its columns."""
    place = shards.place(entry.sidecar)
    data = place.read_bytes()
    try:
        names = frozenset(pq.ParquetFile(pa.BufferReader(data)).schema_arrow.names)
        wanted: dict[str, None] = dict.fromkeys(
            [*_FACTS, *config.captions, *([config.motion] if config.motion else [])]
        )
        return parquet_table(data, [name for name in wanted if name in names]), names
    except (pa.ArrowInvalid, OSError) as error:
        raise CorpusError(f"is not Parquet: {error}", subject=place.uri, fix="Export again") from error


def _numbers(table: pa.Table, name: str) -> np.ndarray:
    """float64, NaN for null and for a column that is not there."""
    if name not in table.column_names:
        return np.full(len(table), np.nan)
    return table[name].cast(pa.float64()).to_numpy()


def _lacking(table: pa.Table, motion: np.ndarray, config: DataConfig) -> list[str]:
    """What of the wanted conditioning a clip lacks, or nothing."""
    texts = [table[name].to_pylist() for name in config.captions if name in table.column_names]
    has_text = [any(own) for own in zip(*texts, strict=True)] if texts else [False] * len(table)
    lacking = ["" if has or not config.captions else "caption: none" for has in has_text]
    if not config.motion:
        return lacking
    return [lack or "motion: no score" * bool(nan) for lack, nan in zip(lacking, np.isnan(motion), strict=True)]


def bucket_for(width_px: int, height_px: int, n_frames: int, fps: float, config: DataConfig) -> tuple[str | None, str]:
    """Name of the bucket that a clip is trained in, and "" - or None, and the reason why there is none."""
    strides = strides_of(fps, n_frames, 1, config.fps)
    if not strides and config.buckets.frames[0] > 1:
        low, high = config.fps
        return None, f"fps: no stride gives {low:g} to {high:g} frames/s"
    frames = (n_frames - 1) // strides[0] + 1 if strides else min(n_frames, 1)
    name, reason = bucket_of(width_px, height_px, frames, config.buckets)
    if name is None:
        return None, reason
    bucket = Bucket.parse(name)
    shapes = bucket.width_px / bucket.height_px, width_px / height_px
    if min(shapes) < config.min_kept_share * max(shapes):
        return None, f"crop: less than {config.min_kept_share:.0%} of the picture would be left"
    return name, ""


def strides_of(fps: float, n_frames: int, frames: int, limits_fps: tuple[float, float]) -> list[int]:
    """Every n for which taking each n-th frame gives a rate within the limits, and so many frames."""
    low, high = limits_fps
    first = max(1, math.ceil(fps / high - _EPSILON))
    last = math.floor(fps / low + _EPSILON)
    return [n for n in range(first, last + 1) if (frames - 1) * n < n_frames]


def _check_columns(parts: Sequence[_Part], config: DataConfig) -> None:
    """ConfigError for a column that no sidecar has."""
    have = frozenset[str]().union(*(part.names for part in parts))
    for key, names in (("captions", list(config.captions)), ("motion", [config.motion] if config.motion else [])):
        for name in names:
            if name not in have:
                texts = [known for known in have if key == "motion" or known.rpartition(".")[2] == "caption"]
                message = f"the shard set has no column {name!r}, {nearest(name, texts)}"
                raise ConfigError(message, subject=f"data.{key}", fix="Run the stage and export again, or name another")


def _held_out(parts: Sequence[_Part], config: DataConfig) -> np.ndarray:
    """Which of the clips that some bucket takes are held out: chosen among all sources of the set."""
    if not config.hold_out_sources:
        return np.zeros(sum(len(part.buckets) for part in parts), bool)
    known = frozenset[str]().union(*(part.all_sources for part in parts))
    chosen = frozenset(sorted(known)[: config.hold_out_sources])
    return np.array([source in chosen for part in parts for source in part.sources], bool)


def _filled(
    names: Sequence[str], wanted: np.ndarray, config: DataConfig, left_out: Counter[str]
) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """Rows of the buckets that make up a batch, and counts of the others; ConfigError when that is not allowed."""
    members: dict[str, list[int]] = {name: [] for name in all_buckets(config)}
    for row in np.flatnonzero(wanted).tolist():
        members[names[row]].append(row)
    _check_left(wanted, config, left_out)
    small = {name: len(rows) for name, rows in members.items() if len(rows) < config.batch}
    if len(small) == len(members) or (small and config.on_empty == "fail"):
        listed = ", ".join(f"{name} has {count}" for name, count in small.items())
        why = "; ".join(f"{reason} ({count})" for reason, count in sorted(left_out.items()))
        message = f"buckets with fewer clips than a batch of {config.batch}: {listed}; left out: {why or 'none'}"
        # Every bucket must have a batch, or any.
        fits = min(small.values()) if config.on_empty == "fail" else max(small.values())
        fix = f"Use --set data.batch={fits}, name" if fits else "Name"
        raise ConfigError(
            message, subject="data.buckets", fix=f"{fix} fewer buckets, export more, or see data.on_empty"
        )
    for name, count in small.items():
        left_out[f"batch: bucket {name} has fewer than {config.batch} clips"] += count
        del members[name]
    return {name: np.array(rows, np.int64) for name, rows in members.items()}, small


def _check_left(wanted: np.ndarray, config: DataConfig, left_out: Counter[str]) -> None:
    """ConfigError when all clips that a bucket takes are held out."""
    if left_out[_HELD_OUT] and not wanted.any():
        text = f"the {config.hold_out_sources} films held out for validation are all that have clips for these buckets"
        fix = "Use --set data.hold_out_sources=1 or 0, or export more films"
        raise ConfigError(text, subject="data.hold_out_sources", fix=fix)


def all_buckets(config: DataConfig) -> list[str]:
    """Names of every bucket of a configuration."""
    whole = Bucket(_NO_LIMIT, _NO_LIMIT, _NO_LIMIT).name
    return list(dict.fromkeys(buckets_filled_by(whole, config.buckets)))
