"""From an input to a file on local disk with its sha256: local files are read in place, others copied to scratch."""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Protocol

from curate.errors import EmptyFileError, SourceChangedError, StorageError, TransientStorageError
from curate.ingest.local import file_kind
from curate.ingest.names import suffix_of
from curate.ingest.remote import as_storage_error, client_errors
from curate.ingest.tars import locate_member, split_member_uri
from curate.records import InputRef
from curate.stage import SourceFile
from curate.storage import Place, is_remote, redacted, storage_error
from curate.units import format_bytes

BLOCK_BYTES = 4 << 20
DEFAULT_QUOTA_BYTES = 64 << 30
"""Largest file that is copied to scratch."""


class _Sink(Protocol):
    def write(self, data: memoryview, /) -> Any: ...


@contextmanager
def spooled(ref: InputRef, scratch: Path, *, quota_bytes: int = DEFAULT_QUOTA_BYTES) -> Iterator[SourceFile]:
    """The input as a local file with its digest; a copy in ``scratch`` is removed afterwards.

    EmptyFileError for no bytes; StorageError when it is not there, may not be read, is no regular file, or is larger
    than ``quota_bytes`` and would have to be copied; TransientStorageError for time-outs and files still being written.
    """
    path = _local_path(ref.uri)
    if path is not None:
        with _listed(ref):
            digest, facts = _hash_in_place(path)
        yield SourceFile(path, ref.uri, digest, facts.st_size, _identity(facts))
        return
    with _scratch_file(ref.uri, scratch) as copy:
        with _listed(ref):
            digest, size_bytes = _fetch(ref.uri, copy, quota_bytes)
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
            digest, _ = _pump(file, None)
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


def _fetch(uri: str, copy: Path, quota_bytes: int) -> tuple[str, int]:
    """Copy a remote file or a tar member; its digest and size."""
    member = split_member_uri(uri)
    try:
        if member is None:
            place = Place(uri)
            size = place.fs.info(place.path).get("size")
            file, start, wanted = place.open(), 0, size
        else:
            found = locate_member(*member)
            file, start, wanted = Place(member[1]).open(), found.offset, found.size_bytes
        with file:
            if start:
                file.seek(start)
            digest, size_bytes = _copy(file, copy, wanted, quota_bytes, uri)
    except client_errors() as error:
        raise as_storage_error(error, uri) from error
    if not size_bytes:
        raise _empty(uri)
    if wanted is not None and size_bytes != wanted:
        raise TransientStorageError(
            f"ended after {size_bytes} of {wanted} bytes", subject=redacted(uri), fix="Run the command again"
        )
    return digest, size_bytes


def _copy(file: IO[bytes], copy: Path, wanted: int | None, quota_bytes: int, uri: str) -> tuple[str, int]:
    free_bytes = shutil.disk_usage(copy.parent).free
    room_bytes = min(quota_bytes, free_bytes)
    if wanted is not None and wanted > room_bytes:
        raise _too_large(uri, quota_bytes, free_bytes)
    with copy.open("wb") as target:
        digest, size_bytes = _pump(file, target, room_bytes + 1 if wanted is None else wanted)
    if size_bytes > room_bytes:
        raise _too_large(uri, quota_bytes, free_bytes)
    return digest, size_bytes


def _pump(file: Any, target: _Sink | None, limit: int | None = None) -> tuple[str, int]:
    """Hash up to ``limit`` bytes of ``file``, and write them to ``target``; gives digest and count."""
    sha, total = hashlib.sha256(), 0
    block = memoryview(bytearray(BLOCK_BYTES))
    while limit is None or total < limit:
        room = block if limit is None else block[: min(BLOCK_BYTES, limit - total)]
        count = file.readinto(room)
        if not count:
            break
        sha.update(block[:count])
        if target is not None:
            target.write(block[:count])
        total += count
    return sha.hexdigest(), total


def _empty(uri: str) -> EmptyFileError:
    return EmptyFileError("has no bytes", subject=redacted(uri))


def _too_large(uri: str, quota_bytes: int, free_bytes: int) -> StorageError:
    if quota_bytes <= free_bytes:
        text, fix = f"is larger than the scratch quota of {format_bytes(quota_bytes)}", "Copy the file to local disk"
        return StorageError(text, subject=redacted(uri), fix=fix)
    text = f"is larger than the free scratch space of {format_bytes(free_bytes)}"
    return TransientStorageError(text, subject=redacted(uri), fix="Free some space, or point TMPDIR at a larger disk")
