"""From an input to a file on local disk with its sha256: local files are read in place, others copied to scratch."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from curate.errors import EmptyFileError, SourceChangedError, StorageError, TransientStorageError
from curate.ingest.local import file_kind
from curate.ingest.names import suffix_of
from curate.ingest.remote import ref_of
from curate.ingest.tars import locate_member, split_member_uri
from curate.records import InputRef
from curate.redaction import redacted
from curate.stage import SourceFile
from curate.storage import Place, check_whole, is_remote, retried, storage_error
from curate.units import format_bytes

BLOCK_BYTES = 4 << 20
DEFAULT_QUOTA_BYTES = 64 << 30
"""Largest file that is copied to scratch."""


@contextmanager
def spooled(
    ref: InputRef, scratch: Path, *, quota_bytes: int = DEFAULT_QUOTA_BYTES, deadline_s: float | None = None
) -> Iterator[SourceFile]:
    """The input as a local file with its digest; a copy in ``scratch`` is removed afterwards.

    EmptyFileError for no bytes; StorageError when it is not there, may not be read, is no regular file, or is larger
    than ``quota_bytes`` and would have to be copied; TransientStorageError for time-outs and files still being written.
    A copy that is not done at ``deadline_s`` (``time.monotonic``) breaks off: StorageError.
    """
    path = _local_path(ref.place)
    if path is not None:
        with _listed(ref):
            digest, facts = _hash_in_place(path)
        yield SourceFile(path, ref.uri, digest, facts.st_size, _identity(facts))
        return
    with _scratch_file(ref.place, scratch) as copy:
        with _listed(ref):
            digest, size_bytes = _fetch(ref.place, copy, quota_bytes, deadline_s)
        yield SourceFile(str(copy), ref.uri, digest, size_bytes)


@contextmanager
def _listed(ref: InputRef) -> Iterator[None]:
    """What was there when it was listed may be there again: that it is gone or closed now is no final failure."""
    try:
        yield
    except StorageError as error:
        seen = ref.size_bytes is not None
        if seen and isinstance(error.__cause__, FileNotFoundError):
            fix = "Run the command again"
            raise TransientStorageError("is gone since it was listed", subject=error.subject, fix=fix) from error
        if seen and isinstance(error.__cause__, PermissionError):
            raise TransientStorageError(error.message, subject=error.subject, fix=error.fix) from error
        raise


@contextmanager
def local_copy(uri: str, scratch: Path, *, quota_bytes: int = DEFAULT_QUOTA_BYTES) -> Iterator[Path]:
    """A local path to the content of ``uri``: the file, or a copy that is removed afterwards. Errors as `spooled`."""
    path = _local_path(uri)
    if path is not None:
        os.close(_open_regular(path))
        yield Path(path)
        return
    with _scratch_file(uri, scratch) as copy:
        _fetch(uri, copy, quota_bytes)
        yield copy


def digest_of(path: str | Path) -> str:
    """sha256 of a local regular file, as hex digits. Errors as `spooled`."""
    return _hash_in_place(str(path))[0]


def check_unchanged(file: SourceFile) -> None:
    """SourceChangedError when a file that is read in place is no longer the one that was hashed.

    Asked after reading: what was read before it passes belongs to the digest.
    """
    if not file.identity:
        return
    try:
        now = _identity(Path(file.path).stat())
    except OSError:
        now = ()
    if now != file.identity:
        raise changed(file.uri)


def check_listed(ref: InputRef, file: SourceFile) -> None:
    """SourceChangedError when what was opened has another size or time than what was listed under this name.

    A link or another file may have been put in its place meanwhile, and only the listing looks where links lead.
    """
    if file.identity and ref.version and (file.size_bytes, str(file.identity[3])) != (ref.size_bytes, ref.version):
        raise changed(ref.uri)


def changed(uri: str) -> SourceChangedError:
    """The error of a source that is no longer the one that was listed and hashed."""
    text = "was changed, replaced or removed while the run was going on"
    return SourceChangedError(text, subject=uri, fix="Run the command again")


def _identity(facts: os.stat_result) -> tuple[int, ...]:
    return facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns


def _local_path(uri: str) -> str | None:
    if split_member_uri(uri) or is_remote(uri):
        return None
    return uri.removeprefix("file://").removeprefix("local://")


def _open_regular(path: str) -> int:
    """A descriptor of a regular file with at least one byte; opening never waits, whatever lies there by now."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise storage_error(error, path) from error
    facts = os.fstat(descriptor)
    kind = file_kind(facts.st_mode)
    if kind or not facts.st_size:
        os.close(descriptor)
        raise StorageError(f"is not a regular file ({kind})", subject=path) if kind else _empty(path)
    return descriptor


def _hash_in_place(path: str) -> tuple[str, os.stat_result]:
    with open(_open_regular(path), "rb", buffering=0) as file:
        before = os.fstat(file.fileno())
        try:
            digest = _sha256(file)
        except OSError as error:
            raise storage_error(error, path) from error
        after = os.fstat(file.fileno())
    if _identity(before) != _identity(after):
        raise TransientStorageError("changed while it was read", subject=path, fix="Run again when it is complete")
    return digest, after


@contextmanager
def _scratch_file(uri: str, scratch: Path) -> Iterator[Path]:
    """A name in scratch with the suffix of the source, since some demuxers go by it."""
    member = split_member_uri(uri)
    scratch.mkdir(parents=True, exist_ok=True)
    copy = scratch / f"spool-{uuid.uuid4().hex}{suffix_of(member[0] if member else uri)}"
    try:
        yield copy
    finally:
        copy.unlink(missing_ok=True)


def _fetch(uri: str, copy: Path, quota_bytes: int, deadline_s: float | None = None) -> tuple[str, int]:
    """Copy a remote file or a tar member; its digest and size. A copy that breaks off goes on from there."""
    with copy.open("wb") as target:
        copying = _Copying(uri, target, _Room(uri, quota_bytes, shutil.disk_usage(copy.parent).free, deadline_s))
        retried(copying.go_on, uri)
    if not copying.size_bytes:
        raise _empty(uri)
    return copying.sha.hexdigest(), copying.size_bytes


@dataclass(frozen=True)
class _Room:
    """How large a copy may become, and until when."""

    uri: str
    quota_bytes: int
    free_bytes: int
    deadline_s: float | None = None

    def check_time(self) -> None:
        if self.deadline_s is not None and time.monotonic() > self.deadline_s:
            raise StorageError("could not be copied in time", subject=redacted(self.uri))

    def check(self, size_bytes: int) -> None:
        if size_bytes > min(self.quota_bytes, self.free_bytes):
            raise _too_large(self.uri, self.quota_bytes, self.free_bytes)


class _Copying:
    """A copy that grows attempt by attempt, as long as what is copied stays the same."""

    def __init__(self, uri: str, target: IO[bytes], room: _Room) -> None:
        self._uri = uri
        self._target = target
        self._room = room
        self._begin("")

    def _begin(self, version: str) -> None:
        self._version = version
        self.sha = hashlib.sha256()
        self.size_bytes = 0
        self._target.seek(0)
        self._target.truncate()

    def go_on(self) -> None:
        """Copy what is still missing; TruncatedReadError when the file ends before it is whole."""
        file, start, wanted, version = _located(self._uri)
        with file:
            self._room.check(wanted or 0)
            if not version or version != self._version or not _moved(file, start + self.size_bytes):
                self._begin(version)
                if not _moved(file, start):
                    raise StorageError("is not at a place that can be read in parts", subject=redacted(self._uri))
            end = min(self._room.quota_bytes, self._room.free_bytes) + 1 if wanted is None else wanted
            while self.size_bytes < end:
                self._room.check_time()
                block = file.read(min(BLOCK_BYTES, end - self.size_bytes))
                if not block:
                    break
                self.sha.update(block)
                self._target.write(block)
                self.size_bytes += len(block)
        self._room.check(self.size_bytes)
        check_whole(self.size_bytes, wanted, self._uri)


def _located(uri: str) -> tuple[IO[bytes], int, int | None, str]:
    """The open file that holds the bytes of ``uri``, where they begin, how many there are, and its version."""
    member = split_member_uri(uri)
    place = Place(member[1] if member else uri)
    info = place.info()
    start, size_bytes = 0, info.get("size")
    if member is not None:
        found = locate_member(*member)
        start, size_bytes = found.offset, found.size_bytes
    return place.open(), start, size_bytes, ref_of(uri, info).version


def _moved(file: IO[bytes], position: int) -> bool:
    """Move to a position; False where the file can only be read from its beginning."""
    try:
        if position != file.tell():
            file.seek(position)
    except (ValueError, OSError):
        return False
    return True


def _sha256(file: Any) -> str:
    """The digest of all bytes that are left in a raw file."""
    sha = hashlib.sha256()
    block = memoryview(bytearray(BLOCK_BYTES))
    while count := file.readinto(block):
        sha.update(block[:count])
    return sha.hexdigest()


def _empty(uri: str) -> EmptyFileError:
    return EmptyFileError("has no bytes", subject=redacted(uri))


def _too_large(uri: str, quota_bytes: int, free_bytes: int) -> StorageError:
    if quota_bytes <= free_bytes:
        text, fix = f"is larger than the scratch quota of {format_bytes(quota_bytes)}", "Copy the file to local disk"
        return StorageError(text, subject=redacted(uri), fix=fix)
    text = f"is larger than the free scratch space of {format_bytes(free_bytes)}"
    return TransientStorageError(text, subject=redacted(uri), fix="Free some space, or point TMPDIR at a larger disk")
