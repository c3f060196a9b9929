"""Broken files through a whole job: analysis, selection and export; and what must hold of the corpus then."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
from job_kit import do

from curate.errors import CurateError, InputError
from curate.job import JobResult
from curate.query import last_run
from curate.recipe import parse_recipe
from curate.tables import Corpus
from curate.testing.mutations import Mutation
from curate.verify import verify, verify_runs, verify_selections, verify_tables

RECIPE = """
name: fuzz
stages: [probe, cut: {min_len_s: 0.3, max_len_s: 20.0}, motion, quality]
select: {name: all, conditions: [], dedup: {method: none}}
export: {caption: "", preset: ultrafast, buckets: {short_sides_px: [32], multiple_px: 16, frames: [4]}}
"""


def _lasting(root: type[CurateError]) -> set[str]:
    found = set[str]() if root.transient else {root.__name__}
    return found.union(*(_lasting(cls) for cls in root.__subclasses__()))


EXPECTED_CLASSES = _lasting(InputError) | {"StageError"}
"""What a failure may be: anything else is a bug of ours that a file has found."""


@dataclass(frozen=True)
class Ended:
    """How one input ended. ``error_class`` is empty where it did not fail."""

    name: str
    outcome: str
    cause: str
    error_class: str
    seconds: float
    peak_memory_bytes: int


@dataclass(frozen=True)
class Fuzzed:
    """A job over broken files."""

    job: JobResult
    corpus: Corpus
    inputs: dict[str, Ended]
    cell_errors: Counter[tuple[str, str]]
    """(stage, error class) of failed cells."""


def write_mutations(folder: Path, mutations: Iterable[Mutation]) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for mutation in mutations:
        paths.append(folder / mutation.name)
        paths[-1].write_bytes(mutation.data)
    return paths


def fuzz(sources: Sequence[Path], out: Path) -> Fuzzed:
    """Run the job; files are named one by one, since a folder leaves out names that are no video's."""
    job, _ = do(sources, out, parse_recipe(RECIPE, "fuzz"))
    corpus = Corpus(str(out))
    read = {Path(row["uri"]).name: row for row in _rows(out / "tables" / "sources") if row["attempt"]}
    inputs = {}
    for row in pq.ParquetFile(out / "runs" / last_run(corpus) / "inputs.parquet").read().to_pylist():
        name = Path(row["uri"]).name
        known = read.get(name, {})
        error_class, peak_bytes = known.get("error_class") or "", known.get("peak_memory_bytes") or 0
        seconds = known.get("seconds", 0.0)
        inputs[name] = Ended(name, row["outcome"], row["cause"] or "", error_class, seconds, peak_bytes)
    cells = (
        (folder.name, row["error_class"])
        for folder in (out / "tables" / "cells").iterdir()
        for row in _rows(folder)
        if row["outcome"] == "failed"
    )
    return Fuzzed(job, corpus, inputs, Counter(cells))


def _rows(folder: Path) -> Iterable[dict]:
    for part in sorted(folder.rglob("*.parquet")):
        yield from pq.ParquetFile(part).read(use_threads=False).to_pylist()


def check(fuzzed: Fuzzed, sources: Sequence[Path]) -> None:
    """Every file is accounted for with a reason, the counts add up, no error is a surprise, the corpus is whole."""
    assert sorted(fuzzed.inputs) == sorted(path.name for path in sources)
    counts = Counter(ended.outcome for ended in fuzzed.inputs.values())
    assert fuzzed.job.run.counts["inputs"] == dict(counts)
    assert set(counts) <= {"ok", "failed", "skipped"}
    assert not [ended for ended in fuzzed.inputs.values() if ended.outcome != "ok" and not ended.cause]
    surprising = [e for e in fuzzed.inputs.values() if e.outcome == "failed" and e.error_class not in EXPECTED_CLASSES]
    assert not surprising
    assert {error_class for _, error_class in fuzzed.cell_errors} <= EXPECTED_CLASSES
    report, name = fuzzed.job.export, "all"
    assert report is not None
    assert report.kept == report.n_clips + sum(report.left_out.values()) + len(report.holes)
    assert {hole.reason.split(":")[0] for hole in report.holes} <= EXPECTED_CLASSES
    corpus = fuzzed.corpus
    problems = [*verify_tables(corpus), *verify_runs(corpus), *verify_selections(corpus)]
    assert [*problems, *verify(corpus, name, deep=True)] == []
