"""Marking clips by hand: `keep` or `drop`, which selections use as the column ``mark.verdict``."""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Literal, get_args

import pyarrow as pa

from curate.errors import UsageError
from curate.query import MARK, MARK_FINGERPRINT, MARK_SCHEMA, cells_sql, connect, listing_again, marks_sql, run_query
from curate.tables import Corpus, rows_table, write_part

Verdict = Literal["keep", "drop"]

MOST_NOTE_CHARS = 2000
_CLIP_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Mark:
    """What a person said of a clip."""

    verdict: str
    note: str = ""
    by: str = ""


def set_marks(corpus: Corpus, verdicts: Mapping[str, Verdict | None], *, note: str = "", by: str = "") -> int:
    """Mark clips by their ids, or take their marks back (None); gives how many were changed by it.

    All are written at once, as one part. Of two people who mark one clip at the same moment one wins, the same for
    every reader. UsageError for what is no clip id and no verdict, and for a note of more than 2000 characters.
    """
    corpus.check()
    _check(verdicts, note)
    known = _last(corpus, list(verdicts))
    rows = []
    for clip_id, verdict in verdicts.items():
        attempt, before = known.get(clip_id, (0, None))
        after = None if verdict is None else Mark(verdict, note, by)
        if before != after:
            said = {"verdict": verdict, "note": note or None, "by": by or None} if after else {}
            tail = {"outcome": "ok", "attempt": attempt + 1, "seconds": 0.0, "host": socket.gethostname()}
            rows.append({"key": clip_id, **said, **tail})
    if rows:
        write_part(corpus.cells(MARK, MARK_FINGERPRINT), rows_table(MARK_SCHEMA, rows))
    return len(rows)


@listing_again
def marks(corpus: Corpus) -> dict[str, Mark]:
    """The marks that stand, by clip id."""
    corpus.check()
    with closing(connect()) as con:
        rows = run_query(con, lambda: f"SELECT * FROM ({marks_sql(con, corpus)}) ORDER BY key")
    return {row["key"]: _mark(row) for row in rows.to_pylist()}


def _check(verdicts: Mapping[str, Verdict | None], note: str) -> None:
    for clip_id, verdict in verdicts.items():
        if not _CLIP_ID.fullmatch(clip_id):
            raise UsageError("a clip id is made of 32 hex digits", subject=clip_id)
        if verdict not in {*get_args(Verdict), None}:
            raise UsageError("a mark is `keep` or `drop`, or none", subject=str(verdict))
    if len(note) > MOST_NOTE_CHARS:
        raise UsageError(f"a note has at most {MOST_NOTE_CHARS} characters", subject=f"{note[:20]}...")


@listing_again
def _last(corpus: Corpus, clip_ids: list[str]) -> dict[str, tuple[int, Mark | None]]:
    """(attempt, mark) of the last thing that was said of each of these clips, if anything was."""
    with closing(connect()) as con:
        con.register("asked", pa.table({"key": pa.array(clip_ids, pa.string())}))

        def sql() -> str:
            cells = cells_sql(con, corpus, MARK, MARK_FINGERPRINT, MARK_SCHEMA, MARK_SCHEMA.names)
            return f"SELECT * FROM ({cells}) WHERE key IN (SELECT key FROM asked)"

        rows = run_query(con, sql).to_pylist()
    return {row["key"]: (row["attempt"], _mark(row) if row["verdict"] else None) for row in rows}


def _mark(row: Mapping[str, str | None]) -> Mark:
    return Mark(row["verdict"] or "", row["note"] or "", row["by"] or "")
