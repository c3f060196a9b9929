"""Local files and folders. Nothing is opened here: a FIFO or a device among the inputs cannot make the listing wait."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from curate.ingest.names import CORPUS_CAUSE, CORPUS_PARTS, cause_of_hidden, cause_of_name, printable
from curate.records import InputRef

_KINDS = {
    stat.S_IFIFO: "FIFO",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
    stat.S_IFDIR: "folder",
}


def absolute_path(name: str, folder: str | Path = "") -> str:
    """A local path or ``file://`` URI as an absolute path, taken from ``folder`` (default: where we are).

    Links are not resolved: the name the user knows stays the identity of the input.
    """
    name = name.removeprefix("file://").removeprefix("local://")
    return os.path.normpath(Path(folder).absolute() / os.path.expanduser(name))  # noqa: PTH111 - leaves "~x" alone


def file_kind(mode: int) -> str:
    """Empty for a regular file, else what it is: FIFO, socket, device, folder."""
    return "" if stat.S_ISREG(mode) else _KINDS.get(stat.S_IFMT(mode), "special file")


def local_ref(path: str) -> InputRef:
    """The input that a named local file is. One that does not exist has no size, and fails when it is read."""
    try:
        facts = Path(path).stat()
    except OSError:
        return InputRef(printable(path))
    return _stated(path, facts)


def _stated(path: str, facts: os.stat_result) -> InputRef:
    if printable(path) != path:
        return InputRef(printable(path), cause="file name is not valid UTF-8")
    kind = file_kind(facts.st_mode)
    if kind:
        return InputRef(path, cause=f"not a regular file ({kind})")
    return InputRef(path, facts.st_size, str(facts.st_mtime_ns))


@dataclass
class FolderWalk:
    """All files below ``root``, as inputs or with the cause why not.

    Links to files inside the root count as files of their own. Links to folders inside are not entered, since their
    files are listed under their own names. What leaves the root is entered only with ``follow_links``; a folder is
    never entered twice, so that loops end. A corpus below the root is not entered.
    """

    root: str
    follow_links: bool = False
    _seen: set[tuple[int, int]] = field(default_factory=set, init=False)
    _real_root: str = field(default="", init=False)

    def __post_init__(self) -> None:
        self._real_root = os.path.realpath(self.root)

    def inputs(self) -> Iterator[InputRef]:
        """Every file below the root, depth first, by name."""
        yield from self._folder(self.root)

    def _folder(self, folder: str) -> Iterator[InputRef]:
        try:
            facts = Path(folder).stat()
            with os.scandir(folder) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            yield InputRef(printable(folder), cause=f"folder cannot be read: {error.strerror}")
            return
        mark = (facts.st_dev, facts.st_ino)
        if mark in self._seen:
            return
        self._seen.add(mark)
        if folder != self.root and {entry.name for entry in found} >= CORPUS_PARTS:
            yield InputRef(printable(folder), cause=CORPUS_CAUSE)
            return
        for entry in found:
            yield from self.entry(entry.path)

    def entry(self, path: str) -> Iterator[InputRef]:
        """The inputs that one file or folder below the root stands for."""
        hidden = cause_of_hidden(Path(path).name)
        if hidden:
            yield InputRef(printable(path), cause=hidden)
            return
        try:
            facts = Path(path).lstat()
        except OSError as error:
            yield InputRef(printable(path), cause=f"cannot be looked at: {error.strerror}")
            return
        if stat.S_ISLNK(facts.st_mode):
            yield from self._link(path)
        elif stat.S_ISDIR(facts.st_mode):
            yield from self._folder(path)
        else:
            yield _found_file(_stated(path, facts))

    def _link(self, path: str) -> Iterator[InputRef]:
        target = os.path.realpath(path)
        is_folder = Path(target).is_dir()
        inside = Path(target).is_relative_to(self._real_root)
        if not Path(target).exists():
            yield InputRef(printable(path), cause="broken link")
        elif not inside and not self.follow_links:
            yield InputRef(printable(path), cause="link that leaves the source folder (--follow-links takes it)")
        elif inside and is_folder:
            yield InputRef(printable(path), cause="link to a folder of the same source, listed under its own name")
        elif is_folder:
            yield from self._folder(path)
        else:
            yield _found_file(local_ref(path))


def _found_file(ref: InputRef) -> InputRef:
    cause = ref.cause or cause_of_name(ref.uri)
    return InputRef(ref.uri, ref.size_bytes, ref.version, cause)
