"""`curate report`: one HTML file to look at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from curate.cli.bars import Counted
from curate.cli.console import ending, err, out, plain
from curate.cli.look import CorpusName, RunName
from curate.units import format_bytes

if TYPE_CHECKING:
    from curate.report import Written

EPILOG = """
**Examples**

- The latest selection of the last run: `curate report corpus`
- Another selection, into a file of its own: `curate report corpus --selection strict --out strict.html`
- A corpus on an object store; the report goes into its `reports/`: `curate report s3://bucket/corpus`
- Numbers alone, where the sources are out of reach: `curate report corpus --pictures 0`
"""


def report_command(
    corpus: CorpusName,
    run: RunName = None,
    selection: Annotated[
        str | None, typer.Option(metavar="NAME", help="The selection; default the latest over the run.")
    ] = None,
    target: Annotated[
        str, typer.Option("--out", metavar="FILE", help="Path or URI; default `CORPUS/reports/SELECTION.html`.")
    ] = "",
    pictures: Annotated[int, typer.Option(min=0, help="Show so many clips with a picture; 0 for none.")] = 200,
) -> None:
    """One HTML file of a selection: funnel, thresholds to move, clips at each of them, failures, time, recipe.

    It opens from disk without a network. Every count is of all clips; nothing is measured anew.
    """
    from curate.report import write_report
    from curate.tables import Corpus

    with ending():
        with Counted(out, "Sources of pictures") as counted:
            written = write_report(
                Corpus(corpus),
                run_id=run,
                selection=selection,
                out=target or None,
                pictures=pictures,
                step=print_step,
                counted=counted,
            )
        print_report(written)


def print_step(text: str) -> None:
    """A step of the report begins."""
    out.print(plain(f"{text} ..."), soft_wrap=True)


def print_report(written: Written) -> None:
    """Where it lies, and how many of its clips can be seen."""
    if written.n_otherwise:
        clips = "1 clip" if written.n_otherwise == 1 else f"{written.n_otherwise} clips"
        why = f"{clips} would be judged otherwise now: scores or marks changed since the selection."
        text = f"{why} Select again: `{written.again or 'curate select'}`"
        err.print(f"[bold yellow]Outdated[/] {plain(text)}", soft_wrap=True)
    clips = f"{written.n_shown} clips, {written.n_pictures} with a picture"
    size = format_bytes(written.size_bytes)
    out.print(f"[bold]Report[/] {plain(written.uri)}: {size}, {clips}", soft_wrap=True)
