"""Runs and selections: what a manifest says is there, and every input and clip of a complete run is accounted for."""

from __future__ import annotations

import hashlib
import io
import json
import posixpath
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from curate.errors import CurateError, StorageError
from curate.query import RunTables, connect, identifier, run_query, sources_sql
from curate.storage import Place
from curate.tables import INPUTS, STATUS, TIMES, Corpus, parquet_table
from curate.verify.problem import Problem

_NOTES = {STATUS: "run", TIMES: "wall_s"}
"""Files without a digest, and a key that each has."""
_RUN_FILES = frozenset({"recipe.yaml", "inputs.parquet", "manifest.json", *_NOTES})
_SELECTION_FILES = frozenset({"selection.parquet", "funnel.json"})


def verify_runs(corpus: Corpus) -> Iterator[Problem]:
    """All that is wrong with the complete runs; those without a manifest did not finish and count for nothing."""
    for run_id in corpus.runs().folders():
        folder = corpus.runs().child(run_id)
        yield from _foreign("run", f"runs/{run_id}", folder, _RUN_FILES)
        for file, key in _NOTES.items():
            yield from _note(f"runs/{run_id}/{file}", folder.child(file), key)
        if folder.child("manifest.json").exists():
            yield from _run(corpus, run_id, folder)


def _note(name: str, place: Place, key: str) -> Iterator[Problem]:
    """Runs need none of these, and nothing is read from them but how a run went."""
    try:
        whole = not place.exists() or json.loads(place.read_text())[key]
    except (ValueError, KeyError, TypeError):
        whole = False
    if not whole:
        yield Problem("run", name, "is not what a run writes of how it went; it may be removed")


def _foreign(kind: Any, name: str, folder: Place, known: frozenset[str]) -> Iterator[Problem]:
    found = (posixpath.basename(path) for path in folder.files())
    yield from (Problem(kind, f"{name}/{file}", "does not belong there") for file in found if file not in known)


def _run(corpus: Corpus, run_id: str, folder: Place) -> Iterator[Problem]:
    name = f"runs/{run_id}"
    try:
        manifest = corpus.manifest(run_id)
        promised = manifest.get("counts", {}).get("inputs")
        [stage["fingerprint"] for stage in manifest["stages"]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        yield Problem("run", f"{name}/manifest.json", f"is not the manifest of a run: {error}")
        return
    yield from _digests(folder, name, manifest.get("files", {}))
    try:
        outcomes = parquet_table(folder.child("inputs.parquet").read_bytes(), INPUTS.names)["outcome"].to_pylist()
    except (StorageError, pa.ArrowInvalid, pa.ArrowKeyError, OSError) as error:
        yield Problem("run", f"{name}/inputs.parquet", f"cannot be read: {error}")
        return
    if promised is not None and dict(Counter(outcomes)) != promised:
        told = f"holds {dict(Counter(outcomes))}, the manifest says {promised}"
        yield Problem("run", f"{name}/inputs.parquet", told)
    with connect() as con:
        try:
            yield from _accounted(RunTables(con, corpus, run_id), name)
        except (CurateError, duckdb.Error) as error:
            yield Problem("run", name, f"its tables cannot be read: {error}")


def _digests(folder: Place, name: str, promised: Mapping[str, str]) -> Iterator[Problem]:
    """Files that the manifest names (those of earlier versions name none) and that are not as it says."""
    for file, digest in promised.items():
        try:
            found = hashlib.sha256(folder.child(file).read_bytes()).hexdigest()
        except StorageError as error:
            yield Problem("run", f"{name}/{file}", error.message)
            continue
        if found != digest:
            yield Problem("run", f"{name}/{file}", "has other bytes than the manifest says (sha256)")


def _accounted(tables: RunTables, name: str) -> Iterator[Problem]:
    """Inputs without their source, probe or cut; clips without a cell that no gate explains."""
    limited = tables.manifest.get("limit", {}).get("where")
    requested = () if limited else tables.manifest.get("requested", ())
    checks: list[tuple[str, Callable[[], str]]] = [
        ("{} inputs ended well, but are not in the sources table", lambda: _unknown_sql(tables)),
        ("{} inputs failed, but no table says why", lambda: _unexplained_sql(tables)),
    ]
    for stage in (tables.probe.name, tables.cut.name):
        text = f"{{}} inputs ended well, but have no {stage} cell"
        checks.append((text, partial(_uncut_sql, tables, stage)))
    for stage in tables.stages:
        if stage.name in requested:
            text = f"{{}} clips have no {stage.name} cell, though no gate shuts them out"
            checks.append((text, partial(_unscored_sql, tables, stage.name)))
    for text, make_sql in checks:
        if n := run_query(tables.con, make_sql)["n"][0].as_py():
            yield Problem("run", name, text.format(n))


def _unknown_sql(tables: RunTables) -> str:
    known = f"SELECT source_digest FROM ({sources_sql(tables.con, tables.corpus)}) WHERE outcome = 'ok'"
    return f"SELECT count(*) AS n FROM ({tables.run_sources_sql()}) WHERE source_digest NOT IN ({known})"


def _unexplained_sql(tables: RunTables) -> str:
    """A failed input needs a row in the sources table, and where its content is known a probe or cut cell."""
    cells = " UNION ALL ".join(
        f"SELECT key FROM ({tables.cells_sql(stage.name, ['key'])})" for stage in (tables.probe, tables.cut)
    )
    rows = f"SELECT uri FROM ({sources_sql(tables.con, tables.corpus, ['uri'])})"
    return f"""SELECT count(*) AS n FROM ({tables.inputs_sql()}) WHERE outcome = 'failed'
        AND (uri NOT IN ({rows}) OR (source_digest IS NOT NULL AND source_digest NOT IN ({cells})))"""


def _uncut_sql(tables: RunTables, stage: str) -> str:
    done = f"SELECT key FROM ({tables.cells_sql(stage, ['key', 'outcome'])}) WHERE outcome = 'ok'"
    return f"SELECT count(*) AS n FROM ({tables.run_sources_sql()}) WHERE source_digest NOT IN ({done})"


def _unscored_sql(tables: RunTables, stage: str) -> str:
    column = tables.column(f"{stage}.outcome")
    gates = tables.gates_above(column)
    wide = tables.wide_sql([column.name, *(gate.column for gate in gates)])
    passes = "".join(f" AND {gate.sql}" for gate in gates)
    return f"SELECT count(*) AS n FROM ({wide}) WHERE {identifier(column.name)} IS NULL{passes}"


def verify_selections(corpus: Corpus) -> Iterator[Problem]:
    """All that is wrong with the selections: files, digest, counts."""
    for name in corpus.selections().folders():
        folder = corpus.selections().child(name)
        yield from _foreign("selection", f"selections/{name}", folder, _SELECTION_FILES)
        yield from _selection(name, folder)


def _selection(name: str, folder: Place) -> Iterator[Problem]:
    place = folder.child("funnel.json")
    if not place.exists():
        yield Problem("selection", name, "was not finished (no funnel.json); select again")
        return
    try:
        funnel = json.loads(place.read_text())
        digest, clips = funnel["digest"], dict(funnel["clips"])
    except (ValueError, KeyError, TypeError) as error:
        yield Problem("selection", name, f"funnel.json is not that of a selection: {error}; select again")
        return
    try:
        data = folder.child("selection.parquet").read_bytes()
    except StorageError as error:
        yield Problem("selection", name, f"selection.parquet: {error.message}; select again")
        return
    if hashlib.sha256(data).hexdigest() != digest:
        yield Problem("selection", name, "selection.parquet has other bytes than funnel.json says; select again")
        return
    verdicts = Counter(pq.ParquetFile(io.BytesIO(data)).read(["verdict"], use_threads=False)["verdict"].to_pylist())
    for verdict in ("kept", "dropped", "failed"):
        said = clips.get(verdict)
        if verdicts[verdict] != said:
            yield Problem("selection", name, f"has {verdicts[verdict]} clips {verdict}, funnel.json says {said}")
