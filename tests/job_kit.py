"""The main job in this process, with a listener that remembers what was planned."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from curate.engine.work import SourceWork
from curate.errors import EngineError
from curate.job import JobOptions, JobResult, run_job
from curate.recipe import Recipe
from curate.watch.listener import JobListener


class Heard(JobListener):
    """What a job told its listener."""

    def __init__(self) -> None:
        self.works: list[SourceWork] = []
        self.steps: list[str] = []
        self.computed: set[str] = set()

    def planned(self, pass_number, works):
        self.works += works

    def wrote(self, summary):
        self.computed |= set(summary.stage_seconds)

    def died(self, error: EngineError):
        raise error

    def step(self, text):
        self.steps.append(text)

    @property
    def missing(self) -> dict[str, set[str]]:
        """By clip that was known before: the stages that it lacked."""
        return {clip.clip.clip_id: set(clip.missing) for work in self.works for clip in work.clips or ()}


def do(sources: Iterable[object], out: Path, recipe: Recipe, **options) -> tuple[JobResult, Heard]:
    """Run a job inline; gives its result and what was heard of it."""
    heard = Heard()
    options = {"engine": "inline", **options}
    return run_job([str(source) for source in sources], recipe, JobOptions(str(out), **options), heard), heard


def table_files(out: Path) -> dict[str, int]:
    """Every file of a corpus's tables with the time it was written."""
    tables = out / "tables"
    return {str(path.relative_to(tables)): path.stat().st_mtime_ns for path in tables.rglob("*") if path.is_file()}
