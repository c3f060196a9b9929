from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest
import ray
from engine_kit import Luma, LumaConfig, Slow, SlowConfig, all_cells, pipeline, run
from ray.cluster_utils import Cluster

from curate.engine import ray_engine
from curate.engine.ray_engine import RayEngine
from curate.engine.ray_start import RayOptions
from curate.testing.footage import write_video
from curate.testing.scenes import moving_texture

pytestmark = pytest.mark.ray


@pytest.fixture
def cluster(monkeypatch):
    """Two Ray nodes of two CPUs each on this machine; the driver is on the first."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]), prepend=os.pathsep)
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 2, "object_store_memory": 100 << 20, "include_dashboard": False},
    )
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def test_a_node_killed_in_the_middle_loses_nothing(tmp_path, cluster, monkeypatch):
    monkeypatch.setattr(ray_engine, "NODE_GRACE_S", 2.0)  # the other node has no room for whom it took along
    folder = tmp_path / "bucket"
    folder.mkdir()
    for index in range(12):
        write_video(folder / f"{index:02}.mp4", moving_texture(70, 96, 64, (1, index), seed=index))
    pipe = pipeline(Luma(LumaConfig()), Slow(SlowConfig(seconds=0.6)))
    second = cluster.add_node(num_cpus=2, object_store_memory=100 << 20)
    cluster.wait_for_nodes()
    engine = RayEngine(RayOptions(address=cluster.address))
    out = tmp_path / "ray"

    def kill_when_under_way() -> None:
        while len(list((out / "tables" / "cells" / "slow").rglob("*.parquet"))) < 2:
            time.sleep(0.1)
        cluster.remove_node(second, allow_graceful=False)

    killer = threading.Thread(target=kill_when_under_way, daemon=True)
    killer.start()
    run(out, folder, pipe, engine)
    killer.join()
    assert sum(node["Alive"] for node in ray.nodes()) == 1
    quick = pipeline(Luma(LumaConfig()), Slow(SlowConfig(seconds=0)))
    run(tmp_path / "inline", folder, quick)
    assert all_cells(out, pipe) == all_cells(tmp_path / "inline", quick)
