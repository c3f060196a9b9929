"""What encoders made of clips beforehand, and where each tensor lies: read by range requests, written by
`curate.train.latents`.

Below the folder of an encoder and a number format:

    parts/<name>.safetensors               tensors by key: the digest of what was encoded, and its size
    maps/<sha256 of a tar>/part-*.parquet  one row a tensor of that tar's clips: MAP

A tar's digest stands for every byte of its clips, so latents are never taken for another version of a clip.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from curate.errors import CorpusError
from curate.shards.buckets import Bucket
from curate.storage import Place
from curate.tables import read_parquet
from curate.train.data.clip import Window

MAP = pa.schema(
    [
        ("clip_id", pa.string()),
        ("slot", pa.string()),
        ("key", pa.string()),
        ("part", pa.string()),
        ("offset_bytes", pa.int64()),
        ("shape", pa.list_(pa.int64())),
        ("dtype", pa.string()),
    ]
)
"""``slot``: what of the clip it is, a size (``576x320``) or the column of a caption. ``offset_bytes``: in the file."""

DTYPES = {"F16": np.dtype(np.float16), "F32": np.dtype(np.float32)}
"""Number formats by their names in safetensors files."""

_MOST_MAPS = 4096


@dataclass(frozen=True, slots=True)
class Stored:
    """Where one tensor lies."""

    key: str
    part: str
    offset_bytes: int
    shape: tuple[int, ...]
    dtype: str

    def slice(self, first: int, last: int) -> tuple[int, int]:
        """(offset, size) in bytes of the entries first ... last of its first axis."""
        one = math.prod(self.shape[1:]) * DTYPES[self.dtype].itemsize
        return self.offset_bytes + first * one, (last + 1 - first) * one


def frame_slot(bucket: Bucket) -> str:
    """The slot of a clip's frames at a bucket's size."""
    return f"{bucket.width_px}x{bucket.height_px}"


def read_map(folder: Place, tar_sha256: str) -> dict[tuple[str, str], Stored]:
    """What is stored of a tar's clips, by clip id and slot."""
    maps = folder.child("maps", tar_sha256)
    found: dict[tuple[str, str], Stored] = {}
    for path in maps.files(".parquet"):
        for row in read_parquet(maps.child(path.rpartition("/")[2])).to_pylist():
            stored = Stored(row["key"], row["part"], row["offset_bytes"], tuple(row["shape"]), row["dtype"])
            found[row["clip_id"], row["slot"]] = stored
    return found


def part_place(folder: Place, name: str) -> Place:
    """The file of a part."""
    return folder.child("parts", f"{name}.safetensors")


def tensors_in(data: bytes) -> dict[str, tuple[int, tuple[int, ...], str]]:
    """(offset in the file, shape, format) of every tensor of a safetensors file."""
    begin = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:begin])
    header.pop("__metadata__", None)
    return {key: (begin + e["data_offsets"][0], tuple(e["shape"]), e["dtype"]) for key, e in header.items()}


@dataclass
class Store:
    """Reads the tensors of one encoder; picklable. Maps of tars are kept once read."""

    uri: str
    _maps: dict[str, dict[tuple[str, str], Stored]] = field(default_factory=dict, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return {"uri": self.uri, "_maps": {}}

    def frames(self, tar_sha256: str, clip_id: str, bucket: Bucket, window: Window) -> np.ndarray:
        """What the encoder made of the frames of a window: (window.count, ...).

        CorpusError when that was not computed, StorageError when it cannot be read.
        """
        stored = self._find(tar_sha256, clip_id, frame_slot(bucket))
        if window.last >= stored.shape[0]:
            text = f"clip {clip_id} has {stored.shape[0]} encoded frames, frame {window.last} is wanted"
            raise CorpusError(text, subject=self.uri)
        return self._read(stored, window.start, window.last)[:: window.stride]

    def whole(self, tar_sha256: str, clip_id: str, slot: str) -> np.ndarray:
        """A whole tensor; errors as for `frames`."""
        stored = self._find(tar_sha256, clip_id, slot)
        return self._read(stored, 0, stored.shape[0] - 1)

    def _find(self, tar_sha256: str, clip_id: str, slot: str) -> Stored:
        if tar_sha256 not in self._maps:
            if len(self._maps) >= _MOST_MAPS:
                self._maps.clear()
            self._maps[tar_sha256] = read_map(Place(self.uri), tar_sha256)
        stored = self._maps[tar_sha256].get((clip_id, slot))
        if stored is None:
            fix = "Precompute for this shard set and these buckets"
            raise CorpusError(f"holds nothing of clip {clip_id} for {slot}", subject=self.uri, fix=fix)
        return stored

    def _read(self, stored: Stored, first: int, last: int) -> np.ndarray:
        data = part_place(Place(self.uri), stored.part).read_range(*stored.slice(first, last))
        values = np.frombuffer(data, DTYPES[stored.dtype])
        return values.reshape(last + 1 - first, *stored.shape[1:]).copy()
