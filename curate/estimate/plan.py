"""`curate plan`: list a bucket, try a sample of it with the real job, and say what the whole of it will take."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from curate import __version__
from curate.config import nearest
from curate.engine.pipeline import Pipeline
from curate.errors import InputError, UsageError
from curate.estimate import expect
from curate.estimate.cautions import cautions
from curate.estimate.cluster import Cluster, layout
from curate.estimate.expect import Expectation
from curate.estimate.forecast import Forecast, PassRate, Tried
from curate.estimate.ratios import Bucket, Estimate, Totals, totals
from curate.estimate.sample import SampleSize, chances, draw
from curate.estimate.survey import survey
from curate.estimate.trial import Trial
from curate.ingest.listing import list_inputs
from curate.isolation import Limits
from curate.job import JobOptions, ready_pipeline
from curate.recipe import Recipe
from curate.records import Outcome
from curate.watch.listener import JobListener


@dataclass(frozen=True)
class PlanOptions:
    """What is asked beside sources and recipe. ``cluster`` None: this machine. ``keep``: a folder for the corpus of the
    sample, which is thrown away otherwise. ``speeds``: clips a second of one worker, by stage."""

    sample: SampleSize = field(default_factory=lambda: SampleSize(share=0.01))
    seed: int = 0
    cluster: Cluster | None = None
    engine: str = "ray"
    address: str | None = None
    keep: str = ""
    only_stages: tuple[str, ...] = ()
    follow_links: bool = False
    limits: Limits | None = None
    speeds: Mapping[str, float] = field(default_factory=dict)


def _silent(_done: int, _total: int) -> None:
    """Nobody listens."""


def make_plan(
    sources: Sequence[str],
    recipe: Recipe,
    options: PlanOptions,
    listener: JobListener,
    counted: Callable[[int, int], None] = _silent,
) -> Forecast:
    """Try a sample and foretell the whole. ``counted`` hears how many of how many files were read through.

    UsageError for what a run would refuse too, and where ``keep`` holds runs already; InputError where nothing of the
    sample could be read.
    """
    if options.address is not None and not options.keep:
        fix = "Name a folder or bucket that all its machines can write to, with --keep"
        raise UsageError("does not tell where the sample's corpus may lie", subject="--address", fix=fix)
    job = JobOptions(
        options.keep,
        engine=options.engine,
        address=options.address,
        only_stages=options.only_stages,
        limits=options.limits,
    )
    pipeline = ready_pipeline(recipe, job)
    _check_speeds(pipeline, options.speeds)
    cluster = options.cluster or Cluster.here(_gpus_here(pipeline))
    listener.step("Listing")
    refs = list_inputs(sources, follow_links=options.follow_links)
    found = survey(refs, pipeline, options.limits, counted)
    if not found.refs:
        causes = ", ".join(f"{n} x {name}" for name, n in {**found.failed, **found.skipped}.items())
        raise InputError(f"none of {found.n_inputs} inputs can be read ({causes})", fix="Name other sources")
    n_sample = options.sample.of(len(found.refs))
    likely = chances(found.weights, n_sample)
    sample = draw(likely, options.seed)
    listener.step(f"Trying {n_sample} of {len(found.refs)} sources")
    trial = Trial([found.refs[at] for at in sample], likely[sample], recipe, pipeline, job)
    trial.run(listener)
    bucket = Bucket(found.predictors, sample, likely[sample])
    inline = options.engine == "inline" and options.cluster is None
    lying = layout(pipeline, cluster, len(found.refs), inline=inline)
    total = totals(bucket, trial.measured.families, options.seed)
    tried = (trial.measured, trial.costs(), cluster, lying)
    expected = Expectation(pipeline, found, bucket, total, *tried, recipe.export.shard_bytes, options.speeds)
    return _forecast(expected, recipe, options, trial.wall_s)


def _gpus_here(pipeline: Pipeline) -> int:
    """GPUs of this machine; asked only where there are stages that could use one."""
    if not any(step.stage.resources.gpus > 0 for step in pipeline.asked()):
        return 0
    import torch  # not before a stage wants one: it takes seconds

    return torch.cuda.device_count()


def _check_speeds(pipeline: Pipeline, speeds: Mapping[str, float]) -> None:
    names = [step.stage.name for step in pipeline.asked()]
    for name in speeds:
        if name not in names:
            raise UsageError(f"no stage is called {name!r}, {nearest(name, names)}", subject="--device-speed")


def _forecast(expected: Expectation, recipe: Recipe, options: PlanOptions, wall_s: float) -> Forecast:
    found, total, chosen = expected.survey, expected.totals, expected.bucket.sample
    sizes = found.sizes_bytes
    tried = Tried(
        found.n_inputs,
        len(found.refs),
        float(sizes.sum()),
        found.video_s,
        dict(found.skipped),
        dict(found.failed),
        len(chosen),
        float(sizes[chosen].sum()),
        expected.measured.n_clips,
        options.seed,
        options.engine,
        wall_s,
    )
    rates = expect.passing(expected)
    lanes, stages = expect.lanes(expected), expect.stages(expected)
    slowest = max((lane for lane in lanes if lane.known), key=lambda lane: lane.wall_s)
    own = [stage for stage in stages if stage.lane == slowest.name]
    return Forecast(
        datetime.now(UTC).isoformat(timespec="seconds"),
        __version__,
        recipe.name,
        tried,
        expected.cluster,
        expect.hours(expected),
        lanes,
        max(own, key=lambda stage: stage.busy_s.value).name,
        stages,
        _inputs(expected),
        _ended(expected, "clips"),
        _ended(expected, "video"),
        total.share("clips/kept", "clips/found") if expected.measured.funnel is not None else None,
        _reasons(total),
        tuple(PassRate(name, expected.measured.judges[name], share) for name, share in rates.items()),
        expect.storage(expected),
        tuple(cautions(expected)),
    )


def _inputs(expected: Expectation) -> dict[str, Estimate]:
    """How all inputs will end: those that are known already, and those that the sample stands for."""
    survey = expected.survey
    known = {Outcome.FAILED: sum(survey.failed.values()), Outcome.SKIPPED: sum(survey.skipped.values())}
    ended = {str(end): expected.totals.estimate(f"inputs/{end}").plus(known.get(end, 0)) for end in Outcome}
    if survey.video_s is not None:  # what a run skips shows when the files are read through
        ended[str(Outcome.SKIPPED)] = Estimate(*3 * (float(known[Outcome.SKIPPED]),))
    return ended


def _ended(expected: Expectation, what: str) -> dict[str, Estimate]:
    """Clips, or seconds of video, by how they end; those kept only where a selection was made."""
    ends = ("found", "kept", "dropped", "failed") if expected.measured.funnel is not None else ("found",)
    return {end: expected.totals.estimate(f"{what}/{end}") for end in ends}


def _reasons(total: Totals) -> dict[str, Estimate]:
    """Clips that are not kept by reason, the most frequent first."""
    heads = ("clips/dropped/", "clips/failed/")
    names = [name for name in total.values if name.startswith(heads)]
    names.sort(key=lambda name: -total.values[name])
    return {name.split("/", 2)[2]: total.estimate(name) for name in names}
