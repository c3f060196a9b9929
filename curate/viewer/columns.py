"""The columns of a run as the page offers them: what each holds, and in which unit."""

from __future__ import annotations

from dataclasses import dataclass

from curate.query import MARK, Description, RunTables, described
from curate.select.judge import Kind, kind_of

SELECTION, REASON = "selection.", "reason."
"""``selection.NAME`` is the verdict of a selection over the run, ``reason.NAME`` why."""

_IDS = ("clip.clip_id", "clip.source_digest")
_EMBEDDING = "FLOAT[]"
_TEXTS = ("caption", "text", "ocr", "words")
"""Columns of text that are searched: captions, and what was read in the picture."""


@dataclass(frozen=True, slots=True)
class ColumnInfo:
    """A column by the name that people use. ``group`` is the stage, or clip, source, user, mark, selection."""

    name: str
    group: str
    kind: Kind
    unit: str = ""
    doc: str = ""
    searched: bool = False


def run_columns(tables: RunTables) -> dict[str, ColumnInfo]:
    """All columns of a run that can be filtered by, in the order of its stages. Those of `probe` are called source.*;
    embeddings are left out: nobody asks for their numbers, and they take gigabytes.
    """
    names = [name for name in tables.column_names() if not name.startswith((*_IDS, f"{tables.probe.name}."))]
    names += [f"{stage.name}.outcome" for stage in tables.stages if stage.kind == "clip"]
    types = {str(row[0]): str(row[1]) for row in tables.con.execute(f"DESCRIBE {tables.wide_sql(names)}").fetchall()}
    kinds: dict[str, Kind] = {name: kind_of(dtype) for name, dtype in types.items() if dtype != _EMBEDDING}
    told = described(tables)
    found = {}
    for name in (name for name in names if name in kinds):
        group = _group(tables, name)
        about = told.get(name, Description())
        is_text = kinds[name] in {"text", "list"} and group not in {"clip", "source", "user", MARK}
        searched = is_text and name.rpartition(".")[2] in _TEXTS
        found[name] = ColumnInfo(name, group, kinds[name], about.unit, about.doc, searched)
    return found


def selection_columns(name: str) -> dict[str, ColumnInfo]:
    """The columns that a selection adds."""
    verdict = ColumnInfo(SELECTION + name, "selection", "text", doc=f"verdict of {name}: kept, dropped or failed")
    reason = ColumnInfo(REASON + name, "selection", "text", doc=f"why {name} did not keep it")
    return {verdict.name: verdict, reason.name: reason}


def _group(tables: RunTables, name: str) -> str:
    ref = tables.column(name)
    return ref.stage.name if ref.stage and ref.scope == "stage" else name.partition(".")[0]
