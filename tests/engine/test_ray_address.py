"""Which Ray a run uses."""

from __future__ import annotations

import pytest
import ray

from curate.engine.ray_engine import RayEngine
from curate.engine.ray_start import RayOptions, wait_for
from curate.engine.room import Room
from curate.errors import ClusterError, ConfigError

pytestmark = pytest.mark.ray


def test_without_an_address_a_ray_of_its_own_is_started(monkeypatch):
    """A run once joined, or waited ten minutes for, the Ray that RAY_ADDRESS or a file left by `ray start` named."""
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")  # nobody listens there
    engine = RayEngine(RayOptions(num_cpus=1))
    try:
        assert ray.cluster_resources()["CPU"] == 1
        assert len(ray.nodes()) == 1
        wait_for(Room(cpus=1))
        with pytest.raises(ClusterError, match=r"has 1 CPUs after 0 min, asked for were 1 CPUs and 1 GPUs"):
            wait_for(Room(cpus=1, gpus=1), timeout_s=0)
    finally:
        engine.close()
    assert not ray.is_initialized()


@pytest.mark.parametrize(
    ("text", "room"), [("CPU=64,GPU=2", Room(64, 2)), ("gpu=1", Room(0, 1)), (" CPU = 8 ", Room(8, 0))]
)
def test_what_to_wait_for_is_said_in_cpus_and_gpus(text, room):
    assert Room.parse(text) == room


@pytest.mark.parametrize("text", ["", "64", "CPU=64 GPU=2", "TPU=1", "CPU=-1", "CPU=1.5", "CPU=0", "CPU=1,"])
def test_what_names_no_room_is_refused(text):
    with pytest.raises(ConfigError, match="CPU=64,GPU=2"):
        Room.parse(text)
