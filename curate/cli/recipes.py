"""`curate recipes`: which recipes there are, what is in them, whether one's own is right."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from curate.cli.console import ending, out, plain
from curate.recipe import build, load_recipe, recipe_files

app = typer.Typer(help="Recipes: list, show, validate.", no_args_is_help=True)

RecipeName = Annotated[str, typer.Argument(help="A recipe that ships with the package, or a YAML file.")]
Sets = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one key; may be repeated.")]


@app.command("list")
def list_recipes() -> None:
    """List the recipes that ship with the package."""
    with ending():
        table = Table("recipe", "what it does", box=None, header_style="bold")
        for name in recipe_files():
            table.add_row(name, " ".join(load_recipe(name).description.split()))
        out.print(table)


@app.command("show")
def show_recipe(recipe: RecipeName, sets: Sets = None) -> None:
    """Print a recipe with all its defaults, after `--set`."""
    with ending():
        loaded = load_recipe(recipe, sets or [])
        pipeline = build(loaded)
        out.print(plain(loaded.to_text()), soft_wrap=True)
        table = Table("stage", "fingerprint", "columns", box=None, header_style="bold")
        for _, stage, fingerprint in pipeline.stages():
            table.add_row(stage.name, fingerprint, ", ".join(column.name for column in stage.columns))
        out.print(table)


@app.command("validate")
def validate_recipe(recipe: RecipeName, sets: Sets = None) -> None:
    """Check a recipe; exit status 2 and the reason when it is wrong."""
    with ending():
        pipeline = build(load_recipe(recipe, sets or []))
        names = ", ".join(stage.name for _, stage, _ in pipeline.stages())
        out.print(f"{plain(recipe)} is right: {names}")
