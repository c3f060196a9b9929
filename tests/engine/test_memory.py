"""Memory is bounded: by what is asked for, not by what is there; and it does not grow from video to video."""

import isolation_kit as kit
from soak.leak import children, resident_bytes, samples, slope_bytes

from curate.isolation import Sandbox, end_spare
from curate.memory import peak_memory_bytes, reset_peak_memory

MB = 1 << 20


def test_nothing_leaks_from_video_to_video(tmp_path):
    """The long form is `python tests/soak/leak.py`: 2,000 videos, with models."""
    worker, decoder = slope_bytes(samples(tmp_path, 60, 5, ("motion", "quality")))
    assert worker < 50_000 and decoder < 50_000  # one clip's views are ten times as much


def test_huge_frames_wait_where_they_are_made_until_the_last_stage_is_ready():
    end_spare()
    before = set(children())
    with Sandbox() as sandbox:
        sandbox.call(kit.process_id, limit_s=60)
        (child,) = set(children()) - before
        here, there = resident_bytes("self"), resident_bytes(child)
        reset_peak_memory()
        for number, found in enumerate(sandbox.run(kit.arrays, 30, (32, MB), limit_s=60)):
            assert found["pixels"][0, 0] == number
            found["pixels"].sum()
        assert peak_memory_bytes() - here < 5 * 32 * MB
        assert peak_memory_bytes(child) - there < 5 * 32 * MB
