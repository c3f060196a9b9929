"""Whatever the nodes and the recipe, either all workers find a place at once or it is said that they cannot."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from engine_kit import Double, Luma, LumaConfig, pipeline
from hypothesis import example, given, settings
from hypothesis import strategies as st

from curate.config import Config
from curate.datafiles import recipe_files
from curate.engine.forward import BUNDLE_BYTES, BUNDLE_COPIES, LEAST_BUNDLE_BYTES
from curate.engine.pack import DECODER_BYTES, MAX_SOURCES_PER_BLOCK, POOL_WORKER_BYTES, Packing, pack
from curate.engine.pipeline import Pipeline
from curate.errors import EngineError
from curate.recipe import build, load_recipe
from curate.stage import Resources


def pooled(*needs: Resources) -> Pipeline:
    """A pipeline with one group of workers for each of ``needs``, beside the decoder's own."""
    stages = [
        type(f"Pooled{i}", (Double,), {"name": f"pooled{i}", "resources": need})(Config())
        for i, need in enumerate(needs)
    ]
    return pipeline(Luma(LumaConfig()), *stages)


def cpu(*counts: float) -> list[dict[str, float]]:
    return [{"CPU": count, "memory": 4e9 * max(count, 1)} for count in counts]


@dataclass
class Node:
    """What is free on a node: CPUs together, each GPU by itself."""

    cpus: float
    gpus: list[float]

    def place(self, cpus: float, gpus: float) -> bool:
        devices = sorted((free, i) for i, free in enumerate(self.gpus) if free >= min(gpus, 1.0) - 1e-9)
        count = max(1, math.ceil(gpus)) if gpus else 0
        if self.cpus < cpus - 1e-9 or len(devices) < count:
            return False
        self.cpus -= cpus
        for _, device in devices[:count]:
            self.gpus[device] -= min(gpus, 1.0)
        return True


def all_placed(packing: Packing, nodes: Sequence[Mapping[str, float]]) -> bool:
    """Place every worker in the order in which the operators start, each on the first node that takes it."""
    free = [Node(node["CPU"], [1.0] * int(node.get("GPU", 0))) for node in nodes]
    workers = [(packing.decoder_cpus, 0.0)] * packing.decoders
    workers += [(pool.cpus, pool.gpus) for pool in packing.pools for _ in range(pool.workers)]
    workers += [(packing.writer_cpus, 0.0)] * packing.writers
    return all(any(node.place(*worker) for node in free) for worker in workers)


node_sizes = st.one_of(st.integers(0, 64).map(float), st.sampled_from([0.1, 0.5, 0.7, 1.5, 2.25]))
clusters = st.lists(
    st.fixed_dictionaries({"CPU": node_sizes, "GPU": st.sampled_from([0.0, 0.0, 1.0, 2.0, 8.0])}),
    min_size=1,
    max_size=6,
)
needs = st.builds(
    Resources,
    cpus=st.sampled_from([0.0, 0.25, 0.5, 1.0, 4.0]),
    gpus=st.sampled_from([0.0, 0.0, 0.25, 0.3, 0.6, 1.0, 2.0]),
    pool=st.just(True),
)


@settings(max_examples=400)
@given(clusters, st.lists(needs, max_size=4), st.integers(0, 5000), st.booleans())
@example([{"CPU": 1.0, "GPU": 0.0}] * 4, [], 100, False)
@example([{"CPU": 1.0, "GPU": 0.0}] * 2, [Resources(cpus=2.0, pool=True)], 100, False)
@example([{"CPU": 8.0, "GPU": 1.0}], [Resources(gpus=0.25), Resources(gpus=0.25)], 100, False)
@example([{"CPU": 16.0, "GPU": 2.0}], [Resources(gpus=0.6)], 100, False)
@example([{"CPU": 8.0, "GPU": 8.0}], [Resources(gpus=1.0)], 100, False)
def test_either_everything_is_placed_or_it_is_refused(nodes, pools, n_sources, single):
    try:
        packing = pack(pooled(*pools), nodes, n_sources, single=single)
    except EngineError as error:
        assert error.fix
        return
    total = packing.decoders * packing.decoder_cpus + packing.writers * packing.writer_cpus
    total += sum(pool.workers * pool.cpus for pool in packing.pools)
    assert total <= sum(node["CPU"] for node in nodes) + 1e-6
    assert all_placed(packing, nodes)
    assert min(packing.decoders, packing.writers, packing.sources_per_block) >= 1
    assert 0.5 <= packing.decoder_cpus <= 0.9
    assert [(pool.cpus, pool.gpus) for pool in packing.pools] == [(need.cpus, need.gpus) for need in pools]
    assert all(pool.workers >= 1 for pool in packing.pools)


@settings(max_examples=200)
@given(st.integers(1, 2000), st.lists(st.integers(2, 32), min_size=1, max_size=4), st.booleans())
def test_every_source_travels_and_no_decoder_is_without_work(n_sources, sizes, single):
    packing = pack(pooled(), cpu(*sizes), n_sources, single=single)
    blocks = math.ceil(n_sources / packing.sources_per_block)
    assert packing.sources_per_block == 1 if single else packing.sources_per_block <= MAX_SOURCES_PER_BLOCK
    assert packing.decoders <= blocks
    assert packing.decoders <= sum(sizes)


@pytest.mark.parametrize(
    ("nodes", "pools", "n_sources", "decoders", "decoder_cpus"),
    [
        (cpu(2), [], 100, 2, 0.9),
        (cpu(2), [Resources(cpus=0.5, pool=True)], 100, 1, 0.9),
        (cpu(1), [], 100, 1, 0.8),
        (cpu(16), [], 1000, 16, 0.9),
        (cpu(2, 2), [], 100, 4, 0.9),
        (cpu(1, 1, 1, 1), [], 100, 3, 0.9),
        (cpu(16), [], 3, 3, 0.9),
        (cpu(0, 4), [], 100, 4, 0.9),
    ],
)
def test_a_core_decodes_unless_something_else_needs_it(nodes, pools, n_sources, decoders, decoder_cpus):
    packing = pack(pooled(*pools), nodes, n_sources, single=False)
    assert (packing.decoders, packing.decoder_cpus) == (decoders, decoder_cpus)


@pytest.mark.parametrize(
    ("nodes", "gpus", "workers"),
    [
        ([{"CPU": 16, "GPU": 1}], [0.25], [4]),
        ([{"CPU": 16, "GPU": 1}], [0.5, 0.5], [1, 1]),
        ([{"CPU": 16, "GPU": 2}], [0.6], [2]),
        ([{"CPU": 16, "GPU": 1}, {"CPU": 16, "GPU": 2}], [2.0], [1]),
        ([{"CPU": 8, "GPU": 8}], [1.0], [4]),
        ([{"CPU": 2, "GPU": 1}], [0.25], [1]),
    ],
)
def test_gpus_are_shared_out_device_by_device_and_leave_cores_to_decode_for_them(nodes, gpus, workers):
    packing = pack(pooled(*(Resources(gpus=share) for share in gpus)), nodes, 100, single=False)
    assert [pool.workers for pool in packing.pools] == workers


@pytest.mark.parametrize("name", sorted(recipe_files()))
@pytest.mark.parametrize("cpus", [4.0, 8.0])
def test_every_recipe_that_ships_finds_room_beside_one_gpu(name, cpus):
    node = {"CPU": cpus, "GPU": 1.0, "memory": cpus * 4e9, "object_store_memory": cpus * 1e9}
    pipe = build(load_recipe(name))
    packing = pack(pipe, [node], 100, single=False)
    assert len(packing.pools) == sum(step.stage.resources.gpus > 0 for step in pipe.steps)
    assert all_placed(packing, [node])


def test_stages_that_are_not_asked_for_take_no_gpu():
    node = {"CPU": 4.0, "GPU": 1.0}
    assert not pack(build(load_recipe("svd"), ("motion",)), [node], 100, single=False).pools
    fused = pack(build(load_recipe("svd"), ("caption.fused",)), [node], 100, single=False)
    assert [pool.gpus for pool in fused.pools] == [0.15, 0.4, 0.15], "with the captions that it reads"
    large = type("Large", (Double,), {"name": "large", "resources": Resources(memory_bytes=10 << 30)})(Config())
    packing = pack(
        pipeline(Luma(LumaConfig()), large, only=("luma",)), [{"CPU": 4.0, "memory": 8e9}], 100, single=False
    )
    assert packing.decoders == 4, "nor any memory"


@pytest.mark.parametrize("n_gpus", [1, 2, 4, 8])
def test_workers_grow_in_step_with_their_shares_until_the_gpus_are_taken(n_gpus):
    node = {"CPU": 8.0 * n_gpus, "GPU": float(n_gpus), "memory": 8e9 * 8 * n_gpus}
    packing = pack(build(load_recipe("svd")), [node], 1000, single=False)
    assert packing.decoders > 4 * n_gpus, "half of the cores decode for them"
    assert all_placed(packing, [node])
    assert sum(pool.workers * pool.gpus for pool in packing.pools) >= 0.95 * n_gpus
    by_share = sorted(packing.pools, key=lambda pool: (pool.gpus, pool.workers))
    assert [pool.workers for pool in by_share] == sorted(pool.workers for pool in by_share)
    slowest, others = by_share[-1], by_share[:-1]
    assert slowest.gpus == 0.4
    assert n_gpus == 1 or slowest.workers > max(pool.workers for pool in others)


def test_a_head_that_takes_no_work_changes_nothing():
    node, head = {"CPU": 8.0, "GPU": 1.0, "memory": 64e9, "object_store_memory": 2e10}, {"object_store_memory": 1e8}
    pipe = build(load_recipe("svd"))
    assert pack(pipe, [head, node], 1000, single=False) == pack(pipe, [node], 1000, single=False)
    assert "more than the 0 CPUs" in refusal([head])


def refusal(nodes: list[dict[str, Any]], *pools: Resources) -> str:
    with pytest.raises(EngineError) as caught:
        pack(pooled(*pools), nodes, 10, single=False)
    return str(caught.value)


def test_what_is_too_little_is_named():
    assert "stage 'pooled0' needs 1 GPU, there are 0" in refusal(cpu(8), Resources(gpus=1.0))
    assert "stage 'pooled0' needs a node with 4 CPUs" in refusal(cpu(2, 2), Resources(cpus=4.0, pool=True))
    assert "more than the 2 CPUs" in refusal(cpu(2), *[Resources(cpus=0.5, pool=True)] * 4)
    assert "more than the 0.5 CPUs" in refusal(cpu(0.5))
    two_on_one = refusal([{"CPU": 8, "GPU": 1}], Resources(gpus=1.0), Resources(gpus=1.0))
    assert "1 GPUs" in two_on_one and "2 pools of their own (pooled0: 1 GPU, pooled1: 1 GPU)" in two_on_one
    assert "Lower `gpus`" in two_on_one and "`device: cpu`" in two_on_one


def test_packing_does_not_depend_on_the_order_of_equal_nodes():
    sizes = [2, 2, 8]
    packed = {pack(pooled(), cpu(*order), 500, single=False) for order in itertools.permutations(sizes)}
    assert len(packed) == 1


def test_no_more_decoders_than_the_memory_holds():
    """Each decoder has all models beside it; sixteen cores of 64 GB do not hold sixteen times 10 GB."""
    large = type("Large", (Double,), {"name": "large", "resources": Resources(memory_bytes=10 << 30)})(Config())
    pipe = pipeline(Luma(LumaConfig()), large)
    assert pack(pipe, [{"CPU": 16.0, "memory": 64e9}], 1000, single=False).decoders == 5
    assert pack(pipe, [{"CPU": 16.0, "memory": 8e9}], 1000, single=False).decoders == 1
    assert pack(pipe, [{"CPU": 4.0, "memory": 64e9}], 1000, single=False).decoders == 4


def test_bundles_are_as_large_as_every_node_has_room_for():
    pipe = pooled(Resources(gpus=0.25, batch_size=32))
    beside_bytes = DECODER_BYTES + (256 << 20)

    def bundle_bytes(**node: float) -> int:
        large = {"CPU": 16.0, "GPU": 1.0, "memory": 640e9, "object_store_memory": 640e9}
        return pack(pipe, [large, {**large, **node}], 1000, single=False).bundle_bytes

    assert bundle_bytes() == BUNDLE_BYTES
    assert bundle_bytes(object_store_memory=16 * 4 * 300e6) == 300_000_000
    assert bundle_bytes(memory=16 * (beside_bytes + BUNDLE_COPIES * 200_000_000)) == 200_000_000
    assert bundle_bytes(memory=16e9) == LEAST_BUNDLE_BYTES


@pytest.mark.parametrize("memory_gb", [16, 32, 64, 128])
def test_decoders_with_their_bundles_and_pools_with_their_models_fit_into_the_memory(memory_gb):
    pipe = pooled(Resources(gpus=0.1, memory_bytes=6 << 30, batch_size=32))
    packing = pack(pipe, [{"CPU": 16.0, "GPU": 1.0, "memory": memory_gb * 1e9}], 1000, single=False)
    bundles_bytes = BUNDLE_COPIES * packing.bundle_bytes
    decoders_bytes = packing.decoders * (DECODER_BYTES + (256 << 20) + bundles_bytes)
    pools_bytes = sum(pool.workers * (POOL_WORKER_BYTES + (6 << 30) + bundles_bytes) for pool in packing.pools)
    assert decoders_bytes + pools_bytes <= memory_gb * 1e9
    assert packing.decoders > 1


def test_a_block_has_the_clips_of_a_batch_where_sources_are_many():
    for batch, blocks in ((1, 16), (32, 32), (200, 64)):
        pipe = pooled(Resources(pool=True, batch_size=batch))
        assert pack(pipe, cpu(4), 100_000, single=False).sources_per_block == blocks
        assert pack(pipe, cpu(4), 100, single=False).sources_per_block <= 16


def test_where_there_is_no_gpu_a_stage_that_can_do_without_works_beside_the_decoder():
    pipe = pooled(Resources(gpus=0.5, gpu_optional=True), Resources(gpus=1.0), Resources(pool=True))
    assert [step.group for step in pipe.steps] == [0, 1, 2, 3]
    assert [step.group for step in pipe.without_gpus().steps] == [0, 0, 1, 2]
    optional = pooled(Resources(gpus=0.5, gpu_optional=True))
    assert not pack(optional.without_gpus(), cpu(4), 100, single=False).pools
    with pytest.raises(EngineError, match="needs 1 GPU"):
        pack(pipe.without_gpus(), cpu(4), 100, single=False)
