"""What the decoding process costs: the analysis pass of a file there, against the same pass in this process.

    python tests/bench/bench_isolation.py FILE... [--turns 5] [--json OUT]

Wall-clock seconds and CPU seconds of both processes together, least of several turns taken in alternation; the process
is started before the clock, as a worker starts it once for all its sources; its start is printed apart.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2

from curate.engine.decoding import cut_source, probe_source
from curate.engine.reading import SourceReader, SourceStages
from curate.engine.score import ViewKeys
from curate.isolation import Sandbox
from curate.recipe import build, load_recipe
from curate.stage import SourceFile


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
    fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
    return time.process_time() + sum(int(fields[at]) for at in (11, 12)) / os.sysconf("SC_CLK_TCK")


def start_s() -> float:
    """Seconds from nothing to the first answer of a decoding process."""
    began = time.perf_counter()
    with Sandbox() as sandbox:
        sandbox.call(os.getpid, limit_s=60)
        return time.perf_counter() - began


def measured(paths: list[Path], turns: int) -> Iterator[dict[str, float | int | str]]:
    """One row a file."""
    here, there, reader = passes(paths)
    child = reader._sandbox.call(os.getpid, limit_s=60)
    for path in paths:
        walls: dict[str, list[float]] = {"here": [], "there": []}
        cpus: dict[str, list[float]] = {"here": [], "there": []}
        clips = set()
        for _ in range(turns):
            for name, work in (("here", here), ("there", there)):
                began, used = time.perf_counter(), cpu_s(child)
                clips.add(work(path))
                walls[name].append(time.perf_counter() - began)
                cpus[name].append(cpu_s(child) - used)
        assert len(clips) == 1, "both passes find the same clips"
        wall, cpu = ({name: min(values) for name, values in kind.items()} for kind in (walls, cpus))
        yield {
            "file": path.name,
            "clips": clips.pop(),
            "here_s": wall["here"],
            "there_s": wall["there"],
            "wall_ratio": wall["there"] / wall["here"],
            "cpu_ratio": cpu["there"] / cpu["here"],
        }
    reader.close()


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    print(f"start of a process: {min(start_s() for _ in range(3)):.2f} s")
    print(f"{'file':28} {'clips':>5} {'here s':>8} {'there s':>8} {'wall':>6} {'CPU':>6}")
    rows = []
    for row in measured(options.files, options.turns):
        rows.append(row)
        print(
            f"{row['file']:28} {row['clips']:5} {row['here_s']:8.3f} {row['there_s']:8.3f} "
            f"{row['wall_ratio']:6.3f} {row['cpu_ratio']:6.3f}"
        )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
