"""Everything the tables know of one clip, for a person who looks at it."""

from __future__ import annotations

import re
import tempfile
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curate.errors import CurateError, StorageError, UsageError
from curate.ingest.spool import local_copy
from curate.isolation import Sandbox
from curate.marks import Mark, marks
from curate.media.sheet import clip_sheet
from curate.query import RunTables, connect, last_run, listing_again, literal
from curate.query.parts import file_sql
from curate.records import Clip, SourceFacts
from curate.tables import Corpus


@dataclass(frozen=True)
class ClipRecord:
    """A clip, its source and all its cells. ``cells`` maps stage name to the cell's row (values and bookkeeping).
    ``mark`` is what a person said of it.
    """

    clip: Clip
    uris: tuple[str, ...]
    facts: SourceFacts
    fingerprints: dict[str, str]
    cells: dict[str, dict[str, Any]]
    verdicts: dict[str, dict[str, Any]]
    mark: Mark | None = None


@listing_again
def find_clip(corpus: Corpus, clip_id: str, run_id: str | None = None) -> ClipRecord:
    """The record of a clip by its id or the beginning of it; UsageError when none or several begin like that."""
    corpus.check()
    if not re.fullmatch(r"[0-9a-f]{1,32}", clip_id):
        raise UsageError("a clip id is made of up to 32 hex digits", subject=clip_id)
    with closing(connect()) as con:
        tables = RunTables(con, corpus, run_id or last_run(corpus))
        found = _rows(con, f"select * from ({tables.clips_sql()}) where starts_with(clip_id, {literal(clip_id)})")
        if not found:
            raise UsageError(f"no clip of run {tables.run_id} begins like that", subject=clip_id)
        if len(found) > 1:
            some = ", ".join(sorted(row["clip_id"] for row in found)[:3])
            text = (
                f"{len(found)} clips of run {tables.run_id} begin like that ({some}{', ...' if len(found) > 3 else ''})"
            )
            raise UsageError(text, subject=clip_id, fix="Give more digits")
        clip = Clip.from_row(found[0])
        digest = literal(clip.source_digest)
        uris = _rows(con, f"select uri from ({tables.inputs_sql()}) where source_digest = {digest} order by uri")
        cells = {}
        for stage in tables.stages:
            key = clip.source_digest if stage.kind != "clip" else clip.clip_id
            rows = _rows(con, f"select * from ({tables.cells_sql(stage.name)}) where key = {literal(key)}")
            if rows:
                cells[stage.name] = rows[0]
        fingerprints = {stage.name: stage.fingerprint for stage in tables.stages}
        verdicts = _verdicts(con, corpus, clip.clip_id)
        facts = SourceFacts.from_cell(cells.pop(tables.probe.name))
        mark = marks(corpus, clip.clip_id).get(clip.clip_id)
        return ClipRecord(clip, tuple(row["uri"] for row in uris), facts, fingerprints, cells, verdicts, mark)


def clip_picture(record: ClipRecord) -> bytes:
    """A contact sheet of the clip as PNG; StorageError when no name of its source can be read any more."""
    errors: list[CurateError] = []
    for uri in record.uris:
        try:
            with tempfile.TemporaryDirectory(prefix="curate-") as scratch, local_copy(uri, Path(scratch)) as path:
                return _sheet(str(path), record)
        except CurateError as error:
            errors.append(error)
    raise errors[0] if errors else StorageError("has no source among the inputs", subject=record.clip.clip_id)


def _sheet(path: str, record: ClipRecord) -> bytes:
    facts, n_bytes = record.facts, Path(path).stat().st_size
    with Sandbox() as sandbox:
        limit_s = sandbox.limits.decode_s(facts.n_frames, facts.coded_width_px * facts.coded_height_px, n_bytes)
        return sandbox.call(clip_sheet, path, facts, record.clip, limit_s=limit_s)


def _verdicts(con: Any, corpus: Corpus, clip_id: str) -> dict[str, dict[str, Any]]:
    found = {}
    for name in corpus.selections().folders():
        place = corpus.selections().child(name, "selection.parquet")
        if place.exists():
            rows = _rows(con, f"select * from ({file_sql(con, place)}) where clip_id = {literal(clip_id)}")
            if rows:
                found[name] = rows[0]
    return found


def _rows(con: Any, sql: str) -> list[dict[str, Any]]:
    return con.sql(sql).to_arrow_table().to_pylist()
