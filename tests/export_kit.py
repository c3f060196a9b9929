"""A corpus over real little films: true probe cells, clips as wanted, a few scores, a selection."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
from corpus_kit import CorpusKit

from curate.export import ExportConfig
from curate.ingest.local import local_ref
from curate.ingest.spool import digest_of
from curate.media.decode import iter_frames
from curate.media.facts import read_facts
from curate.records import Clip, Span
from curate.stages.probe import Probe
from curate.storage import Place
from curate.tables import Corpus, parquet_bytes, rows_table

STAGES = {
    "motion": {"v2d_px16": pa.float64(), "flow": pa.list_(pa.float64())},
    "quality": {f"active_{name}_px": pa.int32() for name in "xywh"},
    "caption.template": {"caption": pa.string()},
}
SELECTION = pa.schema([("clip_id", pa.string()), ("verdict", pa.string()), ("reason", pa.string())])

SMALL = {"short_sides_px": (64, 96, 128), "multiple_px": 32, "frames": (4, 8, 16)}
"""Buckets that films of 192x108 fill."""


def config(**more: Any) -> ExportConfig:
    """A quick export into small buckets."""
    return ExportConfig(**{"preset": "ultrafast", "crf": 14, "buckets": SMALL, **more})


class ExportKit(CorpusKit):
    """`film` adds a real file and its clips; `select` writes a selection that keeps some of all clips."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, STAGES)
        self.stages["probe"] = {column.name: column.dtype for column in Probe.columns}
        self.clip_ids: list[str] = []

    def film(
        self,
        path: Path,
        cuts: Sequence[int],
        names: Sequence[Path] = (),
        bars_px: int = 0,
        *,
        counted: bool = True,
        **user: str,
    ) -> list[str]:
        """A film whose clips lie between the frames ``cuts``; ``names`` are further files of the same content."""
        facts, digest = read_facts(str(path)), digest_of(path)
        with iter_frames(str(path), facts) as frames:
            pts = [*(frame.pts for frame in frames), facts.end_pts]
        spans = [
            Span(pts[start], pts[end], n_frames=end - start if counted else None)
            for start, end in itertools.pairwise(cuts)
        ]
        clips = [Clip.of_span(digest, facts.stream, facts.time_base_fraction, span) for span in spans]
        for name in (path, *names):
            self._named(name, digest, user)
        self.clips += clips
        self.cell("probe", digest, **asdict(facts))
        self.cell("cut", digest, n_clips=len(clips), n_cuts=len(clips))
        for number, clip in enumerate(clips):
            self.cell("motion", clip.clip_id, v2d_px16=0.5 * number, flow=[1.0, 2.0])
            active = (0, bars_px, facts.width_px, facts.height_px - 2 * bars_px)
            self.cell("quality", clip.clip_id, **dict(zip(STAGES["quality"], active, strict=True)))
            self.cell("caption.template", clip.clip_id, caption=f"clip {number}: a täxture")
        self.clip_ids += [clip.clip_id for clip in clips]
        return [clip.clip_id for clip in clips]

    def _named(self, path: Path, digest: str, user: dict[str, str]) -> None:
        ref = local_ref(str(path))
        self.input(str(path), "ok", digest=digest, **user)
        for rows in (self.inputs, self.source_rows):
            rows[-1].update(size_bytes=ref.size_bytes, version=ref.version)

    def finish(self, kept: Sequence[str] | None = None, name: str = "best") -> Corpus:
        """Write the run and a selection that keeps these clips (default all)."""
        corpus = self.write()
        select(corpus, self.clip_ids, self.clip_ids if kept is None else kept, name)
        return corpus


def select(corpus: Corpus, clip_ids: Sequence[str], kept: Sequence[str], name: str = "best") -> None:
    """Write a selection."""
    folder = corpus.selections().child(name)
    rows = [
        {"clip_id": clip_id, "verdict": "kept" if clip_id in kept else "dropped", "reason": ""} for clip_id in clip_ids
    ]
    folder.child("selection.parquet").write_bytes(parquet_bytes(rows_table(SELECTION, rows)))
    folder.child("funnel.json").write_text(json.dumps({"run_id": "run-1"}))


def all_bytes(folder: Place) -> dict[str, bytes]:
    """Every file below a folder by its path."""
    root = folder.path.rstrip("/") + "/"
    return {name.removeprefix(root): folder.fs.cat_file(name) for name in sorted(folder.fs.find(folder.path))}
