"""WebDataset tars as sources: each video member is an input with the URI ``tar://MEMBER::TAR``.

``.json`` and ``.txt`` members of the same sample (same name up to the first dot) give user columns: scalars of the
JSON object under their keys, the text as ``caption``. Members are read by their offset; nothing is ever unpacked by
its own name.
"""

from __future__ import annotations

import json
import posixpath
import tarfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import IO, Any

from curate.errors import StorageError
from curate.ingest.names import cause_of_name, printable
from curate.records import InputRef
from curate.storage import Place, client_errors, redacted, retried, storage_error

_SCHEME = "tar://"
_MAX_COMPANION_BYTES = 1 << 20
MAX_COLUMNS = 100
"""User columns of one sample; what a JSON object holds beyond them is left out."""


@dataclass(frozen=True, slots=True)
class Member:
    """Where the bytes of a member lie in its tar."""

    offset: int
    size_bytes: int


def member_uri(member: str, tar_uri: str) -> str:
    """The URI of one member."""
    return f"{_SCHEME}{member}::{tar_uri}"


def split_member_uri(uri: str) -> tuple[str, str] | None:
    """(member, URI of the tar), or None when ``uri`` names no member of a tar."""
    if not uri.startswith(_SCHEME) or "::" not in uri:
        return None
    member, tar_uri = uri.removeprefix(_SCHEME).split("::", 1)
    return member, tar_uri


def tar_inputs(tar: InputRef) -> Iterator[InputRef]:
    """The members of a tar as inputs. A file that is no tar gives one skipped input with the cause."""
    try:
        with Place(tar.uri).open() as file, tarfile.open(fileobj=file, mode="r:") as archive:
            members = archive.getmembers()
            users = _companions(archive, members)
    except (tarfile.TarError, *client_errors()) as error:
        yield InputRef(tar.uri, tar.size_bytes, tar.version, f"not a readable tar ({error})")
        return
    videos = {_sample(info.name) for info in members if not _cause(info)}
    for info in members:
        if info.isdir() or (_is_companion(info) and _sample(info.name) in videos):
            continue
        user = {**tar.user, **users.get(_sample(info.name), {})}
        yield InputRef(member_uri(printable(info.name), tar.uri), info.size, tar.version, _cause(info), user)


def locate_member(member: str, tar_uri: str) -> Member:
    """Where a member lies. StorageError when the tar or the member is not there."""
    place = Place(tar_uri)
    try:
        info = place.info()
        if info["type"] != "file":  # opening a FIFO would wait for ever
            raise StorageError("is not a regular file", subject=redacted(tar_uri))
        found = _index(tar_uri, str(info.get("mtime") or info.get("ETag") or info["size"])).get(member)
    except tarfile.TarError as error:
        raise StorageError(f"is not a readable tar: {error}", subject=redacted(tar_uri)) from error
    except client_errors() as error:
        raise storage_error(error, tar_uri) from error
    if found is None:
        raise StorageError(f"has no member {member!r}", subject=redacted(tar_uri))
    return found


@lru_cache(maxsize=4)
def _index(tar_uri: str, version: str) -> dict[str, Member]:
    """Members by name; kept for a few tars, since the members of one are usually read one after the other."""
    del version  # part of the key alone: a tar that changed is read again

    def read() -> dict[str, Member]:
        with Place(tar_uri).open() as file, tarfile.open(fileobj=file, mode="r:") as archive:
            found = ((info.name, info) for info in archive if info.isreg() and not info.issparse())
            return {name: Member(info.offset_data, info.size) for name, info in found}

    return retried(read, tar_uri)


def _cause(info: tarfile.TarInfo) -> str:
    name = info.name
    if printable(name) != name:
        return "file name is not valid UTF-8"
    if name.startswith("/") or ".." in name.split("/") or "::" in name:
        return "unsafe name inside a tar"
    if info.issym() or info.islnk():
        return "link inside a tar"
    if not info.isreg() or info.issparse():
        return "not a regular file inside a tar"
    if name.lower().endswith(".tar"):
        return "tar inside a tar"
    return cause_of_name(name)


def _companions(archive: tarfile.TarFile, members: list[tarfile.TarInfo]) -> dict[str, dict[str, str]]:
    """User columns by sample."""
    users: dict[str, dict[str, str]] = defaultdict(dict)
    for info in members:
        if _is_companion(info):
            file = archive.extractfile(info)
            if file is not None:
                users[_sample(info.name)].update(_user_columns(info.name, file))
    return users


def _is_companion(info: tarfile.TarInfo) -> bool:
    return info.isreg() and info.size <= _MAX_COMPANION_BYTES and info.name.lower().endswith((".json", ".txt"))


def _user_columns(name: str, file: IO[bytes]) -> dict[str, str]:
    text = file.read().decode("utf-8", "replace").strip()
    if name.lower().endswith(".txt"):
        return {"caption": text}
    try:
        values: Any = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(values, dict):
        return {}
    plain = ((key, value) for key, value in values.items() if isinstance(value, str | int | float))
    return {printable(key): printable(str(value)) for key, value in islice(plain, MAX_COLUMNS)}


def _sample(name: str) -> str:
    """WebDataset's key: the path up to the first dot of its last part."""
    folder, base = posixpath.split(name)
    return posixpath.join(folder, base.split(".", 1)[0])
