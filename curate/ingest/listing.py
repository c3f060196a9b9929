"""From what the user names to the list of inputs: each is taken, or skipped with a cause."""

from __future__ import annotations

import glob
import os
import posixpath
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from curate.errors import StorageError, UsageError
from curate.ingest.lists import list_rows
from curate.ingest.local import FolderWalk, absolute_path, local_ref
from curate.ingest.names import LIST_SUFFIXES, TAR_SUFFIX, suffix_of
from curate.ingest.remote import is_glob, remote_inputs, remote_ref, remote_refs
from curate.ingest.tars import locate_member, split_member_uri, tar_inputs
from curate.records import InputRef
from curate.redaction import cleaned, redacted, same_file, stored_uri, told_apart
from curate.storage import is_remote


def list_inputs(sources: Sequence[str], *, follow_links: bool = False) -> list[InputRef]:
    """All inputs of ``sources``, each file once, sorted by URI.

    A source is a file, a folder (taken with all below it), a glob, a text/CSV/Parquet list, a WebDataset tar, or any
    of these behind fsspec. Files named by the user are taken whatever they are called; in folders and globs the
    extension decides, and other files are listed with a cause. Paths in a list that lead nowhere become inputs too,
    and fail when they are read. UsageError for a source that does not exist, and when no video is left to read.
    """
    found: dict[tuple[str, str], InputRef] = {}
    for source in sources:
        for ref in map(_without_secrets, _opened_tars(_of_source(source, follow_links))):
            key = ref.uri, same_file(ref.address) if ref.address else ref.uri
            found[key] = _merged(found[key], ref) if key in found else ref
    inputs = sorted(_apart(found), key=lambda ref: ref.uri)
    if all(ref.cause for ref in inputs):
        raise _no_video(sources, inputs)
    return inputs


def _of_source(source: str, follow_links: bool) -> Iterator[InputRef]:
    member = split_member_uri(source)
    if member:
        yield _member_ref(source, *member)
        return
    is_list = suffix_of(source) in LIST_SUFFIXES and not is_glob(source)
    if is_remote(source):
        yield from _listed(source) if is_list else remote_inputs(source)
        return
    path = absolute_path(source)
    if Path(path).is_dir():
        yield from FolderWalk(path, follow_links).inputs()
    elif not os.path.lexists(path) and is_glob(path):
        yield from _local_glob(path, follow_links)
    elif not Path(path).exists():
        why = "is a broken link" if os.path.lexists(path) else "does not exist"
        raise UsageError(why, subject=source, fix="Check the spelling")
    else:
        yield from _listed(path) if is_list and Path(path).is_file() else [local_ref(path)]


def _local_glob(pattern: str, follow_links: bool) -> Iterator[InputRef]:
    """Matches count as found in the folder before the first wild card; an extension in the pattern makes them named."""
    matches = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 - pathlib wants relative patterns
    if not matches:
        raise UsageError("matches no file", subject=pattern, fix="Check the spelling, and quote the pattern")
    fixed = pattern[: min(pattern.index(sign) for sign in "*?[" if sign in pattern)]
    walk = FolderWalk(posixpath.dirname(fixed) or "/", follow_links)
    suffix = suffix_of(pattern)
    named = bool(suffix) and not is_glob(suffix)
    for match in matches:
        for ref in walk.entry(match):
            taken = named and ref.cause.startswith("not a video file name")
            yield replace(ref, cause="") if taken else ref


def _listed(uri: str) -> Iterator[InputRef]:
    """The rows of a list. What cannot be found out about a row now is left open: it fails when it is read."""
    rows = list(list_rows(uri))
    remote = [name for name, _ in rows if is_remote(name) and not split_member_uri(name)]
    asked = {ref.uri: ref for ref in remote_refs(remote)}
    for name, user in rows:
        yield replace(asked[name] if name in asked else _local_row(name), user=user)


def _local_row(name: str) -> InputRef:
    member = split_member_uri(name)
    if member is None:
        return local_ref(name)
    try:
        return _member_ref(name, *member)
    except StorageError:
        return InputRef(name)


def _member_ref(uri: str, name: str, tar_uri: str) -> InputRef:
    tar = remote_ref(tar_uri) if is_remote(tar_uri) else local_ref(tar_uri)
    return InputRef(uri, locate_member(name, tar_uri).size_bytes, tar.version)


def _opened_tars(refs: Iterable[InputRef]) -> Iterator[InputRef]:
    for ref in refs:
        is_tar = suffix_of(ref.uri) == TAR_SUFFIX and not ref.cause and not split_member_uri(ref.uri)
        yield from tar_inputs(ref) if is_tar else [ref]


def _without_secrets(ref: InputRef) -> InputRef:
    """From here on the name that tables keep, with the address beside it where it holds a secret."""
    uri = stored_uri(ref.uri)
    if uri == ref.uri and not ref.user and not ref.cause:
        return ref
    user = {cleaned(key): cleaned(value) for key, value in ref.user.items()}
    return replace(ref, uri=uri, user=user, cause=redacted(ref.cause), address="" if uri == ref.uri else ref.uri)


def _apart(found: Mapping[tuple[str, str], InputRef]) -> Iterator[InputRef]:
    """Inputs by name and place. Where a name stands for several places, nobody knows that they hold the same file."""
    places = Counter(name for name, _ in found)
    for (name, place), ref in found.items():
        yield ref if places[name] == 1 or place == name else replace(ref, uri=told_apart(name, place))


def _merged(first: InputRef, second: InputRef) -> InputRef:
    """One input named twice: taken if either names it as taken, with the user columns of both."""
    kept = second if first.cause and not second.cause else first
    return replace(kept, user={**second.user, **first.user})


def _no_video(sources: Sequence[str], skipped: Sequence[InputRef]) -> UsageError:
    causes = Counter(ref.cause for ref in skipped)
    told = "; ".join(f"{n} x {cause}" for cause, n in causes.most_common(5))
    names = ", ".join(redacted(source) for source in sources) or "no source"
    what = f"no video to read, {len(skipped)} skipped ({told})" if skipped else "no video to read, nothing found"
    return UsageError(what, subject=names, fix="Name a folder, glob, list or file that holds videos")
