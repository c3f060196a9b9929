"""`index.json`: what a shard set holds. It is written last, so a set without it is not finished."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from curate.errors import CorpusError
from curate.storage import Place

FORMAT = 1
INDEX_NAME = "index.json"
CARD_NAME = "README.md"


@dataclass(frozen=True, slots=True)
class ShardEntry:
    """One tar and its sidecar; paths below the set's folder."""

    path: str
    sha256: str
    bytes: int
    count: int
    bucket: str
    sidecar: str
    sidecar_sha256: str
    sidecar_bytes: int


@dataclass(frozen=True, slots=True)
class Hole:
    """A planned clip that is not in its shard, and why."""

    clip_id: str
    shard: str
    reason: str


@dataclass(frozen=True, slots=True)
class ShardIndex:
    """The whole set. ``plan`` is the digest of all that decides its shards; ``left_out`` counts kept clips
    that belong to no shard, by reason. ``card_sha256`` is that of README.md, empty in sets of before there was one."""

    plan: str
    selection: Mapping[str, Any]
    encoder: str
    export: Mapping[str, Any]
    shards: tuple[ShardEntry, ...]
    holes: tuple[Hole, ...] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)
    card_sha256: str = ""

    @property
    def n_clips(self) -> int:
        """Clips in the set."""
        return sum(shard.count for shard in self.shards)

    def to_json(self) -> str:
        """The text of index.json."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str, where: str) -> Self:
        """An index from its text; CorpusError when it is none of this format."""
        try:
            data = json.loads(text)
            found = data.pop("format", None)
            if found != FORMAT:
                raise CorpusError(f"has format {found}, this version reads {FORMAT}", subject=where)
            shards = tuple(ShardEntry(**entry) for entry in data.pop("shards"))
            holes = tuple(Hole(**hole) for hole in data.pop("holes"))
            return cls(shards=shards, holes=holes, **data)
        except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
            raise CorpusError(f"is not the index of a shard set: {error}", subject=where) from error

    @classmethod
    def read(cls, folder: Place) -> Self:
        """The index of a set; CorpusError when the set is not finished."""
        place = folder.child(INDEX_NAME)
        if not place.exists():
            raise CorpusError(
                "is not a finished shard set (no index.json)", subject=folder.uri, fix="`curate export` finishes it"
            )
        return cls.from_json(place.read_text(), place.uri)
