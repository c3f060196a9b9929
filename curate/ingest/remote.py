"""Places behind fsspec: what lies there, its size and version, and what their clients raise."""

from __future__ import annotations

import posixpath
import sys
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from curate.errors import StorageError, TransientStorageError, UsageError
from curate.ingest.names import CORPUS_CAUSE, CORPUS_PARTS, VIDEO_SUFFIXES, cause_of_name, suffix_of
from curate.records import InputRef
from curate.storage import Place, redacted, storage_error

_VERSION_KEYS = (
    "ETag",
    "etag",
    "checksum",
    "md5Hash",
    "content_md5",
    "blob_id",
    "generation",
    "mtime",
    "LastModified",
    "last_modified",
    "updated",
    "created",
)
"""Facts that change with the content, by fsspec file system, the most telling first."""

_CLIENT_ERRORS = (
    ("botocore.exceptions", "BotoCoreError"),
    ("botocore.exceptions", "ClientError"),
    ("aiohttp", "ClientError"),
    ("gcsfs.retry", "HttpError"),
    ("google.auth.exceptions", "GoogleAuthError"),
    ("httpx", "HTTPError"),
)
"""Errors of storage clients that are no OSError; looked up only where the client is loaded."""

_LOST = ("Timeout", "Connect", "Throttl", "Disconnected")
_BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
"""HTTP answers that another attempt may not meet again."""

_PARALLEL_INFOS = 32


def client_errors() -> tuple[type[Exception], ...]:
    """All that reading from a place may raise when the place is at fault."""
    loaded = ((sys.modules.get(module), name) for module, name in _CLIENT_ERRORS)
    return (OSError, *(getattr(module, name) for module, name in loaded if module is not None))


def as_storage_error(error: Exception, uri: str) -> StorageError:
    """One of `client_errors` as ours; time-outs and lost connections are transient."""
    error = _true_cause(error)
    kind, told = type(error).__name__, redacted(str(error))
    if any(word in kind for word in _LOST) or getattr(error, "status", None) in _BUSY:
        text = f"cannot be read just now: {kind}: {told}"
        return TransientStorageError(text, subject=redacted(uri), fix="Run the command again")
    if isinstance(error, OSError):
        return storage_error(error, uri)
    return StorageError(f"cannot be read: {kind}: {told}", subject=redacted(uri))


def _true_cause(error: Exception) -> Exception:
    """The web's file system says that a file is not found whatever went wrong; its cause says what did."""
    cause = error.__cause__
    return cause if isinstance(error, FileNotFoundError) and isinstance(cause, client_errors()) else error


def is_glob(uri: str) -> bool:
    """True when the name holds wild cards; a question mark in a web address opens its query."""
    signs = "*[" if uri.startswith(("http://", "https://")) else "*?["
    return any(sign in uri for sign in signs)


def remote_inputs(source: str) -> Iterator[InputRef]:
    """The inputs of a remote file, folder or glob. UsageError when there is nothing, or no way to get there.

    A place that cannot be asked gives one input: a file fails when it is read, a folder is skipped with the cause.
    """
    place = _openable(source)
    try:
        if is_glob(source) and not place.exists():
            yield from _glob(place)
            return
        info = place.fs.info(place.path)
        if info["type"] == "directory":
            yield from _below(place, place.path, root=place.path)
        else:
            yield _ref(source, info)
    except client_errors() as error:
        if isinstance(_true_cause(error), FileNotFoundError):
            raise UsageError("does not exist", subject=redacted(source), fix="Check the spelling") from error
        named = not is_glob(source) and suffix_of(source) in VIDEO_SUFFIXES
        yield InputRef(source, cause="" if named else f"cannot be listed: {as_storage_error(error, source).message}")


def _openable(source: str) -> Place:
    place = Place(source)
    try:
        place.fs  # noqa: B018 - looks for the file system
    except StorageError as error:
        raise UsageError(error.message, subject=error.subject, fix=error.fix) from error
    return place


def remote_refs(uris: list[str]) -> list[InputRef]:
    """Size and version of named remote files; one that cannot be asked for has none, and fails when it is read."""
    with ThreadPoolExecutor(_PARALLEL_INFOS) as pool:
        return list(pool.map(remote_ref, uris))


def remote_ref(uri: str) -> InputRef:
    """Size and version of one named remote file, if they can be had."""
    try:
        place = Place(uri)
        return _ref(uri, place.fs.info(place.path))
    except (StorageError, *client_errors()):
        return InputRef(uri)


def _glob(place: Place) -> Iterator[InputRef]:
    found: Mapping[str, Any] = place.fs.glob(place.path, detail=True)
    for name in sorted(found):
        if found[name]["type"] == "directory":
            yield from _below(place, name, root=posixpath.dirname(name))
        else:
            yield _found(place, name, found[name])


def _below(place: Place, folder: str, *, root: str) -> Iterator[InputRef]:
    """All files of a folder; a corpus below ``root`` stands as one input, skipped."""
    found: Mapping[str, Any] = place.fs.find(folder, detail=True)
    corpora = _corpora(found, root.rstrip("/"))
    yield from (InputRef(_uri(place, corpus), cause=CORPUS_CAUSE) for corpus in corpora)
    for name in sorted(found):
        if not name.startswith(tuple(f"{corpus}/" for corpus in corpora)):
            yield _found(place, name, found[name])


def _corpora(names: Iterable[str], root: str) -> list[str]:
    """Folders below ``root`` that hold a corpus, by what lies in them."""
    parts: dict[str, set[str]] = {}
    for name in names:
        here = posixpath.dirname(name)
        part = posixpath.basename(name)
        while here.startswith(f"{root}/"):
            if part in CORPUS_PARTS:
                parts.setdefault(here, set()).add(part)
            here, part = posixpath.split(here)
    return sorted(here for here, held in parts.items() if held == CORPUS_PARTS)


def _found(place: Place, name: str, info: Mapping[str, Any]) -> InputRef:
    ref = _ref(_uri(place, name), info)
    return InputRef(ref.uri, ref.size_bytes, ref.version, cause_of_name(name))


def _uri(place: Place, name: str) -> str:
    if "::" not in place.uri:
        return str(place.fs.unstrip_protocol(name))
    first, rest = place.uri.split("::", 1)
    return f"{first.split('://', 1)[0]}://{name.lstrip('/')}::{rest}"


def _ref(uri: str, info: Mapping[str, Any]) -> InputRef:
    size = info.get("size")
    version = next((str(info[key]) for key in _VERSION_KEYS if info.get(key)), "")
    cause = "not a file (folder)" if info["type"] == "directory" else ""
    return InputRef(uri, None if size is None else int(size), version.strip('"'), cause)
