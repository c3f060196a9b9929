"""The main job from sources to shards: list, score, select, export. What `curate run` does."""

from __future__ import annotations

import json
import random
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypedDict

from curate.bulk import RunMap, inline_map
from curate.config import nearest
from curate.engine.fuse import MaxFailures
from curate.engine.inline import InlineEngine
from curate.engine.on_demand import RayOnDemand
from curate.engine.pipeline import Pipeline
from curate.engine.ready import check_ready
from curate.engine.room import Room
from curate.engine.run import Engine, RunRequest, RunResult, execute
from curate.errors import ConfigError, UsageError
from curate.export import ExportConfig, ExportReport, export
from curate.export.rows import ACTIVE
from curate.ingest.listing import list_inputs
from curate.isolation import Limits
from curate.media.views import estimated_bytes
from curate.query import check_run, column_names, last_run, run_stages
from curate.recipe import Recipe, build, load_recipe, parse_recipe
from curate.records import InputRef, Outcome
from curate.report import Reading, Written, write_report
from curate.select import BucketOf, Funnel, load_funnel, select
from curate.shards.buckets import bucket_of
from curate.stage import boundary
from curate.storage import Place
from curate.tables import TIMES, Corpus, kept_ids, read_parquet
from curate.units import format_bytes
from curate.watch.listener import JobListener

MAX_VIEW_BYTES = 256 << 20
"""Views of the longest clip that a worker may have to hold (DESIGN section 2)."""


@dataclass(frozen=True)
class JobOptions:
    """What the command line says beside recipe and sources.

    ``room`` is what the cluster at ``address`` must have. ``sample`` is a share of the inputs, drawn with ``seed``.
    ``where`` names a selection whose kept clips alone are computed. ``export`` False stops after the selection.
    """

    out: str
    engine: str = "ray"
    address: str | None = None
    room: Room | None = None
    only_stages: tuple[str, ...] = ()
    where: str = ""
    limit: int | None = None
    sample: float | None = None
    seed: int = 0
    follow_links: bool = False
    export: bool = True
    max_failures: MaxFailures | None = None
    limits: Limits | None = None


@dataclass(frozen=True)
class JobTimes:
    """Seconds of the steps of a job (``scoring``, ``selecting``, ``writing``): on the clock, and CPU seconds of all its
    workers together where the run's manifest does not say."""

    wall_s: dict[str, float] = field(default_factory=dict)
    cpu_s: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def taking(self, step: str) -> Iterator[None]:
        """Time what is done inside."""
        began = time.perf_counter()
        yield
        self.wall_s[step] = time.perf_counter() - began

    def write(self, corpus: Corpus, run_id: str) -> None:
        """Keep them with the run."""
        corpus.runs().child(run_id, TIMES).write_text(json.dumps(asdict(self), indent=1) + "\n")


def read_times(corpus: Corpus, run_id: str) -> JobTimes:
    """The times of the job that made a run; empty where none were kept."""
    place = corpus.runs().child(run_id, TIMES)
    return JobTimes(**json.loads(place.read_text())) if place.exists() else JobTimes()


@dataclass(frozen=True)
class JobResult:
    """What a job did. Selection and export are None where it only computed stages: for a selection's clips, or not all
    that the recipe's selection and export read. ``addresses`` says where to read sources that are only reached with a
    secret. ``times`` are also kept with the run."""

    run: RunResult
    funnel: Funnel | None
    export: ExportReport | None
    addresses: Mapping[str, str] = field(default_factory=dict, repr=False)
    times: JobTimes = field(default_factory=JobTimes)


def run_job(sources: Sequence[str], recipe: Recipe, options: JobOptions, listener: JobListener) -> JobResult:
    """List, score, select, export. Everything that can be refused is refused before a video is read."""
    pipeline = ready_pipeline(recipe, options)
    refs = _inputs(Corpus(options.out), sources, options)
    return run_inputs(refs, recipe, pipeline, options, listener)


def ready_pipeline(recipe: Recipe, options: JobOptions) -> Pipeline:
    """What a job is to compute; refused where this machine could not. ConfigError, MissingModelError."""
    pipeline = build(recipe, options.only_stages)
    check_ready(pipeline, here=options.address is None)
    check_memory(pipeline)
    return pipeline


def run_inputs(
    refs: Sequence[InputRef], recipe: Recipe, pipeline: Pipeline, options: JobOptions, listener: JobListener
) -> JobResult:
    """The job for inputs that are listed already."""
    corpus = Corpus(options.out)
    user_keys = sorted({key for ref in refs for key in ref.user})
    check_columns(recipe, pipeline, user_keys, exports=options.export)
    corpus.create()
    _check_writable(corpus)
    only = kept_clips(corpus, options.where) if options.where else None
    limits = {"about": _about(options), "max_failures": options.max_failures, "lacks": recipe.lacks or {}}
    request = RunRequest(corpus, pipeline, refs, recipe.name, recipe.to_text(), only, **limits)
    engine, run_map = open_engine(options.engine, options.address, listener.step, options.limits, options.room)
    times, funnel, shards = JobTimes(), None, None
    addresses = {ref.uri: ref.address for ref in refs if ref.address}
    try:
        with tempfile.TemporaryDirectory(prefix="curate-") as scratch, times.taking("scoring"):
            run = execute(request, engine, run_map, Path(scratch), listener)
        if not options.where and stages_read(recipe, pipeline) <= pipeline.requested:
            listener.step("Selecting")
            with times.taking("selecting"):
                funnel = select(corpus, recipe.select, run_id=run.run_id, **_buckets(recipe.export))
            listener.selected(funnel)
        if funnel is not None and options.export:
            listener.step("Writing shards")
            more = {"addresses": addresses, "limits": options.limits}
            with times.taking("writing"):
                shards = export(corpus, recipe.select.name, recipe.export, run_map=run_map, **more)
            times.cpu_s["writing"] = shards.cpu_s
            listener.exported(shards)
        times.write(corpus, run.run_id)
        return JobResult(run, funnel, shards, addresses, times)
    finally:
        engine.close()


def report_job(
    done: JobResult, options: JobOptions, step: Callable[[str], None], counted: Callable[[int, int], None]
) -> Written | str:
    """Write the report of a job whose engine is closed. One that cannot be written fails no job, since all that it
    shows is there: then this is the reason."""
    assert done.funnel is not None
    with boundary() as caught:
        return write_report(
            Corpus(options.out),
            selection=done.funnel.name,
            reading=Reading(done.addresses, options.limits),
            step=step,
            counted=counted,
        )
    return " ".join(str(caught.error).split())


def select_again(
    corpus: Corpus, recipe: str, overrides: Sequence[str], *, name: str = "", like: str = "", run_id: str | None = None
) -> Funnel:
    """A new selection over a run that is there. Keys of ``overrides`` that name a column change its condition."""
    corpus.check()
    run_id = run_id or last_run(corpus)
    keys = [key if key.startswith(("select.", "export.")) else f"select.conditions.{key}" for key in overrides]
    chosen = _recipe_of(corpus, recipe, run_id, keys)
    config = chosen.select.model_copy(update={"name": name}) if name else chosen.select
    return select(corpus, config, run_id=run_id, like=like or None, **_buckets(chosen.export))


def export_again(
    corpus: Corpus, selection: str, recipe: str, overrides: Sequence[str], *, engine: str, address: str | None
) -> ExportReport:
    """Write the shards of a selection; by default that of the last run's recipe."""
    corpus.check()
    run_id = load_funnel(corpus, selection).run_id if selection else last_run(corpus)
    chosen = _recipe_of(corpus, recipe, run_id, overrides)
    opened, run_map = open_engine(engine, address, lambda _text: None)
    try:
        return export(corpus, selection or chosen.select.name, chosen.export, run_map=run_map)
    finally:
        opened.close()


def _recipe_of(corpus: Corpus, recipe: str, run_id: str, overrides: Sequence[str]) -> Recipe:
    return load_recipe(recipe, overrides) if recipe else recipe_of_run(corpus, run_id, overrides)


def recipe_of_run(corpus: Corpus, run_id: str, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe that a complete run followed."""
    check_run(corpus, run_id)
    place = corpus.runs().child(run_id, "recipe.yaml")
    return parse_recipe(place.read_text(), f"recipe of run {run_id}", overrides)


class _Buckets(TypedDict):
    bucket_of: BucketOf
    bucket_config: dict[str, Any]


def _buckets(config: ExportConfig) -> _Buckets:
    """The rule of buckets, for a selection: to ask, and to keep."""
    rule = config.buckets

    def asked(width_px: int, height_px: int, n_frames: int, _fps: float) -> str | None:
        return bucket_of(width_px, height_px, n_frames, rule)[0]

    return {"bucket_of": asked, "bucket_config": rule.model_dump(mode="json")}


def kept_clips(corpus: Corpus, selection: str) -> frozenset[str]:
    """Ids of the clips that a selection keeps."""
    load_funnel(corpus, selection)
    return frozenset(kept_ids(corpus.selections().child(selection, "selection.parquet")).to_pylist())


def open_engine(
    name: str,
    address: str | None,
    say: Callable[[str], None],
    limits: Limits | None = None,
    room: Room | None = None,
) -> tuple[Engine, RunMap]:
    """An engine and the way to run bulk work beside it. Ray starts, and ``say`` hears of it, when there is work.

    ``limits`` are those of decoding a source.
    """
    if name == "inline":
        scratch = Path(tempfile.gettempdir())
        return InlineEngine(scratch, limits), inline_map
    if name != "ray":
        raise UsageError(f"no engine is called {name!r}", fix="Use `ray` or `inline`")
    text = "Starting Ray" if address is None else f"Joining Ray at {address}"
    engine = RayOnDemand(address, lambda: say(f"{text}, waiting for {room}" if room else text), limits, room)
    return engine, engine.map


def check_columns(recipe: Recipe, pipeline: Pipeline, user_keys: Iterable[str], *, exports: bool = True) -> None:
    """ConfigError when the selection, or the export if there is one, reads a column that the run will not have."""
    stages = run_stages(pipeline.manifest_stages())
    valid = set(column_names(stages, user_keys, bookkeeping=True))
    said = {f"user.{key}".lower() for key in user_keys}
    for where, column, fix in _columns_read(recipe):
        is_known = column in valid or (column.startswith("user.") and column.lower() in said)
        if not is_known and (exports or not where.startswith("export.")):
            hint = nearest(column, column_names(stages, user_keys))
            raise ConfigError(f"the run will have no column {column!r}, {hint}", subject=where, fix=fix)


def stages_read(recipe: Recipe, pipeline: Pipeline) -> set[str]:
    """Names of the clip stages whose cells the selection (with the run's gates) and the export read."""
    columns = [recipe.export.motion, *(column for _, column, _ in _columns_read(recipe))]
    names = {step.stage.name for step in pipeline.steps}
    gates = {gate.stage for step in pipeline.steps for gate in step.gates}
    return gates | {name for name in names if any(column.startswith(f"{name}.") for column in columns)}


def _columns_read(recipe: Recipe) -> Iterator[tuple[str, str, str]]:
    """(key of the recipe, column that it names, what to do where there is none)."""
    config, dedup = recipe.export, recipe.select.dedup
    for condition in recipe.select.conditions:
        yield "select.conditions", condition.column, "Correct the name, or add the stage to the recipe"
    method = dedup.method_of({name for name, _ in recipe.stage_entries()})
    if method != "none":
        column = f"{dedup.stage}.phash_first" if method == "hash" else f"{dedup.embedding_stage}.first"
        yield "select.dedup", column, "Add the stage, or say `select.dedup.method: none`"
        if dedup.keep:
            yield "select.dedup.keep", dedup.keep, "Correct the name, or add the stage to the recipe"
    if config.caption:
        yield "export.caption", config.caption, "Add the stage, or say `export.caption: ''` for shards without captions"
    for column in ACTIVE if config.crop == "letterbox" else ():
        yield "export.crop", column, "Add the stage `quality`, which finds the bars"
    for column in config.columns or ():
        yield "export.columns", column, "Correct the name, or add the stage to the recipe"


def check_memory(pipeline: Pipeline) -> None:
    """ConfigError when the views of the longest clip would not fit a worker."""
    longest_s = pipeline.cut.longest_clip_s()
    specs = {
        f"{step.stage.name}/{name}": spec
        for step in pipeline.steps
        if step.stage.name in pipeline.requested
        for name, spec in step.stage.views().items()
    }
    needs_bytes = estimated_bytes(None, specs, longest_s)
    if needs_bytes > MAX_VIEW_BYTES:
        raise ConfigError(
            f"clips of up to {longest_s:g} s would hold {format_bytes(needs_bytes)} of frames on a worker, "
            f"{format_bytes(MAX_VIEW_BYTES)} are allowed",
            subject="cut.max_len_s",
            fix="Set a smaller cut.max_len_s",
        )


def _inputs(corpus: Corpus, sources: Sequence[str], options: JobOptions) -> list[InputRef]:
    if sources:
        refs = list_inputs(sources, follow_links=options.follow_links)
    elif options.where:
        corpus.check()
        refs = [ref for ref, _ in inputs_of_run(corpus, last_run(corpus))]
    else:
        raise UsageError("no sources given", fix="Name files, folders, globs, lists or URIs; see `curate run --help`")
    if options.sample is not None:
        draw = random.Random(options.seed)
        count = max(1, round(options.sample * len(refs)))
        refs = sorted(draw.sample(refs, min(count, len(refs))), key=lambda ref: ref.uri)
    return refs[: options.limit] if options.limit is not None else refs


def inputs_of_run(corpus: Corpus, run_id: str) -> list[tuple[InputRef, Outcome]]:
    """The inputs of a complete run, and how they ended."""
    table = read_parquet(corpus.runs().child(run_id, "inputs.parquet"))
    return [
        (
            InputRef(
                row["uri"],
                row["size_bytes"],
                row["version"],
                row["cause"] if row["outcome"] == Outcome.SKIPPED else "",
                dict(row["user"] or []),
            ),
            Outcome(row["outcome"]),
        )
        for row in table.to_pylist()
    ]


def _check_writable(corpus: Corpus) -> None:
    probe = Place(f"{corpus.root.uri}/.writable")
    probe.write_bytes(b"")
    probe.remove()


def _about(options: JobOptions) -> dict[str, object]:
    limit = {"limit": options.limit, "sample": options.sample, "seed": options.seed, "where": options.where}
    return {"limit": limit, **about_limits(options.limits)}


def about_limits(limits: Limits | None) -> dict[str, object]:
    """What a manifest says of the limits of decoding, where they are not the usual ones."""
    if limits is None or limits == Limits():
        return {}
    return {"decode": {"memory_bytes": limits.memory_bytes, "least_s": limits.least_s}}
