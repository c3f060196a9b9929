"""The short form of the kills: what was killed at any moment ends like what was not."""

from __future__ import annotations

from soak.kill_kit import INLINE, storm

SEED = 4


def test_six_kills_of_the_inline_engine(place):
    report = storm(place, INLINE, 6, SEED)
    assert report.kills == {"inline": 6}
    assert report.most_sources_again <= 2
