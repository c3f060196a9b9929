"""Dockerfiles as their instructions, and what a .dockerignore lets through."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCKERFILES = [ROOT / "docker" / "Dockerfile", ROOT / "docker" / "Dockerfile.cuda"]


@dataclass(frozen=True)
class Copy:
    """A COPY: from the context, or from the stage ``of``."""

    sources: list[str]
    target: str
    of: str = ""


@dataclass(frozen=True)
class Stage:
    """A FROM with what follows it: (word, rest) of every instruction."""

    name: str
    base: str
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def all(self, word: str) -> list[str]:
        """The rests of all instructions of one kind."""
        return [rest for each, rest in self.instructions if each == word]

    def copies(self) -> list[Copy]:
        return [parse_copy(rest) for rest in self.all("COPY")]


def instructions(text: str) -> list[tuple[str, str]]:
    """(word, rest) of each instruction, its lines joined, without comments."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ").splitlines()
    return [(word.upper(), rest.strip()) for word, rest in (line.strip().split(maxsplit=1) for line in joined)]


def stages(path: Path) -> list[Stage]:
    """The stages of a Dockerfile; what stands before the first FROM is left out."""
    found: list[Stage] = []
    for word, rest in instructions(path.read_text(encoding="utf-8")):
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            found.append(Stage(name, base))
        elif found:
            found[-1].instructions.append((word, rest))
    return found


def parse_copy(rest: str) -> Copy:
    words = shlex.split(rest)
    of = next((word.removeprefix("--from=") for word in words if word.startswith("--from=")), "")
    *sources, target = [word for word in words if not word.startswith("--")]
    return Copy(sources, target, of)


def parse_env(rest: str) -> dict[str, str]:
    """Names and values of an ENV or ARG; "" for an ARG without a value."""
    return {name: value for name, _, value in (word.partition("=") for word in shlex.split(rest))}


def parse_exec(rest: str) -> list[str]:
    """The words of an ENTRYPOINT or CMD in its exec form."""
    return json.loads(rest)


def sent(names: Iterable[str], ignore: str) -> set[str]:
    """Which of these files of the context a .dockerignore lets through: its last pattern that fits decides."""
    patterns = [line for line in ignore.splitlines() if line and not line.startswith("#")]
    return {name for name in names if not _is_ignored(name, patterns)}


def _is_ignored(name: str, patterns: list[str]) -> bool:
    ignored = False
    for pattern in patterns:
        if _fits(name, pattern.removeprefix("!")):
            ignored = not pattern.startswith("!")
    return ignored


def _fits(name: str, pattern: str) -> bool:
    """Whether a pattern names the file or a folder that it lies in; ``**/`` stands for any folders."""
    parts = name.split("/")
    above = ["/".join(parts[:n]) for n in range(1, len(parts) + 1)]
    if pattern.startswith("**/"):
        return any(fnmatch(part, pattern.removeprefix("**/")) for part in parts)
    return any(path.count("/") == pattern.count("/") and fnmatch(path, pattern) for path in above)
