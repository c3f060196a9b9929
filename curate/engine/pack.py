"""How many workers of which size: packed so that every pool's minimum fits the cluster at once.

Ray Data waits for ever, without an error, when the pools of a chain cannot all be placed (DESIGN section 6); so the sum
is checked here, before anything starts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from curate.engine.pipeline import Pipeline
from curate.errors import EngineError

WRITER_CPUS = 0.2
DECODER_CPUS = 0.9
"""A decoder keeps a core busy; the tenth left over on each core makes room for the writer on any node of two cores."""
MIN_DECODER_CPUS = 0.5
DECODERS_PER_WRITER = 16
BLOCKS_PER_DECODER = 8
MAX_SOURCES_PER_BLOCK = 16


@dataclass(frozen=True)
class Pool:
    """Workers of a later group, and what each takes."""

    workers: int
    cpus: float
    gpus: float


@dataclass(frozen=True)
class Packing:
    """Workers of each operator, and how many sources travel in one block."""

    decoders: int
    decoder_cpus: float
    pools: tuple[Pool, ...]
    writers: int
    writer_cpus: float
    sources_per_block: int


def pack(pipeline: Pipeline, nodes: Sequence[Mapping[str, float]], n_sources: int, *, single: bool) -> Packing:
    """Fit the pipeline on the nodes' CPUs and GPUs; EngineError when it cannot fit.

    ``single`` puts one source in a block: used after a pass died, to find the source that kills workers.
    """
    cpus = sum(node.get("CPU", 0.0) for node in nodes)
    gpus = sum(node.get("GPU", 0.0) for node in nodes)
    pools = tuple(_pool(pipeline, number, gpus) for number in range(1, pipeline.n_groups))
    pool_cpus = sum(pool.workers * pool.cpus for pool in pools)
    writers = max(1, math.ceil(cpus / DECODERS_PER_WRITER))
    left = cpus - pool_cpus - writers * WRITER_CPUS
    if left < MIN_DECODER_CPUS:
        raise EngineError(
            f"the recipe needs more than the {cpus:g} CPUs of this cluster: {len(pools)} pools of their own, "
            f"a writer and a decoder",
            fix="Add CPUs, or take stages with a pool of their own out of the recipe",
        )
    most = max(1, sum(int(node.get("CPU", 0.0)) for node in nodes) - math.ceil(pool_cpus))
    per_block = 1 if single else _sources_per_block(n_sources, most)
    decoders = max(1, min(most, math.ceil(n_sources / per_block)))
    return Packing(decoders, _floor(min(DECODER_CPUS, left / decoders)), pools, writers, WRITER_CPUS, per_block)


def _pool(pipeline: Pipeline, number: int, cluster_gpus: float) -> Pool:
    needs = pipeline.group(number)[0].stage.resources
    if needs.gpus > cluster_gpus:
        raise EngineError(
            f"stage {pipeline.group(number)[0].stage.name!r} needs {needs.gpus:g} GPU, there are {cluster_gpus:g}",
            fix="Run on a cluster with GPUs, or leave the stage out with `--stages`",
        )
    workers = max(1, int(cluster_gpus / needs.gpus)) if needs.gpus else 1
    return Pool(workers, needs.cpus, needs.gpus)


def _sources_per_block(n_sources: int, decoders: int) -> int:
    return max(1, min(MAX_SOURCES_PER_BLOCK, n_sources // (BLOCKS_PER_DECODER * decoders)))


def _floor(value: float) -> float:
    """Down to Ray's resolution of resources, 1/10000."""
    return math.floor(value * 10_000) / 10_000
