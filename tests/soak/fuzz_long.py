"""Thousands of damaged files, and all monsters, through real runs: no crash, no hang, every file accounted for.

    python tests/soak/fuzz_long.py --n 3000 --seed 7

Prints a table of container and kind of damage. A run that fails its checks stops here; its files are kept, and the
same seed makes them again. Exit status 1 then.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from fuzz_kit import Ended, check, fuzz, write_mutations

from curate.testing.monsters import MONSTERS, monster_files
from curate.testing.mutations import KINDS, mutations, seed_files

BATCH = 250
SLOW_S = 5.0
"""Files that took longer are named: none of the seed files has more than 50 small frames."""


class Report:
    """Outcomes by container and kind of damage, and what is worth a look."""

    def __init__(self) -> None:
        self.table: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        self.slow: list[Ended] = []
        self.seconds = 0.0
        self.n_batches = 0

    def add(self, ended: dict[str, Ended]) -> None:
        for name, found in ended.items():
            _, kind, seed_name = name.split("-", 2)
            self.table[seed_name.rsplit(".", 1)[1], kind][found.error_class or found.outcome] += 1
            self.look_at(found)

    def look_at(self, found: Ended) -> None:
        if found.seconds > SLOW_S or found.error_class in ("DecoderCrashError", "DecodeLimitError"):
            self.slow.append(found)

    def print(self) -> None:
        total: Counter[str] = Counter()
        for counts in self.table.values():
            total += counts
        classes = sorted(total)
        print(f"\n{'container':10}{'damage':12}" + "".join(f"{name:>20}" for name in classes))
        for suffix in sorted({suffix for suffix, _ in self.table}):
            for kind in KINDS:
                counts = self.table[suffix, kind]
                print(f"{suffix:10}{kind:12}" + "".join(f"{counts[name] or '':>20}" for name in classes))
        print(f"{'all':22}" + "".join(f"{total[name]:>20}" for name in classes))
        for found in self.slow:
            print(f"look at {found.name}: {found.error_class or found.outcome}, {found.seconds:.1f} s, {found.cause}")
        ours, children = (
            resource.getrusage(who).ru_maxrss >> 10 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        )
        print(f"{sum(total.values())} files in {self.n_batches} runs, {self.seconds:.0f} s")
        print(f"peak memory: {ours} MiB in the run's process, {children} MiB in the decoding process")


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--n", type=int, default=3000, help="damaged files")
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--first", type=int, default=0, help="number of the first one")
    given = arguments.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="curate-fuzz-"))
    print(f"seed {given.seed}, files {given.first} to {given.first + given.n - 1}, in {folder}", flush=True)
    seeds = seed_files(folder / "seeds")
    report = Report()
    began = time.monotonic()
    for first in range(given.first, given.first + given.n, BATCH):
        n = min(BATCH, given.first + given.n - first)
        batch = folder / f"batch-{first}"
        sources = write_mutations(batch / "files", mutations(seeds, n, given.seed, first=first))
        ended = fuzz(sources, batch / "corpus")
        check(ended, sources)
        report.add(ended.inputs)
        shutil.rmtree(batch)
        report.seconds, report.n_batches = time.monotonic() - began, report.n_batches + 1
        print(f"{first + n} files, {report.seconds:.0f} s", flush=True)
    sources = monster_files(folder / "monsters")
    ended = fuzz(sources, folder / "monsters-corpus")
    check(ended, sources)
    wrong = [found for name, found in ended.inputs.items() if MONSTERS[name] not in (found.outcome, "either")]
    for found in ended.inputs.values():
        report.look_at(found)
    report.print()
    for found in wrong:
        print(f"monster {found.name}: expected {MONSTERS[found.name]}, ended as {found.outcome}: {found.cause}")
    shutil.rmtree(folder)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
