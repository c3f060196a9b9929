"""Which Ray a run uses."""

from __future__ import annotations

import pytest
import ray

from curate.engine.ray_engine import RayEngine
from curate.engine.ray_start import RayOptions

pytestmark = pytest.mark.ray


def test_without_an_address_a_ray_of_its_own_is_started(monkeypatch):
    """A run once joined, or waited ten minutes for, the Ray that RAY_ADDRESS or a file left by `ray start` named."""
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")  # nobody listens there
    engine = RayEngine(RayOptions(num_cpus=1))
    try:
        assert ray.cluster_resources()["CPU"] == 1
        assert len(ray.nodes()) == 1
    finally:
        engine.close()
    assert not ray.is_initialized()
