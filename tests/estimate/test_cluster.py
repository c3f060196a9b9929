"""The machines of a plan: as the engine packs them."""

from __future__ import annotations

import pytest
from engine_kit import GpuDouble, Luma, LumaConfig, PooledDouble, pipeline
from hypothesis import given
from hypothesis import strategies as st

from curate.config import Config
from curate.engine.pack import pack
from curate.errors import ClusterError, ConfigError
from curate.estimate.cluster import Cluster, blocks, layout, makespan


@pytest.mark.parametrize("cluster", [Cluster(1, 4), Cluster(3, 16, 2, 64 << 30)])
def test_lanes_are_the_pools_that_the_engine_places(cluster):
    pipe = pipeline(Luma(LumaConfig()), PooledDouble(Config()))
    found = layout(pipe, cluster, 500, inline=False)
    packing = pack(pipe, cluster.resources(), 500, single=False)
    assert [lane.workers for lane in found.lanes] == [packing.decoders, *(pool.workers for pool in packing.pools)]
    assert [lane.stages for lane in found.lanes] == [("probe", "cut", "luma"), ("pooled",)]
    assert (found.sources_per_block, found.exporters) == (packing.sources_per_block, cluster.all_cpus)


def test_one_process_does_it_all():
    (lane,) = layout(pipeline(Luma(LumaConfig()), PooledDouble(Config())), Cluster(1, 64), 500, inline=True).lanes
    assert (lane.workers, lane.stages, lane.reads) == (1, ("probe", "cut", "luma", "pooled"), True)


def test_a_recipe_that_does_not_fit_is_refused_as_the_run_would():
    with pytest.raises(ClusterError, match=r"needs 0\.5 GPU, there are 0"):
        layout(pipeline(Luma(LumaConfig()), GpuDouble(Config())), Cluster(2, 8), 500, inline=False)
    lanes = layout(pipeline(Luma(LumaConfig()), GpuDouble(Config())), Cluster(2, 8, 1), 500, inline=False).lanes
    assert lanes[1].gpus == 0.5 and lanes[1].workers > 1


@pytest.mark.parametrize("numbers", [(0, 4), (1, 0), (1, 1, -1)])
def test_a_cluster_of_nothing_is_none(numbers):
    with pytest.raises(ConfigError):
        Cluster(*numbers)


@given(st.lists(st.floats(0, 1000), min_size=1, max_size=40), st.integers(1, 8))
def test_no_schedule_beats_an_even_split_or_the_longest_task(tasks, workers):
    whole = makespan(tasks, workers)
    assert whole >= max(*tasks, sum(tasks) / workers) - 1e-9
    assert whole <= sum(tasks) / workers + max(tasks) + 1e-9
    assert makespan(tasks, 1) == pytest.approx(sum(tasks))


def test_blocks_keep_the_order_and_lose_nothing():
    assert blocks([1, 2, 3, 4, 5], 2) == [3, 7, 5]
    assert makespan([3, 3, 5], 2) == 8
    assert makespan([], 3) == 0
