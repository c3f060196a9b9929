"""Memory of a worker and of its decoding process over many short videos: does it grow?

    python tests/soak/leak.py [--videos 2000] [--every 50]

Prints resident memory of both as it goes, and at the end the slope in bytes a video over the second half, where caches
and pools have filled. Every video is a file of its own content.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from curate.engine.analyse import Analyser
from curate.engine.work import SourceWork
from curate.ingest.local import local_ref
from curate.isolation import end_spare
from curate.recipe import build, load_recipe
from curate.testing.footage import moving_texture, write_video

STAGES = ("motion", "quality", "features", "text")


@dataclass(frozen=True)
class Sample:
    """Resident bytes after a number of videos."""

    videos: int
    worker_bytes: int
    decoder_bytes: int


def resident_bytes(process: int | str) -> int:
    """What a process holds in memory now."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) * 1024


def children() -> list[int]:
    """Process ids of the children of this process."""
    return [int(pid) for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()]


def samples(folder: Path, videos: int, every: int, stages: tuple[str, ...]) -> list[Sample]:
    """Analyse so many videos as a worker does, and look at the memory after every few of them."""
    first = folder / "first.mp4"
    write_video(first, moving_texture(50, 160, 90, (2, 0), seed=1))
    pipeline = build(load_recipe("embedded"), stages)
    end_spare()
    before = set(children())
    analyser = Analyser(pipeline, folder, host="here", run_id="leak")
    (decoder,) = set(children()) - before
    found = []
    for number in range(1, videos + 1):
        path = folder / f"{number}.mp4"
        path.write_bytes(first.read_bytes() + unused_box(number))
        bundles = list(analyser.analyse([SourceWork(local_ref(str(path)))]))
        clips = sum(bundle.summary.clips for bundle in bundles)
        assert clips == 1, f"video {number} has {clips} clips"
        path.unlink()
        if number % every == 0:
            found.append(Sample(number, resident_bytes("self"), resident_bytes(decoder)))
    assert set(children()) - before == {decoder}, "one decoding process served all"
    analyser.close()
    return found


def unused_box(number: int) -> bytes:
    """An MP4 box that readers pass over: what makes one file differ from the next."""
    return (16).to_bytes(4, "big") + b"free" + number.to_bytes(8, "big")


def slope_bytes(found: list[Sample]) -> tuple[float, float]:
    """Growth of worker and decoding process in bytes a video, by least squares over the second half."""
    late = found[len(found) // 2 :]
    videos = np.array([sample.videos for sample in late], float)
    held = np.array([(sample.worker_bytes, sample.decoder_bytes) for sample in late], float)
    worker, decoder = np.polyfit(videos, held, 1)[0]
    return float(worker), float(decoder)


def main() -> None:
    """Print memory and slope."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=2000)
    parser.add_argument("--every", type=int, default=50)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = samples(Path(folder), options.videos, options.every, STAGES)
    for sample in found:
        print(f"{sample.videos:6} videos: worker {sample.worker_bytes / 1e6:7.1f} MB, ", end="")
        print(f"decoding process {sample.decoder_bytes / 1e6:7.1f} MB")
    worker, decoder = slope_bytes(found)
    print(f"slope over the second half: worker {worker:.0f}, decoding process {decoder:.0f} bytes a video")


if __name__ == "__main__":
    main()
