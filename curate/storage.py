"""Files on anything fsspec opens: whole-object writes that appear at once or not at all."""

from __future__ import annotations

import errno
import os
import posixpath
import re
import uuid
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any, Self, cast

import fsspec
from fsspec.implementations.local import LocalFileSystem

from curate.errors import StorageError, TransientStorageError

NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})
_SECRET = re.compile(r"(?P<scheme>[a-z0-9+.-]+://)(?P<user>[^/?\s]+)@|(?P<key>[?&][^=&\s]*=)[^&\s]+", re.IGNORECASE)


def redacted(uri: str) -> str:
    """The URI without user information and without the values of query parameters (signed URLs)."""
    return _SECRET.sub(lambda m: f"{m['scheme']}***@" if m["scheme"] else f"{m['key']}***", uri)


def is_remote(uri: str) -> bool:
    """True for ``s3://...`` and the like, False for local paths and ``file://``."""
    return "://" in uri and not uri.startswith(("file://", "local://"))


@dataclass(frozen=True)
class Place:
    """A folder or file on local disk or an object store."""

    uri: str

    @cached_property
    def _opened(self) -> tuple[Any, str]:
        try:
            return fsspec.core.url_to_fs(self.uri)
        except ImportError as error:
            fix = "See `curate doctor` for what opens which place"
            raise StorageError(redacted(str(error)), subject=redacted(self.uri), fix=fix) from error
        except ValueError as error:
            raise StorageError(redacted(str(error)), subject=redacted(self.uri), fix="Check the spelling") from error

    @property
    def fs(self) -> Any:
        """The fsspec file system."""
        return self._opened[0]

    @property
    def path(self) -> str:
        """The path inside the file system."""
        return self._opened[1]

    @property
    def is_local(self) -> bool:
        """True when ordinary file calls work on ``path``."""
        return isinstance(self.fs, LocalFileSystem)

    def child(self, *parts: str) -> Self:
        """A place below this one."""
        return type(self)(posixpath.join(self.uri, *parts))

    def exists(self) -> bool:
        """True when a file or folder lies here."""
        return bool(self.fs.exists(self.path))

    def size_bytes(self) -> int:
        """Size of the file."""
        return int(self.fs.size(self.path))

    def open(self, mode: str = "rb") -> IO[Any]:
        """An open file; StorageError when it cannot be read."""
        try:
            return cast("IO[Any]", self.fs.open(self.path, mode))
        except (OSError, PermissionError) as error:
            raise storage_error(error, self.uri) from error

    def read_bytes(self) -> bytes:
        """The whole file."""
        with self.open() as file:
            return file.read()

    def read_text(self) -> str:
        """The whole file as UTF-8."""
        return self.read_bytes().decode()

    def write_bytes(self, data: bytes) -> None:
        """Write the whole file: under a temporary name and renamed on local disk, one PUT on an object store."""
        try:
            if self.is_local:
                self._write_local(data)
            else:
                self.fs.pipe_file(self.path, data)
        except OSError as error:
            raise storage_error(error, self.uri, writing=True) from error

    def _write_local(self, data: bytes) -> None:
        target = Path(self.path)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)

    def write_text(self, text: str) -> None:
        """Write the whole file as UTF-8, at once or not at all."""
        self.write_bytes(text.encode())

    def files(self, suffix: str = "") -> list[str]:
        """Sorted paths (inside the file system) of the files directly in this folder; temporary files are left out."""
        self.fs.invalidate_cache(self.path)
        try:
            entries = self.fs.ls(self.path, detail=True)
        except (FileNotFoundError, NotADirectoryError):
            return []
        names = (entry["name"] for entry in entries if entry["type"] == "file")
        return sorted(n for n in names if n.endswith(suffix) and not posixpath.basename(n).startswith("."))

    def folders(self) -> list[str]:
        """Sorted names of the folders directly in this folder; hidden ones are left out."""
        self.fs.invalidate_cache(self.path)
        try:
            entries = self.fs.ls(self.path, detail=True)
        except (FileNotFoundError, NotADirectoryError):
            return []
        names = (posixpath.basename(e["name"].rstrip("/")) for e in entries if e["type"] == "directory")
        return sorted(name for name in names if not name.startswith("."))

    def remove(self) -> None:
        """Remove the file or the folder with all in it; nothing happens when it is not there."""
        if self.exists():
            self.fs.rm(self.path, recursive=True)


def storage_error(error: OSError, uri: str, *, writing: bool = False) -> StorageError:
    """An OSError as one of ours, with the fix; time-outs and resets count as transient."""
    name = redacted(uri)
    verb = "written" if writing else "read"
    if isinstance(error, TimeoutError | ConnectionError):
        return TransientStorageError(f"cannot be {verb} just now: {error}", subject=name, fix="Run the command again")
    if error.errno in NO_SPACE:
        fix = "Free some space and run the same command: it goes on where it stopped"
        return TransientStorageError("no space left on the device", subject=name, fix=fix)
    if isinstance(error, FileNotFoundError) and not writing:
        return StorageError("does not exist", subject=name, fix="Check the spelling")
    if isinstance(error, PermissionError):
        return StorageError(f"may not be {verb}", subject=name, fix="Check the access rights")
    return StorageError(f"cannot be {verb}: {error.strerror or redacted(str(error))}", subject=name)
