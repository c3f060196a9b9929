"""What the tables say of the kept clips of a selection: their spans, their sources, their columns."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa

from curate.errors import ConfigError, CorpusError
from curate.export.config import ExportConfig
from curate.export.provenance import Provenance, read_provenance
from curate.query import RunTables, connect, identifier, listing_again, run_query, sources_sql
from curate.records import Clip, InputRef, SourceFacts
from curate.tables import CLIPS, Corpus, kept_ids, rows_of

ACTIVE = ("quality.active_x_px", "quality.active_y_px", "quality.active_w_px", "quality.active_h_px")
"""Columns of the picture without black bars, in displayed pixels."""

_CHOSEN, _DIGESTS = "export_chosen", "export_digests"
_CHOSEN_DIGESTS = f"SELECT digest FROM {_DIGESTS}"


@dataclass(frozen=True)
class Source:
    """One content: its facts, and every name under which it was read, with size and version of that time."""

    facts: SourceFacts
    refs: tuple[InputRef, ...]


@dataclass(frozen=True)
class KeptClips:
    """The kept clips of one selection, ordered by clip_id.

    ``columns`` has one row a clip: what sidecars hold besides. ``named`` maps the columns that the export itself needs
    (caption, motion, active picture) to their values.
    """

    run_id: str
    clips: list[Clip]
    columns: pa.Table
    named: Mapping[str, list[Any]]
    sources: Mapping[str, Source]
    provenance: Provenance


@listing_again
def read_kept(
    corpus: Corpus, selection: str, config: ExportConfig, addresses: Mapping[str, str] | None = None
) -> KeptClips:
    """Everything that planning needs. ConfigError for a column the run lacks, CorpusError for a missing selection.

    ``addresses``: where to read the sources that are only reached with a secret, by the names that the tables keep.
    """
    folder = corpus.selections().child(selection)
    if not folder.child("selection.parquet").exists():
        raise CorpusError(f"holds no selection {selection!r}", subject=corpus.uri, fix="Run `curate select` first")
    kept = kept_ids(folder.child("selection.parquet"))
    funnel = json.loads(folder.child("funnel.json").read_text())
    run_id = funnel["run_id"]
    with connect() as con:
        run = RunTables(con, corpus, run_id)
        con.register(_CHOSEN, pa.table({"clip_id": kept}))
        own = [f"clip.{name}" for name in CLIPS.names]
        needed = _needed(run, config)
        extra = _sidecar_columns(run, config)
        listed = {name: run.listed_name(name) for name in needed}
        wide = _chosen_rows(con, run, [*own, *listed.values(), *extra])
        if wide.num_rows != len(kept):
            raise CorpusError(
                f"{len(kept) - wide.num_rows} clips of selection {selection!r} are not in the tables of run {run_id}",
                subject=corpus.uri,
                fix="Run `curate select` again",
            )
        clips = [Clip.from_row(row) for row in rows_of(wide.select(own).rename_columns(list(CLIPS.names)))]
        sources = sources_of(con, run, {clip.source_digest for clip in clips}, addresses or {})
        provenance = read_provenance(run, funnel, _CHOSEN_DIGESTS)
    named = {name: wide[column].to_pylist() for name, column in listed.items()}
    columns = wide.select([name for name in extra if config.columns or not pa.types.is_nested(wide[name].type)])
    return KeptClips(run_id, clips, columns, named, sources, provenance)


def _needed(run: RunTables, config: ExportConfig) -> list[str]:
    """Columns that the export itself reads; ConfigError for one that was asked for and is not there."""
    wanted = [*([config.caption] if config.caption else []), *(ACTIVE if config.crop == "letterbox" else [])]
    for name in wanted:
        run.column(name)
    motion = [config.motion] if config.motion in run.column_names() else []
    return list(dict.fromkeys([*wanted, *motion]))


def _sidecar_columns(run: RunTables, config: ExportConfig) -> list[str]:
    """Columns of cells and of the source list by their full names."""
    if config.columns is not None:
        clashing = [name for name in config.columns if name.startswith("clip.") or "." not in name]
        if clashing:
            raise ConfigError(f"{clashing} is in every sidecar already", subject="export.columns")
        return list(dict.fromkeys(map(run.listed_name, config.columns)))
    cells = [f"{stage.name}.{column}" for stage in run.stages if stage.kind == "clip" for column in stage.columns]
    return [*cells, *(f"user.{key}" for key in run.user_keys)]


def _chosen_rows(con: duckdb.DuckDBPyConnection, run: RunTables, columns: Iterable[str]) -> pa.Table:
    names = list(dict.fromkeys(columns))
    run.load("export_rows", names, only=f"SELECT clip_id::UUID FROM {_CHOSEN}")
    listed = ", ".join(identifier(name) for name in names)
    return run_query(con, lambda: f"SELECT {listed} FROM export_rows ORDER BY {identifier('clip.clip_id')}")


def sources_of(
    con: duckdb.DuckDBPyConnection, run: RunTables, digests: set[str], addresses: Mapping[str, str]
) -> dict[str, Source]:
    """The contents of these digests with all their names; CorpusError where the tables do not know one of them."""
    con.register(_DIGESTS, pa.table({"digest": pa.array(sorted(digests), pa.string())}))
    cells = run_query(
        con,
        lambda: f"SELECT * FROM ({run.cells_sql(run.probe.name)}) WHERE outcome = 'ok' AND key IN ({_CHOSEN_DIGESTS})",
    )
    facts = {row["key"]: SourceFacts.from_cell(row) for row in rows_of(cells)}
    refs = _refs(con, run, addresses)
    missing = sorted(digest for digest in digests if digest not in facts or digest not in refs)
    if missing:
        raise CorpusError(f"sources without facts or input: {', '.join(missing[:3])}", subject=run.corpus.uri)
    return {digest: Source(facts[digest], tuple(refs[digest])) for digest in sorted(digests)}


def _refs(con: duckdb.DuckDBPyConnection, run: RunTables, addresses: Mapping[str, str]) -> dict[str, list[InputRef]]:
    """Names of each content: those of the run first, then any other under which it was ever read."""
    found: dict[str, dict[str, InputRef]] = {}
    for relation in (run.inputs_sql, lambda: sources_sql(con, run.corpus)):
        rows = run_query(
            con,
            lambda relation=relation: (
                f"SELECT source_digest, uri, size_bytes, version FROM ({relation()}) "
                f"WHERE source_digest IN ({_CHOSEN_DIGESTS}) ORDER BY uri, version"
            ),
        )
        for row in rows_of(rows):
            uri = row["uri"]
            ref = InputRef(uri, row["size_bytes"], row["version"] or "", address=addresses.get(uri, ""))
            found.setdefault(row["source_digest"], {}).setdefault(ref.uri, ref)
    return {digest: list(refs.values()) for digest, refs in found.items()}
