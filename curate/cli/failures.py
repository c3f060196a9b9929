"""`curate failures`: what failed and why, and the command that repeats one failure alone."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from curate.cli.console import ending, out, plain
from curate.cli.look import AsJson, CorpusName, RunName
from curate.units import format_bytes, format_duration

if TYPE_CHECKING:
    from curate.failures import FailureExample, FailureGroup

_CLIP_ID_CHARS = 32

StageName = Annotated[
    str, typer.Option("--stage", help="Only of this stage; `input` stands for files that could not be read at all.")
]
ClassName = Annotated[str, typer.Option("--class", help="Only of this error class.")]


def failures(
    corpus: CorpusName,
    run: RunName = None,
    every: Annotated[
        bool, typer.Option("--all", help="All that is in the tables, of any run, complete or not.")
    ] = False,
    stage: StageName = "",
    error_class: ClassName = "",
    examples: Annotated[int, typer.Option(min=1, help="Examples of each class.")] = 3,
    traceback: Annotated[bool, typer.Option("--traceback", help="Tracebacks, attempts, hosts and memory too.")] = False,
    as_json: AsJson = False,
) -> None:
    """What failed, by stage and class, with examples, and the command that repeats one alone.

    Example: `curate failures corpus --stage motion --traceback`
    """
    from curate.failures import failures as failures_of
    from curate.tables import Corpus

    with ending():
        if every and run:
            raise typer.BadParameter("it is either one run or all", param_hint="--all")
        place = Corpus(corpus)
        place.check()
        groups = failures_of(place, run, every=every or not (run or place.run_ids()), stage=stage, examples=examples)
        found = [group for group in groups if error_class in {"", group.error_class}]
        if as_json:
            typer.echo(json.dumps([asdict(group) for group in found]))
            return
        if not found:
            _print_nothing(groups, error_class)
        for group in found:
            _print_group(group, details=traceback)
        if found and not every:
            out.print(f"Compute them again: curate retry {plain(shlex.quote(corpus))}", soft_wrap=True)


def _print_nothing(groups: Sequence[FailureGroup], error_class: str) -> None:
    classes = sorted({group.error_class for group in groups})
    other = f" as {plain(error_class)}; there are {plain(', '.join(classes))}" if classes else ""
    out.print(f"Nothing failed{other}.", soft_wrap=True)


def _print_group(group: FailureGroup, *, details: bool) -> None:
    out.print(f"[bold]{group.n} x {plain(group.error_class)}[/] in {plain(group.stage)}", soft_wrap=True)
    for example in group.examples:
        is_clip = not example.uri.endswith(example.key) and len(example.key) == _CLIP_ID_CHARS
        out.print(f"  {f'clip {plain(example.key)} of ' if is_clip else ''}{plain(example.uri)}", soft_wrap=True)
        out.print(f"    {plain(example.message)}", soft_wrap=True)
        if details:
            _print_details(example)
    if group.n > len(group.examples):
        out.print(f"  and {group.n - len(group.examples)} more", soft_wrap=True)
    if command := next((example.command for example in group.examples if example.command), ""):
        out.print("  The first one alone:" if group.n > 1 else "  It alone:")
        typer.echo(f"    {command}")


def _print_details(example: FailureExample) -> None:
    peak = f", peak memory {format_bytes(example.peak_memory_bytes)}" if example.peak_memory_bytes else ""
    where = f" on {plain(example.host)}" if example.host else ""
    spent = format_duration(example.seconds)
    told = f"attempt {example.attempt}{where}, after {spent}{peak}, in run {plain(example.run_id)}"
    out.print(f"    {told}", soft_wrap=True)
    for line in example.traceback.splitlines():
        out.print(f"      {plain(line)}", soft_wrap=True)
