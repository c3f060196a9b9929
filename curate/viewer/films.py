"""Clips to play and their pictures, made when they are asked for and kept in a folder of bounded size.

What is served is what this module wrote: a name from a request is an id that is looked up among the run's clips.
"""

from __future__ import annotations

import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from curate.errors import StorageError
from curate.export.rows import Source
from curate.export.write import ENCODE_BYTES_PER_PX, ENCODE_FACTOR, scored_source
from curate.isolation import Limits, Sandbox
from curate.media.encode import EncodeOptions, extract_clip
from curate.media.still import clip_still
from curate.records import Clip, SourceFacts
from curate.storage import storage_error
from curate.viewer.library import Library

Kind = Literal["mp4", "webp"]

MOST_BYTES = 512 << 20
"""Of clips and pictures that are kept; those that nobody asked for longest go first."""

SHORT_SIDE_PX = 480
STILL_PX = 384
MOST_PLAYED_S = 120
"""Of a longer clip (a film that was not cut) the beginning is played: the rest is not worth the wait."""

_PLAYABLE = EncodeOptions(preset="ultrafast", crf=24)


@dataclass(slots=True)
class _File:
    path: Path
    size_bytes: int
    readers: int = 0


class Films:
    """Files of clips by id. One clip and one picture at a time are made, each in a decoding process of its own."""

    def __init__(self, library: Library, most_bytes: int = MOST_BYTES) -> None:
        self._library = library
        self._most_bytes = most_bytes
        self._folder = tempfile.TemporaryDirectory(prefix="curate-view-")
        self._files: OrderedDict[str, _File] = OrderedDict()
        self._kept = threading.Lock()
        self._makers = {"mp4": _Maker(_clip), "webp": _Maker(_still)}

    def close(self) -> None:
        """Remove all files and end the processes."""
        for maker in self._makers.values():
            maker.close()
        self._folder.cleanup()

    @contextmanager
    def file(self, clip_id: str, kind: Kind) -> Iterator[Path]:
        """The clip as MP4 (its short side at most SHORT_SIDE_PX) or its middle frame as WebP; stays while it is read.

        UsageError where the run has no such clip, other errors of ours where it cannot be had any more.
        """
        clip, source = self._library.clip(clip_id)
        name, maker = f"{clip.clip_id}.{kind}", self._makers[kind]
        self._check_not_taken_down(clip, source)
        found = self._taken(name)
        if found is None:
            with maker.lock:
                found = self._taken(name)
                if found is None:
                    scratch = Path(self._folder.name)
                    with scored_source(clip.source_digest, source, scratch) as path:
                        data = maker.make(path, source.facts, clip)
                    found = self._put(name, data)
        try:
            yield found.path
        finally:
            with self._kept:
                found.readers -= 1

    def has(self, clip_id: str, kind: Kind) -> bool:
        """Whether the file is there already."""
        with self._kept:
            return f"{clip_id}.{kind}" in self._files

    def _check_not_taken_down(self, clip: Clip, source: Source) -> None:
        reason = self._library.taken_down(clip.source_digest, [ref.uri for ref in source.refs])
        if reason is not None:
            raise StorageError(f"its source was taken down: {reason}", subject=clip.clip_id)

    def _taken(self, name: str) -> _File | None:
        with self._kept:
            found = self._files.get(name)
            if found is not None:
                self._files.move_to_end(name)
                found.readers += 1
            return found

    def _put(self, name: str, data: bytes) -> _File:
        file = _File(Path(self._folder.name) / name, len(data), readers=1)
        with self._kept:
            try:
                file.path.write_bytes(data)
            except OSError as error:
                file.path.unlink(missing_ok=True)
                raise storage_error(error, name, writing=True) from error
            self._files[name] = file
            held_bytes = sum(each.size_bytes for each in self._files.values())
            for old, each in list(self._files.items()):
                if held_bytes > self._most_bytes and not each.readers:
                    each.path.unlink()
                    held_bytes -= self._files.pop(old).size_bytes
        return file


class _Maker:
    """Makes one kind of file, one at a time, in a decoding process with the room that it needs."""

    def __init__(self, make: Callable[[Sandbox, str, SourceFacts, Clip, float], bytes]) -> None:
        self.lock = threading.Lock()
        self._make = make
        self._sandbox = Sandbox()

    def make(self, path: str, facts: SourceFacts, clip: Clip) -> bytes:
        """The file's bytes. Errors of decoding as `Sandbox.run` raises them."""
        frame_px = facts.coded_width_px * facts.coded_height_px
        usual = Limits()
        self._sandbox.limits = replace(usual, memory_bytes=usual.memory_bytes + ENCODE_BYTES_PER_PX * frame_px)
        limit_s = ENCODE_FACTOR * usual.decode_s(facts.n_frames, frame_px, Path(path).stat().st_size)
        return self._make(self._sandbox, path, facts, clip, limit_s)

    def close(self) -> None:
        """End the process, or leave it to the next who needs one."""
        self._sandbox.close()


def _clip(sandbox: Sandbox, path: str, facts: SourceFacts, clip: Clip, limit_s: float) -> bytes:
    end_pts = clip.start_pts + int(MOST_PLAYED_S / clip.time_base)
    clip = replace(clip, end_pts=min(clip.end_pts, end_pts))
    arguments = (path, facts, clip, _PLAYABLE, None, SHORT_SIDE_PX)
    return sandbox.call(extract_clip, *arguments, limit_s=limit_s).data


def _still(sandbox: Sandbox, path: str, facts: SourceFacts, clip: Clip, limit_s: float) -> bytes:
    return sandbox.call(clip_still, path, facts, clip, STILL_PX, STILL_PX, limit_s=limit_s)[0]
