"""The real job on a sample, with an eye on the clock."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

import numpy as np

from curate.engine.pipeline import Pipeline
from curate.engine.run import Engine, RunBegan
from curate.engine.work import Summary
from curate.errors import InputError, UsageError
from curate.estimate.measure import Measured, measure
from curate.isolation import end_spare
from curate.job import JobOptions, JobResult, run_inputs
from curate.recipe import Recipe
from curate.records import InputRef, Outcome
from curate.tables import Corpus
from curate.watch.listener import Everyone, JobListener


@dataclass(frozen=True)
class Costs:
    """Seconds of a job that do not grow with the bucket: until its first worker began, and from its last table to its
    end, apart from the steps of ``selecting_s`` and of writing shards; and ``each_s``, of one process between sources,
    where it writes tables. ``cpu_share``: CPU seconds of a second of its workers. ``had_gpu``: stages could use one."""

    start_s: float
    end_s: float
    selecting_s: float
    each_s: float
    cpu_share: float
    had_gpu: bool = False


class _Clock(JobListener):
    """Keeps when tables came, how long their sources took, and whether the machines had a GPU."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._engine: Engine | None = None
        self.came: list[tuple[float, float]] = []
        self.had_gpu = False

    def now_s(self) -> float:
        """Since it was made."""
        return time.perf_counter() - self._began

    def began(self, run: RunBegan) -> None:
        """There is an engine to ask."""
        self._engine = run.engine

    def wrote(self, summary: Summary) -> None:
        """Tables are there."""
        if self._engine is not None:
            self.had_gpu = self._engine.machines().gpus > 0
        if summary.ended:
            self.came.append((self.now_s(), sum(end.seconds for end in summary.ended.values())))


@dataclass
class Trial:
    """The job on ``refs``, which were drawn by these ``chances``. `run` fills in ``measured`` and ``wall_s``. Without
    ``job.out`` its corpus is not kept."""

    refs: Sequence[InputRef]
    chances: np.ndarray
    recipe: Recipe
    pipeline: Pipeline
    job: JobOptions
    wall_s: float = 0.0
    measured: Measured = field(init=False)
    _done: JobResult = field(init=False)
    _clock: _Clock = field(init=False)

    def run(self, listener: JobListener) -> None:
        """Run it. UsageError where the corpus holds a run already, InputError where nothing could be read."""
        with ExitStack() as stack:
            out = self.job.out or stack.enter_context(tempfile.TemporaryDirectory(prefix="curate-plan-"))
            corpus = Corpus(out)
            if corpus.run_ids():
                fix = "Name a new folder: what is there already would take no time again"
                raise UsageError("holds a run already", subject=corpus.uri, fix=fix)
            end_spare()  # the job is to start as a run does, with a decoding process of its own
            self._clock = _Clock()
            both = Everyone([self._clock, listener])
            self._done = run_inputs(self.refs, self.recipe, self.pipeline, replace(self.job, out=out), both)
            self.wall_s = self._clock.now_s()
            if not self._done.run.counts["inputs"].get(str(Outcome.OK)):
                fix = "Try them with `curate run`, which keeps why, or take a larger sample"
                raise InputError(f"none of the {len(self.refs)} sources of the sample could be read", fix=fix)
            uris = [ref.uri for ref in self.refs]
            self.measured = measure(corpus, self._done, uris, self._beside(), self.chances)

    def _beside(self) -> list[str]:
        """Stages that ran beside the decoder."""
        ran = self.pipeline if self._clock.had_gpu else self.pipeline.without_gpus()
        return [step.stage.name for step in ran.group(0)]

    def costs(self) -> Costs:
        """What does not grow with the bucket. The table of a source comes as soon as it is done, so the first worker
        began so long before it came as its sources took."""
        came, steps = self._clock.came, self._done.times.wall_s
        start_s = max(0.0, min((at_s - took_s for at_s, took_s in came), default=0.0))
        last_s = max((at_s for at_s, _ in came), default=start_s)
        selecting_s = steps.get("selecting", 0.0)
        end_s = max(0.0, self.wall_s - last_s - selecting_s - steps.get("writing", 0.0))
        worked_s = self.measured.worked_s(self._beside())
        between_s = max(0.0, last_s - start_s - worked_s) if self.job.engine == "inline" else 0.0
        cpu_share = self.measured.cpu_s / worked_s if worked_s else 1.0
        return Costs(start_s, end_s, selecting_s, between_s / len(self.refs), cpu_share, self._clock.had_gpu)
