"""`curate recipes`: which recipes there are, what is in them, whether one's own is right."""

from __future__ import annotations

from typing import Annotated

import typer

from curate.cli.console import ending, out, plain
from curate.cli.tables import grid
from curate.datafiles import parse_yaml, read_text, recipe_files

app = typer.Typer(help="Recipes: list, show, validate.", no_args_is_help=True)

RecipeName = Annotated[str, typer.Argument(help="A recipe that ships with the package, or a YAML file.")]
Sets = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one key; may be repeated.")]


@app.command("list")
def list_recipes() -> None:
    """List the recipes that ship with the package.

    Example: `curate recipes list`
    """
    with ending():
        table = grid("recipe", "what it does")
        for name, path in recipe_files().items():
            described = parse_yaml(read_text(path), path.name)["description"]
            table.add_row(plain(name), plain(" ".join(described.split())))
        out.print(table)


@app.command("show")
def show_recipe(recipe: RecipeName, sets: Sets = None) -> None:
    """Print a recipe with all its defaults, after `--set`: a file to begin one's own with.

    Example: `curate recipes show embedded --set cut.min_len_s=2 > mine.yaml`
    """
    from curate.recipe import build, load_recipe

    with ending():
        loaded = load_recipe(recipe, sets or [])
        pipeline = build(loaded)
        typer.echo(loaded.to_text())
        typer.echo("# The fingerprint of each stage, and the columns it writes:")
        for _, stage, fingerprint in pipeline.stages():
            typer.echo(f"# {stage.name} {fingerprint}: {', '.join(column.name for column in stage.columns)}")


@app.command("validate")
def validate_recipe(recipe: RecipeName, sets: Sets = None) -> None:
    """Check a recipe; exit status 2 and the reason when it is wrong.

    Example: `curate recipes validate mine.yaml`
    """
    from curate.recipe import build, load_recipe

    with ending():
        pipeline = build(load_recipe(recipe, sets or []))
        names = ", ".join(stage.name for _, stage, _ in pipeline.stages())
        out.print(f"{plain(recipe)} is right: {names}", soft_wrap=True)
