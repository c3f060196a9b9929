"""Small real stages and helpers for engine tests: fixed-stride cuts, mean brightness, and stages that fail or read."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from curate.bulk import inline_map
from curate.config import Config
from curate.engine.inline import InlineEngine
from curate.engine.pipeline import Gate, Pipeline, build_pipeline
from curate.engine.run import Engine, Listener, RunRequest, RunResult, execute
from curate.engine.score import OpenClip, Scorer, ViewKeys
from curate.engine.work import SourceWork, Summary
from curate.errors import DeviceMemoryError, EngineError, StageError
from curate.ingest.listing import list_inputs
from curate.query import cells_sql, clips_sql, connect
from curate.records import Cell, Clip, CutKind, SourceFacts, Span
from curate.stage import ClipItem, ClipStage, Column, CutStage, Resources, Thumb
from curate.stages.probe import Probe
from curate.tables import BOOKKEEPING, Corpus, cell_schema
from curate.units import exact, s_to_pts_ceil
from curate.view import View, ViewSpec


class StrideConfig(Config):
    stride_s: float = 1.0


class _StrideDetector:
    def __init__(self, facts: SourceFacts, stride_s: float) -> None:
        self._step = s_to_pts_ceil(exact(stride_s), facts.time_base_fraction)
        self._start = facts.start_pts
        self._frames = 0

    def wants_between(self, thumb: Thumb) -> bool:
        return False

    def push(self, thumb: Thumb) -> list[Span]:
        self._frames += 1
        if thumb.pts < self._start + self._step:
            return []
        return [self._close(thumb.pts)]

    def finish(self, end_pts: int, skipped: tuple[int, ...] = ()) -> list[Span]:
        return [self._close(end_pts)]

    @property
    def needed_pts(self) -> int:
        return self._start

    def summary(self) -> dict[str, Any]:
        return {"n_frames": self._frames}

    def _close(self, end_pts: int) -> Span:
        span = Span(self._start, end_pts, CutKind.STRIDE, CutKind.STRIDE, "stride", "stride")
        self._start = end_pts
        return span


class StrideCut(CutStage[StrideConfig]):
    name = "cut"
    version = 1
    config_type = StrideConfig
    columns = (Column("n_clips", pa.int32(), "1", "clips"), Column("n_frames", pa.int32(), "1", "frames seen"))
    every_frame = True

    def detector(self, facts: SourceFacts) -> _StrideDetector:
        return _StrideDetector(facts, self.config.stride_s)

    def longest_clip_s(self) -> float:
        return self.config.stride_s + 1


class LumaConfig(Config):
    gain: float = 1.0


class Luma(ClipStage[LumaConfig]):
    """Mean brightness of the middle view, 0 to 255 times the gain."""

    name = "luma"
    version = 1
    config_type = LumaConfig
    columns = (Column("mean", pa.float64(), "1", "mean luma"),)

    def views(self) -> Mapping[str, ViewSpec]:
        return {"middle": ViewSpec(points=(0.5,), short_side_px=32, pixels="luma")}

    def score(self, item: ClipItem) -> Mapping[str, Any]:
        return {"mean": float(item.views["middle"].frames.mean()) * self.config.gain}


class Double(ClipStage[Config]):
    """Twice the mean of `luma`; reads a cell and no pixels."""

    name = "double"
    version = 1
    columns = (Column("twice", pa.float64(), "1", "2 x luma.mean"),)
    reads = ("luma",)

    def score(self, item: ClipItem) -> Mapping[str, Any]:
        return {"twice": 2 * item.cells["luma"]["mean"]}


class PooledDouble(Double):
    """The same in workers of its own."""

    name = "pooled"
    resources = Resources(cpus=0.5, pool=True, batch_size=2)


class GpuDouble(Double):
    """The same where a GPU is, or is said to be."""

    name = "on_gpu"
    resources = Resources(cpus=0.2, gpus=0.5, batch_size=2)


class PickyConfig(Config):
    fails_above: float = 1e9


class Picky(ClipStage[PickyConfig]):
    """Fails on clips that start after a given second: a stage that cannot measure some clips."""

    name = "picky"
    version = 1
    config_type = PickyConfig
    columns = (Column("start_s", pa.float64(), "s", "start"),)

    def score(self, item: ClipItem) -> Mapping[str, Any]:
        if float(item.clip.start_s) > self.config.fails_above:
            raise StageError("too late for me", subject=item.clip.clip_id)
        return {"start_s": float(item.clip.start_s)}


class Listening(Listener):
    """A listener that remembers."""

    def __init__(self) -> None:
        self.plans: list[list[SourceWork]] = []
        self.total = Summary()
        self.deaths: list[EngineError] = []

    def planned(self, pass_number: int, works: Any) -> None:
        self.plans.append(list(works))

    def wrote(self, summary: Summary) -> None:
        self.total.add(summary)

    def died(self, error: EngineError) -> None:
        self.deaths.append(error)


def pipeline(*items: Any, stride_s: float = 1.0, only: tuple[str, ...] = ()) -> Pipeline:
    return build_pipeline([Probe(Config()), StrideCut(StrideConfig(stride_s=stride_s)), *items], only)


def gate(stage: str, column: str, **limits: Any) -> Gate:
    return Gate(stage, column, **limits)


def run(
    out: Path, bucket: Path, pipe: Pipeline, engine: Engine | None = None, only: frozenset[str] | None = None
) -> tuple[RunResult, Listening]:
    """One run over a folder; gives the result and what the listener heard."""
    corpus = Corpus(str(out))
    corpus.create()
    scratch = out / "scratch"
    scratch.mkdir(exist_ok=True)
    listening = Listening()
    request = RunRequest(corpus, pipe, list_inputs([str(bucket)]), "test", "name: test\n", only)
    result = execute(request, engine or InlineEngine(scratch), inline_map, scratch, listening)
    return result, listening


def all_cells(out: Path, pipe: Pipeline) -> dict[str, list[tuple[Any, ...]]]:
    """Every table of a run without bookkeeping, sorted: what must be identical between engines."""
    con, corpus = connect(), Corpus(str(out))
    found: dict[str, list[tuple[Any, ...]]] = {}
    for _, stage, fingerprint in pipe.stages():
        schema = cell_schema(stage)
        names = [name for name in schema.names if name not in BOOKKEEPING]
        sql = cells_sql(con, corpus, stage.name, fingerprint, schema)
        columns = ", ".join(f'"{name}"' for name in names)
        found[stage.name] = sorted(con.sql(f"select {columns} from ({sql})").fetchall(), key=repr)
    clips = clips_sql(con, corpus, "cut", pipe.cut_fingerprint, cell_schema(pipe.cut))
    found["clips"] = sorted(con.sql(f"select * from ({clips})").fetchall())
    return found


BASE = Fraction(1, 25)
FACTS = SourceFacts.from_cell(dict.fromkeys(SourceFacts.__dataclass_fields__, 0) | {"time_base": "1/25"})


def open_clips(pipe: Pipeline, n: int = 4, missing: frozenset[str] | None = None) -> list[OpenClip]:
    """Clips with a grey picture each, brighter from clip to clip."""
    keys = ViewKeys(pipe.steps)
    clips = [Clip.of_span("d" * 64, 0, BASE, Span(25 * i, 25 * i + 25)) for i in range(n)]
    return [
        OpenClip(clip, FACTS, {key: grey(10 * i) for key in keys.specs}, missing or pipe.requested)
        for i, clip in enumerate(clips)
    ]


def grey(level: int) -> View:
    return View(np.full((1, 18, 32), level, np.uint8), np.zeros(1, np.int64), BASE, np.zeros(1, np.int64))


def scored(pipe: Pipeline, clips: list[OpenClip], attempts=None, scorer=None) -> dict[str, dict[str, Cell]]:
    """Cells by stage and clip, in the order in which they came."""
    found: dict[str, dict[str, Cell]] = {}

    def emit(step, cell):
        assert cell.key not in found.setdefault(step.stage.name, {})
        found[step.stage.name][cell.key] = cell

    scorer = scorer or Scorer(pipe.group(0), ViewKeys(pipe.steps))
    scorer.score(clips, attempts or {}, emit)
    return found


class SlowConfig(Config):
    seconds: float = 0.5


class Slow(ClipStage[SlowConfig]):
    """Takes its time, so that there is a middle of a run."""

    name = "slow"
    version = 1
    config_type = SlowConfig
    columns = (Column("start_s", pa.float64(), "s", "start"),)

    def score(self, item: ClipItem) -> Mapping[str, Any]:
        time.sleep(self.config.seconds)
        return {"start_s": float(item.clip.start_s)}


class KillerConfig(Config):
    width_px: int = 0


class Killer(ClipStage[KillerConfig]):
    """Takes its worker down on sources of one width: a file that crashes a decoder or eats all memory."""

    name = "killer"
    version = 1
    config_type = KillerConfig
    columns = (Column("width_px", pa.int32(), "px", "width"),)

    def score(self, item: ClipItem) -> Mapping[str, Any]:
        if item.facts.width_px == self.config.width_px:
            os._exit(1)
        return {"width_px": item.facts.width_px}


class Bulky(ClipStage[Config]):
    """Takes large views into a pool of its own: more pixels on the way than the object store holds."""

    name = "bulky"
    version = 1
    columns = (Column("mean", pa.float64(), "1", "mean of all pixels"),)
    resources = Resources(cpus=0.3, pool=True)

    def views(self) -> Mapping[str, ViewSpec]:
        return {"all": ViewSpec(sampling="every", every_s=0.25, short_side_px=540)}

    def score(self, item: ClipItem) -> Mapping[str, Any]:
        return {"mean": float(item.views["all"].frames.mean())}


class FaultConfig(Config):
    marker: str = ""
    always: bool = False


class LosesGpu(Double):
    """Meets a failing GPU as PyTorch tells of it, while the file ``marker`` is not there, which it makes; or always."""

    name = "loses"
    config_type = FaultConfig
    resources = Resources(cpus=0.1, pool=True, batch_size=2)

    def score(self, item: ClipItem) -> Mapping[str, Any]:
        if self.config.always or not Path(self.config.marker).exists():
            import torch  # not in the worker that takes over: it takes seconds

            if self.config.marker:
                Path(self.config.marker).touch()
            raise torch.AcceleratorError("CUDA error: unspecified launch failure")
        return super().score(item)


class TooLarge(LosesGpu):
    """A model for which the GPU has no room."""

    name = "too_large"

    def setup(self) -> None:
        raise DeviceMemoryError("the GPU has no room for its network", fix="Raise `gpus`")
