"""The short form of the kills of a job on Ray, as test_kills."""

from __future__ import annotations

import pytest
from soak.kill_kit import DRIVER, WORKER, storm

pytestmark = pytest.mark.ray

SEED = 4


def test_a_killed_ray_driver(place):
    """Completed by the inline engine: what is in the tables does not depend on who wrote it."""
    report = storm(place, DRIVER, 1, SEED, finish="inline")
    assert report.kills == {"driver": 1}


def test_a_killed_ray_worker(place):
    report = storm(place, WORKER, 1, SEED, finish="inline")
    assert report.kills == {"worker": 1}
