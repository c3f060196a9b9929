"""Places behind fsspec: what lies there, its size and version."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from curate.errors import StorageError, UsageError
from curate.ingest.names import CORPUS_CAUSE, CORPUS_PARTS, VIDEO_SUFFIXES, cause_of_name, suffix_of
from curate.records import InputRef
from curate.redaction import redacted
from curate.storage import Place, retried

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

_PARALLEL_INFOS = 32


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
        info = place.info()
        if info["type"] == "directory":
            yield from _below(place, place.path, root=place.path)
        else:
            yield ref_of(source, info)
    except StorageError as error:
        if isinstance(error.__cause__, FileNotFoundError) and not error.transient:
            raise UsageError("does not exist", subject=redacted(source), fix="Check the spelling") from error
        named = not is_glob(source) and suffix_of(source) in VIDEO_SUFFIXES
        yield InputRef(source, cause="" if named else f"cannot be listed: {error.message}")


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
        return ref_of(uri, Place(uri).info())
    except StorageError:
        return InputRef(uri)


def _glob(place: Place) -> Iterator[InputRef]:
    found: Mapping[str, Any] = retried(lambda: place.fs.glob(place.path, detail=True), place.uri)
    for name in sorted(found):
        if found[name]["type"] == "directory":
            yield from _below(place, name, root=posixpath.dirname(name))
        else:
            yield _found(place, name, found[name])


def _below(place: Place, folder: str, *, root: str) -> Iterator[InputRef]:
    """All files of a folder; a corpus below ``root`` stands as one input, skipped."""
    found: Mapping[str, Any] = retried(lambda: place.fs.find(folder, detail=True), place.uri)
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
    ref = ref_of(_uri(place, name), info)
    return InputRef(ref.uri, ref.size_bytes, ref.version, cause_of_name(name))


def _uri(place: Place, name: str) -> str:
    if "::" not in place.uri:
        return str(place.fs.unstrip_protocol(name))
    first, rest = place.uri.split("::", 1)
    return f"{first.split('://', 1)[0]}://{name.lstrip('/')}::{rest}"


def ref_of(uri: str, info: Mapping[str, Any]) -> InputRef:
    """A file as an input, with what its file system tells of it."""
    size = info.get("size")
    version = next((str(info[key]) for key in _VERSION_KEYS if info.get(key)), "")
    cause = "not a file (folder)" if info["type"] == "directory" else ""
    return InputRef(uri, None if size is None else int(size), version.strip('"'), cause)
