"""From what a sample took to what the whole run will take: on the clock, in CPU- and GPU-seconds, in bytes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from curate.engine.pipeline import Pipeline
from curate.estimate.cluster import Cluster, Lane, Layout, blocks, makespan
from curate.estimate.forecast import Hours, LaneForecast, StageForecast, Storage
from curate.estimate.measure import READING, Measured
from curate.estimate.ratios import Bucket, Estimate, Totals
from curate.estimate.survey import Survey
from curate.estimate.trial import Costs
from curate.storage import is_remote

Get = Callable[[str], np.ndarray]


@dataclass(frozen=True)
class Expectation:
    """All that a forecast is counted from. ``speeds``: clips a second of one worker, of stages that were not measured
    where they are to run."""

    pipeline: Pipeline
    survey: Survey
    bucket: Bucket
    totals: Totals
    measured: Measured
    costs: Costs
    cluster: Cluster
    layout: Layout
    shard_bytes: int
    speeds: Mapping[str, float] = field(default_factory=dict)

    def busy(self, stage: str) -> Callable[[Get], np.ndarray]:
        """Seconds of all workers of a stage."""
        if stage in self.speeds:
            return lambda get: get(f"cells/{stage}") / self.speeds[stage]
        return lambda get: get(f"seconds/{stage}")

    def is_known(self, lane: Lane, stage: str) -> bool:
        """Whether its time was measured on what the lane has."""
        wants = {step.stage.name for step in self.pipeline.asked() if step.stage.resources.gpus > 0}
        return stage in self.speeds or not lane.gpus or stage not in wants or self.costs.had_gpu

    def lane_stages(self, lane: Lane) -> tuple[str, ...]:
        """Its stages, with what reading takes."""
        return (READING, *lane.stages) if lane.reads else lane.stages

    def lane_busy(self, lane: Lane) -> Callable[[Get], np.ndarray]:
        """Seconds of all workers of a lane, without loading."""
        parts = [self.busy(stage) for stage in self.lane_stages(lane) if self.is_known(lane, stage)]
        return lambda get: sum((part(get) for part in parts), np.zeros(1))

    def load_s(self, lane: Lane) -> float:
        """Seconds until a worker of the lane is ready."""
        return self.measured.load_s(lane.stages)

    def uneven_s(self, lane: Lane) -> float:
        """Seconds at the end in which not all workers of a lane have work: blocks of sources are not equally long."""
        busy_s = float(self.lane_busy(lane)(lambda name: np.array([self.totals.values.get(name, 0.0)]))[0])
        if not lane.reads:
            return 0.0
        shares = self._shares()
        sources = blocks(busy_s * shares, self.layout.sources_per_block)
        return makespan(sources, lane.workers) - busy_s / lane.workers

    def _shares(self) -> np.ndarray:
        """Of each source in the work of the readers, by the predictor that most of that goes with."""
        stage = max(self.measured_seconds(), key=self.measured_seconds().__getitem__)
        known = self.bucket.predictors[self.totals.predictors[f"seconds/{stage}"]]
        return known / known.sum()

    def measured_seconds(self) -> dict[str, float]:
        """Totals of seconds by stage, as estimated."""
        names = {name: value for name, value in self.totals.values.items() if name.startswith("seconds/")}
        return {name.removeprefix("seconds/"): value for name, value in names.items()}


def lanes(expected: Expectation) -> tuple[LaneForecast, ...]:
    """What each lane has to do."""
    found = []
    for lane in expected.layout.lanes:
        wall = expected.totals.derived(_lane_wall(expected, lane))
        stages = expected.lane_stages(lane)
        known = all(expected.is_known(lane, stage) for stage in stages)
        busy = expected.totals.derived(expected.lane_busy(lane))
        found.append(LaneForecast(lane.name, lane.workers, stages, lane.cpus, lane.gpus, busy, wall.value, known))
    return tuple(found)


def _lane_wall(expected: Expectation, lane: Lane) -> Callable[[Get], np.ndarray]:
    busy, fixed_s = expected.lane_busy(lane), expected.load_s(lane) + expected.uneven_s(lane)
    fixed_s += expected.costs.each_s * len(expected.survey.refs) / lane.workers if lane.reads else 0.0
    return lambda get: busy(get) / lane.workers + fixed_s


def stages(expected: Expectation) -> tuple[StageForecast, ...]:
    """What each stage has to do, reading first."""
    found = []
    for lane in expected.layout.lanes:
        for stage in expected.lane_stages(lane):
            cells = f"cells/{expected.pipeline.probe.name if stage == READING else stage}"
            n = expected.totals.values.get(cells, 0.0)
            busy_s = expected.totals.derived(expected.busy(stage))
            table = expected.measured.tables.get(stage)
            each_bytes = table.row_bytes if table else 0.0
            goes_with = expected.totals.predictors.get(f"seconds/{stage}", "")
            known, each_s = expected.is_known(lane, stage), busy_s.value / n if n else 0.0
            found.append(
                StageForecast(
                    stage, lane.name, expected.totals.estimate(cells), busy_s, each_s, each_bytes, goes_with, known
                )
            )
    return tuple(found)


def hours(expected: Expectation) -> Hours:
    """Time on the clock, and what the cluster works and is held for."""
    costs, cluster, totals = expected.costs, expected.cluster, expected.totals
    walls = [_lane_wall(expected, lane) for lane in expected.layout.lanes]
    working = [expected.lane_busy(lane) for lane in expected.layout.lanes]
    writing = _writing(expected)

    def scoring(get: Get) -> np.ndarray:
        slowest = np.max(np.broadcast_arrays(*(wall(get) for wall in walls)), axis=0)
        return slowest + costs.start_s + costs.end_s

    def wall(get: Get) -> np.ndarray:
        return scoring(get) + costs.selecting_s + writing(get)

    def cpu_work(get: Get) -> np.ndarray:
        pairs = zip(working, expected.layout.lanes, strict=True)
        scoring_s = sum((busy(get) + lane.workers * expected.load_s(lane) for busy, lane in pairs), np.zeros(1))
        return scoring_s * costs.cpu_share + get("cpu/writing")

    def gpu_work(get: Get) -> np.ndarray:
        pairs = zip(working, expected.layout.lanes, strict=True)
        return sum((busy(get) * lane.gpus for busy, lane in pairs), np.zeros(1))

    on_gpus = [lane for lane in expected.layout.lanes if lane.gpus]
    known = all(expected.is_known(lane, stage) for lane in on_gpus for stage in lane.stages)
    return Hours(
        wall=totals.derived(wall),
        scoring=totals.derived(scoring),
        writing=totals.derived(writing),
        start_s=costs.start_s,
        end_s=costs.end_s,
        cpu_work=totals.derived(cpu_work),
        cpu_held=totals.derived(lambda get: cluster.all_cpus * wall(get)),
        gpu_work=totals.derived(gpu_work) if cluster.all_gpus and known else None,
        gpu_held=totals.derived(lambda get: cluster.all_gpus * wall(get)) if cluster.all_gpus and known else None,
    )


def _writing(expected: Expectation) -> Callable[[Get], np.ndarray]:
    """Seconds on the clock that writing shards takes: one task a shard, so few shards keep few workers busy."""
    work_s, workers = expected.totals.values.get("work/writing", 0.0), expected.layout.exporters
    tasks = [work_s * share for share in _shard_shares(expected)]
    uneven_s = makespan(tasks, workers) - work_s / workers
    return lambda get: get("work/writing") / workers + uneven_s


def _shard_shares(expected: Expectation) -> list[float]:
    """Of each shard in all that is written, the largest first."""
    shards = expected.measured.shards
    whole = sum(shards.by_bucket.values())
    if not whole:
        return []
    grown = expected.totals.values["bytes/video"] / max(shards.video_bytes, 1)
    found: list[float] = []
    for size_bytes in shards.by_bucket.values():
        n = max(1, round(size_bytes * grown / expected.shard_bytes))
        found += [size_bytes / whole / n] * n
    return sorted(found, reverse=True)


def storage(expected: Expectation) -> Storage:
    """Bytes that the run leaves."""
    parts = math.ceil(len(expected.survey.refs) / expected.layout.sources_per_block)
    shards = expected.measured.shards
    besides = shards.all_bytes / shards.video_bytes if shards.video_bytes else 1.0
    compacted = _table_bytes(expected)
    overhead = parts * sum(table.part_bytes for table in expected.measured.tables.values())
    remote = sorted((ref.size_bytes or 0 for ref in expected.survey.refs if is_remote(ref.uri)), reverse=True)
    readers = next(lane.workers for lane in expected.layout.lanes if lane.reads)
    a_node = math.ceil(readers / expected.cluster.nodes)
    return Storage(
        # No interval: draws know the spread of rows, and most of these bytes are what each part costs.
        tables=Estimate(expected.totals.derived(lambda get: compacted(get) + overhead).value),
        compacted=expected.totals.derived(compacted),
        shards=expected.totals.derived(lambda get: get("bytes/video") * besides),
        scratch_bytes=float(sum(remote[:a_node])),
    )


def _table_bytes(expected: Expectation) -> Callable[[Get], np.ndarray]:
    """Bytes of the values in all tables: so many a row as in the sample."""
    clips, per_row = {"clips": "clips/found"}, dict[str, float]()
    for name, table in expected.measured.tables.items():
        quantity = clips.get(name, f"cells/{name}" if name != "sources" else "inputs/ok")
        per_row[quantity] = per_row.get(quantity, 0.0) + table.row_bytes
    return lambda get: sum((get(quantity) * each for quantity, each in per_row.items()), np.zeros(1))


def passing(expected: Expectation) -> dict[str, Estimate]:
    """By gate and condition: the share of all clips found that does not fail it."""
    found: dict[str, Estimate] = {}
    for name in expected.measured.judges:
        fails = expected.totals.share(f"clips/fails/{name}", "clips/found")
        ends = (None, None) if fails.low is None or fails.high is None else (1 - fails.high, 1 - fails.low)
        found[name] = Estimate(1 - fails.value, *ends)
    return found
