"""Wall time and peak memory of what `curate view` and `curate diff` ask, over generated tables.

    python tests/bench/bench_view.py [--sizes 10000 1000000] [--keep FOLDER]

The tables are those of bench_select.py, with two selections. Each size is asked in a process of its own; peak is its
largest resident set. No clip is played: the sources do not exist.
"""

from __future__ import annotations

import json
import resource
import time

from bench_select import CONDITIONS
from tables_bench import each_size

from curate.report.diff import Named, difference
from curate.tables import Corpus
from curate.viewer.library import Library
from curate.viewer.query import Ask

LOOSE = [{**condition, "name": condition["column"]} for condition in CONDITIONS[:3]]


def measure(uri):
    """Ask as the page does, and print how long each answer took as JSON."""
    took, corpus = {}, Corpus(uri)

    def timed(name, act):
        began = time.perf_counter()
        found = act()
        took[name] = round(time.perf_counter() - began, 2)
        return found

    library = timed("open", lambda: Library(corpus))
    first = timed("first page", lambda: library.find(Ask())).clips[0]["clip_id"]
    by_motion = {"sort": "motion.v2d_px16", "descending": True}
    timed("sort by a column, first time", lambda: library.find(Ask(**by_motion)))
    timed("sort by it again", lambda: library.find(Ask(**by_motion)))
    both = Ask(**by_motion, selection="bench", filters=({"column": "selection.bench", "in": ["kept"]},))
    timed("filter by a verdict, first time", lambda: library.find(both))
    middle = Ask(**by_motion, offset=library.totals()["n"] // 2)
    timed("a page in the middle", lambda: library.find(middle))
    timed("values of a column", lambda: library.values("text.area_max"))
    timed("clips of its source", lambda: library.timeline(first, "bench"))
    timed("mark", lambda: library.mark([first], "drop", "", "bench"))
    timed("mark again", lambda: library.mark([first], None, "", "bench"))
    library.close()
    found = timed("difference of two selections", lambda: difference(Named(corpus, "bench"), Named(corpus, "loose")))
    peak_gib = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)
    print(json.dumps({"seconds": took, "peak_gib": peak_gib, "moved": found.facts["entered"]["n"]}))


if __name__ == "__main__":
    each_size(__file__, [10_000, 1_000_000], {"bench": CONDITIONS, "loose": LOOSE}, measure)
