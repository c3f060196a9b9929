"""Read a shard set back: by index, sample after sample, from any place."""

from __future__ import annotations

import json
import posixpath
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from curate.errors import CorpusError
from curate.shards.index import ShardEntry, ShardIndex
from curate.storage import Place, storage_error

MEMBERS = (".mp4", ".json", ".txt")


@dataclass(frozen=True, slots=True)
class ReadSample:
    """A sample as the tar holds it: the MP4, its caption, its facts."""

    clip_id: str
    video: bytes
    caption: str
    facts: dict[str, Any]


@dataclass(frozen=True)
class ShardSet:
    """A finished shard set."""

    folder: Place
    index: ShardIndex = field(repr=False)

    @classmethod
    def open(cls, folder: Place) -> ShardSet:
        """CorpusError when the set is not finished."""
        return cls(folder, ShardIndex.read(folder))

    def samples(self, bucket: str = "") -> Iterator[ReadSample]:
        """All samples, or those of one bucket, in the order of the index."""
        for shard in self.index.shards:
            if not bucket or shard.bucket == bucket:
                yield from read_samples(self.place(shard.path))

    def place(self, path: str) -> Place:
        """A file of the set."""
        return self.folder.child(*path.split("/"))

    def shards(self, bucket: str = "") -> list[ShardEntry]:
        """Entries of all shards, or of one bucket's."""
        return [shard for shard in self.index.shards if not bucket or shard.bucket == bucket]


def read_samples(place: Place) -> Iterator[ReadSample]:
    """Samples of one tar. CorpusError when it is damaged or a sample lacks a member."""
    parts: dict[str, bytes] = {}
    key = ""
    for name, data in _members(place):
        stem, suffix = posixpath.splitext(name)
        if parts and stem != key:
            yield _sample(place, key, parts)
            parts = {}
        key = stem
        parts[suffix] = data
    if parts:
        yield _sample(place, key, parts)


def _members(place: Place) -> Iterator[tuple[str, bytes]]:
    try:
        with place.open() as file, tarfile.open(fileobj=file, mode="r|") as tar:
            for info in tar:
                content = tar.extractfile(info)
                if content is not None:
                    yield info.name, content.read()
    except tarfile.TarError as error:
        raise CorpusError(f"is not a whole tar file: {error}", subject=place.uri) from error
    except OSError as error:
        raise storage_error(error, place.uri) from error


def _sample(place: Place, key: str, parts: dict[str, bytes]) -> ReadSample:
    missing = [suffix for suffix in MEMBERS if suffix not in parts]
    if missing:
        raise CorpusError(f"sample {key} lacks {', '.join(missing)}", subject=place.uri)
    try:
        facts = json.loads(parts[".json"])
        return ReadSample(key, parts[".mp4"], parts[".txt"].decode(), facts)
    except ValueError as error:
        raise CorpusError(f"sample {key} is damaged: {error}", subject=place.uri) from error
