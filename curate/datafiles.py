"""Recipes and model cards: where they lie, and how their YAML is read. They are data, whoever wrote them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import yaml

from curate.config import nearest
from curate.errors import ConfigError, StorageError

MAX_YAML_BYTES = 1 << 20
MAX_YAML_NODES = 20_000
"""Values of a file with all its aliases written out."""
MAX_YAML_DEPTH = 40

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's where PyYAML was built with it: seven times as quick, and a run reads dozens of cards."""


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


def read_text(path: Path) -> str:
    """The text of a recipe or card; ConfigError when it is too large to be one, StorageError when it cannot be read."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_YAML_BYTES + 1)
    except OSError as error:
        raise StorageError(f"cannot be read: {error.strerror}", subject=str(path)) from error
    if len(data) > MAX_YAML_BYTES:
        raise ConfigError(f"is larger than {MAX_YAML_BYTES >> 20} MiB", subject=str(path))
    return data.decode("utf-8", "replace")


def parse_yaml(text: str, where: str) -> Any:
    """Plain values of a YAML text: no objects are made, and aliases cannot blow it up. ConfigError names ``where``."""
    try:
        _check_size(text, where)
        return _LOADER(text).get_single_data()
    except (yaml.YAMLError, ValueError) as error:  # numbers and dates that are none are ValueErrors
        raise ConfigError(f"is not YAML: {error}", subject=where) from error


def _check_size(text: str, where: str) -> None:
    """Counts values before any is made: each alias counts as all that it stands for."""
    if len(text) > MAX_YAML_BYTES:
        raise ConfigError(f"is larger than {MAX_YAML_BYTES >> 20} MiB", subject=where)
    counts, starts, anchors = [0], [], {}
    for event in yaml.parse(text, _LOADER):
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in anchors:
                raise ConfigError(f"has an alias of nothing or of itself (*{event.anchor})", subject=where)
            counts[-1] += anchors[event.anchor]
        elif isinstance(event, yaml.ScalarEvent):
            counts[-1] += 1
            anchors[event.anchor] = 1
        elif isinstance(event, yaml.CollectionStartEvent):
            counts.append(1)
            starts.append(event.anchor)
        elif isinstance(event, yaml.CollectionEndEvent):
            anchors[starts.pop()] = counts[-1]
            counts[-2:] = [counts[-2] + counts[-1]]
        if len(starts) > MAX_YAML_DEPTH or counts[-1] > MAX_YAML_NODES:
            raise ConfigError(
                f"holds more than {MAX_YAML_NODES} values, or more than {MAX_YAML_DEPTH} levels", subject=where
            )


def recipe_files(kind: str = "") -> dict[str, Path]:
    """Recipes that ship with the package, by name; ``kind`` "train" for those of the trainer."""
    folder = find_data_dir("pipelines") / kind
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def recipe_path(name_or_file: str, kind: str = "") -> Path:
    """The file of a recipe, by its name or its path; ConfigError when there is none."""
    path = Path(name_or_file)
    if path.suffix in {".yaml", ".yml"} or path.is_file():
        if not path.is_file():
            raise ConfigError("no such recipe file", subject=name_or_file)
        return path
    files = recipe_files(kind)
    if name_or_file not in files:
        raise ConfigError(f"no recipe is called {name_or_file!r}, {nearest(name_or_file, files)}")
    return files[name_or_file]


def parse_override(override: str) -> tuple[str, Any]:
    """(key, value) of ``key=value``, the value read as YAML; ConfigError for anything else."""
    key, equals, text = override.partition("=")
    if not equals:
        raise ConfigError(f"{override!r} is not of the form key=value", subject="--set")
    try:
        return key, parse_yaml(text, "--set")
    except ConfigError as error:
        raise ConfigError(f"the value of {override!r} {error.message}", subject="--set") from error


def put_value(target: Any, path: Sequence[str], value: Any, key: str) -> None:
    """Set a value below dictionaries and lists; a list item is named by its number or by its ``name`` or ``column``."""
    here = target
    for index, part in enumerate(path[:-1]):
        if isinstance(here, list):
            rest = ".".join(path[index:-1])
            named = [item for item in here if isinstance(item, dict) and rest in {item.get("name"), item.get("column")}]
            if named:
                named[0][path[-1]] = value
                return
            if not part.isdigit() or int(part) >= len(here):
                raise ConfigError(f"{key!r}: no entry {rest!r} in that list", subject="--set")
            here = here[int(part)]
        elif isinstance(here, dict):
            here = here.setdefault(part, {})
        else:
            raise ConfigError(f"{key!r}: {part!r} has no keys below it", subject="--set")
    if not isinstance(here, dict):
        raise ConfigError(f"{key!r} does not name a key", subject="--set")
    here[path[-1]] = value
