"""Small shard sets to train on: real clips of known size, rate and captions, written as export writes them."""

from __future__ import annotations

import hashlib
import http.server
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from curate.shards.index import INDEX_NAME, ShardEntry, ShardIndex
from curate.shards.reader import ShardSet
from curate.shards.writer import SIDECAR, Sample, build_shard
from curate.storage import Place
from curate.testing.footage import moving_texture, write_video
from curate.train.data.config import DataConfig
from curate.train.recipe import load_train_recipe

SVD_CAPTIONS = load_train_recipe("video-320x576").data.captions
CAPTIONS = tuple(SVD_CAPTIONS)
_APART_FRAMES = 32
SMALL = {"short_sides_px": (32,), "multiple_px": 16, "aspects": ("16:9",), "frames": (4,)}
"""One bucket, 64x32x4."""


@dataclass(frozen=True)
class Spec:
    """A clip to make; ``captions`` by column."""

    frames: int = 12
    width_px: int = 96
    height_px: int = 54
    fps: Fraction = Fraction(24)
    motion: float | None = 1.0
    captions: dict[str, str | None] = field(default_factory=dict)
    more: dict[str, Any] = field(default_factory=dict)
    mode: str = "encode"
    source: str = ""
    """Name of the film it comes from; empty for one of its own."""


def clip_id(number: int) -> str:
    """The id of the clip with this number."""
    return hashlib.sha256(f"clip {number}".encode()).hexdigest()[:32]


def usual(n: int, **more: Any) -> list[Spec]:
    """So many clips with all captions, their motion rising."""
    return [Spec(motion=0.1 * at, captions={name: f"{name} of {at}" for name in CAPTIONS}, **more) for at in range(n)]


def make_set(folder: str, specs: Sequence[Spec], scratch: Path, per_shard: int = 4) -> ShardSet:
    """Write a shard set at a place."""
    place, entries = Place(folder), []
    for number, at in enumerate(range(0, len(specs), per_shard)):
        own = list(enumerate(specs))[at : at + per_shard]
        samples = [_sample(n, spec, scratch) for n, spec in own]
        names = {name for _, spec in own for name in spec.captions}
        columns = {name: pa.array([spec.captions.get(name) for _, spec in own], pa.string()) for name in sorted(names)}
        shard = build_shard(samples, pa.table(columns))
        paths = f"all/{number:06d}.tar", f"all/{number:06d}.parquet"
        place.child(*paths[0].split("/")).write_bytes(shard.tar)
        place.child(*paths[1].split("/")).write_bytes(shard.sidecar)
        entries.append(
            ShardEntry(paths[0], shard.sha256, len(shard.tar), len(own), "all", paths[1], "", len(shard.sidecar))
        )
    plan = hashlib.sha256("".join(entry.sha256 for entry in entries).encode()).hexdigest()
    index = ShardIndex(plan, {"name": "all"}, "x264", {}, tuple(entries))
    place.child(INDEX_NAME).write_text(index.to_json())
    return ShardSet.open(place)


def _sample(number: int, spec: Spec, scratch: Path) -> Sample:
    path = scratch / f"{number}.mp4"
    options = {"preset": "ultrafast", "crf": "8", "bf": "0"}
    # Each clip begins elsewhere on the same texture: to make one takes longer than to make a clip.
    start = _APART_FRAMES * number
    frames = islice(moving_texture(start + spec.frames, spec.width_px, spec.height_px, (3, 1)), start, None)
    write_video(path, frames, spec.fps, **{"options": options, "gop": 5, **spec.more})
    turned = spec.more.get("rotation_deg", 0) % 180
    width_px, height_px = (spec.height_px, spec.width_px) if turned else (spec.width_px, spec.height_px)
    facts = {name: None for name in SIDECAR.names if not name.startswith("video_")}
    facts.update(
        clip_id=clip_id(number),
        bucket="all",
        source_digest=hashlib.sha256(spec.source.encode() or f"film {number}".encode()).hexdigest(),
        fps=float(spec.fps),
        motion_score=spec.motion,
        width_px=int(width_px * spec.more.get("sar", 1)),
        height_px=height_px,
        n_frames=spec.frames,
        mode=spec.mode,
    )
    return Sample(clip_id(number), path.read_bytes(), "", facts)


def small(**more: Any) -> DataConfig:
    """Batches of two clips of 64x32x4."""
    return DataConfig(**{"buckets": SMALL, "batch": 2, "captions": dict.fromkeys(CAPTIONS, 1.0), **more})


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The folder at an address on the loopback, by a server that answers range requests."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), lambda *args: _Handler(*args, directory=str(folder)))
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


class _Handler(http.server.SimpleHTTPRequestHandler):
    def do_GET(self) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        path = Path(self.translate_path(self.path))
        if not (asked and path.is_file()):
            super().do_GET()
            return
        data = path.read_bytes()
        first, last = int(asked[1]), min(int(asked[2]), len(data) - 1)
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        self.send_header("Content-Length", str(last - first + 1))
        self.end_headers()
        self.wfile.write(data[first : last + 1])

    def log_message(self, *_: object) -> None:
        """Say nothing."""
