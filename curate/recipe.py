"""Recipe file -> stages, gates, selection and export of a run.

name: embedded
stages:                      # in order; a stage alone or with its configuration
  - probe
  - cut: {min_len_s: 2}
  - motion
  - gate: {column: motion.freeze_ratio, max: 0.9}    # stages below run only for clips that pass
  - text
select: {conditions: [...], dedup: {...}}
export: {...}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from pydantic import Field

from curate.config import Config, nearest, parse_config
from curate.datafiles import MAX_YAML_BYTES, parse_override, parse_yaml, put_value, read_text, recipe_path
from curate.engine.pipeline import Gate, Pipeline, build_pipeline
from curate.errors import ConfigError
from curate.export import ExportConfig
from curate.query import MARK, MARK_COLUMNS
from curate.redaction import redacted
from curate.select import SelectConfig
from curate.stage import Stage
from curate.stages.registry import stage_class, stage_names
from curate.storage import Place, is_remote


class GateConfig(Config):
    """A gate as a recipe writes it."""

    column: str
    min: float | None = None
    max: float | None = None
    one_of: tuple[str | float | bool, ...] = Field((), alias="in")
    none_of: tuple[str | float | bool, ...] = Field((), alias="not_in")


class Recipe(Config):
    """A whole recipe, checked: ``stages`` holds one {name: configuration} per entry, with all defaults."""

    name: str
    description: str = ""
    lacks: dict[str, str] | None = None
    """What of the published recipe that it follows is not done, and why: said in the terminal, manifest and report."""
    stages: tuple[dict[str, dict[str, Any]], ...]
    select: SelectConfig
    export: ExportConfig = ExportConfig()

    def stage_entries(self) -> list[tuple[str, dict[str, Any]]]:
        """(stage name or "gate", configuration) in order."""
        return [next(iter(entry.items())) for entry in self.stages]

    def to_text(self) -> str:
        """The resolved recipe as YAML, as stored with a run."""
        return yaml.safe_dump(self.model_dump(mode="json", by_alias=True, exclude_none=True), sort_keys=False)


def load_recipe(name_or_file: str, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe by name, path or URI and apply ``key=value`` overrides. ConfigError says what is wrong and where.

    An override names a stage's key (``cut.min_len_s=2``), or one of the selection or export (``export.seed=7``).
    """
    if is_remote(name_or_file):
        where = redacted(name_or_file)
        with Place(name_or_file).open() as file:
            text = file.read(MAX_YAML_BYTES + 1).decode("utf-8", "replace")
        return parse_recipe(text, where, overrides)
    path = recipe_path(name_or_file)
    return parse_recipe(read_text(path), str(path), overrides)


def parse_recipe(text: str, where: str, overrides: Sequence[str] = ()) -> Recipe:
    """A recipe from its text; ``where`` names it in errors."""
    data = _parsed(text, where)
    for override in overrides:
        _apply(data, override)
    data["stages"] = _entries(data)
    recipe = parse_config(Recipe, data, "recipe")
    resolved = tuple({name: _resolved(name, config)} for name, config in recipe.stage_entries())
    return recipe.model_copy(update={"stages": resolved})


def build(recipe: Recipe, only: Sequence[str] = ()) -> Pipeline:
    """The pipeline of a recipe; ``only`` holds patterns of stage names to compute."""
    return build_pipeline([_build_item(name, config) for name, config in recipe.stage_entries()], only)


def _parsed(text: str, where: str) -> dict[str, Any]:
    data = parse_yaml(text, where)
    if not isinstance(data, dict):
        raise ConfigError("must hold keys such as name, stages, select", subject=where)
    return data


def _entries(data: Mapping[str, Any]) -> list[dict[str, dict[str, Any]]]:
    stages = data.get("stages") or []
    if not isinstance(stages, list):
        raise ConfigError(f"must be a list, one entry a stage, not {stages!r}", subject="stages")
    return [_entry(item) for item in stages]


def _entry(item: Any) -> dict[str, dict[str, Any]]:
    if isinstance(item, str):
        return {item: {}}
    if isinstance(item, Mapping) and len(item) == 1:
        name, config = next(iter(item.items()))
        if config is None or isinstance(config, Mapping):
            return {str(name): dict(config or {})}
    raise ConfigError(f"an entry is a stage name or one {{name: configuration}}, not {item!r}", subject="stages")


def _resolved(name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of a stage or gate with all its defaults, checked."""
    cls = GateConfig if name == "gate" else stage_class(name).config_type
    return parse_config(cls, config, name).model_dump(mode="json", by_alias=True)


def _build_item(name: str, config: Mapping[str, Any]) -> Stage[Any] | Gate:
    if name != "gate":
        cls = stage_class(name)
        return cls(parse_config(cls.config_type, config, name))
    gate = parse_config(GateConfig, config, "gate")
    stage, _, column = gate.column.rpartition(".")
    return Gate(stage, column, gate.min, gate.max, gate.one_of, gate.none_of)


def _add_condition_on_marks(data: dict[str, Any], key: str) -> None:
    """A condition on marks, where the key names one that the recipe lacks: no recipe is written with marks in mind."""
    where, _, column = key.rpartition(".")[0].rpartition("select.conditions.")
    select = data.get("select")
    if where or column not in {f"{MARK}.{each.name}" for each in MARK_COLUMNS} or not isinstance(select, dict):
        return
    conditions = select.get("conditions") or []
    named = [c for c in conditions if isinstance(c, dict) and column in {c.get("column"), c.get("name")}]
    if isinstance(conditions, list) and not named:
        select["conditions"] = [*conditions, {"column": column}]


def _apply(data: dict[str, Any], override: str) -> None:
    key, value = parse_override(override)
    head, _, rest = key.partition(".")
    if head in {"select", "export"} and rest:
        _add_condition_on_marks(data, key)
        put_value(data.setdefault(head, {}), rest.split("."), value, key)
        return
    named = _entries(data)
    names = [next(iter(entry)) for entry in named]
    stage = max((name for name in names if key.startswith(f"{name}.")), key=len, default="")
    if not stage:
        valid = [*names, "select", "export"]
        absent = head in stage_names() and head not in names
        hint = f"stage {head!r} is not in this recipe" if absent else nearest(key.rpartition(".")[0] or key, valid)
        hint = f"say which key of it, as in {key}.KEY=VALUE" if key in valid else hint
        raise ConfigError(f"unknown key {key!r}: {hint}", subject="--set")
    put_value(named[names.index(stage)][stage], key[len(stage) + 1 :].split("."), value, key)
    data["stages"] = named
