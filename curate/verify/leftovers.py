"""What interrupted work left behind: never read, only in the way. Reported, and removed where that is safe."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from curate.shards.index import INDEX_NAME
from curate.tables import Corpus

OLD_S = 24 * 3600.0
"""Nothing that goes on leaves a file or staging folder of its own untouched for so long: older ones are abandoned."""

_STAGING = re.compile(r"shards/\.(?P<set>.+)\.(?P<plan>[0-9a-f]{16}|replaced)/")

_UNFINISHED_RUN = "a run that goes on or did not end"


@dataclass(frozen=True, slots=True)
class Leftover:
    """A file or folder that nothing reads. ``path`` is below the corpus; ``age_s`` is the time since anything in it
    was written, None where the place does not say; ``needed`` says why it must stay, if it must."""

    path: str
    what: str
    bytes: int
    age_s: float | None
    needed: str = ""

    @property
    def is_old(self) -> bool:
        """Whether it may be removed."""
        return self.age_s is not None and self.age_s > OLD_S and not self.needed


@dataclass(slots=True)
class _Found:
    what: str
    bytes: int = 0
    written_s: float | None = None
    dated: bool = True


def leftovers(corpus: Corpus, *, now_s: float | None = None) -> list[Leftover]:
    """Temporary files, folders of exports that did not end, runs without a manifest; in the order of their names.

    ``now_s`` is the present in seconds since 1970.
    """
    root = corpus.root
    entries = root.tree()
    names = {path.removeprefix(root.path.rstrip("/") + "/"): entry for path, entry in entries.items()}
    found: dict[str, _Found] = {}
    for name, entry in names.items():
        if where := _owner(name, names):
            _add(found.setdefault(where[0], _Found(where[1])), entry)
    now_s = time.time() if now_s is None else now_s
    return [
        Leftover(path, each.what, each.bytes, _age_s(each, now_s), _needed(path, each.what, names))
        for path, each in sorted(found.items())
    ]


def clean(corpus: Corpus, found: list[Leftover]) -> list[Leftover]:
    """Remove those that are old, and give them; what may belong to work that goes on stays."""
    removed = [each for each in found if each.is_old]
    for each in removed:
        corpus.root.child(*each.path.split("/")).remove()
    return removed


def _owner(name: str, names: dict[str, Any]) -> tuple[str, str] | None:
    """(file or folder to remove, what it is) for a file that nothing reads."""
    staging = _STAGING.match(name)
    if staging:
        is_old_set = staging["plan"] == "replaced"
        return staging[0].rstrip("/"), "a replaced shard set" if is_old_set else "an export that did not end"
    parts = name.split("/")
    hidden = next((at for at, part in enumerate(parts) if part.startswith(".")), None)
    if hidden is not None and (parts[-1].endswith(".tmp") or parts[hidden].startswith((".selection-", ".writable"))):
        return "/".join(parts[: hidden + 1]), "a file whose writing did not end"
    run = "/".join(parts[:2])
    if parts[0] == "runs" and len(parts) > 2 and f"{run}/manifest.json" not in names:
        return run, _UNFINISHED_RUN
    return None


def _needed(path: str, what: str, names: dict[str, Any]) -> str:
    if what == _UNFINISHED_RUN:
        return "small, and its recipe explains its failures"
    replaced = re.fullmatch(r"shards/\.(.+)\.replaced", path)
    if replaced and f"shards/{replaced[1]}/{INDEX_NAME}" not in names:
        return f"the only whole copy of shards/{replaced[1]}; `curate export` makes a new one"
    return ""


def _add(found: _Found, entry: dict[str, Any]) -> None:
    found.bytes += int(entry.get("size") or 0)
    written_s = _written_s(entry)
    found.dated &= written_s is not None
    found.written_s = max(found.written_s or 0.0, written_s or 0.0)


def _age_s(found: _Found, now_s: float) -> float | None:
    return now_s - found.written_s if found.dated and found.written_s else None


def _written_s(entry: dict[str, Any]) -> float | None:
    """When a file was last written, by the names that file systems have for it."""
    for key in ("mtime", "LastModified", "last_modified", "modified", "updated", "created"):
        value = entry.get(key)
        if isinstance(value, datetime):
            return value.timestamp()
        if isinstance(value, int | float):
            return float(value)
    return None
