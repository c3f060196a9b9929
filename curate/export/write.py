"""One shard, written whole by one task: the function that an engine runs."""

from __future__ import annotations

import errno
import hashlib
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from curate.errors import (
    CurateError,
    DecodeError,
    DecodeLimitError,
    DecoderCrashError,
    SourceChangedError,
    class_name,
)
from curate.export.plan import PlannedClip, ShardTask
from curate.export.rows import Source
from curate.ingest.local import local_ref
from curate.ingest.spool import local_copy, spooled
from curate.isolation import Limits, Sandbox
from curate.media.encode import ClipFile, extract_clip
from curate.records import InputRef, SourceFacts
from curate.shards.buckets import Bucket
from curate.shards.index import Hole, ShardEntry
from curate.shards.writer import Sample, ShardBytes, build_shard
from curate.stage import boundary
from curate.storage import NO_SPACE, Place, is_remote, storage_error

_NO_ROOM = NO_SPACE | {errno.EFBIG}

ENCODE_FACTOR = 10
"""How much longer than decoding its whole source cutting out a clip may take: slow presets are that slow."""

ENCODE_BYTES_PER_PX = 250
"""Memory that cutting out a clip may take beyond decoding. Measured at 3840x2160: `veryfast` 60, `slow` 190."""


@dataclass(frozen=True, slots=True)
class ShardResult:
    """A finished shard (None when every clip of it is a hole), what is missing from it, and the seconds that writing it
    took, by the clock and of CPUs (0 where that was done before)."""

    entry: ShardEntry | None
    holes: tuple[Hole, ...]
    seconds: float = 0.0
    cpu_s: float = 0.0


def record_place(task: ShardTask) -> Place:
    """Where a finished shard leaves its mark in the staging folder."""
    return Place(task.staging).child("records", *f"{task.stem}.json".split("/"))


def set_place(task: ShardTask) -> Place:
    """The folder that becomes the shard set."""
    return Place(task.staging).child("set")


def all_there(folder: Place, shards: Sequence[ShardEntry]) -> bool:
    """Whether every file of these shards lies in the folder and has its size."""
    files = [pair for shard in shards for pair in ((shard.path, shard.bytes), (shard.sidecar, shard.sidecar_bytes))]
    places = [(folder.child(*path.split("/")), size) for path, size in files]
    return all(place.exists() and place.size_bytes() == size for place, size in places)


def read_record(task: ShardTask) -> ShardResult | None:
    """The result of a shard that an earlier attempt finished; None when it has to be written, also because its files
    are gone (an attempt that died after the set was put in place)."""
    place = record_place(task)
    if not place.exists():
        return None
    data = json.loads(place.read_text())
    entry = ShardEntry(**data["entry"]) if data["entry"] else None
    if entry is not None and not all_there(set_place(task), [entry]):
        return None
    return ShardResult(entry, tuple(Hole(**hole) for hole in data["holes"]))


def write_record(task: ShardTask, result: ShardResult) -> None:
    """Mark a shard as finished; written after its files."""
    record_place(task).write_text(json.dumps(asdict(result)))


def write_shard(task: ShardTask, limits: Limits | None = None) -> ShardResult:
    """Cut the task's clips out of their sources and write tar and sidecar, unless that is done already.

    ``limits`` are those of decoding a source; encoding gets more.

    A clip that cannot be had leaves a hole with its reason. Errors of the place written to are raised.
    """
    done = read_record(task)
    if done is not None and not done.holes:
        return done
    began, cpu_began_s = time.perf_counter(), time.process_time()
    files, reasons, decoding_s = _extract(task, limits or Limits())
    kept = [at for at in range(len(task.clips)) if at in files]
    holes = [Hole(task.clips[at].clip.clip_id, f"{task.stem}.tar", reasons[at]) for at in sorted(reasons)]
    entry = None
    if kept:
        samples = [_sample(task, at, files[at]) for at in kept]
        shard = build_shard(samples, task.columns.take(pa.array(kept, pa.int64())))
        entry = _store(task, shard)
    cpu_s = time.process_time() - cpu_began_s + decoding_s
    result = ShardResult(entry, tuple(holes), time.perf_counter() - began, cpu_s)
    write_record(task, result)
    return result


def _store(task: ShardTask, shard: ShardBytes) -> ShardEntry:
    folder = set_place(task)
    tar, sidecar = f"{task.stem}.tar", f"{task.stem}.parquet"
    folder.child(*tar.split("/")).write_bytes(shard.tar)
    folder.child(*sidecar.split("/")).write_bytes(shard.sidecar)
    digest = hashlib.sha256(shard.sidecar).hexdigest()
    sizes = len(shard.tar), len(shard.sidecar)
    return ShardEntry(tar, shard.sha256, sizes[0], shard.count, task.bucket, sidecar, digest, sizes[1])


def _extract(task: ShardTask, limits: Limits) -> tuple[dict[int, ClipFile], dict[int, str], float]:
    """Files and reasons for holes by position, and the CPU seconds of the decoding process.

    Each source is fetched once, its clips taken in order of time.
    """
    with tempfile.TemporaryDirectory(prefix="curate-export-") as scratch, Sandbox(_room(task, limits)) as sandbox:
        extraction = _Extraction(task, sandbox)
        for digest, source in task.sources.items():
            own = [at for at, entry in enumerate(task.clips) if entry.clip.source_digest == digest]
            own.sort(key=lambda at: task.clips[at].clip.start_pts)
            with boundary() as caught, scored_source(digest, source, Path(scratch)) as path:
                extraction.source(own, path, source.facts)
            _raise_ours(caught.error)
            lost = [at for at in own if at not in extraction.files and at not in extraction.reasons]
            extraction.reasons.update({at: _reason(caught.error) for at in lost})
        return extraction.files, extraction.reasons, sandbox.cpu_s()


def _room(task: ShardTask, limits: Limits) -> Limits:
    """The limits of decoding, with room for the encoder's frames."""
    if not limits.memory_bytes:
        return limits
    largest_px = max(s.facts.coded_width_px * s.facts.coded_height_px for s in task.sources.values())
    return replace(limits, memory_bytes=limits.memory_bytes + ENCODE_BYTES_PER_PX * largest_px)


MOST_DEATHS = 2
"""Of decoding processes by one source in one shard."""


class _Extraction:
    """What a task gets out of its sources, clip by clip, in a decoding process: files, or reasons, by position."""

    def __init__(self, task: ShardTask, sandbox: Sandbox) -> None:
        self.files: dict[int, ClipFile] = {}
        self.reasons: dict[int, str] = {}
        self._task = task
        self._sandbox = sandbox

    def source(self, own: Sequence[int], path: str, facts: SourceFacts) -> None:
        """Cut its clips out of one source. One that killed its process twice is left alone: DecodeError."""
        deaths: list[DecodeError] = []
        for at in own:
            error = self._clip(at, path, facts)
            if isinstance(error, DecoderCrashError | DecodeLimitError):
                deaths.append(error)
            if len(deaths) == MOST_DEATHS:
                raise deaths[-1]

    def _clip(self, at: int, path: str, facts: SourceFacts) -> Exception | None:
        """Cut one clip out of its source; why not, if that cannot be done."""
        entry, options = self._task.clips[at], self._task.options
        needs_frames = Bucket.parse(self._task.bucket).frames
        frame_px = facts.coded_width_px * facts.coded_height_px
        limit_s = ENCODE_FACTOR * self._sandbox.limits.decode_s(facts.n_frames, frame_px, Path(path).stat().st_size)
        with boundary() as caught:
            arguments = (path, facts, entry.clip, options, entry.crop)
            file = self._sandbox.call(extract_clip, *arguments, limit_s=limit_s)
            if file.n_frames < needs_frames:
                raise DecodeError(f"holds {file.n_frames} frames, its bucket needs {needs_frames}")
            self.files[at] = file
        _raise_ours(caught.error)
        if caught.error is not None:
            self.reasons[at] = _reason(caught.error)
        return caught.error


def _raise_ours(error: Exception | None) -> None:
    """A full disk is not the fault of a source: it stops the export instead of leaving holes."""
    here: BaseException | None = error
    while here is not None:
        if isinstance(here, OSError) and here.errno in _NO_ROOM:
            raise storage_error(here, "temporary files", writing=True) from error
        here = here.__cause__


def _reason(error: Exception | None) -> str:
    """Class and message, without the name of the file: shard sets say nothing about where sources lie."""
    if isinstance(error, CurateError):
        return f"{class_name(error)}: {error.message}"
    return f"{type(error).__name__}: {getattr(error, 'strerror', None) or error}"


@contextmanager
def scored_source(digest: str, source: Source, scratch: Path, *, deadline_s: float | None = None) -> Iterator[str]:
    """A local path to the content that was scored, under any of its names.

    A local file whose size and time are those of then is trusted; anything else is hashed. SourceChangedError when no
    name holds the content any more, StorageError when none can be read. ``deadline_s`` as in `spooled`.
    """
    errors: list[CurateError] = []
    with ExitStack() as stack:
        for ref in source.refs:
            try:
                path = stack.enter_context(_open(ref, digest, scratch, deadline_s))
            except CurateError as error:
                errors.append(error)
                continue
            yield path
            return
    changed = [error for error in errors if isinstance(error, SourceChangedError)]
    raise (changed or errors)[0]


@contextmanager
def _open(ref: InputRef, digest: str, scratch: Path, deadline_s: float | None) -> Iterator[str]:
    if _is_unchanged(ref):
        with local_copy(ref.uri, scratch) as path:
            yield str(path)
        return
    with spooled(ref, scratch, deadline_s=deadline_s) as file:
        if file.digest != digest:
            raise SourceChangedError("is no longer the content that was scored", subject=ref.uri, fix="Run again")
        yield file.path


def _is_unchanged(ref: InputRef) -> bool:
    if is_remote(ref.uri) or not ref.version:
        return False
    now = local_ref(ref.uri)
    return (now.size_bytes, now.version) == (ref.size_bytes, ref.version)


def _sample(task: ShardTask, at: int, file: ClipFile) -> Sample:
    entry: PlannedClip = task.clips[at]
    clip = entry.clip
    facts: dict[str, Any] = {
        "clip_id": clip.clip_id,
        "bucket": task.bucket,
        "caption": entry.caption,
        "fps": file.fps,
        "motion_score": entry.motion_score,
        "width_px": file.width_px,
        "height_px": file.height_px,
        "n_frames": file.n_frames,
        "duration_s": float(clip.duration_s),
        "codec": file.codec,
        "mode": file.mode,
        "has_audio": file.has_audio,
        "source_digest": clip.source_digest,
        "stream": clip.stream,
        **{name: clip.to_row()[name] for name in ("start_pts", "end_pts", "time_base", "start_s", "end_s")},
        "crop_px": list(entry.crop) if entry.crop else None,
    }
    return Sample(clip.clip_id, file.data, entry.caption, facts)
