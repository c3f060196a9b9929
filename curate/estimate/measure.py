"""What the job on a sample took and gave, source by source, read from the tables that it wrote."""

from __future__ import annotations

import posixpath
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from curate.engine.work import Use
from curate.estimate.limits import selection_of_bucket
from curate.estimate.ratios import Family
from curate.export import ExportReport
from curate.job import JobResult
from curate.query import RunTables, connect, run_query, sources_sql
from curate.records import Outcome
from curate.select import Funnel
from curate.shards.index import ShardIndex
from curate.storage import Place
from curate.tables import Corpus, parquet_bytes, parquet_table, read_parquet

READING = "reading"
"""Beside the stages: fetching a source, its digest, and what there is to do around the stages."""


@dataclass(frozen=True)
class TableBytes:
    """A table's size on disk: bytes that each row adds, and that each part costs besides."""

    row_bytes: float = 0.0
    part_bytes: float = 0.0


@dataclass(frozen=True)
class Shards:
    """What was exported: clips, bytes of their videos, of all files, by bucket; seconds of the writers."""

    n_clips: int = 0
    video_bytes: int = 0
    all_bytes: int = 0
    by_bucket: Mapping[str, int] = field(default_factory=dict)
    work_s: float = 0.0
    cpu_s: float = 0.0

    @property
    def cpu_share(self) -> float:
        """CPU seconds of a second of the writers."""
        return self.cpu_s / self.work_s if self.work_s else 1.0


@dataclass(frozen=True)
class Measured:
    """``families``: what each source of the sample took and gave, in the order of the sample. ``use``: of each stage in
    the whole run. ``spent_s``: of each source beside the decoder, by URI. ``funnel``: None where no selection was made.
    ``cpu_s``: CPU seconds of the workers that scored.
    """

    families: tuple[Family, ...]
    use: Mapping[str, Use]
    tables: Mapping[str, TableBytes]
    shards: Shards
    spent_s: Mapping[str, float]
    n_clips: int
    cpu_s: float
    funnel: Funnel | None = None

    @property
    def judges(self) -> dict[str, str]:
        """Gates and conditions: by name what they say."""
        return {each.name: each.text for each in self.funnel.conditions} if self.funnel else {}

    @property
    def percentiles(self) -> list[str]:
        """Names of conditions that drop a share."""
        return sorted({each.condition for each in self.funnel.thresholds}) if self.funnel else []

    def worked_s(self, beside: Iterable[str]) -> float:
        """Seconds of all workers that score; ``beside``: stages that ran beside the decoder."""
        later = [use.busy_s + use.load_s for name, use in self.use.items() if name not in set(beside)]
        return sum(self.spent_s.values()) + sum(later)

    def load_s(self, stages: Iterable[str]) -> float:
        """Seconds that a worker of these stages loads before it begins."""
        used = (self.use.get(stage, Use()) for stage in stages)
        return sum(use.load_s / use.loads for use in used if use.loads)


def measure(
    corpus: Corpus, done: JobResult, uris: Sequence[str], beside: Iterable[str], chances: np.ndarray | None = None
) -> Measured:
    """Read the tables of a job over ``uris``. ``beside``: stages that ran beside the decoder. ``chances``: how likely
    each was to be drawn, 1 by default; percentiles are those of the bucket that they were drawn from."""
    with closing(connect()) as con, tempfile.TemporaryDirectory(prefix="curate-") as scratch:
        tables = RunTables(con, corpus, done.run.run_id)
        rows = _Rows(tables, uris)
        use = {name: Use(**each) for name, each in tables.manifest["stage_use"].items()}
        spent_s = rows.source_seconds()
        seconds, cells = rows.cells()
        first = {tables.probe.name, tables.cut.name, *beside}
        reading = _reading(rows.on(spent_s), [seconds[name] for name in first & seconds.keys()], use, beside)
        for name in seconds.keys() - first:
            seconds[name] = _all_of(seconds[name], use.get(name, Use()).busy_s)
        families = [Family({f"seconds/{name}": each}) for name, each in {READING: reading, **seconds}.items()]
        families.append(Family(rows.outcomes(), "number", "inputs/tried"))
        families += [Family({f"cells/{name}": each}) for name, each in cells.items()]
        own, funnel = _selection(corpus.selections().child(done.funnel.name)) if done.funnel else [], done.funnel
        judged = own
        if funnel is not None and funnel.thresholds and chances is not None and (chances < 1).any():
            weights = {digest[:32]: 1 / float(chances[at]) for digest, at in rows.by_digest.items()}
            funnel = selection_of_bucket(tables, funnel, weights, Place(scratch))
            judged = _selection(Place(scratch))
        families += rows.clips(judged)
        shards, video_bytes = _shards(corpus, done.export)
        sizes = rows.on(video_bytes, rows.by_digest)
        if judged is not own:
            sizes = _scaled(sizes, rows.kept_s(own), rows.kept_s(judged))
        each_s = shards.work_s / shards.video_bytes if shards.video_bytes else 0.0
        written = {"work/writing": sizes * each_s, "cpu/writing": sizes * each_s * shards.cpu_share}
        families.append(Family({"bytes/video": sizes, **written}))
        counts = rows.n_clips, tables.manifest["cpu_seconds"]
        return Measured(tuple(families), use, _tables(tables), shards, spent_s, *counts, funnel)


def _tables(tables: RunTables) -> dict[str, TableBytes]:
    corpus = tables.corpus
    found = {stage.name: _table_bytes(corpus.cells(stage.name, stage.fingerprint)) for stage in tables.stages}
    found["clips"] = _table_bytes(corpus.clips(tables.cut.fingerprint))
    found["sources"] = _table_bytes(corpus.sources())
    return found


class _Rows:
    """A run's rows by source: arrays have one number for each of the inputs that were named."""

    def __init__(self, tables: RunTables, uris: Sequence[str]) -> None:
        self._tables = tables
        self._place = {uri: at for at, uri in enumerate(uris)}
        self._inputs = [row for row in self._ask(tables.inputs_sql) if row["uri"] in self._place]
        ok = [row for row in self._inputs if row["source_digest"] and row["outcome"] != Outcome.SKIPPED]
        self.by_digest = {row["source_digest"]: self._place[row["uri"]] for row in ok}
        clips = self._ask(lambda: tables.clips_sql(["clip_id", "source_digest", "start_s", "end_s"]))
        self._owner = {row["clip_id"]: self.by_digest[row["source_digest"]] for row in clips}
        self._length_s = {row["clip_id"]: row["end_s"] - row["start_s"] for row in clips}
        self.n_clips = len(clips)

    def _ask(self, sql: Any) -> list[dict[str, Any]]:
        return run_query(self._tables.con, sql).to_pylist()

    def zeros(self) -> np.ndarray:
        return np.zeros(len(self._place))

    def on(self, found: Mapping[str, float], place: Mapping[str, int] | None = None) -> np.ndarray:
        """Numbers by URI (or by what ``place`` knows) as an array."""
        place, array = place or self._place, self.zeros()
        for key, value in found.items():
            if key in place:
                array[place[key]] += value
        return array

    def source_seconds(self) -> dict[str, float]:
        """Of each input as a whole, by URI."""
        rows = self._ask(lambda: sources_sql(self._tables.con, self._tables.corpus))
        return {row["uri"]: row["seconds"] or 0.0 for row in rows if row["uri"] in self._place}

    def cells(self) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Seconds and number of cells by stage."""
        seconds: dict[str, np.ndarray] = {}
        cells: dict[str, np.ndarray] = {}
        for stage in self._tables.stages:
            place = self._owner if stage.kind == "clip" else self.by_digest
            rows = self._ask(lambda name=stage.name: self._tables.cells_sql(name, ["key", "seconds"]))
            own = [row for row in rows if row["key"] in place]
            if own:
                seconds[stage.name], cells[stage.name] = self.zeros(), self.zeros()
            for row in own:
                seconds[stage.name][place[row["key"]]] += row["seconds"]
                cells[stage.name][place[row["key"]]] += 1
        return seconds, cells

    def outcomes(self) -> dict[str, np.ndarray]:
        """How the inputs ended."""
        ended = {f"inputs/{outcome}": self.zeros() for outcome in Outcome} | {"inputs/tried": self.zeros() + 1}
        for row in self._inputs:
            ended[f"inputs/{row['outcome']}"][self._place[row["uri"]]] += 1
        return ended

    def kept_s(self, selection: Sequence[Mapping[str, Any]]) -> np.ndarray:
        """Seconds of video that a selection keeps."""
        kept = [row["clip_id"] for row in selection if row["verdict"] == "kept"]
        return self.on({clip_id: self._length_s[clip_id] for clip_id in kept}, self._owner)

    def clips(self, selection: Sequence[Mapping[str, Any]]) -> list[Family]:
        """Clips and seconds of video by what a selection made of them; without one, what was found."""
        numbers: defaultdict[str, np.ndarray] = defaultdict(self.zeros)
        lengths: defaultdict[str, np.ndarray] = defaultdict(self.zeros)
        for clip_id, at in self._owner.items():
            numbers["clips/found"][at] += 1
            lengths["video/found"][at] += self._length_s[clip_id]
        for end in ("kept", "dropped", "failed") if selection else ():
            numbers[f"clips/{end}"], lengths[f"video/{end}"] = self.zeros(), self.zeros()
        for row in selection:
            at, length_s = self._owner[row["clip_id"]], self._length_s[row["clip_id"]]
            names = [row["verdict"], *([f"{row['verdict']}/{row['reason']}"] if row["reason"] else [])]
            for name in names + [f"fails/{judge}" for judge in row["failing"] or ()]:
                numbers[f"clips/{name}"][at] += 1
                lengths[f"video/{name}"][at] += length_s
        named = (("clips/found", numbers), ("video/found", lengths))
        return [Family(dict(each), whole=whole) for whole, each in named if each]


def _selection(folder: Place) -> list[dict[str, Any]]:
    return read_parquet(folder.child("selection.parquet")).to_pylist()


def _scaled(sizes: np.ndarray, written_s: np.ndarray, kept_s: np.ndarray) -> np.ndarray:
    """Bytes of each source as if other clips of it had been written: as many a second as of those that were, else as of
    all sources."""
    usual = sizes.sum() / written_s.sum() if written_s.sum() else 0.0
    return kept_s * np.divide(sizes, written_s, out=np.full_like(sizes, usual), where=written_s > 0)


def _reading(
    spent: np.ndarray, stages: Sequence[np.ndarray], use: Mapping[str, Use], beside: Iterable[str]
) -> np.ndarray:
    """What a source took beyond its stages, less what loading them took: that is paid once a worker."""
    rest = np.maximum(spent - sum(stages, np.zeros_like(spent)), 0.0)
    loading_s = sum(use.get(name, Use()).load_s for name in beside)
    return rest * (max(rest.sum() - loading_s, 0.0) / rest.sum()) if rest.sum() else rest


def _all_of(seconds: np.ndarray, busy_s: float) -> np.ndarray:
    """Seconds of cells, with what workers of their own did around them: preparing batches, packing results."""
    return seconds * (busy_s / seconds.sum()) if busy_s > seconds.sum() > 0 else seconds


def _table_bytes(folder: Place) -> TableBytes:
    """What a row adds, from all rows in one file and half of them in another."""
    parts = [parquet_table(folder.child(posixpath.basename(path)).read_bytes()) for path in folder.files(".parquet")]
    table = pa.concat_tables(parts, promote_options="default") if parts else pa.table({})
    n, half = table.num_rows, table.num_rows // 2
    if not half:
        return TableBytes(0.0, float(len(parquet_bytes(table)))) if n else TableBytes()
    whole_bytes = len(parquet_bytes(table))
    row_bytes = max(0.0, (whole_bytes - len(parquet_bytes(table.slice(0, half)))) / (n - half))
    return TableBytes(row_bytes, max(0.0, whole_bytes - n * row_bytes))


def _shards(corpus: Corpus, done: ExportReport | None) -> tuple[Shards, Counter[str]]:
    """What was exported, and the bytes of its videos by source."""
    if done is None:
        return Shards(), Counter()
    folder, video_bytes = corpus.shards(done.name), Counter[str]()
    entries = ShardIndex.read(folder).shards
    for entry in entries:
        sidecar = folder.child(*entry.sidecar.split("/")).read_bytes()
        for row in parquet_table(sidecar, ["source_digest", "video_bytes"]).to_pylist():
            video_bytes[row["source_digest"]] += row["video_bytes"]
    by_bucket = Counter[str]()
    for entry in entries:
        by_bucket[entry.bucket] += entry.bytes
    whole_bytes = sum(entry.bytes + entry.sidecar_bytes for entry in entries)
    return Shards(done.n_clips, video_bytes.total(), whole_bytes, by_bucket, done.work_s, done.cpu_s), video_bytes
