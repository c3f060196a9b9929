"""Time, CPU time and peak memory of the steps that one process does over the tables, as these grow.

    python tests/bench/bench_scale.py [--sizes 100000 1000000] [--steps select stats ...] [--keep FOLDER]

Tables as for `bench_select.py`, five clips a source. Each step runs in a process of its own, and a second one that
imports the same and does nothing stands before them: peaks hold its memory too.

inputs           the run's inputs as the planner is given them (held by all `plan` steps too)
plan-unread      planning a run over sources that no table knows
plan-done        planning a run in which nothing is missing
plan-new-stage   planning a new stage that reads another's cells: every clip lacks one cell
select           four percentile thresholds
stats            statistics of the run with that selection
export-plan      buckets, order and shards of the clips that the selection keeps (a caption is 32 characters)
compact          merging parts of 100,000 rows
compact-small    merging one table of as many rows in parts of 320 rows, which 64 sources leave
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import types
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from bench_kit import markdown
from bench_select import CONDITIONS, FINGERPRINT, STAGES, generate

from curate.compact import compact, compact_folder
from curate.config import Config
from curate.engine.inputs import known_sources
from curate.engine.pipeline import Pipeline, Step
from curate.engine.plan import Planner
from curate.export import ExportConfig, plan_export
from curate.query import connect, table_folders
from curate.records import InputRef
from curate.select import SelectConfig, select
from curate.stage import ClipStage, Column
from curate.stages.probe import Probe
from curate.stages.registry import stage_class
from curate.stats import corpus_stats
from curate.tables import CLIPS, Corpus, write_part

SMALL_ROWS = 320
SELECTION = "scale"


def stage(name, column, reads=()):
    """A clip stage that is planned and never run."""
    columns = (Column(column, pa.float64(), "1", "a score"),)
    members = {"name": name, "version": 1, "columns": columns, "reads": reads, "score": lambda self, item: {}}
    return types.new_class("Score", (ClipStage[Config],), {}, lambda body: body.update(members))(Config())


def pipeline(new=False):
    """The stages of the generated tables, and perhaps one that has no cells."""
    steps = [Step(stage(name, column), FINGERPRINT, (), 0) for name, column in STAGES.items()]
    if new:
        steps.append(Step(stage("new", "score", ("motion",)), "f" * 16, (), 0))
    cut = stage_class("cut")
    asked = frozenset(step.stage.name for step in steps)
    return Pipeline(Probe(Probe.config_type()), FINGERPRINT, cut(cut.config_type()), FINGERPRINT, tuple(steps), asked)


def inputs(corpus):
    """The run's inputs as the planner gets them."""
    file = corpus.runs().child("r", "inputs.parquet")
    return [InputRef(uri, 1, "1") for uri in pq.ParquetFile(file.path).read(["uri"])["uri"].to_pylist()]


def plan(corpus, refs, new=False):
    """The work that is missing, and what it weighs on its way to Ray."""
    with connect() as con:
        works = Planner(con, corpus, pipeline(new), refs).plan(known_sources(con, corpus))
    return {
        "works": len(works),
        "pickled_bytes_a_work": len(pickle.dumps(works[:64], protocol=5)) // 64 if works else 0,
    }


def plan_unread(corpus):
    with tempfile.TemporaryDirectory() as empty:
        return plan(Corpus(empty), inputs(corpus))


def select_some(corpus):
    rule = {"name": SELECTION, "conditions": CONDITIONS, "dedup": {"method": "none"}}
    return {"kept": select(corpus, SelectConfig.model_validate(rule)).clips.kept}


def stats(corpus):
    return {"clips": corpus_stats(corpus, selection=SELECTION).n_clips}


def export_plan(corpus):
    made = plan_export(corpus, SELECTION, ExportConfig(caption="source.uri"))
    return {"kept": made.kept, "shards": len(made.tasks)}


def copied(corpus, folder):
    """The corpus again, of the same files: parts are never written to, so removing them here leaves them there."""
    for path in Path(corpus.uri).rglob("*.parquet"):
        target = Path(folder) / path.relative_to(corpus.uri)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(path, target)
    shutil.copy(Path(corpus.uri) / "corpus.json", folder)
    return Corpus(str(folder))


def compact_all(corpus):
    with tempfile.TemporaryDirectory(dir=Path(corpus.uri).parent) as folder:
        done = list(compact(copied(corpus, folder)))
    return {"before": sum(d.parts_before for d in done), "after": sum(d.parts_after for d in done)}


def small_parts(corpus, folder):
    """One table in the parts that blocks of 64 sources leave."""
    into = Corpus(folder)
    into.create()
    for path in sorted(Path(corpus.clips(FINGERPRINT).path).glob("*.parquet")):
        rows = pq.ParquetFile(path).read()
        for start in range(0, rows.num_rows, SMALL_ROWS):
            write_part(into.clips(FINGERPRINT), rows.slice(start, SMALL_ROWS).cast(CLIPS))
    return table_folders(into)[0]


def nothing(corpus):
    return {}


def n_inputs(corpus):
    return {"inputs": len(inputs(corpus))}


STEPS = {
    "nothing": nothing,
    "inputs": n_inputs,
    "plan-unread": plan_unread,
    "plan-done": lambda corpus: plan(corpus, inputs(corpus)),
    "plan-new-stage": lambda corpus: plan(corpus, inputs(corpus), new=True),
    "select": select_some,
    "stats": stats,
    "export-plan": export_plan,
    "compact": compact_all,
    "compact-small": None,
}


def peak_kib():
    """Of this program. What `getrusage` tells may be its parent's, from before it began."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def measure(step, uri, most_gib):
    """Do one step here and print its figures as JSON."""
    if most_gib:
        resource.setrlimit(resource.RLIMIT_DATA, (int(most_gib * 2**30),) * 2)
    corpus = Corpus(uri)
    with tempfile.TemporaryDirectory(dir=Path(uri).parent) as scratch:
        work = STEPS[step]
        if step == "compact-small":
            folder = small_parts(corpus, scratch)

            def work(_):
                return {"before": (done := compact_folder(folder)).parts_before, "after": done.parts_after}

        began, cpu = time.perf_counter(), time.process_time()
        try:
            found = work(corpus)
        except (MemoryError, duckdb.OutOfMemoryException):
            found = {"broke": f"wants more than {most_gib} GiB"}
        wall_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu
    peak_gib = peak_kib() / 2**20
    print(json.dumps({"wall_s": round(wall_s, 1), "cpu_s": round(cpu_s, 1), "peak_gib": round(peak_gib, 2), **found}))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="*", default=[100_000, 1_000_000])
    parser.add_argument("--steps", nargs="*", choices=STEPS, default=list(STEPS))
    parser.add_argument("--keep", type=Path, help="Leave the corpora in this folder, and take those that are there.")
    parser.add_argument("--most-gib", type=float, default=0, help="Memory that a step may take.")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(*options.measure, options.most_gib)
        return
    rows = []
    for n_clips in options.sizes:
        with tempfile.TemporaryDirectory() as scratch:
            corpus = Corpus(str((options.keep or Path(scratch)) / str(n_clips)))
            if not Path(corpus.uri).exists():
                generate(corpus, n_clips, 100_000, "lengths")
            for step in options.steps:
                command = [sys.executable, __file__, "--most-gib", str(options.most_gib), "--measure", step, corpus.uri]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                print(f"{n_clips:>10,} {step:15} {done.stdout.strip()}", flush=True)
                found = json.loads(done.stdout)
                rest = ", ".join(f"{key} {value}" for key, value in found.items() if not key.endswith(("_s", "_gib")))
                rows.append([step, f"{n_clips:,}", *(str(found[k]) for k in ("wall_s", "cpu_s", "peak_gib")), rest])
    print(markdown(["step", "clips", "wall s", "CPU s", "peak GiB", "what"], rows))


if __name__ == "__main__":
    main()
