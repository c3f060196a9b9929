"""The tables: every part is what its name says, fits its table, and no clip that was promised is missing."""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections.abc import Iterator, Mapping

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from curate.errors import CorpusError, StorageError
from curate.query import (
    TOMBSTONES,
    TableFolder,
    cells_sql,
    connect,
    list_parts,
    parts_sql,
    run_query,
    table_folders,
)
from curate.query.parts import CLIPS_RULE
from curate.storage import Place
from curate.tables import CLIPS, SOURCES, Corpus
from curate.verify.problem import Problem, told

_PART = re.compile(r"part-([0-9a-f]{20})\.parquet")
_CHUNK_BYTES = 4 << 20
_NEEDED: Mapping[str, tuple[str, ...]] = {
    "sources": ("uri", "size_bytes", "version", "source_digest", "outcome", "attempt"),
    "clips": tuple(CLIPS.names),
    "cells": ("key", "outcome", "attempt"),
    "tombstones": tuple(TOMBSTONES.names),
}
_TYPES: Mapping[str, pa.Schema] = {
    "sources": SOURCES,
    "clips": CLIPS,
    "cells": pa.schema([("key", pa.string()), ("outcome", pa.string()), ("attempt", pa.int32())]),
    "tombstones": TOMBSTONES,
}


def verify_tables(corpus: Corpus) -> Iterator[Problem]:
    """All that is wrong with the tables. Every byte of every part is read once."""
    folders = table_folders(corpus)
    for folder in folders:
        yield from _parts(folder)
    yield from _foreign(corpus, folders)
    for folder in folders:
        if folder.kind == "clips":
            yield from _promised(corpus, folder, folders)


def _parts(folder: TableFolder) -> Iterator[Problem]:
    seen: dict[str, tuple[pa.DataType, str]] = {}
    for path in list_parts(folder.place):
        name = posixpath.basename(path)
        place = folder.place.child(name)
        subject = f"{folder.name}/{name}"
        named = _PART.fullmatch(name)
        if named is None:
            yield Problem("table", subject, "is not named as a part is (part-DIGEST.parquet), and is read all the same")
        try:
            if named and _digest(place)[:20] != named[1]:
                yield Problem("table", subject, "has other bytes than its name says (sha256)")
            with place.open() as file:
                schema = pq.ParquetFile(file).schema_arrow
        except (StorageError, pa.ArrowInvalid, OSError) as error:
            if path in list_parts(folder.place):  # else it was merged into another meanwhile
                yield Problem("table", subject, f"cannot be read: {error}")
            continue
        yield from (Problem("table", subject, text) for text in _columns(folder, schema, seen, name))


def _digest(place: Place) -> str:
    digest = hashlib.sha256()
    with place.open() as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _columns(
    folder: TableFolder, schema: pa.Schema, seen: dict[str, tuple[pa.DataType, str]], part: str
) -> Iterator[str]:
    """What does not fit: columns that the table needs, types that differ from the table's or another part's."""
    absent = [name for name in _NEEDED[folder.kind] if name not in schema.names]
    if absent:
        yield f"lacks the columns {', '.join(absent)}"
    wanted = _TYPES[folder.kind]
    for field in schema:
        declared = wanted.field(field.name).type if field.name in wanted.names else None
        if declared is not None and field.type != declared:
            yield f"holds {field.name} as {field.type}, the table has {declared}"
        other, where = seen.setdefault(field.name, (field.type, part))
        if other != field.type:
            yield f"holds {field.name} as {field.type}, {where} as {other}"


def _foreign(corpus: Corpus, folders: list[TableFolder]) -> Iterator[Problem]:
    """Files below ``tables/`` that no reader looks at (hidden ones are left-overs)."""
    tables = corpus.root.child("tables")
    places = {folder.place.path.rstrip("/") for folder in folders}
    for path in tables.tree():
        folder, name = posixpath.split(path)
        if not name.startswith(".") and not (name.endswith(".parquet") and folder.rstrip("/") in places):
            below = path.removeprefix(tables.path.rstrip("/") + "/")
            yield Problem("table", f"tables/{below}", "is no part of a table")


def _promised(corpus: Corpus, folder: TableFolder, folders: list[TableFolder]) -> Iterator[Problem]:
    """Sources whose cut cell promises another number of clips than there are: those clips count for nothing."""
    fingerprint = folder.name.rpartition("/")[2]
    cuts = [f.name.split("/")[2] for f in folders if f.kind == "cells" and f.name.endswith(f"/{fingerprint}")]
    if not cuts:
        return  # clips are written before their cut cell: a run was killed in between, and will be done again
    with connect() as con:

        def sql() -> str:
            clips = parts_sql(con, folder.place, *CLIPS_RULE, CLIPS, ["source_digest"])
            cut = cells_sql(con, corpus, cuts[0], fingerprint, columns=["key", "n_clips", "outcome"])
            return f"""SELECT key, n_clips, coalesce(n, 0) AS n FROM ({cut}) LEFT JOIN
                (SELECT source_digest, count(*) AS n FROM ({clips}) GROUP BY 1) ON source_digest = key
                WHERE outcome = 'ok' AND coalesce(n, 0) != n_clips ORDER BY key"""

        try:
            rows = run_query(con, sql).to_pylist()
        except (CorpusError, StorageError, duckdb.Error) as error:
            yield Problem("table", folder.name, f"cannot be counted: {error}")
            return
    text = "its cut cell promises {} clips, the table has {}; the next run cuts it again"
    yield from told([Problem("table", row["key"], text.format(row["n_clips"], row["n"])) for row in rows])
