"""Frozen configurations that refuse unknown keys and say which key was meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from curate.errors import ConfigError


class Config(BaseModel):
    """Base of every configuration: immutable, complete, no unknown keys.

    ``placement`` names the keys that say where and how fast something is computed, not what comes of it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    placement: ClassVar[frozenset[str]] = frozenset()

    def deciding(self) -> dict[str, Any]:
        """What decides results, as JSON has it: all keys but those of ``placement``."""
        whole = self.model_dump(mode="json")
        inner = {name: value.deciding() for name, value in self if isinstance(value, Config)}
        return {name: value for name, value in {**whole, **inner}.items() if name not in self.placement}


ConfigT = TypeVar("ConfigT", bound=BaseModel)


def parse_config(cls: type[ConfigT], data: Mapping[str, Any] | None, where: str) -> ConfigT:
    """Validate ``data``; ConfigError names the path of every wrong key below ``where`` and the nearest valid name."""
    try:
        return cls.model_validate(dict(data or {}))
    except ValidationError as error:
        # Unknown keys first: what is missing is often one of them, misspelt.
        items = sorted(error.errors(), key=lambda item: item["type"] != "extra_forbidden")
        lines = [_explain(cls, item, where) for item in items]
        raise ConfigError("; ".join(lines), subject=where) from error


def nearest(name: str, valid: Iterable[str]) -> str:
    """``did you mean 'x'?`` for a misspelt name, else the list of valid ones."""
    names = sorted(valid)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"valid: {', '.join(names)}"


def _explain(cls: type[BaseModel], item: Any, where: str) -> str:
    path = [str(part) for part in item["loc"]]
    dotted = ".".join([where, *path])
    if item["type"] == "extra_forbidden":
        return f"unknown key {dotted!r}, {nearest(path[-1], _fields_at(cls, path[:-1]))}"
    if item["type"] == "missing":
        return f"key {dotted!r} is missing"
    return f"{dotted}: {item['msg']} (got {item.get('input')!r})"


def _fields_at(cls: type[BaseModel], path: list[str]) -> list[str]:
    here: Any = cls
    for part in path:
        fields = getattr(here, "model_fields", {})
        if part in fields:
            here = _model_inside(fields[part].annotation)
    return list(getattr(here, "model_fields", {}))


def _model_inside(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for arg in getattr(annotation, "__args__", ()):
        found = _model_inside(arg)
        if found is not None:
            return found
    return None
