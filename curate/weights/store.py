"""Model files on this machine: fetched from a card's sources, checked against its digests, found by the stages.

A file lies under the first 16 digits of its digest, so a card that changes never finds its predecessor's file:

    MODELS/<card>/<sha256[:16]>/<file>

`curate.weights.ledger` says what else lies there, `curate.weights.bundle` how to take it elsewhere.
"""

from __future__ import annotations

import hashlib
import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

from curate.errors import ConfigError, CurateError, MissingModelError, StorageError
from curate.redaction import redacted
from curate.storage import storage_error
from curate.weights.cards import Card, ModelFile, load_card
from curate.weights.download import DiskError, Moved, alone, download, sha256_of
from curate.weights.ledger import Found, is_checked, learn, mark_checked, model_dir
from curate.weights.sources import Source, open_mirror, open_source

Say = Callable[[str], None]

_SHARE = (
    "Let CURATE_MODELS and CURATE_CARDS name the same folders on every machine, or ones that `curate models bundle` "
    "made where the run was started"
)


class FileStatus(StrEnum):
    """How a model file on this machine stands to its card."""

    OK = "ok"
    UNCHECKED = "not checked"
    MISSING = "missing"
    WRONG = "wrong digest"


def fetch(
    card: Card, say: Say | None = None, *, mirror: str | None = None, moved: Callable[[str], Moved] | None = None
) -> list[Path]:
    """Bring every file of a card that is not here yet; gives their paths.

    ``mirror`` (else ``CURATE_MIRROR``) is a folder made by ``bundle``, anywhere, and tried before the card's sources.
    ``say`` is told a line per file and source; ``moved`` gives, for a file's name, what hears of its bytes. Raises
    StorageError with what each source said when none of them gave the file with the right digest.
    """
    mirror = mirror or os.environ.get("CURATE_MIRROR") or None
    fetcher = _Fetcher(card, say or (lambda line: None), moved or (lambda name: lambda done, total: None), mirror)
    if card.terms and say is not None:
        say(f"{card.name}: licence {card.licence}. {card.terms}")
    return [fetcher.fetch(file) for file in card.files]


def verify(card: Card) -> dict[str, FileStatus]:
    """Status by file name, with every byte read."""
    return {file.name: _read_status(card, file) for file in card.files}


def glance(card: Card) -> dict[str, FileStatus]:
    """Status by file name, from sizes, and from what was found when the whole files were last read."""
    return {file.name: _seen_status(card, file) for file in card.files}


def status_of(card_name: str, file_name: str) -> FileStatus:
    """OK, MISSING or WRONG; the whole file is read only where it was not since it was last written to."""
    card = load_card(card_name)
    return _status(card, card.file(file_name))


def path_of(card_name: str, file_name: str) -> str:
    """Local path of a model file; MissingModelError with the command that fetches it when it is not here."""
    card = load_card(card_name)
    file = card.known(card.file(file_name))
    path = location(card, file)
    if path is None or not path.is_file() or file.size_bytes not in {None, path.stat().st_size}:
        raise MissingModelError(
            f"the weights {file_name!r} are not on this machine (looked in {model_dir()})",
            subject=card_name,
            fix=f"Run `curate models fetch {card_name}`",
        )
    return str(path)


def check_planned(digests: Mapping[str, str]) -> None:
    """For workers, before they load: MissingModelError when a file here is another than the run was planned with.

    ``digests``: sha256 by ``card/file``, as the fingerprint has them. Whole files are read only where that was not done
    since they were last written to.
    """
    for entry, planned in digests.items():
        card_name, _, name = entry.partition("/")
        try:
            path = Path(path_of(card_name, name))
        except ConfigError as error:
            raise MissingModelError(
                f"the run was planned with it: {error.message}", subject=entry, fix=_SHARE
            ) from error
        here = known if (known := _verified(card_name, name)) else sha256_of(path)
        if here != planned:
            raise MissingModelError(
                f"on this machine {name!r} has sha256 {here}, the run was planned with {planned}",
                subject=card_name,
                fix=_SHARE,
            )


def folder_of(card_name: str) -> str:
    """A folder in which all files of a card lie under their own names, as libraries want them.

    MissingModelError as for ``path_of``.
    """
    card = load_card(card_name)
    paths = {file.name: Path(path_of(card_name, file.name)).absolute() for file in card.files}
    digest = hashlib.sha256("".join(card.digests().values()).encode()).hexdigest()[:16]
    folder = derived(card_name, f"all-{digest}")
    for name, path in paths.items():
        link = folder / name
        if not link.exists():
            _link(link, path)
    return str(folder)


def derived(card_name: str, name: str) -> Path:
    """Where something made of a card's files lies: beside them, or in the user's own cache where that is read-only."""
    beside = model_dir() / card_name / name
    if beside.is_dir() or os.access(model_dir() / card_name, os.W_OK):
        return beside
    return Path.home() / ".cache" / "curate" / "linked" / card_name / name


def location(card: Card, file: ModelFile) -> Path | None:
    """Where a file of a card lies or would lie; None while nobody knows its digest."""
    sha256 = card.known(file).sha256
    return model_dir() / card.name / sha256[:16] / file.name if sha256 else None


def _verified(card_name: str, name: str) -> str | None:
    """The digest of a file here that is right by its own card."""
    card = load_card(card_name)
    file = card.file(name)
    return card.known(file).sha256 if _status(card, file) is FileStatus.OK else None


def _link(link: Path, path: Path) -> None:
    """At once or not at all: other workers may be doing the same."""
    try:
        link.parent.mkdir(parents=True, exist_ok=True)
        temporary = link.with_name(f".{link.name}.{uuid.uuid4().hex}.tmp")
        temporary.symlink_to(os.path.relpath(path, link.parent))
        temporary.replace(link)
    except OSError as error:
        raise storage_error(error, str(link), writing=True) from error


def _status(card: Card, file: ModelFile) -> FileStatus:
    seen = _seen_status(card, file)
    return _read_status(card, file) if seen is FileStatus.UNCHECKED else seen


def _seen_status(card: Card, file: ModelFile) -> FileStatus:
    path = location(card, file)
    if path is None or not path.is_file():
        return FileStatus.MISSING
    if card.known(file).size_bytes not in {None, path.stat().st_size}:
        return FileStatus.WRONG
    return FileStatus.OK if is_checked(path) else FileStatus.UNCHECKED


def _read_status(card: Card, file: ModelFile) -> FileStatus:
    path = location(card, file)
    if path is None or not path.is_file():
        return FileStatus.MISSING
    if sha256_of(path) != card.known(file).sha256:
        return FileStatus.WRONG
    mark_checked(path)
    return FileStatus.OK


class _Fetcher:
    """Fetches files of one card."""

    def __init__(self, card: Card, say: Say, moved: Callable[[str], Moved], mirror: str | None) -> None:
        self._card, self._say, self._moved, self._mirror = card, say, moved, mirror
        self._folder = model_dir() / card.name

    def fetch(self, file: ModelFile) -> Path:
        """Local path of the file, which is there and right now."""
        label = f"{self._card.name}/{file.name}"
        with alone(self._folder, lambda: self._say(f"{label}: another process fetches this model, waiting")):
            path = location(self._card, file)
            if path is not None and _status(self._card, file) is FileStatus.OK:
                self._say(f"{label}: already here")
                return path
            said = []
            for name, opened in self._sources(file):
                self._say(f"{label}: from {name}")
                try:
                    return self._bring(file, opened())
                except DiskError:
                    raise
                except CurateError as error:
                    said.append(". ".join(filter(None, (f"{name}: {error.message}", error.fix))))
        text = f"no source gave {file.name!r}: {'; '.join(said)}"
        raise StorageError(text, subject=self._card.name, fix=self._fix(file, path))

    def _sources(self, file: ModelFile) -> Iterator[tuple[str, Callable[[], Source]]]:
        if self._mirror is not None:
            mirror = self._mirror
            yield f"mirror {redacted(mirror)}", lambda: open_mirror(mirror, self._card, self._card.known(file))
        for spec in file.sources:
            yield spec, lambda spec=spec: open_source(spec)

    def _bring(self, file: ModelFile, source: Source) -> Path:
        """StorageError when the source has something else; a file that nobody knew is known from now on."""
        known = self._card.known(file)
        wanted = known.sha256 or source.sha256
        if wanted is not None and source.sha256 not in {None, wanted}:
            raise StorageError(f"has sha256 {source.sha256}, where {wanted} is wanted")
        if known.size_bytes is not None and source.size_bytes not in {None, known.size_bytes}:
            raise StorageError(f"has {source.size_bytes} bytes, where {known.size_bytes} are wanted")
        part = self._folder / f".{file.name}.{wanted[:16] if wanted else 'new'}.part"
        found = download(source, part, wanted, self._moved(f"{self._card.name}/{file.name}"))
        path = self._folder / found[:16] / file.name
        size_bytes = part.stat().st_size
        _install(part, path)
        if known.sha256 is None:
            self._learn(file, source, found, size_bytes)
        return path

    def _learn(self, file: ModelFile, source: Source, sha256: str, size_bytes: int) -> None:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        origin = redacted(source.origin)
        learn(self._card.name, file.name, Found(sha256, size_bytes, tuple(file.sources), origin, now))
        self._say(
            f"{self._card.name}/{file.name}: trusted on first use, since no digest of it is known; "
            f"from now on it must have sha256 {sha256}"
        )

    def _fix(self, file: ModelFile, path: Path | None) -> str:
        fix = "Check the network, name a mirror (`--mirror`)"
        if path is None:
            return fix
        if file.sha256 is None:
            return f"{fix}, or remove {self._folder / 'found'} to trust what the model hub gives now"
        return f"{fix}, or put a copy at {path}"


def _install(part: Path, path: Path) -> None:
    """Give a checked file its name. Its time of change is put back a little, so that every later change shows."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        before_s = time.time() - 2
        os.utime(part, (before_s, before_s))
        part.replace(path)
        mark_checked(path)
    except OSError as error:
        raise storage_error(error, str(path), writing=True) from error
