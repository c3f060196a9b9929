"""Marking clips by hand: `keep` or `drop`, which selections use as the column ``mark.verdict``."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Collection, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Literal, get_args

from curate.compact import compact_folder
from curate.errors import StorageError, UsageError
from curate.query import (
    MARK_SCHEMA,
    connect,
    list_parts,
    listing_again,
    literal,
    mark_folder,
    marks_sql,
    ranked_sql,
    run_query,
)
from curate.tables import Corpus, rows_table, write_part

Verdict = Literal["keep", "drop"]

MOST_NOTE_CHARS = 2000
MOST_PARTS = 100
"""Files of marks; one more and they are merged. Every reader of marks opens them all."""

CLIP_ID = re.compile(r"[0-9a-f]{32}")
"""A whole id of a clip."""


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
    return MarkBook(corpus).set(verdicts, note=note, by=by)


@dataclass(frozen=True, slots=True)
class _Said:
    """The last thing that was said of a clip, and in which part: None takes the mark back."""

    attempt: int
    part: str
    mark: Mark | None

    def beats(self, other: _Said) -> bool:
        """Whether every reader takes this one: the higher attempt, of equal ones that in the smaller name."""
        return (-self.attempt, self.part) < (-other.attempt, other.part)


class MarkBook:
    """Marking one clip after the other: what was said by now is kept, and only parts that are new are read.

    Others may mark the same corpus meanwhile. Many small parts are merged into one. Safe to use from several threads.
    """

    def __init__(self, corpus: Corpus, most_parts: int = MOST_PARTS) -> None:
        corpus.check()
        self._folder = mark_folder(corpus)
        self._most_parts = most_parts
        self._lock = threading.Lock()
        self._parts: set[str] = set()
        self._last: dict[str, _Said] = {}
        self._changed: set[str] = set()

    def set(self, verdicts: Mapping[str, Verdict | None], *, note: str = "", by: str = "") -> int:
        """As `set_marks`."""
        _check(verdicts, note)
        rows = []
        with self._lock:
            self._catch_up()
            for clip_id, verdict in verdicts.items():
                last = self._last.get(clip_id, _Said(0, "", None))
                after = None if verdict is None else Mark(verdict, note, by)
                if last.mark != after:
                    said = {"verdict": verdict, "note": note or None, "by": by or None} if after else {}
                    tail = {"outcome": "ok", "attempt": last.attempt + 1, "seconds": 0.0, "host": socket.gethostname()}
                    rows.append({"key": clip_id, **said, **tail})
            if rows:
                write_part(self._folder.place, rows_table(MARK_SCHEMA, rows))
                if len(self._parts) >= self._most_parts:
                    with suppress(StorageError):  # the mark is there: merging can wait
                        compact_folder(self._folder)
        return len(rows)

    def news(self) -> dict[str, Mark | None]:
        """The marks that changed since this was last asked, by clip id; of the first time all that stand."""
        with self._lock:
            self._catch_up()
            changed, self._changed = self._changed, set()
            return {clip_id: said.mark if (said := self._last.get(clip_id)) else None for clip_id in changed}

    @listing_again
    def _catch_up(self) -> None:
        parts = set(list_parts(self._folder.place))
        is_merged = not self._parts <= parts
        last = {} if is_merged else dict(self._last)
        new = parts if is_merged else parts - self._parts
        found = {clip_id: said for clip_id, said in self._read(new).items() if _wins(said, last.get(clip_id))}
        last |= found
        seen = {*found, *self._last} if is_merged else found
        self._changed |= {clip_id for clip_id in seen if _mark_in(last, clip_id) != _mark_in(self._last, clip_id)}
        self._parts, self._last = parts, last

    def _read(self, parts: Collection[str]) -> dict[str, _Said]:
        """What these parts say last of each clip. StorageError when one vanished."""
        if not parts:
            return {}
        place, key, rank = self._folder.place, self._folder.key, self._folder.rank
        with closing(connect()) as con:
            rows = run_query(con, lambda: ranked_sql(con, place, sorted(parts), key, rank), attempts=1).to_pylist()
        return {
            row["key"]: _Said(row["attempt"], row["filename"], _mark(row) if row["verdict"] else None) for row in rows
        }


def _wins(said: _Said, before: _Said | None) -> bool:
    return before is None or said.beats(before)


def _mark_in(known: Mapping[str, _Said], clip_id: str) -> Mark | None:
    said = known.get(clip_id)
    return said.mark if said else None


@listing_again
def marks(corpus: Corpus, only: str | None = None) -> dict[str, Mark]:
    """The marks that stand, by clip id; ``only`` that of one clip."""
    corpus.check()
    where = "" if only is None else f"WHERE key = {literal(only)}"
    with closing(connect()) as con:
        rows = run_query(con, lambda: f"SELECT * FROM ({marks_sql(con, corpus)}) {where} ORDER BY key")
    return {row["key"]: _mark(row) for row in rows.to_pylist()}


def _check(verdicts: Mapping[str, Verdict | None], note: str) -> None:
    for clip_id, verdict in verdicts.items():
        if not CLIP_ID.fullmatch(clip_id):
            raise UsageError("a clip id is made of 32 hex digits", subject=clip_id)
        if verdict not in {*get_args(Verdict), None}:
            raise UsageError("a mark is `keep` or `drop`, or none", subject=str(verdict))
    if len(note) > MOST_NOTE_CHARS:
        raise UsageError(f"a note has at most {MOST_NOTE_CHARS} characters", subject=f"{note[:20]}...")


def _mark(row: Mapping[str, str | None]) -> Mark:
    return Mark(row["verdict"] or "", row["note"] or "", row["by"] or "")
