"""Wall time, size and peak memory of `curate report` over generated tables.

    python tests/bench/bench_report.py [--sizes 10000 1000000 10000000] [--keep FOLDER]

The tables are those of bench_select.py: four percentile thresholds over the cells of four stages (1 % failed), five
clips of 1 to 20 s a source. The selection is made first, without near-duplicates. Each report is written in a process
of its own; peak is its largest resident set. No pictures: the sources do not exist, and pictures are bounded anyway.
"""

from __future__ import annotations

import json
import resource
import time
from itertools import pairwise

from bench_select import CONDITIONS
from tables_bench import each_size

from curate.report import write_report
from curate.report.facts import build_facts, chosen_selection
from curate.report.joint import unpack
from curate.tables import Corpus


def measure(uri):
    """Write one report here and print its figures as JSON."""
    steps = []

    def step(text):
        steps.append((text, time.perf_counter(), time.process_time(), peak_gib()))

    began = time.perf_counter()
    written = write_report(Corpus(uri), pictures=0, step=step)
    step("")
    figures = {"wall_s": round(steps[-1][1] - began, 1), "cpu_s": round(steps[-1][2] - steps[0][2], 1)}
    figures |= {"peak_gib": peak_gib(), "size_mb": round(written.size_bytes / 1e6, 2)}
    figures["steps (CPU s, peak GiB so far)"] = {
        text: (round(after[2] - cpu, 1), after[3]) for (text, _, cpu, _), after in pairwise(steps)
    }
    print(json.dumps(figures))


def peak_gib():
    """The largest resident set of this process so far."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)


def describe(uri):
    """The joint counts of the corpus, and whether they add up to what the selection kept."""
    corpus = Corpus(uri)
    funnel = chosen_selection(corpus, None, None)
    facts = build_facts(corpus, funnel, pictures=0).facts
    cells = unpack(facts["joint"]["data"])
    stops = [len(axis["stops"]) for axis in facts["axes"]]
    print(json.dumps({"cells": len(cells.keys), "clips": int(cells.n.sum()), "stops": stops}), flush=True)


if __name__ == "__main__":
    each_size(__file__, [10_000, 1_000_000, 10_000_000], {"bench": CONDITIONS}, measure)
