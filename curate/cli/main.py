"""`curate`: the commands, each thin."""

from __future__ import annotations

import signal
from typing import Annotated

import typer

from curate import __version__
from curate.cli import (
    compact,
    corpus,
    diff,
    doctor,
    failures,
    latents,
    look,
    models,
    plan,
    recipes,
    report,
    retry,
    run,
    sample,
    status,
    train,
    unpack,
    verify,
    view,
)
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


app.command("plan", epilog=plan.EPILOG)(plan.plan)
app.command("run", epilog=run.EPILOG)(run.run)
app.command("select")(corpus.select_command)
app.command("export")(corpus.export_command)
app.command("unpack")(unpack.unpack_command)
app.command("verify")(verify.verify_command)
app.command("compact")(compact.compact_command)
app.command("forget")(corpus.forget_command)
app.command("stats")(look.stats)
app.command("show")(look.show)
app.command("report", epilog=report.EPILOG)(report.report_command)
app.command("view")(view.view)
app.command("diff", epilog=diff.EPILOG)(diff.diff_command)
app.command("status")(status.status_command)
app.command("failures")(failures.failures)
app.command("retry")(retry.retry)
app.command("latents")(latents.latents_command)
app.command("train", epilog=train.EPILOG)(train.train_command)
app.command("sample", epilog=sample.EPILOG)(sample.sample_command)
app.command("doctor")(doctor.doctor)
app.add_typer(models.app, name="models")
app.add_typer(recipes.app, name="recipes")


def main() -> None:
    """Entry point of the console script. SIGTERM (a scheduler that wants the machine back) stops it like Ctrl-C."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    app()


if __name__ == "__main__":
    main()
