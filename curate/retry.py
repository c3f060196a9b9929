"""What failed, again: the last run's recipe and inputs, where the failures asked for count as missing."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from curate.engine.again import Again
from curate.engine.ready import check_ready
from curate.engine.run import RunRequest, RunResult, execute
from curate.errors import CurateError
from curate.failures import INPUT, FailureGroup, failures
from curate.ingest.listing import list_inputs
from curate.isolation import Limits
from curate.job import (
    about_limits,
    check_memory,
    inputs_of_run,
    kept_clips,
    open_engine,
    recipe_of_run,
)
from curate.query import check_run, last_run
from curate.recipe import build
from curate.records import InputRef, Outcome
from curate.tables import Corpus
from curate.watch.listener import JobListener


@dataclass(frozen=True)
class RetryResult:
    """What a retry did. ``run`` is None where nothing that failed was asked for; counts are of matching failures."""

    run: RunResult | None
    n_before: int
    n_after: int


def retry_job(
    corpus: Corpus,
    again: Again,
    listener: JobListener,
    *,
    run_id: str = "",
    engine: str = "ray",
    address: str | None = None,
    limits: Limits | None = None,
) -> RetryResult:
    """Compute again what failed in a run (the last complete one) and is asked for, and whatever else is missing there.

    Only stages that the run was to compute are tried. Files that failed are listed anew: one that was replaced is read
    as it is now. ConfigError for a run or stage that is not there, MissingModelError, EngineError.
    """
    corpus.check()
    if run_id:
        check_run(corpus, run_id)
    run_id = run_id or last_run(corpus)
    manifest = corpus.manifest(run_id)
    recipe = recipe_of_run(corpus, run_id)
    pipeline = build(recipe, manifest["requested"])
    tried = {INPUT, pipeline.probe.name, pipeline.cut.name, *pipeline.requested}
    before = _count(failures(corpus, run_id, stage=again.stage), again, tried)
    if not before:
        return RetryResult(None, 0, 0)
    check_ready(pipeline, here=address is None)
    check_memory(pipeline)
    limit = manifest.get("limit") or {}
    only = kept_clips(corpus, limit["where"]) if limit.get("where") else None
    about = about_limits(limits) | {
        "limit": limit,
        "retry": {"of": run_id, "stage": again.stage, "class": again.error_class},
    }
    refs = [_as_it_is_now(ref) if outcome is Outcome.FAILED else ref for ref, outcome in inputs_of_run(corpus, run_id)]
    lacks = recipe.lacks or {}
    request = RunRequest(corpus, pipeline, refs, recipe.name, recipe.to_text(), only, about, again, lacks=lacks)
    opened, run_map = open_engine(engine, address, listener.step, limits)
    try:
        with tempfile.TemporaryDirectory(prefix="curate-") as scratch:
            run = execute(request, opened, run_map, Path(scratch), listener)
    finally:
        opened.close()
    return RetryResult(run, before, _count(failures(corpus, run.run_id, stage=again.stage), again, tried))


def _count(groups: list[FailureGroup], again: Again, tried: set[str]) -> int:
    return sum(g.n for g in groups if g.stage in tried and again.takes(g.stage, g.error_class))


def _as_it_is_now(ref: InputRef) -> InputRef:
    """An input with the size and version that it has by now; as it was where that cannot be found out.

    So is a link: whether it may be followed only the listing of its folder knows. One that is new, or leads elsewhere
    by now, then fails as changed.
    """
    if Path(ref.uri).is_symlink():
        return ref
    with suppress(CurateError):
        found = list_inputs([ref.uri], follow_links=True)
        if [now.uri for now in found] == [ref.uri] and found[0].size_bytes is not None:
            return replace(found[0], user=ref.user)
    return ref
