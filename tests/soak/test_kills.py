"""The short form of the kills: what was killed at any moment ends like what was not."""

from __future__ import annotations

import pytest
from soak.kill_kit import DRIVER, INLINE, WORKER, Range, storm

pytestmark = pytest.mark.ray

SEED = 4


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    made = Range(tmp_path_factory.mktemp("kills") / "range", videos=6)
    yield made
    made.close()


def test_six_kills_of_the_inline_engine(place):
    report = storm(place, INLINE, 6, SEED)
    assert report.kills == {"inline": 6}
    assert report.most_sources_again <= 2


def test_a_killed_ray_driver(place):
    """Completed by the inline engine: what is in the tables does not depend on who wrote it."""
    report = storm(place, DRIVER, 1, SEED, finish="inline")
    assert report.kills == {"driver": 1}


def test_a_killed_ray_worker(place):
    report = storm(place, WORKER, 1, SEED, finish="inline")
    assert report.kills == {"worker": 1}
