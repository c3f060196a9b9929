"""Commands that decide and write: `select`, `export`, `forget`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from curate.cli.console import ending, out, plain
from curate.cli.look import CorpusName, RunName
from curate.cli.tables import print_funnel
from curate.redaction import stored_uri
from curate.units import format_bytes

if TYPE_CHECKING:
    from curate.export import ExportReport

RecipeName = Annotated[str, typer.Option("--recipe", help="Recipe whose rules to use; default the run's own.")]


def select_command(
    corpus: CorpusName,
    recipe: RecipeName = "",
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="COLUMN.KEY=VALUE", help="Change one condition (`text.area_max.max=0.03`)."),
    ] = None,
    name: Annotated[str, typer.Option(help="Name of the new selection; default the recipe's.")] = "",
    like: Annotated[str, typer.Option(help="Apply the absolute thresholds of this earlier selection.")] = "",
    run: RunName = None,
) -> None:
    """Decide again which clips to keep; computes no score.

    Example: `curate select corpus --name strict --set text.area_max.max=0.02`
    """
    from curate.job import select_again
    from curate.tables import Corpus

    with ending():
        print_funnel(out, select_again(Corpus(corpus), recipe, sets or [], name=name, like=like, run_id=run))


def export_command(
    corpus: CorpusName,
    selection: Annotated[str, typer.Option(help="Selection to write; default the recipe's.")] = "",
    recipe: RecipeName = "",
    sets: Annotated[
        list[str] | None, typer.Option("--set", metavar="export.KEY=VALUE", help="Change one key of the export.")
    ] = None,
    engine: Annotated[Literal["ray", "inline"], typer.Option(help="Ray, or this process alone.")] = "inline",
    address: Annotated[str | None, typer.Option(help="An existing Ray cluster.")] = None,
) -> None:
    """Write the kept clips of a selection as shards.

    Example: `curate export corpus --selection strict --set export.crop=letterbox`
    """
    from curate.job import export_again
    from curate.tables import Corpus

    with ending():
        print_export(export_again(Corpus(corpus), selection, recipe, sets or [], engine=engine, address=address))


def print_export(report: ExportReport) -> None:
    """Where the shards are, and what is not in them and why."""
    again = " (unchanged)" if report.reused else ""
    out.print(
        f"[bold]Shards[/] {plain(report.folder)}: {report.n_clips} clips in {report.n_shards} shards, "
        f"{format_bytes(report.size_bytes)}{again}",
        soft_wrap=True,
    )
    for reason, count in report.left_out.items():
        out.print(f"  {count} kept clips in no bucket: {plain(reason)}")
    for hole in report.holes:
        out.print(f"  hole {plain(hole.clip_id)}: {plain(hole.reason)}", soft_wrap=True)


def forget_command(
    corpus: CorpusName,
    source: Annotated[str, typer.Argument(metavar="URI|SHA256", help="A source's URI, or its content's sha256.")],
    reason: Annotated[str, typer.Option(help="Why it is taken down.")],
) -> None:
    """Take a source down: select and export leave it out from now on, verify names shards that still hold it.

    Example: `curate forget corpus s3://bucket/raw/a.mp4 --reason "take-down request 17"`
    """
    from curate.forget import forget
    from curate.tables import Corpus

    with ending():
        gone = forget(Corpus(corpus), stored_uri(source), reason)
        out.print(f"Forgotten: {len(gone.digests)} contents under {len(gone.uris)} names.")
        for name in gone.shard_sets:
            out.print(f"Still in shards {plain(name)}: run `curate select` and `curate export` again.")
