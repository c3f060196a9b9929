"""Where recipes and model cards lie: package data of an installed wheel, top-level folders of a checkout."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from curate.errors import StorageError


def find_data_dir(kind: Literal["models", "pipelines"]) -> Path:
    """Folder of the model cards or of the recipes; StorageError when this installation has none."""
    package = Path(__file__).resolve().parent
    packed, checkout = package / "_data" / kind, package.parent
    if packed.is_dir():
        return packed
    # A folder of that name beside an installed package could be anybody's: only a checkout has the project file too.
    if (checkout / "pyproject.toml").is_file() and (checkout / kind).is_dir():
        return checkout / kind
    raise StorageError(f"this installation carries no {kind}", subject=str(package), fix="Install curate-video again")


def recipe_files() -> dict[str, Path]:
    """Recipes that ship with the package, by name."""
    return {path.stem: path for path in sorted(find_data_dir("pipelines").glob("*.yaml"))}
