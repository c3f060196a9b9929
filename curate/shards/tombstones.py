"""Sources that must not be used any more (take-downs): selection, export and verification leave them out."""

from __future__ import annotations

from collections.abc import Iterable

from curate.query import TOMBSTONES, connect, list_parts, run_query, tombstones_sql
from curate.tables import Corpus, rows_table, write_part


def forgotten(corpus: Corpus) -> dict[str, str]:
    """Why each source, by content digest, was taken down."""
    if not list_parts(corpus.tombstones()):
        return {}  # nearly always, and to open DuckDB takes longer than to look
    with connect() as con:
        rows = run_query(con, lambda: tombstones_sql(con, corpus)).to_pylist()
    return {row["source_digest"]: row["reason"] for row in sorted(rows, key=lambda row: (row["uri"], row["reason"]))}


def add_tombstones(corpus: Corpus, digests: Iterable[str], uri: str, reason: str) -> None:
    """Take contents down; ``uri`` is the name they were known by, empty for a digest. Idempotent."""
    rows = [{"source_digest": digest, "uri": uri, "reason": reason} for digest in sorted(set(digests))]
    write_part(corpus.tombstones(), rows_table(TOMBSTONES, rows))
