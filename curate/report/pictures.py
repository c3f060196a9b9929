"""Small pictures of the clips that a report shows, as data URIs; or the reason why there is none.

Sources are spread over as many processes as there are cores. Each is fetched once, whatever it holds of the clips,
and decoded in a sandbox. How many pictures there are, how large they are together, how much is fetched and how long it
takes is bounded: what lies beyond says so.
"""

from __future__ import annotations

import base64
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from curate.errors import CurateError, DecodeLimitError, DecoderCrashError
from curate.export.rows import Source, sources_of
from curate.export.write import scored_source
from curate.isolation import Limits, Sandbox
from curate.media.still import clip_still
from curate.query import RunTables
from curate.records import Clip
from curate.redaction import redacted
from curate.report.samples import cut
from curate.stage import boundary
from curate.storage import is_remote
from curate.tables import CLIPS
from curate.units import format_bytes

WIDTH_PX, HEIGHT_PX = 240, 180
MOST_TEXT_BYTES = 3_500_000
"""All pictures together, as base64."""

MOST_FETCHED_BYTES = 4 << 30
"""Of sources that are not on local disk, all together."""

MOST_S = 300.0
"""After this long no further picture is begun; what is being fetched or decoded breaks off."""

_DECODE_S = 20.0
_MOST_DEATHS = 2
_MOST_WORKERS = 16
NOT_WANTED = "pictures were not asked for (`--pictures`)"
_TOO_MANY = "beyond the number of pictures of this report (`--pictures`)"
_TOO_LARGE = "beyond the size that all pictures of a report may have"
_TOO_LATE = f"there was no time left: pictures may take {MOST_S:.0f} s"

Progress = Callable[[int, int], None]
"""Hears how many of how many are done."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How sources are read. ``addresses``: where those lie that are only reached with a secret, by the names that
    tables keep; ``limits``: those of decoding."""

    addresses: Mapping[str, str] = field(default_factory=dict, repr=False)
    limits: Limits | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """One source and its clips that are to be shown."""

    digest: str
    source: Source
    clips: tuple[Clip, ...]

    @property
    def fetched_bytes(self) -> int:
        """What has to be copied to local disk."""
        remote = [ref.size_bytes or 0 for ref in self.source.refs if is_remote(ref.place) or "::" in ref.place]
        return max(remote, default=0) if len(remote) == len(self.source.refs) else 0


def plan_pictures(
    tables: RunTables, rows: Mapping[str, dict[str, Any]], n: int, addresses: Mapping[str, str] | None = None
) -> tuple[list[Wanted], dict[str, str]]:
    """The sources of the first ``n`` clips, and reasons for the clips without a picture.

    ``rows`` hold `CLIP_COLUMNS` by clip. ``addresses``: where to read sources that are only reached with a secret, by
    the names that tables keep.
    """
    clips = list(rows)
    reasons = dict.fromkeys(clips[n:], _TOO_MANY if n else NOT_WANTED)
    found = [Clip.from_row({name: rows[clip][f"clip.{name}"] for name in CLIPS.names}) for clip in clips[:n]]
    digests = {clip.source_digest for clip in found}
    with boundary() as caught:
        sources = sources_of(tables.con, tables, digests, addresses or {}) if digests else {}
    if caught.error is not None:
        return [], reasons | {clip.clip_id: _reason(caught.error) for clip in found}
    own = {digest: tuple(clip for clip in found if clip.source_digest == digest) for digest in digests}
    return _affordable([Wanted(digest, sources[digest], own[digest]) for digest in sorted(digests)], reasons)


def _affordable(wanted: Sequence[Wanted], reasons: dict[str, str]) -> tuple[list[Wanted], dict[str, str]]:
    """Those that need not be fetched and, the small ones first, as many of the others as may be."""
    chosen, total_bytes = [], 0
    for each in sorted(wanted, key=lambda each: (each.fetched_bytes, each.digest)):
        total_bytes += each.fetched_bytes
        if total_bytes <= MOST_FETCHED_BYTES:
            chosen.append(each)
        else:
            text = f"its source of {format_bytes(each.fetched_bytes)} is too large to be fetched for a picture"
            reasons |= {clip.clip_id: text for clip in each.clips}
    return chosen, reasons


def take_pictures(
    wanted: Sequence[Wanted],
    order: Sequence[str],
    reasons: dict[str, str],
    heard: Progress | None = None,
    limits: Limits | None = None,
) -> dict[str, dict[str, Any]]:
    """``pictures`` of the report's facts, by clip, in the order of ``order``; ``limits`` are those of decoding."""
    limits = limits or Limits()
    limits = replace(limits, least_s=min(limits.least_s, _DECODE_S))
    found: dict[str, dict[str, Any]] = {clip: {"missing": reason} for clip, reason in reasons.items()}
    deadline_s = time.monotonic() + MOST_S
    workers = max(1, min(len(wanted), _MOST_WORKERS, len(os.sched_getaffinity(0))))
    pool = ThreadPoolExecutor(workers)
    try:
        tasks = [pool.submit(_of_source, each, deadline_s, limits) for each in wanted]
        for done, task in enumerate(tasks, 1):
            found |= task.result()
            if heard:
                heard(done, len(tasks))
    finally:
        pool.shutdown(cancel_futures=True)
    return dict(_bounded(found, order))


def _bounded(found: dict[str, dict[str, Any]], order: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    total_bytes = 0
    for clip in order:
        picture = found.get(clip, {"missing": "no picture"})
        total_bytes += len(picture.get("src", ""))
        yield clip, picture if total_bytes <= MOST_TEXT_BYTES or "src" not in picture else {"missing": _TOO_LARGE}


def _of_source(wanted: Wanted, deadline_s: float, limits: Limits) -> dict[str, dict[str, Any]]:
    """Pictures of one source's clips; a source that killed two decoding processes is left alone."""
    if time.monotonic() > deadline_s:
        return {clip.clip_id: {"missing": _TOO_LATE} for clip in wanted.clips}
    found: dict[str, dict[str, Any]] = {}
    with (
        boundary() as caught,
        tempfile.TemporaryDirectory(prefix="curate-") as scratch,
        scored_source(wanted.digest, wanted.source, Path(scratch), deadline_s=deadline_s) as path,
        Sandbox(limits) as sandbox,
    ):
        deaths: list[Exception] = []
        for clip in wanted.clips:
            if time.monotonic() > deadline_s:
                break
            with boundary() as failed:
                found[clip.clip_id] = _picture(sandbox, path, wanted, clip, deadline_s)
            if failed.error is not None and time.monotonic() > deadline_s:
                break
            if failed.error is not None:
                found[clip.clip_id] = {"missing": _reason(failed.error)}
            if isinstance(failed.error, DecoderCrashError | DecodeLimitError):
                deaths.append(failed.error)
            if len(deaths) == _MOST_DEATHS:
                raise deaths[-1]
    lost = [clip.clip_id for clip in wanted.clips if clip.clip_id not in found]
    reason = _TOO_LATE if time.monotonic() > deadline_s else _reason(caught.error)
    return found | {clip: {"missing": reason} for clip in lost}


def _picture(sandbox: Sandbox, path: str, wanted: Wanted, clip: Clip, deadline_s: float) -> dict[str, Any]:
    facts = wanted.source.facts
    frame_px = facts.coded_width_px * facts.coded_height_px
    limit_s = sandbox.limits.decode_s(facts.n_frames, frame_px, Path(path).stat().st_size)
    limit_s = max(0.1, min(limit_s, deadline_s - time.monotonic()))
    data, width_px, height_px = sandbox.call(clip_still, path, facts, clip, WIDTH_PX, HEIGHT_PX, limit_s=limit_s)
    text = base64.b64encode(data).decode()
    return {"src": f"data:image/webp;base64,{text}", "width": width_px, "height": height_px}


def _reason(error: Exception | None) -> str:
    if isinstance(error, CurateError):
        return cut(redacted(f"its source {error.message}"))
    return cut(redacted(f"{type(error).__name__}: {error}"))
