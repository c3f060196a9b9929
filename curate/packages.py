"""Packages that only some stages need: declared on the stage, looked for before a run, imported where they are used."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import ModuleType

from curate.errors import MissingModelError


@dataclass(frozen=True, slots=True, order=True)
class Package:
    """A module, and what pip is asked for so that it can be imported."""

    module: str
    requirement: str


def of_extra(extra: str, *modules: str) -> tuple[Package, ...]:
    """Packages that come with one of our extras."""
    return tuple(Package(module, f"curate-video[{extra}]") for module in modules)


def needed(package: Package, part: str = "") -> ModuleType:
    """The module, or its submodule ``part``; MissingModelError with the command that installs it."""
    try:
        return importlib.import_module(f"{package.module}.{part}" if part else package.module)
    except ImportError as error:
        raise not_installed({package: f"{error}"}) from error


def is_installed(package: Package) -> bool:
    """Whether the module is there, without importing it."""
    try:
        return importlib.util.find_spec(package.module) is not None
    except ValueError:  # so says Python of a module that was put in place by hand
        return True


def not_installed(why: Mapping[Package, str]) -> MissingModelError:
    """The error for packages that are not there, each with who needs it or what was said of it."""
    names = ", ".join(f"{package.module} ({why[package]})" for package in sorted(why))
    return MissingModelError(f"packages are not installed: {names}", fix=f"Run `{_command(why)}`")


def _command(packages: Iterable[Package]) -> str:
    return " ".join(["pip install", *sorted({f"'{package.requirement}'" for package in packages})])
