"""Bringing one file to this disk: what was begun is gone on with, and its digest is found before it gets a name."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, cast

from curate.errors import StorageError, TransientStorageError
from curate.redaction import redacted
from curate.storage import Place, retried, storage_error
from curate.units import format_bytes
from curate.weights.sources import Source

_CHUNK_BYTES = 1 << 20

Moved = Callable[[int, int | None], None]
"""Hears how many bytes are here, and how many there are where that is known."""


class DiskError(StorageError):
    """This disk is at fault: no other source would help."""


def sha256_of(path: Path) -> str:
    """sha256 of a whole file; StorageError."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
    except OSError as error:
        raise storage_error(error, str(path)) from error
    return digest.hexdigest()


def sha256_at(place: Place) -> str:
    """The same of a file anywhere."""

    def read() -> str:
        digest = hashlib.sha256()
        with place.open() as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
        return digest.hexdigest()

    return retried(read, place.uri)


def download(source: Source, part: Path, sha256: str | None, moved: Moved) -> str:
    """Bring the whole file of a source to ``part``, going on with what lies there; gives its digest.

    StorageError when it has another digest than ``sha256`` (``part`` is gone then), and whatever the source raises
    (``part`` stays, so that the next attempt goes on). DiskError when it cannot be written.
    """
    begun = part.is_file() and sha256 is not None and source.resumes
    if not begun:
        part.unlink(missing_ok=True)
    _check_space(source, part)
    with _opened(part) as file:
        _append(source, _Part(file, part, source.size_bytes, moved))
    found = sha256_of(part)
    if sha256 in {None, found}:
        return found
    part.unlink(missing_ok=True)
    if begun:  # the beginning may have come from elsewhere, or be damaged
        return download(source, part, sha256, moved)
    raise StorageError(f"has sha256 {found}, where {sha256} is wanted", subject=redacted(source.uri))


@contextmanager
def alone(folder: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """One process at a time fetches into a folder, where the file system knows locks; ``waiting`` hears of a wait."""
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            _lock(descriptor, waiting)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, waiting: Callable[[], None]) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        waiting()
        fcntl.flock(descriptor, fcntl.LOCK_EX)


class _Part:
    """The file being written, as sources see it."""

    def __init__(self, file: BinaryIO, path: Path, total_bytes: int | None, moved: Moved) -> None:
        self._file, self._path, self._total_bytes, self._moved = file, path, total_bytes, moved
        self.seek, self.tell, self.truncate = file.seek, file.tell, file.truncate

    def write(self, data: bytes) -> int:
        with _writing(self._path):
            self._file.write(data)
        self._moved(self._file.tell(), self._total_bytes)
        return len(data)


def _append(source: Source, part: _Part) -> None:
    """All that is missing, asked for again as long as more comes."""
    out = cast("BinaryIO", part)

    def go_on() -> None:
        if not source.resumes:
            out.seek(0)
            out.truncate()
        source.append(out)

    at = out.seek(0, os.SEEK_END)
    while at != source.size_bytes:
        try:
            retried(go_on, source.uri)
            return
        except TransientStorageError:
            if out.tell() <= at or not source.resumes:
                raise
            at = out.tell()


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """For reading and writing, without losing what it holds; on the disk when it is closed."""
    with _writing(path):
        path.touch()
        file = path.open("r+b", buffering=0)
    with file:
        yield cast("BinaryIO", file)
        with _writing(path):
            os.fsync(file.fileno())


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        ours = storage_error(error, str(path), writing=True)
        raise DiskError(ours.message, subject=ours.subject, fix=ours.fix) from error


def _check_space(source: Source, part: Path) -> None:
    """DiskError before hours of downloading that could not end well."""
    if source.size_bytes is None:
        return
    needed_bytes = source.size_bytes - (part.stat().st_size if part.is_file() else 0)
    free_bytes = shutil.disk_usage(part.parent).free
    if needed_bytes > free_bytes:
        raise DiskError(
            f"{format_bytes(needed_bytes)} more are needed, {format_bytes(free_bytes)} are free",
            subject=str(part.parent),
            fix="Free some space, or set CURATE_MODELS to a folder on a larger disk",
        )
