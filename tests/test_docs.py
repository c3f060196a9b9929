"""The documentation holds what the code does: columns, keys, links. What it tells to run is run in tests/docs."""

from __future__ import annotations

import re
import shlex
import tomllib
from itertools import pairwise
from pathlib import Path

import pytest

from curate.export import ExportConfig
from curate.recipe import build, load_recipe, parse_recipe
from curate.select import Condition, DedupConfig
from curate.stages.registry import BUILT_IN, stage_class

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def blocks(text: str, language: str) -> list[str]:
    """Code blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def values_of(command: str, option: str) -> list[str]:
    """Values of an option of a command line."""
    words = shlex.split(command)
    return [after for before, after in pairwise(words) if before == option]


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_column_is_described_with_its_unit(name):
    section = page("stages.md").split(f"\n## {name}\n")[1].split("\n## ")[0]
    rows = [[cell.strip(" `") for cell in line.split("|")[1:-1]] for line in section.splitlines() if "| `" in line]
    described = {(row[0], row[2]) for row in rows}
    cls = stage_class(name)
    assert described == {(column.name, column.unit) for column in cls.columns}
    assert [field for field in cls.config_type.model_fields if f"`{field}`" not in section] == []


def test_every_recipe_in_the_docs_is_right():
    recipes = [text for path in PAGES for text in blocks(path.read_text(), "yaml")]
    assert recipes
    for text in recipes:
        build(parse_recipe(text, "docs"))


def test_every_set_option_in_the_docs_is_right():
    lines = [line for path in PAGES for text in blocks(path.read_text(), "console") for line in text.splitlines()]
    commands = [line.split(" # ")[0] for line in lines if "--set" in line]
    assert commands
    for command in commands:
        prefix = "select.conditions." if command.startswith("curate select") else ""
        (name,) = values_of(command, "--recipe") or ["embedded"]
        build(load_recipe(name, [prefix + key for key in values_of(command, "--set")]))


def test_every_key_of_selection_and_export_is_named():
    text = page("recipe.md")
    models = (ExportConfig, Condition, DedupConfig)
    names = [field.alias or name for model in models for name, field in model.model_fields.items()]
    names.remove("stage")  # the stage that hashes come from: for stages of one's own
    assert [name for name in names if not re.search(rf"`[^`]*\b{name}\b[^`]*`", text)] == []


def test_every_dependency_has_its_reason():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *(name for extra in project["optional-dependencies"].values() for name in extra),
    ]
    names = {re.split(r"[<>=\[ ]", requirement)[0] for requirement in wanted} - {project["name"]}
    text = page("dependencies.md")
    assert [name for name in names if not re.search(rf"\b{re.escape(name)}\b", text)] == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path):
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text(encoding="utf-8"))
    broken = [target for target in targets if "://" not in target and not (path.parent / target).exists()]
    assert broken == []
