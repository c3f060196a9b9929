"""Merge the small parts of each table folder, so that reading opens few files.

A merged file holds every key of the parts it replaces, each by the row that reading would choose among them (DESIGN
section 4); rows of other parts play no role, so nothing is ever dropped in favour of a row that another compaction may
be about to drop. The new file is written, read back and only then are the old ones removed: a death in between leaves
rows twice, which every reader resolves. Its name is the digest of its content, so two compactions at once that merge
the same parts write the same file.
"""

from __future__ import annotations

import hashlib
import posixpath
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from curate.errors import CorpusError, StorageError
from curate.query import TableFolder, connect, list_parts, repeated_rows, table_folders
from curate.storage import Place, storage_error
from curate.tables import Corpus

_BATCH_ROWS = 1 << 14
_GROUP_ROWS = 1 << 16
_GROUP_BYTES = 64 << 20
_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class CompactLimits:
    """How large a merged file may become; a part of half of either limit or more is left as it is."""

    bytes: int = 128 << 20
    rows: int = 500_000


@dataclass(slots=True)
class Compacted:
    """What was (or would be) done to one folder: its parts before and after, rows of merged parts, and how many of
    those were there twice."""

    folder: str
    parts_before: int
    parts_after: int
    rows: int = 0
    repeated: int = 0


@dataclass(frozen=True, slots=True)
class _Part:
    path: str
    bytes: int
    rows: int
    schema: pa.Schema = field(repr=False)


DEFAULT_LIMITS = CompactLimits()


def compact(corpus: Corpus, *, dry_run: bool = False, limits: CompactLimits = DEFAULT_LIMITS) -> Iterator[Compacted]:
    """Merge the small parts of every table folder, one folder after the other; gives what was done to each.

    Holds one merged file in memory (``limits.bytes``). Runs, readers and other compactions may go on at the same time.
    CorpusError for a part that is not Parquet, StorageError when the corpus cannot be read or written.
    """
    corpus.check()
    for folder in table_folders(corpus):
        yield compact_folder(folder, limits, dry_run=dry_run)


def compact_folder(folder: TableFolder, limits: CompactLimits = DEFAULT_LIMITS, *, dry_run: bool = False) -> Compacted:
    """The same for one folder. Lists again when another compaction took a part away meanwhile, and gives way to one
    that keeps being faster: it does the work."""
    paths = list_parts(folder.place)
    for _ in range(_ATTEMPTS):
        try:
            groups = _groups(_parts(folder.place, paths), limits)
            done = Compacted(folder.name, len(paths), len(paths) - sum(len(group) - 1 for group in groups))
            for group in groups:
                done.rows += sum(part.rows for part in group)
                done.repeated += 0 if dry_run else _merge(folder, group)
            return done
        except StorageError:
            gone, paths = set(paths), list_parts(folder.place)
            if gone <= set(paths):
                raise
    return Compacted(folder.name, len(paths), len(paths))


def _parts(folder: Place, paths: Sequence[str]) -> Iterator[_Part]:
    """The parts with what their footers say."""
    for path in paths:
        place = _sibling(folder, path)
        with _damage(place), place.open() as file:
            found = pq.ParquetFile(file)
            size_bytes = file.seek(0, 2)
            yield _Part(path, size_bytes, found.metadata.num_rows, found.schema_arrow)


@contextmanager
def _damage(place: Place) -> Iterator[None]:
    """Errors of pyarrow as ours: those without an errno speak of the bytes, the others of the place."""
    try:
        yield
    except (pa.ArrowInvalid, OSError) as error:
        if isinstance(error, OSError) and error.errno:
            raise storage_error(error, place.uri) from error
        fix = "`curate verify` names all that is damaged"
        raise CorpusError(f"is not a whole Parquet file: {error}", subject=place.uri, fix=fix) from error


def _groups(parts: Iterator[_Part], limits: CompactLimits) -> list[list[_Part]]:
    """Small parts to merge, in the order of their names; only parts of one schema go together."""
    open_groups: list[list[_Part]] = []
    done: list[list[_Part]] = []
    for part in parts:
        if 2 * part.bytes >= limits.bytes or 2 * part.rows >= limits.rows:
            continue
        group = next((g for g in open_groups if g[0].schema.equals(part.schema, check_metadata=True)), None)
        if group is None:
            group = []
            open_groups.append(group)
        if group and not _fits([*group, part], limits):
            done.append(list(group))
            group.clear()
        group.append(part)
    return [group for group in [*done, *open_groups] if len(group) > 1]


def _fits(group: Sequence[_Part], limits: CompactLimits) -> bool:
    return sum(part.bytes for part in group) <= limits.bytes and sum(part.rows for part in group) <= limits.rows


def _merge(folder: TableFolder, group: Sequence[_Part]) -> int:
    """Replace the parts by one; gives how many repeated rows it lacks."""
    with connect() as con:
        losers = repeated_rows(con, folder.place, [part.path for part in group], folder.key, folder.rank)
    with tempfile.TemporaryDirectory(prefix="curate-compact-") as scratch:
        file = Path(scratch) / "merged.parquet"
        _write(folder.place, group, losers, file)
        data = file.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    merged = folder.place.child(f"part-{digest[:20]}.parquet")
    merged.write_bytes(data)
    if hashlib.sha256(merged.read_bytes()).hexdigest() != digest:
        raise StorageError("does not read back as it was written; nothing was removed", subject=merged.uri)
    for part in group:
        # All other rows of a part may be repeats: then the merged file is that part, byte for byte.
        if posixpath.basename(part.path) != posixpath.basename(merged.path):
            _remove(_sibling(folder.place, part.path))
    return sum(map(len, losers.values()))


def _write(folder: Place, group: Sequence[_Part], losers: dict[str, list[int]], file: Path) -> None:
    """Stream the rows that count into one file, in row groups of a useful size."""
    with pq.ParquetWriter(file, group[0].schema, compression="zstd") as writer:
        held: list[pa.RecordBatch] = []
        for part in group:
            for batch in _batches(_sibling(folder, part.path), set(losers.get(part.path, ()))):
                held.append(batch)
                if sum(b.num_rows for b in held) >= _GROUP_ROWS or sum(b.nbytes for b in held) >= _GROUP_BYTES:
                    writer.write_table(pa.Table.from_batches(held))
                    held.clear()
        if held:
            writer.write_table(pa.Table.from_batches(held))


def _batches(place: Place, without: set[int]) -> Iterator[pa.RecordBatch]:
    """The rows of a part less those of these numbers."""
    first = 0
    with _damage(place):
        file = pq.ParquetFile(pa.BufferReader(place.read_bytes()))
        for batch in file.iter_batches(_BATCH_ROWS, use_threads=False):
            keep = [row not in without for row in range(first, first + batch.num_rows)] if without else None
            first += batch.num_rows
            yield batch.filter(pa.array(keep)) if keep else batch


def _sibling(folder: Place, path: str) -> Place:
    return folder.child(posixpath.basename(path))


def _remove(place: Place) -> None:
    try:
        place.remove()
    except FileNotFoundError:
        return  # another compaction was faster
