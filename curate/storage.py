"""Files on anything fsspec opens: writes appear whole or not at all, and what may pass is tried again."""

from __future__ import annotations

import errno
import os
import posixpath
import sys
import time
import uuid
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any, Self, TypeVar, cast

import fsspec
from fsspec.implementations.local import LocalFileSystem

from curate.errors import StorageError, TransientStorageError, TruncatedReadError
from curate.redaction import redacted

NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})

WAITS_S = (0.3, 1.2, 4.8)
"""Waits before the second, the third and the last attempt; each is shortened by up to half, by process and place."""

_RETRYING = frozenset({"s3", "s3a", "gs", "gcs"})
"""Protocols whose clients (s3fs, gcsfs) try about five times themselves: they get one more attempt here."""

_CLIENT_ERRORS = (
    ("botocore.exceptions", "BotoCoreError"),
    ("botocore.exceptions", "ClientError"),
    ("aiohttp", "ClientError"),
    ("gcsfs.retry", "HttpError"),
    ("gcsfs.retry", "ChecksumError"),
    ("google.auth.exceptions", "GoogleAuthError"),
    ("httpx", "HTTPError"),
    ("httpx2", "HTTPError"),
    ("http.client", "HTTPException"),
    ("urllib3.exceptions", "HTTPError"),
)
"""Errors of storage clients that are no OSError; looked up only where the client is loaded."""

_LOST = ("Timeout", "Connect", "Throttl", "Disconnected", "Incomplete", "PayloadError", "Checksum", "ProtocolError")
"""Parts of the names of errors that another attempt may not meet again."""

_BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
"""HTTP answers of that kind."""

_BUSY_CODES = frozenset({"RequestTimeout", "SlowDown", "Throttling", "ThrottlingException", "InternalError"})
"""Codes of that kind in the answers of S3; some come with another HTTP status."""

_PASSING = frozenset(
    {errno.EAGAIN, errno.EBUSY, errno.ESTALE, errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EREMOTEIO}
)
"""System errors of that kind; s3fs gives EBUSY for "slow down" and EREMOTEIO for "internal error"."""

T = TypeVar("T")


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
        """True when a file or folder lies here; StorageError when that cannot be found out."""
        if self.is_local:
            return bool(self.fs.exists(self.path))
        try:
            self.info()
        except StorageError as error:
            if error.transient or not isinstance(error.__cause__, FileNotFoundError | NotADirectoryError):
                raise
            return False
        return True

    def info(self) -> dict[str, Any]:
        """What the file system tells of the file or folder (name, type, size ...), never from a cache."""

        return self._retried(self._asked)

    def _asked(self) -> dict[str, Any]:
        self.fs.invalidate_cache(self.path)
        return self.fs.info(self.path)

    def size_bytes(self) -> int:
        """Size of the file."""
        return int(self.info()["size"])

    def open(self, mode: str = "rb") -> IO[Any]:
        """An open file; StorageError when it cannot be read. What is read from it later is not tried again."""
        return cast("IO[Any]", self._retried(lambda: self.fs.open(self.path, mode)))

    def read_bytes(self) -> bytes:
        """The whole file."""

        def read() -> bytes:
            with self.fs.open(self.path, "rb") as file:
                data = file.read()
                check_whole(len(data), getattr(file, "size", None), self.uri)
            return data

        return self._retried(read)

    def read_range(self, offset_bytes: int, size_bytes: int) -> bytes:
        """So many bytes of the file from an offset on, in one request; TruncatedReadError when it holds fewer."""

        def read() -> bytes:
            data = self.fs.cat_file(self.path, offset_bytes, offset_bytes + size_bytes)
            check_whole(len(data), size_bytes, self.uri)
            if len(data) > size_bytes:  # the whole file, in answer to every such question
                raise StorageError("answers no range requests", subject=redacted(self.uri), fix="Copy it elsewhere")
            return data

        return self._retried(read)

    def read_text(self) -> str:
        """The whole file as UTF-8."""
        return self.read_bytes().decode()

    def write_bytes(self, data: bytes) -> None:
        """Write the whole file: under a temporary name and renamed on local disk, one PUT on an object store."""
        write = self._write_local if self.is_local else lambda whole: self.fs.pipe_file(self.path, whole)
        self._retried(lambda: write(data), writing=True)

    def put(self, file: Path) -> None:
        """Put a local file here, at once or not at all; on local disk it is moved, from the same disk."""
        move = file.replace if self.is_local else lambda path: self.fs.put_file(str(file), path)
        self._retried(lambda: move(self.path), writing=True)

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
        names = (entry["name"] for entry in self._entries() if entry["type"] == "file")
        return sorted(n for n in names if n.endswith(suffix) and not posixpath.basename(n).startswith("."))

    def folders(self) -> list[str]:
        """Sorted names of the folders directly in this folder; hidden ones are left out."""
        names = (posixpath.basename(e["name"].rstrip("/")) for e in self._entries() if e["type"] == "directory")
        return sorted(name for name in names if not name.startswith("."))

    def _entries(self) -> list[dict[str, Any]]:
        def ask() -> list[dict[str, Any]]:
            self.fs.invalidate_cache(self.path)
            try:
                return self.fs.ls(self.path, detail=True)
            except (FileNotFoundError, NotADirectoryError) as error:
                if _true_cause(error) is not error:
                    raise
                return []

        return self._retried(ask)

    def tree(self) -> dict[str, dict[str, Any]]:
        """Every file below this folder by its path inside the file system, in order, with what is known of it."""

        def ask() -> dict[str, dict[str, Any]]:
            self.fs.invalidate_cache(self.path)
            return dict(sorted(self.fs.find(self.path, detail=True).items()))

        return self._retried(ask)

    def copy_from(self, other: Place) -> None:
        """Take over the content of a file in the same file system."""

        def copy() -> None:
            if self.is_local:
                Path(self.path).parent.mkdir(parents=True, exist_ok=True)
            self.fs.cp_file(other.path, self.path)

        self._retried(copy, writing=True)

    def remove(self) -> None:
        """Remove the file or the folder with all in it; nothing happens when it is not there."""

        def remove() -> None:
            try:
                self._asked()  # not `exists`, which asks again by itself: its attempts would multiply ours
            except (FileNotFoundError, NotADirectoryError) as error:
                if may_pass(error):
                    raise
                return
            self.fs.rm(self.path, recursive=True)

        self._retried(remove, writing=True)

    def _retried(self, action: Callable[[], T], *, writing: bool = False) -> T:
        self.fs  # noqa: B018 - an unknown kind of place is no fault of the place
        return retried(action, self.uri, writing=writing)


def retried(
    action: Callable[[], T],
    uri: str,
    *,
    writing: bool = False,
    waits_s: Sequence[float] | None = None,
    sleep: Callable[[float], None] | None = None,
) -> T:
    """What ``action`` gives; asked again after each wait as long as it fails for a reason that may pass.

    Reading and writing of places goes through here, so ``action`` must be safe to repeat. What will not pass is raised
    at once, and what did not pass at last, as ours (`storage_error`).
    """
    if waits_s is None:
        waits_s = WAITS_S[:1] if uri.partition("://")[0] in _RETRYING else WAITS_S
    for number, wait_s in enumerate((*waits_s, None)):
        try:
            return action()
        except (TruncatedReadError, *client_errors()) as error:
            if wait_s is None or not may_pass(error):
                raise storage_error(error, uri, writing=writing) from error
            (sleep or time.sleep)(_jittered(wait_s, f"{os.getpid()} {uri} {number}"))
    raise AssertionError("unreachable")


def _jittered(wait_s: float, salt: str) -> float:
    """The wait, shortened by up to half: workers that failed together do not come back together."""
    return wait_s * (0.5 + zlib.crc32(salt.encode("utf-8", "replace")) / 2**33)


def check_whole(size_bytes: int, wanted_bytes: int | None, uri: str) -> None:
    """TruncatedReadError when fewer bytes came than the place says there are."""
    if wanted_bytes is not None and size_bytes < wanted_bytes:
        text = f"ended after {size_bytes} of {wanted_bytes} bytes"
        raise TruncatedReadError(text, subject=redacted(uri), fix="Run the command again")


def client_errors() -> tuple[type[Exception], ...]:
    """All that a place may raise when the place is at fault."""
    loaded = ((sys.modules.get(module), name) for module, name in _CLIENT_ERRORS)
    found = (getattr(module, name, None) for module, name in loaded if module is not None)
    return (OSError, *(kind for kind in found if kind is not None))


def may_pass(error: BaseException) -> bool:
    """True when the same request may succeed in a while: time-outs, lost connections, throttling, server errors.

    A full disk may pass too, but not in seconds: it counts as lasting here.
    """
    error = _true_cause(error)
    if isinstance(error, FileNotFoundError | PermissionError) or getattr(error, "errno", None) in NO_SPACE:
        return False
    return isinstance(error, TruncatedReadError) or any(_is_passing(link) for link in _chain(error))


def _is_passing(error: BaseException) -> bool:
    if isinstance(error, TimeoutError | ConnectionError) or getattr(error, "errno", None) in _PASSING:
        return True
    status, code = _answer(error)
    return status in _BUSY or code in _BUSY_CODES or any(word in type(error).__name__ for word in _LOST)


def _answer(error: BaseException) -> tuple[int | None, str]:
    """(HTTP status, code) of the server's answer, wherever the client keeps them."""
    response = getattr(error, "response", None)
    told: Mapping[str, Any] = response if isinstance(response, Mapping) else {}
    places = [getattr(error, name, None) for name in ("status", "status_code", "code")]
    places += [getattr(response, "status_code", None), told.get("ResponseMetadata", {}).get("HTTPStatusCode")]
    status = next((int(str(found)) for found in places if str(found).isdigit()), None)
    return status, str(told.get("Error", {}).get("Code", ""))


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error, and those that it was made of."""
    seen: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in seen:
        seen.append(link)
        yield link
        link = link.__cause__


def _true_cause(error: BaseException) -> BaseException:
    """The web's file system says that a file is not found whatever went wrong; its cause says what did."""
    cause = error.__cause__
    return cause if isinstance(error, FileNotFoundError) and isinstance(cause, client_errors()) else error


def storage_error(error: BaseException, uri: str, *, writing: bool = False) -> StorageError:
    """An error of a place (`client_errors`) as one of ours, with the fix; what may pass is transient."""
    if isinstance(error, StorageError):
        return error
    error = _true_cause(error)
    name, told, number = redacted(uri), redacted(str(error)), getattr(error, "errno", None)
    verb = "written" if writing else "read"
    if number in NO_SPACE:
        fix = "Free some space and run the same command: it goes on where it stopped"
        return TransientStorageError("no space left on the device", subject=name, fix=fix)
    if may_pass(error):
        what = told if isinstance(error, OSError) and told else f"{type(error).__name__}: {told}"
        return TransientStorageError(f"cannot be {verb} just now: {what}", subject=name, fix="Run the command again")
    if isinstance(error, FileNotFoundError) and not writing:
        return StorageError("does not exist", subject=name, fix="Check the spelling")
    if isinstance(error, PermissionError):
        return StorageError(f"may not be {verb}", subject=name, fix="Check the access rights")
    if isinstance(error, OSError):
        return StorageError(f"cannot be {verb}: {redacted(error.strerror or told)}", subject=name)
    return StorageError(f"cannot be {verb}: {type(error).__name__}: {told}", subject=name)
