"""`curate models`: which weights there are, bring them here, check them."""

from __future__ import annotations

from typing import Annotated

import typer

from curate.cli.console import EXIT_ERROR, ending, out, plain
from curate.cli.tables import grid
from curate.units import format_bytes
from curate.weights.cards import Card, all_cards, load_card
from curate.weights.store import FileStatus, fetch, model_dir, verify

app = typer.Typer(help="Model weights: list, fetch, verify.", no_args_is_help=True)

Names = Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Cards; all of them when none is named.")]


@app.command("list")
def list_models() -> None:
    """List the model cards and whether their files are on this machine.

    Example: `curate models list`
    """
    with ending():
        table = grid("card", "for", ">size", "licence", "here")
        for card in all_cards():
            here = all(status is FileStatus.OK for status in verify(card).values())
            needed = ", ".join(card.needed_by)
            table.add_row(card.name, needed, format_bytes(card.size_bytes), card.licence, "yes" if here else "no")
        out.print(table)
        out.print(f"Files lie in {plain(model_dir())} (set CURATE_MODELS to change it).", soft_wrap=True)


@app.command("fetch")
def fetch_models(names: Names = None) -> None:
    """Fetch model files and check their digests.

    Example: `curate models fetch` or `curate models fetch pp-ocr-det`
    """
    with ending():
        for card in _cards(names):
            fetch(card, progress=lambda line: out.print(plain(line), soft_wrap=True))
        out.print(f"All files are in {plain(model_dir())}.", soft_wrap=True)


@app.command("verify")
def verify_models(names: Names = None) -> None:
    """Read every model file and compare its digest with the card's; exit status 1 when one is missing or wrong.

    Example: `curate models verify`
    """
    with ending():
        wrong = 0
        for card in _cards(names):
            for name, status in verify(card).items():
                wrong += status is not FileStatus.OK
                out.print(f"{card.name}/{plain(name)}: {status}", soft_wrap=True)
    if wrong:
        out.print("Run `curate models fetch` to bring what is missing or wrong.")
        raise typer.Exit(EXIT_ERROR)


def _cards(names: list[str] | None) -> list[Card]:
    return [load_card(name) for name in names] if names else all_cards()
