"""`curate plan` on a sample of a bucket beside the full run: time, retention, storage, foretold and taken.

    python tests/bench/bench_plan.py FOLDER [--footage FOLDER] [--videos 104] [--sample 10%] [--engine inline]

Makes the bucket of `plan_bucket.py` in FOLDER, if it is not there; the same footage gives the same one. Then a plan for
each seed, and the full run into a new corpus. Whole commands are timed from outside too, with the CPU seconds of all
that they start: on a loaded machine those compare, the clock does not. The recipe's weights must be on this machine
(`curate models fetch`).

Last, from what the full run measured of every source, what `--draws` other samples of that size would have foretold:
how well the estimator does at all, and not by the luck of a seed.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from bench_kit import CURATE, machine, markdown, timed
from plan_bucket import make_bucket

from curate.engine.run import RunResult
from curate.estimate.measure import Measured, measure
from curate.estimate.ratios import Bucket, Estimate, Family, Totals, totals
from curate.estimate.sample import SampleSize, chances, draw
from curate.estimate.survey import Survey, survey
from curate.ingest.listing import list_inputs
from curate.job import JobResult
from curate.recipe import build, load_recipe
from curate.select import load_funnel
from curate.tables import Corpus

ROWS = (
    "on the clock", "scoring", "writing shards", "CPUs at work", "clips found", "clips kept", "retention", "video kept",
    "inputs failed", "tables", "shards",
)  # fmt: skip
NEAR = 0.25


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--footage", type=Path, help="real videos; default: those that package-index wheels carry")
    parser.add_argument("--videos", type=int, default=104)
    parser.add_argument("--recipe", default="embedded")
    parser.add_argument("--sample", default="10%")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0])
    parser.add_argument("--engine", choices=["inline", "ray"], default="inline")
    parser.add_argument("--draws", type=int, default=300)
    options = parser.parse_args()
    bucket, corpus = options.folder / "bucket", options.folder / "corpus"
    made = make_bucket(bucket, options.footage, options.videos)
    print(f"{machine()}; {len(made)} videos, {sum(path.stat().st_size for path in made) / 1e6:.1f} MB", flush=True)
    common = [str(bucket), "--recipe", options.recipe, "--engine", options.engine]
    plans = {seed: options.folder / f"plan-{seed}.json" for seed in options.seeds}
    for seed, plan in plans.items():
        more = ["--sample", options.sample, "--seed", str(seed), "--save", str(plan)]
        spent = timed([*CURATE, "plan", *common, *more])
        print(f"plan with seed {seed}: {spent.wall_s:.0f} s, {spent.cpu_s:.0f} CPU-s; {machine()}", flush=True)
    shutil.rmtree(corpus, ignore_errors=True)
    spent = timed([*CURATE, "run", *common, "--out", str(corpus), "--no-report"])
    print(f"run: {spent.wall_s:.0f} s, {spent.cpu_s:.0f} CPU-s; {machine()}", flush=True)
    for seed, plan in plans.items():
        print(f"\nseed {seed}\n\n{compared(corpus, plan)}", flush=True)
    print(f"\n{resampled(bucket, corpus, options)}")


def compared(corpus: Path, plan: Path) -> str:
    """A plan and the run, as a table."""
    log = plan.with_suffix(".stats")
    timed([*CURATE, "stats", str(corpus), "--plan", str(plan), "--json"], log=log)
    found = {row["name"]: row for row in json.loads(log.read_text())["compared"]}
    heads = ["", "foretold", "in 9 of 10 cases", "taken", "foretold / taken", "inside"]
    return markdown(heads, [row_of(found[name]) for name in ROWS if name in found])


def row_of(row: dict[str, Any]) -> list[str]:
    """One quantity as a line of the table."""
    told, form = row["foretold"], {"s": "{:.1f} s", "bytes": "{:,.0f}", "": "{:.0f}", "share": "{:.1%}"}[row["unit"]]
    known = told["low"] is not None
    interval = f"{form.format(told['low'])} to {form.format(told['high'])}" if known else ""
    ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f}"
    inside = {True: "yes", False: "no", None: ""}[row["inside"]]
    return [row["name"], form.format(told["value"]), interval, form.format(row["found"]), ratio, inside]


def resampled(bucket: Path, corpus: Path, options: argparse.Namespace) -> str:
    """What other samples would have foretold, beside what the run measured, as a table."""
    found, truth = whole(bucket, corpus, options.recipe)
    n = SampleSize.parse(options.sample).of(len(found.refs))
    likely = chances(found.weights, n)
    ratios: dict[str, list[float]] = {}
    hits: dict[str, list[bool]] = {}
    formulas: dict[str, Callable[[Totals], Estimate]] = {
        "seconds of stages": _seconds,
        "clips found": lambda told: told.estimate("clips/found"),
        "clips kept": lambda told: told.estimate("clips/kept"),
        "retention": lambda told: told.share("clips/kept", "clips/found"),
    }
    everything = np.arange(len(found.refs))
    exact = totals(Bucket(found.predictors, everything, np.ones(len(everything))), truth.families)
    for seed in range(options.draws):
        sample = draw(likely, seed)
        families = [
            Family({k: v[sample] for k, v in f.quantities.items()}, f.predictor, f.whole) for f in truth.families
        ]
        told = totals(Bucket(found.predictors, sample, likely[sample]), families, seed)
        for name, formula in formulas.items():
            estimate, true = formula(told), formula(exact).value
            ratios.setdefault(name, []).append(estimate.value / true)
            hits.setdefault(name, []).append(estimate.low - 1e-9 <= true <= estimate.high + 1e-9)
    rows = []
    for name, values in ratios.items():
        near = np.mean(np.abs(np.array(values) - 1) <= NEAR)
        low, middle, high = np.quantile(values, [0.05, 0.5, 0.95])
        rows.append([name, f"{middle:.2f}", f"{low:.2f} to {high:.2f}", f"{near:.0%}", f"{np.mean(hits[name]):.0%}"])
    heads = [f"{options.draws} samples of {n}", "foretold / taken", "nine of ten", "within 25 %", "in the interval"]
    return markdown(heads, rows)


def whole(bucket: Path, corpus: Path, recipe: str) -> tuple[Survey, Measured]:
    """What the full run measured of every source."""
    pipeline, place = build(load_recipe(recipe)), Corpus(str(corpus))
    found = survey(list_inputs([str(bucket)]), pipeline, None, lambda _done, _total: None)
    done = JobResult(RunResult(place.run_ids()[-1], {}, 0.0, {}, {}), load_funnel(place, recipe), None)
    beside = [step.stage.name for step in pipeline.without_gpus().group(0)]
    return found, measure(place, done, [ref.uri for ref in found.refs], beside)


def _seconds(told: Totals) -> Estimate:
    return told.estimate(*(name for name in told.values if name.startswith("seconds/")))


if __name__ == "__main__":
    main()
