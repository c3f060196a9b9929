"""Encode every clip of a stage once, before training: latents, image embeddings, text embeddings.

All frames of a clip are encoded at the size of its bucket, so that training on latents draws the same windows as
training on pictures, and gives the same latents. A tensor's key is the digest of the MP4 (or of the text) and the size,
in a folder of the encoder's digest: what is there is not computed again, be it that the command was killed, that the
shards were exported anew with the same clips in them, or that another stage wants the same size.

A clip is encoded by itself, in chunks counted from its first frame, so that no tensor depends on its neighbours.
`curate.train.data.store` says how it lies on disk and reads it.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, get_args

import numpy as np
import torch
from safetensors.numpy import save

from curate.errors import ConfigError, CorpusError, DecodeError, StorageError
from curate.shards.buckets import Bucket
from curate.shards.reader import ShardSet
from curate.storage import Place
from curate.tables import rows_table, write_part
from curate.train.data.catalogue import Catalogue, ClipRef
from curate.train.data.clip import Window, decode_window, read_clip, read_facts
from curate.train.data.config import DataConfig
from curate.train.data.store import MAP, Stored, frame_slot, part_place, read_map, tensors_in
from curate.train.data.worker import Ahead, Lost, Sources, in_workers, lost_clip

Format = Literal["float16", "float32"]


class Digested(Protocol):
    """An encoder, of which only its identity matters."""

    @property
    def digest(self) -> str:
        """Stands for weights and settings."""
        ...


class FrameEncoder(Protocol):
    """Turns pictures into tensors, each by itself: a codec or an image embedder."""

    @property
    def digest(self) -> str:
        """Stands for weights and settings."""
        ...

    def encode(self, frames: torch.Tensor) -> torch.Tensor:
        """(N, ...) of float32 (N, 3, H, W) in [-1, 1]."""
        ...


class TextEncoder(Protocol):
    """Turns texts into tensors, each by itself."""

    @property
    def digest(self) -> str:
        """Stands for weights, tokeniser and settings."""
        ...

    def encode(self, texts: Sequence[str]) -> torch.Tensor:
        """(N, L, D) of N texts."""
        ...


@dataclass(frozen=True)
class Precomputed:
    """What was done. ``folder`` is the URI that `Sources` takes. encoded + found + without + lost are all that was
    wanted: ``found`` was there already, under this tar or another one, ``without`` are captions that clips lack."""

    folder: str
    encoded: int
    found: int
    without: int
    lost: tuple[Lost, ...]


def all_clips(shards: ShardSet, config: DataConfig) -> Catalogue:
    """Every clip that a bucket of a stage takes, those that are held out too, be there enough for a batch or not."""
    config = config.model_copy(update={"batch": 1, "on_empty": "report", "hold_out_sources": 0})
    return Catalogue.read(shards, config)


def store_folder(out: Place, digest: str, dtype: Format) -> Place:
    """The folder of one encoder and number format."""
    return out.child(f"{digest}-{dtype}")


@dataclass(frozen=True, kw_only=True)
class Work:
    """How to go about it. ``chunk``: frames or texts encoded at once. ``part_bytes``: size that files aim at.
    Rank r of ``world`` takes the shards r, r + world, ..."""

    dtype: Format = "float16"
    chunk: int = 16
    part_bytes: int = 256 << 20
    ahead: Ahead = field(default_factory=Ahead)
    rank: int = 0
    world: int = 1
    device: str = "cpu"
    on_part: Callable[[int, int], None] | None = None
    """Told after each file how many of how many tensors are there."""


def sources_in(out: Place, codec: Digested, image: Digested | None, text: Digested | None) -> Sources:
    """What these encoders left below a place, in whatever number format; ConfigError where that is nothing."""

    def folder_of(encoder: Digested | None) -> str:
        folders = [store_folder(out, encoder.digest, dtype) for dtype in get_args(Format)] if encoder else []
        return next((folder.uri for folder in folders if folder.child("maps").folders()), "")

    found = Sources(latents=folder_of(codec), images=folder_of(image), texts=folder_of(text))
    if found == Sources():
        message = "holds nothing of this run's encoders"
        raise ConfigError(message, subject=out.uri, fix="Run `curate latents` with the encoders of this run")
    return found


def precompute(catalogue: Catalogue, encoder: FrameEncoder, out: Place, work: Work | None = None) -> Precomputed:
    """Encode all frames of every clip of the catalogue at its bucket's size. Clips that cannot be read are counted."""
    work = work or Work()
    wanted = [
        _Wanted(row, frame_slot(bucket), bucket)
        for bucket, rows in zip(catalogue.buckets, catalogue.rows, strict=True)
        for row in rows.tolist()
    ]

    @torch.no_grad()
    def encode(frames: np.ndarray) -> np.ndarray:
        pictures = torch.from_numpy(frames).permute(0, 3, 1, 2)
        chunks = [chunk.to(work.device).float().div_(127.5).sub_(1) for chunk in pictures.split(work.chunk)]
        return np.concatenate([_array(encoder.encode(chunk), work.dtype) for chunk in chunks])

    return _Run(catalogue, store_folder(out, encoder.digest, work.dtype), work, encode).run(wanted)


def precompute_texts(
    catalogue: Catalogue, encoder: TextEncoder, columns: Iterable[str], out: Place, work: Work | None = None
) -> Precomputed:
    """Encode the captions of every clip of the catalogue in these columns; clips without one have none."""
    work = work or Work()
    names = list(columns)
    wanted = [_Wanted(row, name, None) for rows in catalogue.rows for row in rows.tolist() for name in names]

    @torch.no_grad()
    def encode(text: str) -> np.ndarray:
        return _array(encoder.encode([text])[0], work.dtype)

    return _Run(catalogue, store_folder(out, encoder.digest, work.dtype), work, encode).run(wanted)


def _array(tensor: torch.Tensor, dtype: Format) -> np.ndarray:
    return tensor.detach().to("cpu", torch.float32).numpy().astype(dtype)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """One tensor that is wanted: of frames at a bucket's size, or (bucket None) of the text in the column ``slot``."""

    row: int
    slot: str
    bucket: Bucket | None


@dataclass(frozen=True, slots=True)
class _Loaded:
    """What is to be encoded: pictures uint8 (N, H, W, 3) or a text; None when its key is known."""

    ref: ClipRef
    slot: str
    key: str
    content: np.ndarray | str | None


class _Clips(torch.utils.data.Dataset["_Loaded | Lost | None"]):
    """Reads and decodes what is wanted, in whatever process; None for a text that is not there."""

    def __init__(self, uris: Sequence[str], known: frozenset[str]) -> None:
        self._uris = uris
        self._known = known

    def __getitem__(self, item: tuple[ClipRef, str, Bucket | None]) -> _Loaded | Lost | None:
        ref, slot, bucket = item
        try:
            place = Place(self._uris[ref.shard])
            if bucket is None:
                text = read_facts(place, ref).get(slot)
                return _Loaded(ref, slot, hashlib.sha256(text.encode()).hexdigest(), text) if text else None
            video, _ = read_clip(place, ref)
            key = f"{hashlib.sha256(video).hexdigest()}-{slot}"
            if key in self._known:
                return _Loaded(ref, slot, key, None)
            window = Window(0, 1, ref.n_frames)
            return _Loaded(ref, slot, key, decode_window(video, window, bucket, closed=ref.closed))
        except (CorpusError, StorageError, DecodeError) as error:
            return lost_clip(ref, self._uris, error)


@dataclass
class _Run:
    """One pass over what is wanted."""

    catalogue: Catalogue
    folder: Place
    work: Work
    encode: Callable[..., np.ndarray]
    pending: dict[str, np.ndarray] = field(default_factory=dict)
    rows: list[tuple[ClipRef, str, str]] = field(default_factory=list)
    known: dict[str, Stored] = field(default_factory=dict)
    done: Counter[str] = field(default_factory=Counter)
    n_wanted: int = 0

    def run(self, wanted: Sequence[_Wanted]) -> Precomputed:
        mine = self._mine(wanted)
        self.n_wanted = len(mine)
        present = self._read_known()
        missing = [item for item in mine if self._name(item) not in present]
        self.done["found"] = len(mine) - len(missing)
        uris = [self.catalogue.shards.place(entry.path).uri for entry in self.catalogue.entries]
        items = ((self.catalogue.ref(item.row), item.slot, item.bucket) for item in missing)
        clips = _Clips(uris, frozenset(self.known))
        lost: list[Lost] = []
        for loaded in in_workers(clips, items, self.work.ahead):
            if isinstance(loaded, Lost):
                lost.append(loaded)
            elif loaded is None:
                self.done["without"] += 1
            else:
                self._take(loaded)
        self._flush()
        done = self.done
        return Precomputed(self.folder.uri, done["encoded"], done["found"], done["without"], tuple(lost))

    def _mine(self, wanted: Sequence[_Wanted]) -> list[_Wanted]:
        """Those of this rank, shard after shard."""
        shard = self.catalogue.columns["shard"]
        mine = [item for item in wanted if shard[item.row] % self.work.world == self.work.rank]
        return sorted(mine, key=lambda item: (shard[item.row], item.row))

    def _name(self, item: _Wanted) -> tuple[str, str, str]:
        tar = self.catalogue.entries[self.catalogue.columns["shard"][item.row]].sha256
        return tar, self.catalogue.clip_ids[item.row].as_py(), item.slot

    def _read_known(self) -> set[tuple[str, str, str]]:
        """All that is mapped, by tar, clip and slot; the keys of all tensors go to ``known``."""
        present: set[tuple[str, str, str]] = set()
        for tar in self.folder.child("maps").folders():
            for (clip_id, slot), stored in read_map(self.folder, tar).items():
                present.add((tar, clip_id, slot))
                self.known[stored.key] = stored
        return present

    def _take(self, loaded: _Loaded) -> None:
        if loaded.key in self.known or loaded.key in self.pending:
            self.done["found"] += 1
        else:
            self.pending[loaded.key] = np.ascontiguousarray(
                self.encode(loaded.content)
            )  # `save` takes memory as it lies
            self.done["encoded"] += 1
        self.rows.append((loaded.ref, loaded.slot, loaded.key))
        if sum(array.nbytes for array in self.pending.values()) >= self.work.part_bytes:
            self._flush()

    def _flush(self) -> None:
        """Write the pending tensors, then say whose they are; killed in between, they are written again."""
        if self.pending:
            name = hashlib.sha256("\n".join(sorted(self.pending)).encode()).hexdigest()[:32]
            data = save(self.pending)
            part_place(self.folder, name).write_bytes(data)
            for key, (offset_bytes, shape, dtype) in tensors_in(data).items():
                self.known[key] = Stored(key, name, offset_bytes, shape, dtype)
            self.pending = {}
        for tar, rows in self._by_tar().items():
            write_part(self.folder.child("maps", tar), rows_table(MAP, rows))
        self.rows = []
        if self.work.on_part is not None:
            self.work.on_part(self.done["encoded"] + self.done["found"], self.n_wanted)

    def _by_tar(self) -> Mapping[str, list[dict[str, object]]]:
        found: dict[str, list[dict[str, object]]] = {}
        for ref, slot, key in self.rows:
            stored = self.known[key]
            place = {"part": stored.part, "offset_bytes": stored.offset_bytes, "shape": list(stored.shape)}
            row = {"clip_id": ref.clip_id, "slot": slot, "key": key, "dtype": stored.dtype, **place}
            found.setdefault(self.catalogue.entries[ref.shard].sha256, []).append(row)
        return found
