"""What a run took beside what was foretold of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from curate.estimate.forecast import Forecast
from curate.estimate.ratios import Estimate
from curate.job import JobTimes, read_times
from curate.query import RunTables, connect
from curate.select import Funnel
from curate.stats import StageSeconds, run_funnel, run_stats
from curate.storage import Place
from curate.tables import Corpus

Unit = Literal["s", "bytes", "", "share"]


@dataclass(frozen=True, slots=True)
class Taken:
    """What a run took: ``wall_s`` by step (scoring, selecting, writing), as far as its job kept them; seconds of its
    stages; ``all_there`` when it found every cell in the tables."""

    run_id: str
    wall_s: Mapping[str, float]
    stages: tuple[StageSeconds, ...]
    all_there: bool


@dataclass(frozen=True, slots=True)
class Compared:
    """A quantity: what was foretold, None where nothing was, and what came of it."""

    name: str
    unit: Unit
    foretold: Estimate | None
    found: float

    @property
    def ratio(self) -> float | None:
        """What was foretold over what was found."""
        return self.foretold.value / self.found if self.foretold is not None and self.found else None

    @property
    def inside(self) -> bool | None:
        """Whether what was found lies in the interval."""
        if self.foretold is None or self.foretold.low is None or self.foretold.high is None:
            return None
        slack = 1e-6 * abs(self.found)
        return self.foretold.low - slack <= self.found <= self.foretold.high + slack


def taken(corpus: Corpus, run_id: str) -> Taken:
    """What a run and its job took. CorpusError, ConfigError."""
    with closing(connect()) as con:
        tables = RunTables(con, corpus, run_id)
        times = read_times(corpus, run_id)
        wall_s = times.wall_s or {"scoring": _scoring_s(tables.manifest)}
        return Taken(run_id, wall_s, tuple(run_stats(tables).seconds), not tables.manifest.get("stage_seconds"))


def compare(corpus: Corpus, run_id: str, forecast: Forecast, selection: str | None = None) -> list[Compared]:
    """A forecast beside a run over the whole bucket. ``selection``: by default the latest over the run."""
    with closing(connect()) as con:
        tables = RunTables(con, corpus, run_id)
        times = read_times(corpus, run_id)
        found = run_funnel(corpus, run_id, selection)
        funnel = Funnel.from_json(json.dumps(found)) if found else None
    return [
        *_times(forecast, tables.manifest, times),
        *(_funnel(forecast, funnel) if funnel else ()),
        *_storage(forecast, corpus, funnel),
    ]


def _scoring_s(manifest: Mapping[str, Any]) -> float:
    began, ended = (datetime.fromisoformat(manifest[key]) for key in ("started_at", "finished_at"))
    return (ended - began).total_seconds()


def _times(forecast: Forecast, manifest: Mapping[str, Any], times: JobTimes) -> Iterator[Compared]:
    hours, wall_s = forecast.hours, times.wall_s or {"scoring": _scoring_s(manifest)}
    yield Compared("on the clock", "s", hours.wall, sum(wall_s.values()))
    yield Compared("scoring", "s", hours.scoring, wall_s["scoring"])
    if "writing" in wall_s:
        yield Compared("writing shards", "s", hours.writing, wall_s["writing"])
    stages = manifest.get("stage_seconds", {})
    if "cpu_seconds" in manifest:
        yield Compared("CPUs at work", "s", hours.cpu_work, manifest["cpu_seconds"] + sum(times.cpu_s.values()))
    for stage in forecast.stages:
        if stage.name in stages:
            yield Compared(f"stage {stage.name}", "s", stage.busy_s if stage.known else None, stages[stage.name])


def _funnel(forecast: Forecast, funnel: Funnel) -> Iterator[Compared]:
    inputs = {"ok": funnel.inputs.kept + funnel.inputs.dropped, "failed": funnel.inputs.failed}
    for end, n in inputs.items():
        yield Compared(f"inputs {end}", "", forecast.inputs.get(end), n)
    for end in ("found", "kept", "dropped", "failed"):
        yield Compared(f"clips {end}", "", forecast.clips.get(end), getattr(funnel.clips, end))
    for end in ("found", "kept"):
        yield Compared(f"video {end}", "s", forecast.video_s.get(end), 3600 * funnel.hours.get(end, 0.0))
    if funnel.clips.found:
        yield Compared("retention", "share", forecast.retention, funnel.clips.kept / funnel.clips.found)


def _storage(forecast: Forecast, corpus: Corpus, funnel: Funnel | None) -> Iterator[Compared]:
    yield Compared("tables", "bytes", forecast.storage.tables, _size_bytes(corpus.root.child("tables")))
    if funnel is not None and corpus.shards(funnel.name).child("index.json").exists():
        yield Compared("shards", "bytes", forecast.storage.shards, _size_bytes(corpus.shards(funnel.name)))


def _size_bytes(folder: Place) -> float:
    return float(sum(entry["size"] for entry in folder.tree().values()))
