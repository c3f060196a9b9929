"""Source lists: text, CSV or Parquet files that name videos, with extra columns that stay with them."""

from __future__ import annotations

import csv
import io
import json
import posixpath
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from curate.errors import UsageError
from curate.ingest.local import absolute_path
from curate.ingest.names import VIDEO_SUFFIXES, suffix_of
from curate.storage import Place, is_remote, redacted
from curate.tables import parquet_table

COLUMN_NAMES = ("uri", "url", "path", "video", "file", "filename", "file_name", "video_path", "video_url")
"""Names by which the column of paths is found, in this order; else it is the first column."""

Row = tuple[str, dict[str, str]]
"""A path or URI, and the other columns as text."""


def list_rows(uri: str) -> Iterator[Row]:
    """Rows of a list; relative paths are made absolute from the list's folder. UsageError when it cannot be read."""
    data = Place(uri).read_bytes()
    try:
        rows = _parsed(data, suffix_of(uri))
    except (UnicodeDecodeError, csv.Error, pa.ArrowInvalid) as error:
        raise UsageError(f"is not a readable list: {error}", subject=redacted(uri)) from error
    folder = posixpath.dirname(uri if is_remote(uri) else absolute_path(uri))
    for name, user in rows:
        if name:
            yield _absolute(name, folder), user


def _parsed(data: bytes, suffix: str) -> list[Row]:
    if suffix == ".parquet":
        return _table_rows(parquet_table(data))
    text = data.decode("utf-8-sig")
    if suffix in (".csv", ".tsv"):
        return _csv_rows(text, "\t" if suffix == ".tsv" else ",")
    lines = (line.strip() for line in text.splitlines())
    return [(line, {}) for line in lines if line and not line.startswith("#")]


def _table_rows(table: pa.Table) -> list[Row]:
    if not table.num_columns:
        return []
    key = _path_column(table.column_names)
    return [_row(record, key) for record in table.to_pylist()]


def _csv_rows(text: str, delimiter: str) -> list[Row]:
    records = [cells for cells in csv.reader(io.StringIO(text), delimiter=delimiter) if any(cells)]
    if not records:
        return []
    head = [name.strip() for name in records[0]]
    if _looks_like_video(head[0]):
        head = ["path", *(f"column_{i}" for i in range(2, len(head) + 1))]
    else:
        records = records[1:]
    key = _path_column(head)
    return [_row(dict(zip(head, cells, strict=False)), key) for cells in records]


def _row(record: Mapping[str, Any], key: str) -> Row:
    user = {name: text for name, value in record.items() if name != key and (text := _text(value))}
    return _text(record.get(key)).strip(), user


def _path_column(names: list[str]) -> str:
    lower = {name.lower(): name for name in reversed(names)}
    return next((lower[name] for name in COLUMN_NAMES if name in lower), names[0])


def _looks_like_video(cell: str) -> bool:
    return "://" in cell or suffix_of(cell) in VIDEO_SUFFIXES


def _text(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, dict | list):
        return json.dumps(value, default=str)
    return str(value)


def _absolute(name: str, folder: str) -> str:
    if is_remote(name):
        return name
    if is_remote(folder):
        return posixpath.join(folder, name)
    return absolute_path(name, folder)
