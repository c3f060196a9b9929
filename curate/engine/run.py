"""A run is passes: plan, execute, plan again from the tables until nothing is missing, at most three times."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import platform
import socket
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import duckdb
import pyarrow as pa

from curate import __version__
from curate.bulk import RunMap
from curate.engine.again import Again, Redo
from curate.engine.fuse import Fuse, MaxFailures
from curate.engine.inputs import failure_row, hash_lookalikes, key_of, known_sources, same_content
from curate.engine.pipeline import Pipeline
from curate.engine.plan import Planner
from curate.engine.rows import RowBuffer
from curate.engine.work import ClipWork, Machines, SourceWork, Summary
from curate.engine.writer import write_bundle
from curate.errors import (
    ClusterError,
    CorpusError,
    DeviceError,
    EngineError,
    TooManyFailuresError,
    WorkerDiedError,
    transient_names,
)
from curate.query import cells_sql, clips_sql, connect, listing_again
from curate.records import InputRef, Outcome
from curate.stage import Stage, failed_cell
from curate.tables import INPUTS, Corpus, cell_schema, parquet_bytes, rows_table

MAX_PASSES = 3
DEAD_PASSES_TO_QUARANTINE = 2
_RUN_TIME = "%Y%m%dT%H%M%S.%fZ"


class Engine(Protocol):
    """What executes one pass."""

    name: str

    def open(self) -> None:
        """There is work: start what the passes need."""
        ...

    def run_pass(
        self, corpus: Corpus, pipeline: Pipeline, works: Sequence[SourceWork], *, run_id: str, single: bool
    ) -> Iterator[Summary]:
        """Give a summary for every bundle that is on disk; EngineError when the pass died."""
        ...

    def in_flight(self) -> set[str]:
        """URIs being read, or that were when the last pass ended. Any thread may ask."""
        ...

    def machines(self) -> Machines:
        """What it works on."""
        ...

    def close(self) -> None:
        """Release workers."""
        ...


class Listener:
    """Hears of a run's progress. Listeners inherit from it: what they do not care for, they leave out."""

    def began(self, run: RunBegan) -> None:
        """The run has its id and its recipe; nothing is planned yet."""

    def planned(self, pass_number: int, works: Sequence[SourceWork]) -> None:
        """A pass begins with this work."""

    def wrote(self, summary: Summary) -> None:
        """A bundle is on disk."""

    def died(self, error: EngineError) -> None:
        """A pass died; another follows."""

    def quarantined(self, works: Sequence[SourceWork], summary: Summary) -> None:
        """Sources were in flight in two dead passes: they are recorded as failed, as the summary tells."""

    def complete(self, result: RunResult) -> None:
        """All is computed, and the manifest is written."""


@dataclass
class RunRequest:
    """What to run. ``only_clips`` limits it to clips of a selection; ``about`` goes into the manifest as it is.

    ``again`` takes failures that count as missing although their reason is lasting (`curate retry`). ``lacks`` is what
    the recipe says it does not do of the one that it follows.
    """

    corpus: Corpus
    pipeline: Pipeline
    refs: Sequence[InputRef]
    recipe_name: str
    recipe_text: str
    only_clips: frozenset[str] | None = None
    about: Mapping[str, Any] = field(default_factory=dict)
    again: Again | None = None
    max_failures: MaxFailures | None = None
    lacks: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RunBegan:
    """A run that has begun."""

    run_id: str
    at: datetime
    request: RunRequest
    engine: Engine


@dataclass(frozen=True)
class RunResult:
    """A complete run. ``lacks``: what of the recipe that its own follows was not done, and why."""

    run_id: str
    counts: dict[str, Any]
    seconds: float
    stage_seconds: Mapping[str, float]
    stand_ins: Mapping[str, str]
    lacks: Mapping[str, str] = field(default_factory=dict)


def execute(request: RunRequest, engine: Engine, run_map: RunMap, scratch: Path, listener: Listener) -> RunResult:
    """Compute all that is missing, then write the run's folder, manifest last.

    EngineError when something is still missing after the last pass, the cluster is too small for the recipe, or more
    sources failed than ``max_failures`` allows. KeyboardInterrupt leaves finished work in place. The recipe is there
    from the start: a failure of a run that did not complete can be looked into.
    """
    began = datetime.now(UTC)
    run_id = _run_id(request, began)
    request.corpus.runs().child(run_id, "recipe.yaml").write_text(request.recipe_text)
    listener.began(RunBegan(run_id, began, request, engine))
    try:
        with connect() as con:
            known = known_sources(con, request.corpus)
            hash_lookalikes(request.corpus, request.refs, known, scratch, run_map)
            total = _passes(con, request, engine, run_id, listener)
            counts = _write_run(con, request, engine.name, run_id, began, total)
    except duckdb.Error as error:
        raise CorpusError(
            f"a table cannot be read: {error}", subject=request.corpus.uri, fix="Remove the damaged part and run again"
        ) from error
    seconds = (datetime.now(UTC) - began).total_seconds()
    result = RunResult(run_id, counts, seconds, total.stage_seconds, stand_ins(request.pipeline), request.lacks)
    listener.complete(result)
    return result


def _passes(
    con: duckdb.DuckDBPyConnection, request: RunRequest, engine: Engine, run_id: str, listener: Listener
) -> Summary:
    total, deaths, death = Summary(), Counter[str](), None
    fuse = Fuse(request.max_failures, request.corpus.uri)
    for number in range(1, MAX_PASSES + 1):
        works = _plan(con, request, Redo(frozenset(transient_names()), request.again, run_id))
        if not works:
            return total
        engine.open()
        listener.planned(number, works)
        fuse.planned(works)
        single = death is not None
        try:
            with closing(_pass(request, engine, works, run_id, single=single)) as summaries:
                for summary in summaries:
                    total.add(summary)
                    listener.wrote(summary)
                    fuse.heard(summary)
        except (ClusterError, DeviceError, TooManyFailuresError):
            raise
        except EngineError as error:
            death = error
            deaths.update(engine.in_flight())
            listener.died(error)
            killers = [work for work in works if deaths[work.ref.uri] >= DEAD_PASSES_TO_QUARANTINE]
            if killers:
                quarantined = _quarantine(request, killers, run_id)
                listener.quarantined(killers, quarantined)
                fuse.heard(quarantined)
    left = _plan(con, request, Redo(frozenset(), request.again, run_id))
    if left:
        names = ", ".join(work.ref.uri for work in left[:3])
        why = f"; why the last one died: {death.message}" if death else ""
        raise EngineError(
            f"{len(left)} sources are still not done after {MAX_PASSES} passes ({names} ...){why}",
            fix="Run the same command again: it goes on with what is missing",
        )
    return total


def _pass(
    request: RunRequest, engine: Engine, works: Sequence[SourceWork], run_id: str, *, single: bool
) -> Generator[Summary]:
    yield from engine.run_pass(request.corpus, request.pipeline, works, run_id=run_id, single=single)


@listing_again
def _plan(con: duckdb.DuckDBPyConnection, request: RunRequest, redo: Redo) -> list[SourceWork]:
    planner = Planner(con, request.corpus, request.pipeline, request.refs, request.only_clips, redo)
    return planner.plan(known_sources(con, request.corpus))


def _quarantine(request: RunRequest, killers: Sequence[SourceWork], run_id: str) -> Summary:
    """Sources in flight in two dead passes are recorded as failed and not tried again."""
    error = WorkerDiedError(
        f"was being read in {DEAD_PASSES_TO_QUARANTINE} passes whose workers died",
        fix="Look at the file alone: `curate run FILE --engine inline`",
    )
    rows = RowBuffer(request.pipeline, host=socket.gethostname(), run_id=run_id)
    for work in killers:
        if work.clips is not None:
            for stage, clip_id in _lacking(request.pipeline, work.clips):
                attempt = work.attempts.get((stage.name, clip_id), 0) + 1
                rows.add_cell(stage, failed_cell(clip_id, error, 0.0, attempt), work.digest or "")
        elif work.digest is not None:
            rows.add_cell(request.pipeline.cut, failed_cell(work.digest, error, 0.0, work.attempt))
        else:
            rows.add_source(failure_row(work.ref, error, attempt=work.attempt))
    return write_bundle(request.corpus, rows.take())


def _lacking(pipeline: Pipeline, clips: Sequence[ClipWork]) -> Iterator[tuple[Stage[Any], str]]:
    for step in pipeline.steps:
        yield from ((step.stage, work.clip.clip_id) for work in clips if step.stage.name in work.missing)


def _run_id(request: RunRequest, began: datetime) -> str:
    """Ids sort in the order in which runs began, also when the clock went back: then by a microsecond past the last."""
    digest = hashlib.sha256(request.recipe_text.encode()).hexdigest()[:6]
    for name in reversed(request.corpus.runs().folders()):
        try:
            last = datetime.strptime(name.partition("-")[0], _RUN_TIME).replace(tzinfo=UTC)
        except ValueError:
            continue  # not one of ours
        began = max(began, last + timedelta(microseconds=1))
        break
    return f"{began:{_RUN_TIME}}-{digest}"


def _write_run(
    con: duckdb.DuckDBPyConnection,
    request: RunRequest,
    engine: str,
    run_id: str,
    began: datetime,
    total: Summary,
) -> dict[str, Any]:
    folder = request.corpus.runs().child(run_id)
    rows = _input_rows(con, request)
    scored = {row["source_digest"] for row in rows if row["outcome"] == "ok"}
    counts = {
        "inputs": dict(Counter(row["outcome"] for row in rows)),
        "sources_read": total.sources,
        "clips_scored": total.clips,
        "cells_failed": _count_failed(con, request, scored),
    }
    inputs = parquet_bytes(rows_table(INPUTS, rows))
    folder.child("inputs.parquet").write_bytes(inputs)
    files = {"inputs.parquet": inputs, "recipe.yaml": request.recipe_text.encode()}
    manifest = {
        "run_id": run_id,
        "recipe": request.recipe_name,
        "complete": True,
        "started_at": began.isoformat(),
        "finished_at": datetime.now(UTC).isoformat(),
        "engine": engine,
        "tool_version": __version__,
        "stages": request.pipeline.manifest_stages(),
        "requested": sorted(request.pipeline.requested),
        "stand_ins": stand_ins(request.pipeline),
        "lacks": dict(request.lacks),
        "gates": request.pipeline.manifest_gates(),
        "models": {s.name: dict(s.model_digests()) for _, s, _ in request.pipeline.stages() if s.model_digests()},
        "libraries": _libraries(),
        "machine": {"platform": platform.platform(), "python": platform.python_version()},
        "counts": counts,
        "files": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
        "cpu_seconds": total.cpu_s,
        "stage_seconds": total.stage_seconds,
        "stage_use": {name: asdict(use) for name, use in total.stage_use.items()},
        **request.about,
    }
    folder.child("manifest.json").write_text(json.dumps(manifest, indent=1, default=str) + "\n")
    return counts


@listing_again
def _input_rows(con: duckdb.DuckDBPyConnection, request: RunRequest) -> list[dict[str, Any]]:
    """How every input of the run ended."""
    known = known_sources(con, request.corpus)
    twins = same_content(request.refs, known)
    pipe = request.pipeline
    broken = _failed_cells(con, request.corpus, pipe.cut, pipe.cut_fingerprint)
    broken |= _failed_cells(con, request.corpus, pipe.probe, pipe.probe_fingerprint)
    rows = []
    for ref in request.refs:
        found = known.get(key_of(ref))
        outcome, cause = Outcome.OK, ""
        if ref.cause:
            outcome, cause = Outcome.SKIPPED, ref.cause
        elif ref.uri in twins:
            outcome, cause = Outcome.SKIPPED, f"same content as {twins[ref.uri]}"
        elif found and found.digest in broken:
            outcome, cause = Outcome.FAILED, broken[found.digest]
        elif found and found.digest is None:
            outcome, cause = Outcome.FAILED, found.error_message
        rows.append(
            {
                "uri": ref.uri,
                "size_bytes": ref.size_bytes,
                "version": ref.version,
                "source_digest": found.digest if found else None,
                "outcome": str(outcome),
                "cause": cause,
                "user": list(ref.user.items()),
            }
        )
    return rows


@listing_again
def _count_failed(con: duckdb.DuckDBPyConnection, request: RunRequest, digests: set[str | None]) -> int:
    """Failed cells of the run's clips in the stages that it asked for, computed now or before."""
    pipe = request.pipeline
    con.register("counted", pa.table({"digest": pa.array([d for d in digests if d], pa.string())}))
    con.register("chosen", pa.table({"clip_id": pa.array(sorted(request.only_clips or ()), pa.string())}))
    clips = clips_sql(con, request.corpus, pipe.cut.name, pipe.cut_fingerprint, cell_schema(pipe.cut))
    own = f"select clip_id from ({clips}) where source_digest in (select digest from counted)"
    if request.only_clips is not None:
        own += " and clip_id in (select clip_id from chosen)"
    total = 0
    for step in pipe.steps:
        if step.stage.name in pipe.requested:
            cells = cells_sql(con, request.corpus, step.stage.name, step.fingerprint, cell_schema(step.stage))
            sql = f"select count(*) from ({cells}) where outcome = 'failed' and key in ({own})"
            total += con.execute(sql).fetchall()[0][0]
    return total


def _failed_cells(
    con: duckdb.DuckDBPyConnection, corpus: Corpus, stage: Stage[Any], fingerprint: str
) -> dict[str, str]:
    cells = cells_sql(con, corpus, stage.name, fingerprint, cell_schema(stage))
    rows = con.execute(f"select key, error_message from ({cells}) where outcome = 'failed'").fetchall()
    return dict(rows)


@functools.cache
def _libraries() -> dict[str, str]:
    names = ["av", "duckdb", "numpy", "onnxruntime", "opencv-python-headless", "pyarrow", "rapidocr", "ray"]
    names += ["scenedetect", "torch", "transformers", "tokenizers", "open_clip_torch", "easyocr", "safetensors", "gguf"]
    found = {}
    for name in names:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def stand_ins(pipeline: Pipeline) -> dict[str, str]:
    """What the requested stages cannot do without bigger models, by stage."""
    steps = [step.stage for step in pipeline.steps if step.stage.name in pipeline.requested]
    return {stage.name: stage.stand_in for stage in steps if stage.stand_in}
