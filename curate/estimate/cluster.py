"""The machines that a run is planned for, and how its work lies on them: as the engine itself packs it."""

from __future__ import annotations

import heapq
import math
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from curate.engine.pack import pack
from curate.engine.pipeline import Pipeline
from curate.errors import ConfigError
from curate.memory import machine_memory_bytes

OBJECT_STORE_SHARE = 0.3
"""Of a node's memory that Ray takes for its object store; workers have the rest."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """Machines of one kind. ``memory_bytes`` of each; None for as much as its workers want."""

    nodes: int
    cpus: int
    gpus: int = 0
    memory_bytes: int | None = None

    def __post_init__(self) -> None:
        if self.nodes < 1 or self.cpus < 1 or self.gpus < 0:
            raise ConfigError("a cluster has at least one node with one CPU", subject="--nodes")

    @classmethod
    def here(cls, gpus: int = 0) -> Cluster:
        """This machine."""
        cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return cls(1, cpus, gpus, machine_memory_bytes() or None)

    @property
    def all_cpus(self) -> int:
        """CPUs of all nodes."""
        return self.nodes * self.cpus

    @property
    def all_gpus(self) -> int:
        """GPUs of all nodes."""
        return self.nodes * self.gpus

    def resources(self) -> list[dict[str, float]]:
        """The nodes as Ray lists them."""
        node: dict[str, float] = {"CPU": float(self.cpus)}
        if self.gpus:
            node["GPU"] = float(self.gpus)
        if self.memory_bytes is not None:
            node["object_store_memory"] = OBJECT_STORE_SHARE * self.memory_bytes
            node["memory"] = (1 - OBJECT_STORE_SHARE) * self.memory_bytes
        return [dict(node) for _ in range(self.nodes)]

    def to_json(self) -> dict[str, Any]:
        """Its numbers."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Lane:
    """Workers that share the work of some stages; lanes work at the same time. ``reads`` sources, or gets clips.

    ``cpus`` and ``gpus`` are those of one worker.
    """

    name: str
    workers: int
    stages: tuple[str, ...]
    cpus: float = 1.0
    gpus: float = 0.0
    reads: bool = False


@dataclass(frozen=True, slots=True)
class Layout:
    """How a run lies on a cluster: its lanes, sources in a block, and workers that write shards."""

    lanes: tuple[Lane, ...]
    sources_per_block: int
    exporters: int


def layout(pipeline: Pipeline, cluster: Cluster, n_sources: int, *, inline: bool) -> Layout:
    """The lanes of a run. ClusterError where the recipe does not fit on the cluster.

    ``inline``: one process does all of it.
    """
    sources = (pipeline.probe.name, pipeline.cut.name)
    if not cluster.all_gpus:
        pipeline = pipeline.without_gpus()
    names = [tuple(step.stage.name for step in pipeline.group(n)) for n in range(pipeline.n_groups)]
    if inline:
        return Layout((Lane("this process", 1, (*sources, *sum(names, ())), reads=True),), 1, 1)
    packing = pack(pipeline, cluster.resources(), n_sources, single=False)
    lanes = [Lane("decoders", packing.decoders, (*sources, *names[0]), packing.decoder_cpus, reads=True)]
    for stages, pool in zip(names[1:], packing.pools, strict=True):
        lanes.append(Lane(f"workers of {stages[0]}", pool.workers, stages, pool.cpus, pool.gpus))
    return Layout(tuple(lanes), packing.sources_per_block, cluster.all_cpus)


def makespan(tasks: Iterable[float], workers: int) -> float:
    """Seconds until all tasks are done, where each goes to the worker that is free first, in their order."""
    free = [0.0] * max(1, workers)
    for seconds in tasks:
        heapq.heapreplace(free, free[0] + seconds)
    return max(free)


def blocks(seconds: Iterable[float], size: int) -> list[float]:
    """Seconds of blocks of so many sources, in their order."""
    listed = list(seconds)
    return [math.fsum(listed[at : at + size]) for at in range(0, len(listed), size)]
