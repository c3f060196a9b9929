"""Corpora of generated tables with selections, each asked in a process of its own."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench_select import generate

from curate.select import SelectConfig, select
from curate.tables import Corpus


def each_size(
    script: str, sizes: Sequence[int], selections: Mapping[str, Sequence[Any]], measure: Callable[[str], None]
) -> None:
    """The command line of a benchmark: for each size ``script`` is started again, and ``measure`` prints its JSON.

    ``selections``: conditions by name; near-duplicates stay.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--sizes", type=int, nargs="*", default=list(sizes))
    parser.add_argument("--part-rows", type=int, default=100_000)
    parser.add_argument("--keep", type=Path, help="Leave the corpora in this folder.")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options.measure)
        return
    for n_clips in options.sizes:
        with tempfile.TemporaryDirectory() as scratch:
            corpus = Corpus(str((options.keep or Path(scratch)) / str(n_clips)))
            if not Path(corpus.uri).exists():
                generate(corpus, n_clips, options.part_rows, "lengths")
                for name, conditions in selections.items():
                    rule = {"name": name, "conditions": conditions, "dedup": {"method": "none"}}
                    select(corpus, SelectConfig.model_validate(rule))
            command = [sys.executable, script, "--measure", corpus.uri]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            print(f"{n_clips:>10,} clips: {done.stdout.strip()}", flush=True)
