"""What watching costs: runs of one small bucket with and without status, log and metrics, in turns.

python tests/bench/bench_watch.py [--rounds 5] [--videos 40]
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

from curate.job import JobOptions, run_job
from curate.recipe import parse_recipe
from curate.testing.footage import moving_texture, write_video
from curate.watch.listener import JobListener
from curate.watch.state import RunState
from curate.watch.watching import Watching, WatchOptions

RECIPE = "{name: small, stages: [probe, cut: {min_len_s: 0.5}, quality], select: {dedup: {method: none}}}"

SCRAPE_S = 1.0
"""Ten times as often as docker/prometheus.yml."""


class Quiet(JobListener):
    """Cares for nothing."""


def job(bucket: Path, out: Path, listener: JobListener) -> tuple[float, float]:
    """(wall, CPU) seconds of a run, with its decoding process."""
    wall, cpu = time.perf_counter(), sum(os.times()[:4])
    options = JobOptions(str(out), engine="inline", export=False)
    run_job([str(bucket)], parse_recipe(RECIPE, "bench"), options, listener)
    return time.perf_counter() - wall, sum(os.times()[:4]) - cpu


def watched(bucket: Path, out: Path) -> tuple[float, float]:
    state, over = RunState(), threading.Event()

    def scrape() -> None:
        while not over.wait(SCRAPE_S):
            with urllib.request.urlopen(state.metrics_url) as answer:
                answer.read()

    with Watching(state, Quiet(), WatchOptions(log=f"{out}.jsonl", port=0)) as listener:
        thread = threading.Thread(target=scrape)
        thread.start()
        taken = job(bucket, out, listener)
        over.set()
        thread.join()
    return taken


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--videos", type=int, default=40)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        bucket = Path(folder) / "bucket"
        bucket.mkdir()
        for number in range(asked.videos):
            write_video(bucket / f"{number}.mp4", moving_texture(50, 160, 90, (-1.5, 0.0), number))
        job(bucket, Path(folder) / "warm", Quiet())
        taken: dict[str, list[tuple[float, float]]] = {"without": [], "with": []}
        for number in range(asked.rounds):
            taken["without"].append(job(bucket, Path(folder) / f"a{number}", Quiet()))
            taken["with"].append(watched(bucket, Path(folder) / f"b{number}"))
        lines = Path(folder, "b0.jsonl").read_text().count("\n")
    for name, each in taken.items():
        wall, cpu = (statistics.median(column) for column in zip(*each, strict=True))
        spread = f"{min(c for _, c in each):.2f} to {max(c for _, c in each):.2f}"
        print(f"{name:8} median wall {wall:.2f} s, CPU {cpu:.2f} s ({spread})")
    ratio = statistics.median(c for _, c in taken["with"]) / statistics.median(c for _, c in taken["without"])
    print(f"CPU with / without: {ratio:.3f}; {lines} lines of log a run")


if __name__ == "__main__":
    main()
