"""Which clip goes into which shard, decided before anything is written."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from curate.export.config import ExportConfig
from curate.export.provenance import Provenance
from curate.export.rows import ACTIVE, KeptClips, Source
from curate.media.encode import EncodeOptions, encoder_version
from curate.media.geometry import Crop, geometry_of
from curate.media.remux import can_copy
from curate.records import Clip, SourceFacts
from curate.shards.buckets import bucket_of
from curate.shards.index import FORMAT
from curate.tables import parquet_bytes
from curate.units import parse_fraction

BITS_PER_PIXEL_CRF18 = 0.13
"""Measured on 480p film at crf 18 (see `curate.media.encode`); six steps of crf halve or double it."""

AUDIO_BYTES_PER_S = 16_000


@dataclass(frozen=True, slots=True)
class PlannedClip:
    """A clip on its way into a shard."""

    clip: Clip
    crop: Crop | None
    caption: str
    motion_score: float | None


@dataclass(frozen=True)
class ShardTask:
    """Everything one worker needs to write one shard. ``staging`` is the URI of the folder it writes below.

    ``columns`` has one row a clip. Picklable.
    """

    staging: str
    bucket: str
    number: int
    clips: tuple[PlannedClip, ...]
    columns: pa.Table
    sources: Mapping[str, Source]
    options: EncodeOptions

    @property
    def stem(self) -> str:
        """Path of the shard in its set, without suffix."""
        return f"{self.bucket}/{self.number:06d}"

    def content(self) -> dict[str, Any]:
        """All that decides the shard's bytes, for the plan's digest."""
        clips = [[c.clip.clip_id, c.crop, c.caption, c.motion_score] for c in self.clips]
        columns = hashlib.sha256(parquet_bytes(self.columns)).hexdigest()
        return {"stem": self.stem, "clips": clips, "columns": columns}


@dataclass(frozen=True)
class ExportPlan:
    """The plan of a whole set. ``left_out`` counts the kept clips that go nowhere, by reason; ``digest`` stands for all
    that decides the shards' bytes. ``provenance`` is for their card.
    """

    selection: Mapping[str, Any]
    kept: int
    tasks: tuple[ShardTask, ...]
    left_out: Mapping[str, int]
    digest: str
    provenance: Provenance

    def staged_below(self, uri: str) -> ExportPlan:
        """The same plan, its shards written below this folder."""
        return replace(self, tasks=tuple(replace(task, staging=uri) for task in self.tasks))


def make_plan(kept: KeptClips, selection: str, config: ExportConfig, taken_down: Mapping[str, str]) -> ExportPlan:
    """Buckets, order and shards of the kept clips. ``taken_down`` holds reasons by source digest."""
    left_out: Counter[str] = Counter()
    places: list[tuple[int, PlannedClip, str]] = []
    for row, clip in enumerate(kept.clips):
        facts = kept.sources[clip.source_digest].facts
        entry = _planned(kept, row, config)
        bucket, reason = _bucket(entry, facts, config)
        if clip.source_digest in taken_down:
            bucket, reason = None, f"taken down: {taken_down[clip.source_digest]}"
        if bucket is None:
            left_out[reason] += 1
        else:
            places.append((row, entry, bucket))
    tasks = tuple(_tasks(kept, places, config))
    about = {"name": selection, "digest": _digest([clip.clip_id for clip in kept.clips])}
    reasons = dict(sorted(left_out.items()))
    parts = [
        FORMAT,
        encoder_version(),
        config.model_dump(mode="json"),
        about,
        reasons,
        [task.content() for task in tasks],
    ]
    return ExportPlan(about, len(kept.clips), tasks, reasons, _digest(parts), kept.provenance)


def _planned(kept: KeptClips, row: int, config: ExportConfig) -> PlannedClip:
    named = kept.named
    caption = named[config.caption][row] if config.caption else None
    motion = named[config.motion][row] if config.motion in named else None
    crop = _active(kept, row) if config.crop == "letterbox" else None
    return PlannedClip(kept.clips[row], crop, caption or "", None if motion is None else float(motion))


def _active(kept: KeptClips, row: int) -> Crop | None:
    """The picture without black bars; None when it is the whole picture, or was not measured."""
    values = [kept.named[name][row] for name in ACTIVE]
    if any(value is None for value in values):
        return None
    crop = Crop(*(int(value) for value in values))
    facts = kept.sources[kept.clips[row].source_digest].facts
    return None if crop == (0, 0, facts.width_px, facts.height_px) else crop


def _bucket(entry: PlannedClip, facts: SourceFacts, config: ExportConfig) -> tuple[str | None, str]:
    geometry = geometry_of(facts, entry.crop)
    frames = expected_frames(entry.clip, facts)
    return bucket_of(geometry.out_width_px, geometry.out_height_px, frames, config.buckets)


def _tasks(
    kept: KeptClips, places: Sequence[tuple[int, PlannedClip, str]], config: ExportConfig
) -> Iterator[ShardTask]:
    items = [
        (entry.clip.clip_id, bucket, estimated_bytes(entry, kept.sources[entry.clip.source_digest].facts, config))
        for _, entry, bucket in places
    ]
    for bucket, number, members in assign(items, seed=config.seed, shard_bytes=config.shard_bytes):
        clips = tuple(places[member][1] for member in members)
        rows = pa.array([places[member][0] for member in members], pa.int64())
        digests = sorted({entry.clip.source_digest for entry in clips})
        sources = {digest: kept.sources[digest] for digest in digests}
        columns = kept.columns.take(rows).combine_chunks()
        yield ShardTask("", bucket, number, clips, columns, sources, config.encode_options())


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def assign(
    items: Sequence[tuple[str, str, float]], *, seed: int, shard_bytes: int
) -> Iterator[tuple[str, int, list[int]]]:
    """(bucket, number, indices of items) of every shard; items are (clip_id, bucket, estimated bytes).

    The order of clips is a shuffle over the whole selection that depends on seed and clip id alone. Within a bucket
    it is cut into shards of equal estimated size, as few as keep them near ``shard_bytes``.
    """
    order = sorted(range(len(items)), key=lambda i: hashlib.sha256(f"{seed}|{items[i][0]}".encode()).digest())
    by_bucket: dict[str, list[int]] = {}
    for i in order:
        by_bucket.setdefault(items[i][1], []).append(i)
    for bucket in sorted(by_bucket):
        members = by_bucket[bucket]
        total = sum(items[i][2] for i in members)
        share = total / max(1, round(total / shard_bytes))
        shards: dict[int, list[int]] = {}
        before = 0.0
        for i in members:
            shards.setdefault(int(before / share) if share else 0, []).append(i)
            before += items[i][2]
        for number, key in enumerate(sorted(shards)):
            yield bucket, number, shards[key]


def expected_frames(clip: Clip, facts: SourceFacts) -> int:
    """Frames of the span: as counted by the cut stage; else exact at a constant rate, estimated at a varying one."""
    if clip.n_frames is not None:
        return clip.n_frames
    if facts.vfr:
        ticks = facts.end_pts - facts.start_pts
        return (clip.end_pts - clip.start_pts) * facts.n_frames // ticks if ticks > 0 else 0
    return round(clip.duration_s * parse_fraction(facts.rate))


def estimated_bytes(entry: PlannedClip, facts: SourceFacts, config: ExportConfig) -> float:
    """A guess at the size of the clip's file."""
    seconds = float(entry.clip.duration_s)
    sound = AUDIO_BYTES_PER_S * seconds if config.audio else 0.0
    if config.mode == "auto" and entry.crop is None and can_copy(facts, entry.clip):
        return facts.bit_rate_bps / 8 * seconds + sound
    geometry = geometry_of(facts, entry.crop)
    bits_per_pixel = BITS_PER_PIXEL_CRF18 * 2 ** ((18 - config.crf) / 6)
    pixels = geometry.out_width_px * geometry.out_height_px * expected_frames(entry.clip, facts)
    return pixels * bits_per_pixel / 8 + sound
