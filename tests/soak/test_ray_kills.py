"""The short form of the kills of a job on Ray, as test_kills. That of the driver: tests/store/test_s3_ray.py."""

from __future__ import annotations

import pytest
from soak.kill_kit import WORKER, storm

pytestmark = pytest.mark.ray

SEED = 4


def test_a_killed_ray_worker(place):
    """Completed by the inline engine: what is in the tables does not depend on who wrote it."""
    report = storm(place, WORKER, 1, SEED, finish="inline")
    assert report.kills == {"worker": 1}
