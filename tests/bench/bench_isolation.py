"""What the decoding process costs: the analysis pass of a file there, against the same pass in this process.

    python tests/bench/bench_isolation.py FILE... [--turns 15] [--json OUT]

Wall-clock seconds, and CPU seconds of both processes together, of turns taken in alternation. Least: the ratio of the
shortest turns; median: the ratio of the median turns. The process is started before the clock, as a worker starts it
once for all its sources; its start is printed apart.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2

from curate.engine.decoding import cut_source, probe_source
from curate.engine.reading import SourceReader, SourceStages
from curate.engine.score import ViewKeys
from curate.isolation import Sandbox, end_spare
from curate.recipe import build, load_recipe
from curate.stage import SourceFile

_CPU_CLOCK_OF_A_PROCESS = 2
"""Linux: how the number of a clock says that it counts a process's own time."""


def passes(paths: list[Path]) -> tuple[Callable[[Path], int], Callable[[Path], int], SourceReader]:
    """The pass here and the pass there; each gives the number of clips."""
    pipeline = build(load_recipe("embedded"))
    specs = ViewKeys(pipeline.steps).wanted_by(pipeline.requested)
    stages = SourceStages(pipeline.probe, pipeline.cut, specs)
    reader = SourceReader()

    def here(path: Path) -> int:
        file = source(path)
        facts = probe_source(pipeline.probe, file)
        return sum(1 for _ in cut_source(file, facts, pipeline.cut, specs, False)) - 1

    def there(path: Path) -> int:
        file = source(path)
        facts = reader.probe(pipeline.probe, file)
        return sum(1 for _ in reader.cut(file, facts, stages)) - 1

    there(paths[0])  # starts the process, and lets it import
    return here, there, reader


def source(path: Path) -> SourceFile:
    """A file as the engine knows it; its digest does not matter here."""
    return SourceFile(str(path), str(path), "0" * 64, path.stat().st_size)


def cpu_s(child: int) -> float:
    """CPU seconds of this process and of its child until now."""
    return time.process_time() + time.clock_gettime(~child << 3 | _CPU_CLOCK_OF_A_PROCESS)


def start_s() -> float:
    """Seconds from nothing to the first answer of a decoding process."""
    end_spare()
    began = time.perf_counter()
    with Sandbox() as sandbox:
        sandbox.call(os.getpid, limit_s=60)
        return time.perf_counter() - began


def measured(paths: list[Path], turns: int) -> Iterator[dict[str, float | int | str]]:
    """One row a file."""
    here, there, reader = passes(paths)
    child = reader._sandbox.call(os.getpid, limit_s=60)
    for path in paths:
        spent: dict[str, list[tuple[float, float]]] = {"here": [], "there": []}
        clips = set()
        works = [("here", here), ("there", there)]
        for _ in range(turns):
            for name, work in works:
                began, used = time.perf_counter(), cpu_s(child)
                clips.add(work(path))
                spent[name].append((time.perf_counter() - began, cpu_s(child) - used))
            works.reverse()
        assert len(clips) == 1, "both passes find the same clips"
        row: dict[str, float | int | str] = {"file": path.name, "clips": clips.pop()}
        for what, of in (("least", min), ("median", statistics.median)):
            (wall, cpu), (wall_there, cpu_there) = (tuple(map(of, zip(*turn, strict=True))) for turn in spent.values())
            row |= {f"{what}_here_s": wall, f"{what}_there_s": wall_there}
            row |= {f"{what}_wall_ratio": wall_there / wall, f"{what}_cpu_ratio": cpu_there / cpu}
        yield row
    reader.close()


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    print(f"start of a process: {min(start_s() for _ in range(3)):.2f} s")
    columns = ("least_here_s", "least_there_s", "least_wall_ratio", "least_cpu_ratio")
    columns += ("median_wall_ratio", "median_cpu_ratio")
    print(f"{'file':28} clips " + " ".join(f"{name:>17}" for name in columns))
    rows = []
    for row in measured(options.files, options.turns):
        rows.append(row)
        print(f"{row['file']:28} {row['clips']:5} " + " ".join(f"{row[name]:17.3f}" for name in columns), flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
