"""Check a shard set against its index, its sidecars, its selection and itself."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from curate.errors import CorpusError, DecodeError, StorageError
from curate.isolation import Sandbox
from curate.media.playback import decode_fully
from curate.shards.index import CARD_NAME, INDEX_NAME, ShardEntry, ShardIndex
from curate.shards.reader import MEMBERS
from curate.shards.tombstones import forgotten
from curate.storage import Place
from curate.tables import Corpus, kept_ids, parquet_table
from curate.verify.problem import Problem

SAMPLED_PER_SHARD = 3
"""Clips of each shard that are decoded when not all are."""


def verify(corpus: Corpus, name: str, *, deep: bool = False) -> list[Problem]:
    """All problems of the shard set ``name``; none means that it is whole. ``deep`` decodes every clip."""
    folder = corpus.shards(name)
    try:
        index = ShardIndex.read(folder)
    except CorpusError as error:
        return [Problem("index", name, error.message)]
    problems: list[Problem] = []
    gone = forgotten(corpus)
    seen: Counter[str] = Counter()
    with Sandbox() as sandbox:
        for shard in index.shards:
            checked = _Shard(folder, shard, gone, sandbox, deep=deep)
            problems += checked.problems()
            seen.update(checked.clip_ids)
    problems += [Problem("index", clip, f"lies in {count} places") for clip, count in seen.items() if count > 1]
    problems += [
        Problem("index", h.clip_id, "is listed as a hole and present") for h in index.holes if h.clip_id in seen
    ]
    problems += _card(folder, index)
    problems += _strays(folder, index)
    problems += _against_selection(corpus, index, set(seen))
    return problems


@dataclass
class _Shard:
    """The checks of one tar and its sidecar; ``clip_ids`` is filled by `problems`."""

    folder: Place
    entry: ShardEntry
    gone: Mapping[str, str]
    sandbox: Sandbox
    deep: bool
    clip_ids: tuple[str, ...] = ()

    def problems(self) -> list[Problem]:
        """All that is wrong. A file whose digest is wrong is not looked into."""
        entry = self.entry
        tar, wrong_tar = self._file(entry.path, entry.bytes, entry.sha256)
        sidecar, wrong_sidecar = self._file(entry.sidecar, entry.sidecar_bytes, entry.sidecar_sha256)
        found = [*wrong_tar, *wrong_sidecar]
        rows: list[dict[str, Any]] = []
        if sidecar is not None:
            rows, wrong = self._rows(sidecar)
            found += wrong
        if tar is not None and sidecar is not None:
            found += list(self._against_tar(tar, rows))
        return found

    def _file(self, path: str, size_bytes: int, sha256: str) -> tuple[bytes | None, list[Problem]]:
        place = self.folder.child(*path.split("/"))
        try:
            data = place.read_bytes()
        except StorageError as error:
            return None, [Problem("file", path, error.message)]
        if len(data) != size_bytes:
            return None, [Problem("file", path, f"has {len(data)} bytes, the index says {size_bytes}")]
        if hashlib.sha256(data).hexdigest() != sha256:
            return None, [Problem("file", path, "has other bytes than the index says (sha256)")]
        return data, []

    def _rows(self, sidecar: bytes) -> tuple[list[dict[str, Any]], list[Problem]]:
        entry = self.entry
        try:
            rows = parquet_table(sidecar).to_pylist()
        except (pa.ArrowInvalid, OSError) as error:
            return [], [Problem("sidecar", entry.sidecar, f"is not Parquet: {error}")]
        self.clip_ids = tuple(row["clip_id"] for row in rows)
        found = []
        if len(rows) != entry.count:
            found.append(Problem("sidecar", entry.sidecar, f"has {len(rows)} rows, the index says {entry.count}"))
        for row in rows:
            if row["source_digest"] in self.gone:
                why = f"its source was taken down: {self.gone[row['source_digest']]}; export again"
                found.append(Problem("taken_down", row["clip_id"], why))
        return rows, found

    def _against_tar(self, tar: bytes, rows: list[dict[str, Any]]) -> Iterator[Problem]:
        path = self.entry.path
        try:
            with tarfile.open(fileobj=io.BytesIO(tar), mode="r:") as opened:
                members = [(info.name, info.offset_data, info.size) for info in opened]
        except tarfile.TarError as error:
            yield Problem("tar", path, f"is not a whole tar file: {error}")
            return
        wanted = [f"{clip}{suffix}" for clip in self.clip_ids for suffix in MEMBERS]
        if [name for name, _, _ in members] != wanted:
            yield Problem("tar", path, "its members are not those of the sidecar's rows, in their order")
            return
        videos = {name.removesuffix(".mp4"): (at, size) for name, at, size in members if name.endswith(".mp4")}
        for row in rows:
            if videos[row["clip_id"]] != (row["video_offset_bytes"], row["video_bytes"]):
                yield Problem("sidecar", row["clip_id"], "its video does not lie where the sidecar says")
        for row in rows if self.deep else _sampled(rows):
            at, size = videos[row["clip_id"]]
            yield from _decoded(row, tar[at : at + size], self.sandbox)


def _sampled(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Always the same few rows of a shard, spread by the digest of their ids."""
    ordered = sorted(rows, key=lambda row: hashlib.sha256(row["clip_id"].encode()).digest())
    return ordered[:SAMPLED_PER_SHARD]


def _decoded(row: Mapping[str, Any], video: bytes, sandbox: Sandbox) -> Iterator[Problem]:
    """Decodes a clip: copied packets are a stranger's still."""
    clip = row["clip_id"]
    limit_s = sandbox.limits.decode_s(row["n_frames"], row["width_px"] * row["height_px"], len(video))
    try:
        shown = sandbox.call(decode_fully, video, limit_s=limit_s)
    except DecodeError as error:
        yield Problem("decode", clip, error.message)
        return
    if shown.n_frames != row["n_frames"]:
        yield Problem("decode", clip, f"decodes to {shown.n_frames} frames, the sidecar says {row['n_frames']}")
    if (shown.width_px, shown.height_px) != (row["width_px"], row["height_px"]):
        size = f"{row['width_px']}x{row['height_px']}"
        yield Problem("decode", clip, f"is {shown.width_px}x{shown.height_px} px, the sidecar says {size}")
    if shown.first_s != 0:
        yield Problem("decode", clip, f"begins at {shown.first_s} s instead of 0")


def _card(folder: Place, index: ShardIndex) -> list[Problem]:
    """Whether README.md is what the export wrote."""
    if not index.card_sha256:
        return []
    try:
        data = folder.child(CARD_NAME).read_bytes()
    except StorageError as error:
        return [Problem("file", CARD_NAME, error.message)]
    if hashlib.sha256(data).hexdigest() == index.card_sha256:
        return []
    return [Problem("file", CARD_NAME, "has other bytes than the index says (sha256); export again")]


def _strays(folder: Place, index: ShardIndex) -> list[Problem]:
    """Files below the set that the index does not name."""
    known = {INDEX_NAME, *(path for shard in index.shards for path in (shard.path, shard.sidecar))}
    known |= {CARD_NAME} if index.card_sha256 else set()
    wanted = {folder.child(*path.split("/")).path for path in known}
    return [Problem("file", path, "is not named by the index") for path in folder.tree() if path not in wanted]


def _against_selection(corpus: Corpus, index: ShardIndex, present: set[str]) -> list[Problem]:
    """Whether the set still is what its selection keeps."""
    name = str(index.selection.get("name"))
    place = corpus.selections().child(name, "selection.parquet")
    if not place.exists():
        return [Problem("selection", name, "the selection that was exported is gone")]
    try:
        kept = set(kept_ids(place).to_pylist())
    except (StorageError, pa.ArrowInvalid, KeyError, OSError) as error:
        return [Problem("selection", name, f"the selection that was exported cannot be read: {error}")]
    found = []
    beyond = len(present - kept)
    if beyond:
        found.append(Problem("selection", name, f"{beyond} clips in the shards are no longer kept; export again"))
    planned = index.n_clips + len(index.holes) + sum(index.left_out.values())
    if planned != len(kept):
        found.append(Problem("selection", name, f"keeps {len(kept)} clips, {planned} were exported; export again"))
    return found
