"""`curate run`: sources in, shards and a report out."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from curate.cli.bars import Counted
from curate.cli.console import EXIT_FAILURES, ending, err, out, plain
from curate.cli.corpus import print_export
from curate.cli.report import print_report, print_step
from curate.cli.tables import print_failures, print_funnel, print_stand_ins
from curate.units import format_duration

if TYPE_CHECKING:
    from curate.engine.fuse import MaxFailures
    from curate.engine.room import Room
    from curate.isolation import Limits
    from curate.job import JobOptions, JobResult

EPILOG = """
**Examples**

- A folder: `curate run videos/ --out corpus`
- A bucket, on a Ray cluster: `curate run s3://bucket/raw --out s3://bucket/corpus --address auto`
- A list with titles and licences: `curate run list.csv --out corpus`
- Other thresholds later, nothing computed again: `curate select corpus --set text.area_max.max=0.03`
- Stop early when a bucket is not what you thought: `curate run videos/ --out corpus --max-failures 5%`
- Look first: `curate run videos/ --out corpus --sample 0.01 --engine inline`
- For machines that watch: `curate run videos/ --out corpus --log-json run.jsonl --metrics-port 9102`

**Exit status**: 0 complete (failures are printed), 1 could not be completed, 2 wrong usage, 3 something failed and
`--strict` was given, or everything failed, 4 stopped (the same command goes on from there).
"""

Sources = Annotated[
    list[str] | None,
    typer.Argument(metavar="SOURCE...", help="Files, folders, globs, lists (.txt .csv .parquet), tars, or URIs."),
]
Stages = Annotated[
    list[str] | None,
    typer.Option(metavar="PATTERN", help="Compute only stages whose name matches, and what they read."),
]
FailureLimit = Annotated[
    str,
    typer.Option(
        metavar="N|SHARE",
        help="End the run, with status 1, once more sources than this failed: a number (`20`), or a share of those "
        "read so far (`5%`; judged from 50 sources on).",
    ),
]
WaitFor = Annotated[
    str, typer.Option(metavar="CPU=N,GPU=N", help="Wait until the cluster has these; one that grows is asked.")
]
DecodeMemory = Annotated[float, typer.Option(min=0, help="Memory that decoding one source may take; 0 for no limit.")]
DecodeSeconds = Annotated[
    float, typer.Option(min=1, help="Seconds that decoding a short source may take; longer ones get more.")
]

LogFile = Annotated[
    str, typer.Option(metavar="FILE", help="Add a JSON object a line for every event; `-` for standard error.")
]
MetricsPort = Annotated[
    int | None, typer.Option(min=0, max=65535, help="Serve metrics for Prometheus on this port; 0 for any free one.")
]


def run(
    sources: Sources = None,
    corpus: Annotated[str, typer.Option("--out", metavar="CORPUS", help="Folder or URI of the corpus.")] = "",
    recipe: Annotated[str, typer.Option(help="A recipe's name, or a YAML file.")] = "embedded",
    sets: Annotated[
        list[str] | None, typer.Option("--set", metavar="STAGE.KEY=VALUE", help="Change one key of the recipe.")
    ] = None,
    stages: Stages = None,
    where: Annotated[str, typer.Option(metavar="SELECTION", help="Compute only for its kept clips.")] = "",
    limit: Annotated[int | None, typer.Option(min=1, help="Take only the first N inputs.")] = None,
    sample: Annotated[float | None, typer.Option(min=0, max=1, help="Take this share of the inputs.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of `--sample`.")] = 0,
    engine: Annotated[Literal["ray", "inline"], typer.Option(help="Ray, or this process alone.")] = "ray",
    address: Annotated[str | None, typer.Option(help="An existing Ray cluster (`auto`, `ray://...`).")] = None,
    wait_for: WaitFor = "",
    strict: Annotated[bool, typer.Option("--strict", help="End with status 3 when anything failed.")] = False,
    follow_links: Annotated[bool, typer.Option("--follow-links", help="Take links that leave a folder.")] = False,
    no_export: Annotated[bool, typer.Option("--no-export", help="Write no shards.")] = False,
    no_report: Annotated[bool, typer.Option("--no-report", help="Write no `reports/SELECTION.html`.")] = False,
    max_failures: FailureLimit = "",
    decode_memory_gb: DecodeMemory = 4.0,
    decode_s: DecodeSeconds = 60.0,
    log_json: LogFile = "",
    metrics_port: MetricsPort = None,
    metrics_host: Annotated[str, typer.Option(help="Address to serve metrics on.")] = "127.0.0.1",
) -> None:
    """Score every clip of the sources, select, and write training shards.

    Whatever was computed before is not computed again: the same command resumes, and a changed recipe computes what
    changed.
    """
    with ending():
        from curate.cli.progress import watched
        from curate.job import JobOptions, run_job
        from curate.recipe import load_recipe
        from curate.watch.watching import WatchOptions

        if not corpus:
            raise typer.BadParameter("say where the corpus is to lie", param_hint="--out")
        options = JobOptions(
            out=corpus,
            engine=engine,
            address=address,
            room=_room(wait_for, address),
            only_stages=tuple(stages or ()),
            where=where,
            limit=limit,
            sample=sample,
            seed=seed,
            follow_links=follow_links,
            export=not no_export,
            max_failures=_failure_limit(max_failures),
            limits=_decode_limits(decode_memory_gb, decode_s),
        )
        with watched(out, WatchOptions(log_json, metrics_port, metrics_host)) as listener:
            result = run_job(sources or [], load_recipe(recipe, sets or []), options, listener)
        failed = _print_result(result, options, report=not no_report)
    if _is_fruitless(result, corpus) or (strict and failed):
        raise typer.Exit(EXIT_FAILURES)


def _failure_limit(text: str) -> MaxFailures | None:
    from curate.engine.fuse import MaxFailures

    return MaxFailures.parse(text) if text else None


def _room(text: str, address: str | None) -> Room | None:
    from curate.engine.room import Room

    if text and address is None:
        raise typer.BadParameter("is for a cluster, which --address names", param_hint="--wait-for")
    return Room.parse(text) if text else None


def _decode_limits(memory_gb: float, least_s: float) -> Limits:
    from curate.isolation import Limits

    return Limits(round(memory_gb * 1e9), least_s)


def _is_fruitless(result: JobResult, corpus: str) -> bool:
    why = _nothing_came_of(result)
    if why:
        err.print(f"[bold red]Error[/] {why}. See why with `curate failures {_quoted(corpus)}`", soft_wrap=True)
    return bool(why)


def _nothing_came_of(result: JobResult) -> str:
    """What failed, where that is all there was; empty where anything could be read and measured, kept or not."""
    inputs = result.run.counts["inputs"]
    if inputs.get("failed") and not inputs.get("ok"):
        return f"nothing could be read: every input failed ({inputs['failed']})"
    clips = result.funnel.clips if result.funnel else None
    if clips and clips.failed and clips.failed == clips.found:
        return f"nothing could be judged: every clip failed ({clips.found})"
    return ""


def _quoted(corpus: str) -> str:
    return plain(shlex.quote(corpus))


def _print_result(result: JobResult, options: JobOptions, *, report: bool) -> int:
    from curate.failures import failures
    from curate.tables import Corpus

    run_result = result.run
    inputs = run_result.counts["inputs"]
    failed = inputs.get("failed", 0) + run_result.counts["cells_failed"]
    out.print(f"Run {run_result.run_id} is complete after {format_duration(run_result.seconds)}.", soft_wrap=True)
    if result.funnel is not None:
        print_funnel(out, result.funnel)
    if result.export is not None:
        print_export(result.export)
    print_stand_ins(out, run_result.stand_ins, run_result.lacks)
    if failed:
        print_failures(out, failures(Corpus(options.out), run_result.run_id))
    if result.funnel is not None and report:
        _report(result, options)
    _print_next(options.out, failed=bool(failed), exported=result.export is not None)
    return failed


def _report(result: JobResult, options: JobOptions) -> None:
    from curate.job import report_job

    with Counted(out, "Sources of pictures") as counted:
        written = report_job(result, options, print_step, counted)
    if isinstance(written, str):
        text = f"The report could not be written: {written}. Try `curate report {shlex.quote(options.out)}`"
        err.print(f"[yellow]{plain(text)}[/]", soft_wrap=True)
    else:
        print_report(written)


def _print_next(corpus: str, *, failed: bool, exported: bool) -> None:
    hints = {"stats": "scores, thresholds, what each filter drops"}
    hints |= {"failures": "what failed, and why"} if failed else {}
    hints |= {"verify": "check every shard"} if exported else {"export": "write the kept clips as shards"}
    out.print("[bold]Look next[/]")
    for command, what in hints.items():
        out.print(f"  curate {command:<9} {_quoted(corpus)}   {what}", soft_wrap=True)
