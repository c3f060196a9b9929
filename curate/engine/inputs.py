"""From listed inputs to known content: which need reading, which are the same content under two names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from curate.bulk import RunMap
from curate.errors import CurateError
from curate.ingest.spool import check_listed, spooled
from curate.query import listing_again, sources_sql
from curate.records import InputRef, Outcome
from curate.stage import boundary, failed_cell
from curate.tables import SOURCES, Corpus, rows_table, write_part

Key = tuple[str, int | None, str]


@dataclass(frozen=True, slots=True)
class KnownSource:
    """What the sources table says of one (uri, size, version)."""

    digest: str | None
    outcome: Outcome
    error_class: str
    error_message: str
    attempt: int
    run_id: str = ""


def key_of(ref: InputRef) -> Key:
    """What decides whether an input may have changed."""
    return ref.uri, ref.size_bytes, ref.version


@listing_again
def known_sources(con: duckdb.DuckDBPyConnection, corpus: Corpus) -> dict[Key, KnownSource]:
    """The sources table by (uri, size, version)."""
    columns = "uri, size_bytes, version, source_digest, outcome, error_class, error_message, attempt, run_id"
    rows = con.execute(f"select {columns} from ({sources_sql(con, corpus)})").fetchall()
    return {
        (uri, size, version): KnownSource(digest, Outcome(outcome), cls or "", message or "", attempt, run or "")
        for uri, size, version, digest, outcome, cls, message, attempt, run in rows
    }


def hash_lookalikes(
    corpus: Corpus, refs: Sequence[InputRef], known: Mapping[Key, KnownSource], scratch: Path, run_map: RunMap
) -> int:
    """Take the digest of unread inputs that have the size of another input or known source: no others can be the same.

    Their rows are written to `sources`; gives how many were read.
    """
    unread = [ref for ref in refs if not ref.cause and key_of(ref) not in known]
    sizes = Counter(ref.size_bytes for ref in refs if not ref.cause)
    old_sizes = {size for _, size, _ in known}
    alike = [ref for ref in unread if ref.size_bytes and (sizes[ref.size_bytes] > 1 or ref.size_bytes in old_sizes)]
    if not alike:
        return 0
    rows = [row for row in run_map(_HashTask(scratch), alike) if row is not None]
    if rows:
        write_part(corpus.sources(), rows_table(SOURCES, rows))
    return len(rows)


@dataclass(frozen=True)
class _HashTask:
    scratch: Path

    def __call__(self, ref: InputRef) -> dict[str, Any] | None:
        """The sources row of an input whose bytes were read; None when they could not be (its analysis says why)."""
        with boundary() as caught, spooled(ref, self.scratch) as file:
            check_listed(ref, file)
            return {
                "uri": ref.uri,
                "size_bytes": ref.size_bytes,
                "version": ref.version,
                "source_digest": file.digest,
                "outcome": str(Outcome.OK),
                "attempt": 0,
                "seconds": 0.0,
            }
        assert caught.error is not None
        return None


def same_content(refs: Sequence[InputRef], known: Mapping[Key, KnownSource]) -> dict[str, str]:
    """uri -> the uri that stands for its content, for every input that is not the first of its digest."""
    first: dict[str, str] = {}
    twins: dict[str, str] = {}
    for ref in sorted(refs, key=lambda ref: ref.uri):
        found = known.get(key_of(ref))
        if ref.cause or found is None or found.digest is None:
            continue
        owner = first.setdefault(found.digest, ref.uri)
        if owner != ref.uri:
            twins[ref.uri] = owner
    return twins


def failure_row(ref: InputRef, error: CurateError, *, attempt: int) -> dict[str, Any]:
    """The sources row of an input that failed outside a worker."""
    failure = failed_cell(ref.uri, error, 0.0).failure
    assert failure is not None
    return {
        "uri": ref.uri,
        "size_bytes": ref.size_bytes,
        "version": ref.version,
        "outcome": str(Outcome.FAILED),
        **failure.columns(),
        "attempt": attempt,
        "seconds": 0.0,
    }
