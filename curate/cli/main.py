"""`curate`: the commands, each thin."""

from __future__ import annotations

from typing import Annotated

import typer

from curate import __version__
from curate.cli import corpus, doctor, look, models, recipes, run
from curate.cli.console import out

app = typer.Typer(
    name="curate",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        out.print(f"curate {__version__}")
        raise typer.Exit


@app.callback()
def root(
    _: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """Raw video to a curated, captioned, sharded training corpus.

    Example: `curate run videos/ --out corpus`
    """


app.command("run", epilog=run.EPILOG)(run.run)
app.command("select")(corpus.select_command)
app.command("export")(corpus.export_command)
app.command("verify")(corpus.verify_command)
app.command("forget")(corpus.forget_command)
app.command("stats")(look.stats)
app.command("show")(look.show)
app.command("failures")(look.failures)
app.command("doctor")(doctor.doctor)
app.add_typer(models.app, name="models")
app.add_typer(recipes.app, name="recipes")


def main() -> None:
    """Entry point of the console script."""
    app()


if __name__ == "__main__":
    main()
