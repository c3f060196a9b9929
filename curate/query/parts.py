"""Reading folders of immutable parts (DESIGN section 4).

A folder may hold a key more than once (two runs at once, a retry, a compaction that died half-way). What counts is
found once per list of parts and kept in a temporary table of *losers* (part, row number). Nearly always there are
none: then reading is a plain scan. Clock time decides nothing.

Ids are compared as 128-bit numbers: a clip id is 32 hex digits, of a source digest (sha256) the first 32 are taken.
"""

from __future__ import annotations

import functools
import hashlib
import math
import re
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

import duckdb
import pyarrow as pa

from curate.errors import CorpusError, StorageError
from curate.storage import Place, redacted
from curate.tables import CLIPS, SOURCES, Corpus

P = ParamSpec("P")
T = TypeVar("T")

DEFAULT_MEMORY_BYTES = 1 << 30
"""What DuckDB may use before it spills: 10 million clips with four scores pass within it (docs/benchmarks.md)."""

TOMBSTONES = pa.schema([("source_digest", pa.string()), ("uri", pa.string()), ("reason", pa.string())])
"""Sources that were taken down: ``tables/tombstones/part-*``."""

_CELL_TAIL_TYPES = {
    "key": "VARCHAR",
    "outcome": "VARCHAR",
    "error_class": "VARCHAR",
    "error_message": "VARCHAR",
    "error_traceback": "VARCHAR",
    "attempt": "INTEGER",
    "seconds": "DOUBLE",
    "host": "VARCHAR",
    "run_id": "VARCHAR",
    "n_clips": "BIGINT",
    "peak_memory_bytes": "BIGINT",
}
_ADDED = {"error_traceback": "VARCHAR", "peak_memory_bytes": "BIGINT"}
"""Columns that earlier versions did not write, in cells or in sources."""
_OK_THEN_LATEST = "(outcome = 'ok') DESC, attempt DESC NULLS LAST"
_LISTINGS = 20
"""How often a folder is listed at most until two listings agree; beyond that something removes parts without end."""

_LOSERS: WeakKeyDictionary[duckdb.DuckDBPyConnection, dict[str, str | None]] = WeakKeyDictionary()
"""Tables of losers by connection and by what they were looked for in; to ask DuckDB for its tables takes longer."""

_READINGS = 5
_WILD = re.compile(r"[*?[]")
_VANISHED = ("No files found that match", "No such file")
"""How DuckDB says that a file it was given is not there."""

CELLS_RULE = (("key",), _OK_THEN_LATEST)
SOURCES_RULE = (("uri", "size_bytes", "version"), _OK_THEN_LATEST)
CLIPS_RULE = (("clip_id",), "1")
TOMBSTONES_RULE = (("source_digest", "uri"), "1")
"""The reading rule of each kind of table: its key, and how to rank rows with one key (SQL)."""


def connect(*, memory_bytes: int | None = None, threads: int | None = None) -> duckdb.DuckDBPyConnection:
    """A DuckDB in memory that spills into its own temporary folder (made when needed, removed at close)."""
    spill = Path(tempfile.gettempdir()) / f"curate-spill-{uuid.uuid4().hex}"
    settings: dict[str, Any] = {
        "memory_limit": f"{memory_bytes or DEFAULT_MEMORY_BYTES}B",
        "temp_directory": str(spill),
        "preserve_insertion_order": False,
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
    }
    if threads:
        settings["threads"] = threads
    return duckdb.connect(":memory:", config=settings)


def identifier(name: str) -> str:
    """A quoted SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(value: str | float | bool) -> str:
    """A value as an SQL literal; numbers keep their exact value."""
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return f"{value!r}::DOUBLE" if math.isfinite(value) else f"'{value}'::DOUBLE"
    return "'" + value.replace("'", "''") + "'"


def id_sql(column: str) -> str:
    """SQL of a 128-bit number for a column of clip ids or source digests."""
    return f"left({column}, 32)::UUID"


def id_text_sql(column: str) -> str:
    """SQL of the clip id that such a number stands for."""
    return f"replace({column}::VARCHAR, '-', '')"


def listing_again(read: Callable[P, T]) -> Callable[P, T]:
    """Decorator of a reading that keeps SQL over listed parts: when one vanished meanwhile (compaction), it begins
    again and so lists again. The reading must be repeatable."""

    @functools.wraps(read)
    def reading(*args: P.args, **kwargs: P.kwargs) -> T:
        for _ in range(_READINGS - 1):
            try:
                return read(*args, **kwargs)
            except (duckdb.IOException, StorageError) as error:
                if not _tells_of_a_vanished_part(error):
                    raise
        return read(*args, **kwargs)

    return reading


def _tells_of_a_vanished_part(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, duckdb.Error) and any(text in str(error) for text in _VANISHED):
            return True
        error = error.__cause__
    return False


def run_query(con: duckdb.DuckDBPyConnection, make_sql: Callable[[], str], *, attempts: int = 5) -> pa.Table:
    """Run the SQL that ``make_sql`` gives and return its rows (an empty table for a statement).

    A part that vanishes between listing and reading (compaction) makes it ask ``make_sql`` again, which lists again.
    StorageError when that does not help; CorpusError when a part is not Parquet.
    """
    for attempt in range(attempts):
        try:
            relation = con.sql(make_sql())
            return pa.table({}) if relation is None else relation.to_arrow_table()
        except (duckdb.IOException, duckdb.HTTPException, OSError) as error:
            if attempt == attempts - 1:
                raise StorageError(f"a table could not be read: {error}", fix="Run the command again") from error
            time.sleep(0.05 * 2**attempt)
        except duckdb.Error as error:
            # Broken footers and pages come as these two classes, without the word.
            if type(error) not in {duckdb.Error, duckdb.InternalException} and "parquet" not in str(error).lower():
                raise
            raise CorpusError(f"a part of a table is damaged: {error}", fix="Remove it and run again") from error
    raise AssertionError("unreachable")


def cells_sql(
    con: duckdb.DuckDBPyConnection,
    corpus: Corpus,
    stage: str,
    fingerprint: str,
    schema: pa.Schema | None = None,
    columns: Sequence[str] | None = None,
) -> str:
    """SQL of one stage's cells, one row a key: ok before failed, then highest attempt, then smallest part name.

    ``columns`` narrows what is read. Without any part the relation is empty, with types from ``schema`` where given.
    """
    return parts_sql(con, corpus.cells(stage, fingerprint), *CELLS_RULE, schema, columns)


def sources_sql(con: duckdb.DuckDBPyConnection, corpus: Corpus, columns: Sequence[str] | None = None) -> str:
    """SQL of the sources table, one row per (uri, size_bytes, version): ok before failed, then highest attempt."""
    return parts_sql(con, corpus.sources(), *SOURCES_RULE, SOURCES, columns)


def tombstones_sql(con: duckdb.DuckDBPyConnection, corpus: Corpus) -> str:
    """SQL of the sources that were taken down, one row per (source_digest, uri)."""
    return parts_sql(con, corpus.tombstones(), *TOMBSTONES_RULE, TOMBSTONES)


def clips_sql(
    con: duckdb.DuckDBPyConnection,
    corpus: Corpus,
    cut_stage: str,
    cut_fingerprint: str,
    schema: pa.Schema | None = None,
    columns: Sequence[str] | None = None,
) -> str:
    """SQL of the clips that count: those of sources with an ok cut cell whose ``n_clips`` is their number.

    ``schema`` is that of the cut cells; ``columns`` narrows the columns of the clips.
    """
    folder = corpus.clips(cut_fingerprint)
    cut = cells_sql(con, corpus, cut_stage, cut_fingerprint, schema, ["key", "n_clips", "outcome"])
    every = parts_sql(con, folder, *CLIPS_RULE, CLIPS, columns)
    owners = parts_sql(con, folder, *CLIPS_RULE, CLIPS, ["source_digest"])
    source = id_sql("source_digest")
    chosen = ", ".join(map(identifier, columns)) if columns else "*"
    if columns and "source_digest" not in columns:
        every = parts_sql(con, folder, *CLIPS_RULE, CLIPS, [*columns, "source_digest"])
    return f"""SELECT {chosen} FROM ({every}) counted_clip WHERE {source} IN (
        SELECT found.source FROM (SELECT {source} AS source, count(*) AS n FROM ({owners}) GROUP BY 1) found
        JOIN (SELECT {id_sql("key")} AS source, n_clips FROM ({cut}) WHERE outcome = 'ok') promised
        ON found.source = promised.source AND found.n = promised.n_clips)"""


def parts_sql(
    con: duckdb.DuckDBPyConnection,
    folder: Place,
    key: Sequence[str],
    rank: str,
    schema: pa.Schema | None = None,
    columns: Sequence[str] | None = None,
) -> str:
    """SQL of all parts of a folder, one row per ``key``: the first by ``rank``, then by part name and row."""
    files = _paths(con, folder)
    if not files:
        return _nothing(con, schema, columns)
    losers = _losers(con, files, key, rank)
    chosen = ", ".join(map(identifier, columns)) if columns else "*"
    if losers is None:
        return f"SELECT {chosen} FROM {_with_added(_scan(files), columns)}"
    chosen = chosen if columns else "* EXCLUDE (filename, file_row_number)"
    rows = _with_added(_scan(files, rows=True), columns)
    return f"SELECT {chosen} FROM {rows} ANTI JOIN {losers} USING (filename, file_row_number)"


def _with_added(relation: str, columns: Sequence[str] | None) -> str:
    """The relation with those columns that its parts may be too old to have, where they are asked for."""
    added = [f"NULL::{dtype} AS {name}" for name, dtype in _ADDED.items() if name in (columns or ())]
    if not added:
        return relation
    return f"(SELECT * FROM {relation} UNION ALL BY NAME SELECT {', '.join(added)} WHERE FALSE)"


def repeated_rows(
    con: duckdb.DuckDBPyConnection, folder: Place, paths: Sequence[str], key: Sequence[str], rank: str
) -> dict[str, list[int]]:
    """Row numbers by path of the rows of these parts that lose against another of them.

    StorageError when one cannot be read, also because it vanished.
    """
    names = {_readable(con, folder, path): path for path in paths}
    nothing = "SELECT '' AS filename, 0 AS file_row_number WHERE FALSE"
    rows = run_query(con, lambda: f"FROM {_losers(con, list(names), key, rank) or f'({nothing})'}", attempts=1)
    found: dict[str, list[int]] = {}
    for row in rows.to_pylist():
        found.setdefault(names[row["filename"]], []).append(row["file_row_number"])
    return found


def file_sql(con: duckdb.DuckDBPyConnection, place: Place) -> str:
    """SQL of one Parquet file."""
    return f"SELECT * FROM {_scan([_readable(con, place, place.path)])}"


def ranked_sql(
    con: duckdb.DuckDBPyConnection, folder: Place, paths: Sequence[str], key: Sequence[str], rank: str
) -> str:
    """SQL of some parts of a folder alone, one row per ``key``, each with the name of its part (``filename``)."""
    keys = ", ".join(map(identifier, key))
    scan = _scan([_readable(con, folder, path) for path in paths], rows=True)
    return f"""SELECT * EXCLUDE (file_row_number) FROM {scan} QUALIFY row_number() OVER
        (PARTITION BY {keys} ORDER BY {rank}, filename, file_row_number) = 1"""


def _losers(con: duckdb.DuckDBPyConnection, files: Sequence[str], key: Sequence[str], rank: str) -> str | None:
    """Name of the table of rows that lose against another with the same key; None when there are none. Found once per
    connection and list of parts.

    A first pass counts 64-bit hashes of the keys, so only what looks repeated is compared in full.
    """
    digest = hashlib.sha256("\n".join([*files, *key, rank]).encode()).hexdigest()[:24]
    found = _LOSERS.setdefault(con, {})
    if digest not in found:
        found[digest] = _find_losers(con, f"losers_{digest}", files, key, rank)
    return found[digest]


def _find_losers(
    con: duckdb.DuckDBPyConnection, name: str, files: Sequence[str], key: Sequence[str], rank: str
) -> str | None:
    keys = ", ".join(map(identifier, key))
    repeated = f"SELECT hash({keys}) AS h FROM {_scan(files)} GROUP BY 1 HAVING count(*) > 1"
    if not _any(con, f"FROM ({repeated})"):
        return None
    con.execute(
        f"""CREATE OR REPLACE TEMP TABLE {name} AS SELECT filename, file_row_number FROM {_scan(files, rows=True)}
        WHERE hash({keys}) IN ({repeated}) QUALIFY row_number() OVER
        (PARTITION BY {keys} ORDER BY {rank}, filename, file_row_number) > 1"""
    )
    return name


def _any(con: duckdb.DuckDBPyConnection, source: str) -> bool:
    return bool(con.execute(f"SELECT 1 {source} LIMIT 1").fetchall())


def _scan(files: Sequence[str], *, rows: bool = False) -> str:
    names = ", ".join(literal(_no_glob(file)) for file in files)
    extra = ", filename = true, file_row_number = true" if rows else ""
    return f"read_parquet([{names}], hive_partitioning = false, union_by_name = true{extra})"


def _no_glob(path: str) -> str:
    """The path with wild cards quoted: read_parquet expands them in every name."""
    return _WILD.sub(r"[\g<0>]", path)


def list_parts(folder: Place) -> list[str]:
    """Sorted paths (inside the file system) of the parts of a folder.

    A listing is no snapshot: while it goes on, compaction may add the merged file behind it and remove the old ones
    before it. So the folder is listed until nothing that one listing named is missing from the next: rows that such a
    pair of listings both missed would have had to move twice meanwhile.
    """
    found = folder.files(".parquet")
    for _ in range(_LISTINGS):
        before, found = found, folder.files(".parquet")
        if set(before) <= set(found):
            break
    return found


def _paths(con: duckdb.DuckDBPyConnection, folder: Place) -> list[str]:
    return [_readable(con, folder, path) for path in list_parts(folder)]


def _readable(con: duckdb.DuckDBPyConnection, place: Place, path: str) -> str:
    """The name under which DuckDB opens a path of this place's file system."""
    if place.is_local:
        return path
    protocol = place.fs.protocol if isinstance(place.fs.protocol, str) else place.fs.protocol[0]
    try:
        if not con.filesystem_is_registered(protocol):
            con.register_filesystem(place.fs)
    except duckdb.Error as error:
        raise StorageError(f"tables cannot be read there: {error}", subject=redacted(place.uri)) from error
    return str(place.fs.unstrip_protocol(path))


def _as_read(dtype: pa.DataType) -> pa.DataType:
    """The type as DuckDB reads it from Parquet: it takes half floats there as floats, but not from Arrow."""
    if pa.types.is_list(dtype):
        return pa.list_(_as_read(dtype.value_type))
    return pa.float32() if pa.types.is_float16(dtype) else dtype


def _nothing(con: duckdb.DuckDBPyConnection, schema: pa.Schema | None, columns: Sequence[str] | None) -> str:
    """An empty relation: typed where the type is known, else of the type NULL, which compares with anything."""
    types = dict(_CELL_TAIL_TYPES)
    if schema is not None:
        empty = con.from_arrow(pa.schema([(f.name, _as_read(f.type)) for f in schema]).empty_table())
        types = dict(zip(empty.columns, map(str, empty.types), strict=True))
    names = list(columns or types)
    typed = (f"NULL::{types[n]}" if types.get(n, "NULL") not in {"NULL", '"NULL"'} else "NULL" for n in names)
    listed = ", ".join(f"{value} AS {identifier(name)}" for value, name in zip(typed, names, strict=True))
    return f"SELECT {listed} WHERE FALSE"
