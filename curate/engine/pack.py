"""How many workers of which size: packed so that every one of them finds a place on the nodes at the same time.

Ray Data waits for ever, without an error, when the pools of a chain cannot all be placed (DESIGN section 6); so they
are placed here first, before anything starts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from curate.engine.forward import BUNDLE_BYTES, BUNDLE_COPIES, LEAST_BUNDLE_BYTES, largest_batch
from curate.engine.pipeline import Pipeline, gpu_key
from curate.errors import ClusterError
from curate.stage import Stage

WRITER_CPUS = 0.2
DECODER_CPUS = 0.9
"""A decoder keeps a core busy; the tenth left over on each core makes room for the writer on any node of two cores."""
SMALL_DECODER_CPUS = (0.8, 0.7, 0.6, 0.5)
"""What a single decoder is content with where there is no room for a whole one."""
DECODERS_PER_WRITER = 16
DECODER_BYTES = 1 << 30
"""What a decoder takes without models: its own process, the decoding process and the views of open clips."""
POOL_WORKER_BYTES = 1 << 30
"""What a worker of a later group takes without models: its process, with PyTorch and the GPU's driver in it."""
BUNDLES_PER_DECODER = 4
"""Bundles of a decoder that are in the object store at once: given out, on their way to a group, and in work there."""
BLOCKS_PER_DECODER = 8
MAX_SOURCES_PER_BLOCK = 16
MAX_SOURCES_FOR_A_BATCH = 64
"""Blocks may be as large where a batch of a later group needs the clips of as many short sources."""
POOL_SHARE = 0.5
"""Most of the cluster's CPUs that further workers of GPU stages may take: the rest decodes for them, and keeps the
memory that it needs for it."""

Nodes = Sequence[Mapping[str, float]]


@dataclass(frozen=True)
class Pool:
    """Workers of one kind, and what each takes."""

    workers: int
    cpus: float
    gpus: float = 0.0
    memory_bytes: int = 0


@dataclass(frozen=True)
class Packing:
    """Workers of each operator, how many sources travel in one block, and how many pixels in a bundle of clips."""

    decoders: int
    decoder_cpus: float
    pools: tuple[Pool, ...]
    writers: int
    writer_cpus: float
    sources_per_block: int
    bundle_bytes: int


def pack(pipeline: Pipeline, nodes: Nodes, n_sources: int, *, single: bool) -> Packing:
    """Fit the pipeline on the nodes' CPUs and GPUs; ClusterError when it cannot fit.

    ``single`` puts one source in a block: used after a pass died, to find the source that kills workers.
    """
    nodes = [
        node for node in nodes if node.get("CPU")
    ]  # the head of many clusters takes no work: its memory is no room
    cpus = sum(node["CPU"] for node in nodes)
    writers = Pool(max(1, math.ceil(cpus / DECODERS_PER_WRITER)), WRITER_CPUS)
    bundle_bytes = _bundle_bytes(pipeline, nodes)
    pools = _pools(pipeline, nodes, writers, bundle_bytes)
    pool_cpus = sum(pool.workers * pool.cpus for pool in pools)
    most = max(1, sum(int(node.get("CPU", 0.0)) for node in nodes) - math.ceil(pool_cpus))
    most = min(most, _held_in_memory(pipeline, nodes, pools, bundle_bytes))
    per_block = 1 if single else _sources_per_block(n_sources, most, largest_batch(pipeline))
    wanted = max(1, min(most, math.ceil(n_sources / per_block)))
    decoders = _decoders(nodes, pools, writers, wanted)
    return Packing(
        decoders.workers, decoders.cpus, tuple(pools), writers.workers, writers.cpus, per_block, bundle_bytes
    )


def _bundle_bytes(pipeline: Pipeline, nodes: Nodes) -> int:
    """Pixels of a bundle: what each node has room for in its object store and in its decoders, one a core."""
    room = [float(BUNDLE_BYTES)]
    for node in nodes:
        cores = max(1, int(node.get("CPU", 0.0)))
        if "object_store_memory" in node:
            room.append(node["object_store_memory"] / cores / BUNDLES_PER_DECODER)
        if "memory" in node:
            room.append((node["memory"] / cores - _decoder_bytes(pipeline)) / BUNDLE_COPIES)
    return max(LEAST_BUNDLE_BYTES, int(min(room)))


def _decoder_bytes(pipeline: Pipeline) -> int:
    """What a decoder takes with all the models that run beside it."""
    return DECODER_BYTES + _model_bytes(pipeline, 0)


def _feeder_bytes(pipeline: Pipeline, bundle_bytes: int) -> int:
    """What a decoder takes with the clips that it collects for later groups."""
    return _decoder_bytes(pipeline) + BUNDLE_COPIES * bundle_bytes


def _model_bytes(pipeline: Pipeline, group: int) -> int:
    return sum(step.stage.resources.memory_bytes for step in pipeline.group(group))


def _held_in_memory(pipeline: Pipeline, nodes: Nodes, pools: Sequence[Pool], bundle_bytes: int) -> int:
    """How many decoders the nodes' memory holds beside the pools, each with the clips that it collects for them; at
    least one."""
    each_bytes = _feeder_bytes(pipeline, bundle_bytes) if pools else _decoder_bytes(pipeline)
    held = [node["memory"] // each_bytes if "memory" in node else math.inf for node in nodes]
    taken = math.ceil(_pool_bytes(pools) / each_bytes)
    return int(max(1, min(sum(held) - taken, 1 << 20)))


def _pool_bytes(pools: Sequence[Pool]) -> int:
    return sum(pool.workers * pool.memory_bytes for pool in pools)


def _pools(pipeline: Pipeline, nodes: Nodes, writers: Pool, bundle_bytes: int) -> list[Pool]:
    """A worker for each group with workers of its own, more of those on GPUs as long as there is room.

    They grow in step with their shares of a GPU: a stage that was given much of it is taken for a slow one, and the
    slowest decides how fast the chain is.
    """
    names = {number: pipeline.group(number)[0].stage for number in range(1, pipeline.n_groups)}
    for stage in names.values():
        _check_stage(stage, nodes)
    besides_bytes = POOL_WORKER_BYTES + BUNDLE_COPIES * bundle_bytes
    pools = [
        Pool(1, stage.resources.cpus, stage.resources.gpus, besides_bytes + _model_bytes(pipeline, number))
        for number, stage in names.items()
    ]
    smallest = Pool(1, SMALL_DECODER_CPUS[-1])
    if not _all_fit(nodes, [smallest, *pools, writers]):
        raise ClusterError(
            f"the recipe needs more than the {_sum(nodes, 'CPU'):g} CPUs and {_sum(nodes, 'GPU'):g} GPUs of this "
            f"cluster: {len(pools)} pools of their own ({_listed(names.values())}), a writer and a decoder",
            fix="Lower `gpus` of some, set their `device: cpu`, ask for fewer with `--stages`, or add nodes",
        )
    room_cpus = POOL_SHARE * _sum(nodes, "CPU")
    kept_bytes = (_sum(nodes, "CPU") - room_cpus) * _feeder_bytes(pipeline, bundle_bytes)
    room_bytes = sum(node.get("memory", math.inf) for node in nodes) - kept_bytes
    growing = [index for index, pool in enumerate(pools) if pool.gpus]
    while growing:
        index = min(growing, key=lambda index: pools[index].workers / pools[index].gpus)
        larger = [*pools]
        larger[index] = replace(pools[index], workers=pools[index].workers + 1)
        affordable = sum(pool.workers * pool.cpus for pool in larger) <= room_cpus
        affordable = affordable and _pool_bytes(larger) <= room_bytes
        if affordable and _all_fit(nodes, [smallest, *larger, writers]):
            pools = larger
        else:
            growing.remove(index)
    return pools


def _listed(stages: Iterable[Stage[Any]]) -> str:
    needs = ((stage.name, stage.resources) for stage in stages)
    return ", ".join(f"{name}: {f'{need.gpus:g} GPU' if need.gpus else f'{need.cpus:g} CPU'}" for name, need in needs)


def _check_stage(stage: Stage[Any], nodes: Nodes) -> None:
    name, needs, key = stage.name, stage.resources, gpu_key(stage)
    if needs.gpus > _sum(nodes, "GPU"):
        raise ClusterError(
            f"stage {name!r} needs {needs.gpus:g} GPU, there are {_sum(nodes, 'GPU'):g}",
            fix=f"{f'Set {key}=auto, run' if key else 'Run'} on a cluster with GPUs, "
            "or leave the stage out with `--stages`",
        )
    if not _all_fit(nodes, [Pool(1, needs.cpus, needs.gpus)]):
        raise ClusterError(
            f"stage {name!r} needs a node with {needs.cpus:g} CPUs and {needs.gpus:g} GPUs free, there is none",
            fix="Add a larger node, or leave the stage out with `--stages`",
        )


def _decoders(nodes: Nodes, pools: Sequence[Pool], writers: Pool, wanted: int) -> Pool:
    """As many decoders as wanted and as fit beside the rest; a smaller one where not even one does."""
    few, many = 0, wanted
    while few < many:
        middle = (few + many + 1) // 2
        if _all_fit(nodes, [Pool(middle, DECODER_CPUS), *pools, writers]):
            few = middle
        else:
            many = middle - 1
    if few:
        return Pool(few, DECODER_CPUS)
    sizes = (size for size in SMALL_DECODER_CPUS if _all_fit(nodes, [Pool(1, size), *pools, writers]))
    return Pool(1, next(sizes, SMALL_DECODER_CPUS[-1]))


def _all_fit(nodes: Nodes, pools: Sequence[Pool]) -> bool:
    """Whether all workers find a place, in this order, whichever way they are spread."""
    return all(_placed(nodes, pools, spread=spread) for spread in (True, False))


def _placed(nodes: Nodes, pools: Sequence[Pool], *, spread: bool) -> bool:
    """Place worker after worker on the emptiest node that takes it, or else on the first."""
    rooms = [_Room(_units(node.get("CPU", 0.0)), [_units(1.0)] * int(node.get("GPU", 0.0))) for node in nodes]
    for pool in pools:
        cpus, gpus = _units(pool.cpus), _units(pool.gpus)
        for _ in range(pool.workers):
            fitting = (room for room in rooms if room.takes(cpus, gpus))
            chosen = max(fitting, key=lambda room: room.cpus, default=None) if spread else next(fitting, None)
            if chosen is None:
                return False
            chosen.place(cpus, gpus)
    return True


@dataclass
class _Room:
    """What is free on a node, in Ray's resolution of 1/10000: CPUs together, each GPU by itself."""

    cpus: int
    gpus: list[int]

    def takes(self, cpus: int, gpus: int) -> bool:
        """Whether a worker fits. Whole GPUs must be wholly free, a part of one lies on a single GPU."""
        return self.cpus >= cpus and len(self._chosen(gpus)) * _units(1.0) >= gpus

    def place(self, cpus: int, gpus: int) -> None:
        """Take what the worker needs."""
        self.cpus -= cpus
        for device in self._chosen(gpus):
            self.gpus[device] -= min(gpus, _units(1.0))

    def _chosen(self, gpus: int) -> list[int]:
        if not gpus:
            return []
        share, count = min(gpus, _units(1.0)), max(1, -(-gpus // _units(1.0)))
        fitting = [device for device, free in enumerate(self.gpus) if free >= share]
        return sorted(fitting, key=self.gpus.__getitem__)[:count]  # the fullest that takes it, as Ray has it


def _units(value: float) -> int:
    return round(value * 10_000)


def _sum(nodes: Nodes, resource: str) -> float:
    return sum(node.get(resource, 0.0) for node in nodes)


def _sources_per_block(n_sources: int, decoders: int, batch: int) -> int:
    """Few enough that every decoder has work to the end; clips of one block alone go into a batch together."""
    most = max(MAX_SOURCES_PER_BLOCK, min(batch, MAX_SOURCES_FOR_A_BATCH))
    return max(1, min(most, n_sources // (BLOCKS_PER_DECODER * decoders)))
