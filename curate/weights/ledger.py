"""What this machine has found out of model files: digests that no card gives, and which files were read and right.

MODELS/<card>/found/<file>.json              what the first fetch of a file without a known digest brought
MODELS/<card>/<sha256[:16]>/.<file>.checked  size and time of change at which the whole file had that digest

In a store that cannot be written the latter lies with the user, in ~/.cache/curate/checked.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from curate.storage import storage_error


@dataclass(frozen=True, slots=True)
class Found:
    """A file as its first fetch brought it. ``sources`` are those of the card then, ``origin`` the one that gave it."""

    sha256: str
    size_bytes: int
    sources: tuple[str, ...]
    origin: str
    fetched_at: str

    def to_json(self) -> str:
        """As it lies in the store, and in bundles."""
        return json.dumps(asdict(self), indent=1) + "\n"


def model_dir() -> Path:
    """``CURATE_MODELS`` if it is set, else ``~/.cache/curate/models``."""
    chosen = os.environ.get("CURATE_MODELS")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "curate" / "models"


def found_path(card_name: str, file_name: str) -> str:
    """Where the finding of a file lies in a store or bundle, from its root."""
    return f"{card_name}/found/{file_name}.json"


def found(card_name: str, file_name: str, sources: Sequence[str]) -> Found | None:
    """What the first fetch of a file from these sources brought; None where there was none."""
    path = model_dir() / found_path(card_name, file_name)
    return parse_found(path.read_bytes(), sources) if path.is_file() else None


def parse_found(data: bytes, sources: Sequence[str]) -> Found | None:
    """A finding from its text; None for one of other sources, and for what is none."""
    with suppress(ValueError, TypeError, KeyError):
        read: dict[str, Any] = json.loads(data)
        first = Found(**{**read, "sources": tuple(read["sources"])})
        if first.sources == tuple(sources) and len(first.sha256) == 64 and int(first.sha256, 16) >= 0:
            return first
    return None


def learn(card_name: str, file_name: str, first: Found) -> None:
    """Hold on to what the first fetch of a file brought."""
    write_text(model_dir() / found_path(card_name, file_name), first.to_json())


def mark_checked(path: Path) -> None:
    """Note that the whole file was read and is right as it is now, wherever that can be written."""
    text = _state(path)
    for mark in _marks(path):
        with suppress(OSError):
            mark.parent.mkdir(parents=True, exist_ok=True)
            _replace(mark, text)
            return


def is_checked(path: Path) -> bool:
    """Whether the file was read and right, and has neither changed its size nor been written to since."""
    with suppress(OSError):
        state = _state(path)
        return any(mark.is_file() and mark.read_text() == state for mark in _marks(path))
    return False


def write_text(path: Path, text: str) -> None:
    """Write a small file of the store, at once or not at all; StorageError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _replace(path, text)
    except OSError as error:
        raise storage_error(error, str(path), writing=True) from error


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _state(path: Path) -> str:
    found = path.stat()
    return f"{found.st_size} {found.st_mtime_ns}\n"


def _marks(path: Path) -> tuple[Path, Path]:
    name = hashlib.sha256(str(path.absolute()).encode("utf-8", "surrogateescape")).hexdigest()
    return path.with_name(f".{path.name}.checked"), Path.home() / ".cache" / "curate" / "checked" / name
