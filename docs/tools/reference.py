"""Writes the reference from the code: docs/reference/*.md, and the tables of columns in docs/stages.md.

    python docs/tools/reference.py

The files are committed, so that the repository reads as the site does; tests/docs/test_reference.py holds them to the
code.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from types import ModuleType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pyarrow as pa
import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from curate import tables
from curate.cli.main import app
from curate.query import parts
from curate.recipe import GateConfig, Recipe
from curate.select import Condition, output
from curate.shards import writer
from curate.stage import ClipStage
from curate.stages.registry import BUILT_IN, stage_class
from curate.train.recipe import TrainRecipe
from curate.view import ViewSpec

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
BEGUN = "<!-- Written by docs/tools/reference.py; `make reference` writes it anew. -->\n\n"

TABLES: tuple[tuple[str, ModuleType, str, str], ...] = (
    ("SOURCES", tables, "tables/sources/part-*.parquet", ""),
    ("CLIPS", tables, "tables/clips/CUT_FINGERPRINT/part-*.parquet", "One row per clip: its span, and what bounds it."),
    ("TOMBSTONES", parts, "tables/tombstones/part-*.parquet", "One row per source that was taken down."),
    ("INPUTS", tables, "runs/RUN/inputs.parquet", ""),
    ("SELECTION", output, "selections/NAME/selection.parquet", ""),
    ("SIDECAR", writer, "shards/NAME/BUCKET/NNNNNN.parquet", ""),
)
"""Schema, the module that holds it, where the files lie, what a row is where the module does not say it."""

BAR = "\\|"
"""What stands in a table for the sign between its cells."""

UNITS = {
    "bytes": "byte", "px": "px", "s": "s", "fps": "1/s", "pts": "tick of `time_base`", "seconds": "s",
}  # fmt: skip
"""What the end of a column's name says of its unit."""


def main() -> int:
    """Write what is not current; tells which files those were."""
    for path, text in pages():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
            print(f"written: {path.relative_to(ROOT)}")
    return 0


def pages() -> Iterator[tuple[Path, str]]:
    """Every generated file and the text it is to have."""
    written = {"cli": cli_page, "recipes": recipes_page, "stages": stages_page, "tables": tables_page}
    for name, page in written.items():
        yield DOCS / "reference" / f"{name}.md", f"{BEGUN}{page().rstrip()}\n"
    path = DOCS / "stages.md"
    yield path, with_columns(path.read_text(encoding="utf-8"))


# --- The command line -------------------------------------------------------------------------------------------------


def cli_page() -> str:
    """Every command with its arguments, options and examples."""
    found = list(_commands(typer.main.get_command(app), "curate"))
    lines = ["# Commands", "", "`curate COMMAND --help` prints the same. Options that say *again* may be repeated.", ""]
    lines += [f"- [`{name}`](#{name.replace(' ', '-')}): {_summary(command)}" for name, command in found]
    for name, command in found:
        lines += ["", f"## {name}", "", _paragraphs(command.help)]
        lines += ["", f"`{name} {' '.join(_usage(command))}`", "", *_options(command)]
        lines += ["", _paragraphs(command.epilog)] if command.epilog else []
    return "\n".join(lines)


def _commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    children = getattr(command, "commands", {})
    if not children:
        yield name, command
    for child in children.values():
        yield from _commands(child, f"{name} {child.name}")


def _summary(command: Any) -> str:
    return " ".join((command.help or "").split("\n\n")[0].split())


def _paragraphs(text: str | None) -> str:
    return inspect.cleandoc(text or "").strip()


def _usage(command: Any) -> Iterator[str]:
    if any(_flag(param) for param in command.params):
        yield "[OPTIONS]"
    for param in command.params:
        if not _flag(param):
            name = str(param.metavar or param.name.upper()).strip("[]")
            yield name if param.required else f"[{name}]"


def _flag(param: Any) -> str:
    return next((name for name in param.opts if name.startswith("--")), "")


def _options(command: Any) -> list[str]:
    rows = [
        (f"`{_flag(param) or str(param.metavar or param.name.upper())}`", _value(param), _default(param), _told(param))
        for param in command.params
    ]
    return _grid(("option or argument", "value", "default", "what it is"), rows) if rows else []


def _value(param: Any) -> str:
    if getattr(param, "is_flag", False):
        return ""
    kind = param.type_descriptor.annotation
    choices = ", ".join(f"`{choice}`" for choice in get_args(kind) if isinstance(choice, str))
    text = choices or {int: "integer", float: "number", Path: "path"}.get(kind, "")
    given = f"`{param.metavar}`" if _flag(param) and param.metavar else text
    limits = [f"from {param.min}" if param.min is not None else "", f"to {param.max}" if param.max is not None else ""]
    return " ".join(filter(None, [given, *limits, "again" if param.multiple else ""]))


def _default(param: Any) -> str:
    value = param.default
    if param.required:
        return "*needed*"
    plain = isinstance(value, str | int | float) and not isinstance(value, bool) and value != ""
    return f"`{value}`" if plain else ""


def _told(param: Any) -> str:
    return " ".join((getattr(param, "help", "") or "").split())


# --- Recipes ----------------------------------------------------------------------------------------------------------


def recipes_page() -> str:
    """The recipes that ship, and every key of a recipe with its default."""
    lines = [
        "# Recipes: files and keys",
        "",
        "Their meaning: [recipe.md](../recipe.md), [stages.md](../stages.md).",
    ]
    lines += ["", "## Recipes of a run", ""]
    for path in sorted((ROOT / "pipelines").glob("*.yaml")):
        lines += [
            f"### {path.stem}",
            "",
            f"`pipelines/{path.name}`",
            "",
            "```yaml",
            path.read_text().rstrip(),
            "```",
            "",
        ]
    lines += ["## Keys of a run's recipe", "", *_keys(Recipe, "stages")]
    for model, title in ((Condition, "select.conditions, each"), (GateConfig, "gate")):
        lines += ["", f"### {title}", "", *_keys(model)]
    lines += ["", "## Keys of the stages", ""]
    for name in BUILT_IN:
        rows = list(_rows(stage_class(name).config_type))
        lines += [f"### {name}", "", *(_grid(_HEADS, rows) if rows else ["None."]), ""]
    lines += ["## Recipes of training", "", *_training(), "", "## Keys of a training recipe", "", *_keys(TrainRecipe)]
    return "\n".join(lines)


_HEADS = ("key", "type", "default", "limits")


def _keys(model: type[BaseModel], *elsewhere: str) -> list[str]:
    return _grid(_HEADS, [row for row in _rows(model) if row[0].strip("`") not in elsewhere])


def _rows(
    model: type[BaseModel], prefix: str = "", given: BaseModel | None = None
) -> Iterator[tuple[str, str, str, str]]:
    """(key, type, default, limits) of all keys; ``given`` has the values where a parent has a default."""
    for name, field in model.model_fields.items():
        key, inner = f"{prefix}{field.alias or name}", field.annotation
        value = getattr(given, name) if given else field.get_default(call_default_factory=True, validated_data={})
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from _rows(inner, f"{key}.", value if isinstance(value, BaseModel) else None)
        else:
            yield f"`{key}`", _type(inner), _shown(value), _limits(field)


def _type(kind: Any) -> str:
    """An annotation in words, without what says limits."""
    origin, inner = get_origin(kind), [each for each in get_args(kind) if each not in (type(None), ...)]
    if origin is Annotated:
        return _type(inner[0])
    if origin is Literal:
        return ", ".join(map(str, inner))
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(map(_type, inner)))
    if origin in (tuple, list):
        return f"list of {' or '.join(dict.fromkeys(map(_type, inner)))}"
    if origin is dict:
        return f"{_type(inner[1])} by {_type(inner[0])}"
    names = {str: "text", int: "integer", float: "number", bool: "yes or no"}
    return names.get(kind) or kind.__name__.removesuffix("Config").lower()


def _shown(value: Any) -> str:
    if value is PydanticUndefined:
        return "*needed*"
    if value is None or value in ("", (), {}):
        return ""
    text = json.dumps(value) if isinstance(value, bool | tuple | list) and _is_plain(value) else str(value)
    return f"`{text}`" if len(text) <= _LONG else "built in"


_LONG = 100


def _is_plain(value: Any) -> bool:
    return isinstance(value, bool) or all(isinstance(each, str | int | float) for each in value)


def _limits(field: FieldInfo) -> str:
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    said = [f"{sign} {getattr(m, name)}" for m in field.metadata for name, sign in signs.items() if hasattr(m, name)]
    return ", ".join(said)


def _training() -> list[str]:
    from curate.datafiles import recipe_files
    from curate.train.recipe import load_train_recipe

    rows = []
    for name in recipe_files("train"):
        found = load_train_recipe(name)
        told = (found.kind, found.network, str(found.data.batch), f"{found.steps:,}", f"{found.optimiser.lr:g}")
        rows.append((f"`{name}`", *told, f"{found.objective.p_mean:g}, {found.objective.p_std:g}"))
    return _grid(("recipe", "kind", "network", "batch", "steps", "rate", "P_mean, P_std"), rows)


# --- Stages -----------------------------------------------------------------------------------------------------------


def stages_page() -> str:
    """What each stage takes and where its code is; the columns are in stages.md."""
    lines = ["# Stages: what they read", "", "Columns and units of each stage: [stages.md](../stages.md)."]
    lines += ["Frames that a stage looks at lie on a grid ([how](../decisions/0002-view-positions.md))."]
    for name in BUILT_IN:
        lines += ["", f"## {name}", "", *_stage_lines(name)]
    return "\n".join(lines)


_NEEDED = {"caption.vlm": {"endpoint": {"url": "http://127.0.0.1:8000/v1", "model": "any"}}}
"""What a stage cannot be made without."""


def _stage_lines(name: str) -> Iterator[str]:
    cls = stage_class(name)
    stage = cls(cls.config_type.model_validate(_NEEDED.get(name, {})))
    yield " ".join((inspect.getdoc(cls) or "").partition("\n\n")[0].replace("``", "`").split())
    yield ""
    anchor = re.sub(r"[^a-z0-9]", "", name)
    yield f"- version {cls.version}, [{len(cls.columns)} columns](../stages.md#{anchor}) of each {_of_each(stage)}"
    if isinstance(stage, ClipStage):
        yield from _told_of("reads the cells of", stage.reads)
        for view, spec in sorted(stage.views().items()):
            yield f"- looks at `{view}`: {_view(spec)}"
    yield from _told_of("models, by default", {file.partition("/")[0] for file in stage.model_digests()})
    yield from _told_of("needs", {package.requirement for package in stage.packages})
    yield f"- code: `{str(inspect.getsourcefile(cls)).removeprefix(f'{ROOT}/')}`"


def _of_each(stage: Any) -> str:
    return "clip" if isinstance(stage, ClipStage) else "source"


def _told_of(what: str, names: Iterable[str]) -> Iterator[str]:
    if names:
        yield f"- {what} " + ", ".join(f"`{name}`" for name in sorted(names))


def _view(spec: ViewSpec) -> str:
    """A view by its keys that are not left out; which frames it samples follows from them."""
    said = {field.name: getattr(spec, field.name) for field in fields(spec) if field.name != "sampling"}
    return ", ".join(f"`{name}={value}`" for name, value in said.items() if value not in (None, (), 0))


def with_columns(text: str) -> str:
    """docs/stages.md with the table of each stage's columns as the code declares them."""
    head, *sections = re.split(r"^(?=## )", text, flags=re.MULTILINE)
    return head + "".join(map(_with_columns, sections))


_COLUMNS = re.compile(r"^\| column \| type \| unit \| what it is \|\n(?:\|.*\n)+", re.MULTILINE)


def _with_columns(section: str) -> str:
    name = section.splitlines()[0].removeprefix("## ").strip()
    if name not in BUILT_IN:
        return section
    rows = [(f"`{c.name}`", _arrow(c.dtype), c.unit, c.doc) for c in stage_class(name).columns]
    table = "\n".join(_grid(("column", "type", "unit", "what it is"), rows))
    return _COLUMNS.sub(lambda _: f"{table}\n", section, count=1)


def _arrow(dtype: pa.DataType) -> str:
    if pa.types.is_list(dtype):
        return f"list of {_arrow(dtype.value_type)}"
    names = {"double": "float64", "float": "float32", "halffloat": "float16"}
    return names.get(str(dtype), str(dtype).replace("map<string, string>", "map of string to string"))


# --- Tables -----------------------------------------------------------------------------------------------------------


def tables_page() -> str:
    """The columns of every Parquet file of a corpus."""
    lines = ["# Tables of a corpus", "", "What lies where, and the rules of reading: [corpus.md](../corpus.md)."]
    for name, module, place, what in TABLES:
        lines += ["", f"## {name.lower()}", "", f"`{place}`. {what or _docstring(module, name)}"]
        lines += ["", *_grid(("column", "type", "unit"), _fields(getattr(module, name)))]
    lines += ["", "## cells", "", "`tables/cells/STAGE/FINGERPRINT/part-*.parquet`. One row per source or clip: `key`,"]
    lines += ["the stage's own columns ([stages.md](../stages.md)), then how the cell came about.", ""]
    lines += _grid(("column", "type", "unit"), _fields(tables.cells_schema(())))
    return "\n".join(lines)


def _fields(schema: pa.Schema) -> list[tuple[str, str, str]]:
    return [(f"`{field.name}`", _arrow(field.type), UNITS.get(field.name.rpartition("_")[2], "")) for field in schema]


def _docstring(module: ModuleType, name: str) -> str:
    """The text below an assignment in a module."""
    body = ast.parse(inspect.getsource(module)).body
    for node, after in pairwise(body):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name and isinstance(after, ast.Expr):
            return " ".join(inspect.cleandoc(ast.literal_eval(after.value)).replace("``", "`").split())
    return ""


def _grid(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    """A Markdown table."""
    head, *body = (f"| {' | '.join(cell.replace('|', BAR) for cell in cells)} |" for cells in (heads, *rows))
    return [head, f"|{'---|' * len(heads)}", *body]


if __name__ == "__main__":
    sys.exit(main())
