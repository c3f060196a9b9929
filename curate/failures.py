"""What failed, by stage and class, with examples, and the command that makes one of them fail again, alone."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import duckdb

from curate.config import nearest
from curate.datafiles import parse_yaml
from curate.errors import ConfigError
from curate.query import (
    RunStage,
    RunTables,
    cells_sql,
    connect,
    last_run,
    listing_again,
    literal,
    parts_sql,
    run_query,
    sources_sql,
    table_folders,
)
from curate.query.parts import id_sql
from curate.redaction import redacted
from curate.tables import CLIPS, Corpus

INPUT = "input"
"""The stage of files that could not be read at all: they have a row in `sources`, and no cell."""

EXAMPLES = 3
_ERROR = ("error_class", "error_message", "error_traceback")
_ABOUT = (*_ERROR, "attempt", "seconds", "host", "run_id", "peak_memory_bytes")
_CELL = ("key", "outcome", *_ABOUT)
_SOURCE_CHARS = 64
"""Length of a source digest; clip ids are half as long."""


@dataclass(frozen=True, slots=True)
class FailureExample:
    """One failure: the clip id or source digest (the URI where nothing was read), its input, and how it came about.

    ``peak_memory_bytes`` is that of the process it happened in, ``command`` makes it happen again, alone: empty where
    the recipe was not kept. Secrets in URIs are blotted out, in the command too.
    """

    key: str
    uri: str
    message: str
    traceback: str = ""
    attempt: int = 1
    seconds: float = 0.0
    host: str = ""
    run_id: str = ""
    peak_memory_bytes: int | None = None
    command: str = ""


@dataclass(frozen=True, slots=True)
class FailureGroup:
    """Failures of one class in one stage; stage ``input`` means that the file could not even be read."""

    stage: str
    error_class: str
    n: int
    examples: list[FailureExample]


@listing_again
def failures(
    corpus: Corpus, run_id: str | None = None, *, every: bool = False, stage: str = "", examples: int = EXAMPLES
) -> list[FailureGroup]:
    """Failures of a run (the last complete one) by stage and class, the most frequent first, with examples.

    ``every`` takes all that is in the tables instead, whatever run or configuration it comes from. ``stage`` limits
    them to one; ConfigError where there is none of that name.
    """
    corpus.check()
    with closing(connect()) as con:
        if every:
            return _grouped(_Everything(con, corpus), stage, examples)
        return run_failures(RunTables(con, corpus, run_id or last_run(corpus)), stage=stage, examples=examples)


def run_failures(
    tables: RunTables, *, stage: str = "", examples: int = EXAMPLES, clips: str = ""
) -> list[FailureGroup]:
    """The same of one run whose tables are open; ``clips`` is a loaded table of its clips (`RunTables.load`)."""
    return _grouped(_OneRun(tables, clips), stage, examples)


def _grouped(found: _OneRun | _Everything, stage: str, examples: int) -> list[FailureGroup]:
    if stage and stage not in found.stages:
        raise ConfigError(f"no stage is called {stage!r}, {nearest(stage, found.stages)}", subject="--stage")
    wanted = [name for name in found.stages if stage in {"", name}]
    everything = " UNION ALL ".join(part for name in wanted for part in found.parts(name))
    if not everything:
        return []
    sql = f"""SELECT *, count(*) OVER (PARTITION BY stage, error_class) AS n FROM ({everything})
        QUALIFY row_number() OVER (PARTITION BY stage, error_class ORDER BY uri, key, run_id) <= {examples}
        ORDER BY n DESC, stage, error_class, uri, key, run_id"""
    groups: dict[tuple[str, str], FailureGroup] = {}
    recipes = _Recipes(found.corpus)
    for row in run_query(found.con, lambda: sql).to_pylist():
        name = row["stage"], row["error_class"]
        group = groups.setdefault(name, FailureGroup(*name, row["n"], []))
        group.examples.append(_example(row, recipes, found.run_id, is_clip=len(row["key"]) < _SOURCE_CHARS))
    return list(groups.values())


def _example(row: dict[str, Any], recipes: _Recipes, run_id: str, *, is_clip: bool) -> FailureExample:
    is_clip = is_clip and row["stage"] != INPUT
    uri = row["uri"] or ""
    return FailureExample(
        key=redacted(row["key"]),
        uri=redacted(uri),
        message=redacted(row["error_message"] or ""),
        traceback=row["error_traceback"] or "",
        attempt=row["attempt"] or 1,
        seconds=row["seconds"] or 0.0,
        host=row["host"] or "",
        run_id=row["run_id"] or "",
        peak_memory_bytes=row["peak_memory_bytes"],
        command=recipes.command(run_id or row["run_id"] or "", uri, row["stage"] if is_clip else "") if uri else "",
    )


class _OneRun:
    """The failures that one run sees: those of its inputs, of their clips, and of the stages of its recipe."""

    def __init__(self, tables: RunTables, clips: str = "") -> None:
        self._tables = tables
        self._clips = clips
        self.con, self.corpus, self.run_id = tables.con, tables.corpus, tables.run_id
        self.stages = [INPUT, *(stage.name for stage in tables.stages)]

    def parts(self, name: str) -> Iterator[str]:
        """SQL of the failures of a stage: ``stage``, ``key``, ``uri`` and how each came about."""
        yield self._inputs() if name == INPUT else self._cells(self._tables.stage(name))

    def _failed(self, stage: RunStage, columns: Sequence[str] = _CELL) -> str:
        return f"SELECT * FROM ({self._tables.cells_sql(stage.name, list(columns))}) WHERE outcome = 'failed'"

    def _cells(self, stage: RunStage) -> str:
        named = f"""SELECT {id_sql("source_digest")} AS source, min(uri) AS uri FROM ({self._tables.inputs_sql()})
            WHERE source_digest IS NOT NULL AND outcome <> 'skipped' GROUP BY 1"""
        if stage.kind != "clip":
            return f"""SELECT {_listed(stage.name, "c")}, i.uri FROM ({self._failed(stage)}) c
                JOIN ({named}) i ON i.source = {id_sql("c.key")}"""
        return f"""SELECT {_listed(stage.name, "c")}, i.uri FROM ({self._failed(stage)}) c
            JOIN ({self._owned()}) r ON r.clip = {id_sql("c.key")} JOIN ({named}) i ON i.source = r.source"""

    def _owned(self) -> str:
        if self._clips:
            return f"SELECT clip, source FROM {self._clips}"
        clips = self._tables.clips_sql(["clip_id", "source_digest"])
        return f"SELECT {id_sql('clip_id')} AS clip, {id_sql('source_digest')} AS source FROM ({clips})"

    def _inputs(self) -> str:
        """Inputs that failed before any cell of theirs did."""
        told = " UNION ALL ".join(
            f"SELECT key FROM ({self._failed(stage, ['key', 'outcome'])})"
            for stage in (self._tables.probe, self._tables.cut)
        )
        columns = ["uri", "size_bytes", "version", *_ABOUT]
        return f"""SELECT {_listed(INPUT, "s", key="i.uri", message="coalesce(s.error_message, i.cause)")}, i.uri
            FROM ({self._tables.inputs_sql()}) i LEFT JOIN ({sources_sql(self.con, self.corpus, columns)}) s
            ON s.uri = i.uri AND s.size_bytes IS NOT DISTINCT FROM i.size_bytes AND s.version = i.version
            WHERE i.outcome = 'failed' AND coalesce(i.source_digest, '') NOT IN ({told})"""


class _Everything:
    """All failures in the tables; of runs that did not complete too."""

    run_id = ""

    def __init__(self, con: duckdb.DuckDBPyConnection, corpus: Corpus) -> None:
        self.con, self.corpus = con, corpus
        folders = [folder.name.split("/") for folder in table_folders(corpus) if folder.kind == "cells"]
        self._cells = [(stage, fingerprint) for _, _, stage, fingerprint in folders]
        self.stages = list(dict.fromkeys([INPUT, *(stage for stage, _ in self._cells)]))

    @cached_property
    def _owners(self) -> str:
        """SQL of (id, source): every clip with its source, and every source with itself."""
        folders = [folder for folder in table_folders(self.corpus) if folder.kind == "clips"]
        columns = ["clip_id", "source_digest"]
        clips = [parts_sql(self.con, f.place, f.key, f.rank, CLIPS, columns) for f in folders]
        named = [f"SELECT {id_sql('clip_id')} AS id, {id_sql('source_digest')} AS source FROM ({sql})" for sql in clips]
        digest = id_sql("source_digest")
        own = f"SELECT {digest} AS id, {digest} AS source FROM ({self._sources})"
        return " UNION ".join([*named, f"{own} WHERE source_digest IS NOT NULL"])

    @cached_property
    def _sources(self) -> str:
        return sources_sql(self.con, self.corpus, ["uri", "source_digest", "outcome", *_ABOUT])

    def _failed(self, stage: str, fingerprint: str, columns: Sequence[str] = _CELL) -> str:
        cells = cells_sql(self.con, self.corpus, stage, fingerprint, columns=columns)
        return f"SELECT * FROM ({cells}) WHERE outcome = 'failed'"

    def parts(self, name: str) -> Iterator[str]:
        """SQL of the failures of a stage, one for each of its fingerprints."""
        if name == INPUT:
            told = [f"SELECT left(key, 32) FROM ({self._failed(*cells, ['key', 'outcome'])})" for cells in self._cells]
            known = f" AND coalesce(left(source_digest, 32), '') NOT IN ({' UNION ALL '.join(told)})" if told else ""
            yield f"""SELECT {_listed(INPUT, "s", key="s.uri")}, s.uri FROM ({self._sources}) s
                WHERE outcome = 'failed'{known}"""
            return
        names = f"SELECT {id_sql('source_digest')} AS source, min(uri) AS uri FROM ({self._sources}) GROUP BY 1"
        for stage, fingerprint in self._cells:
            if stage == name:
                yield f"""SELECT {_listed(name, "c")}, n.uri FROM ({self._failed(stage, fingerprint)}) c
                    LEFT JOIN ({self._owners}) o ON o.id = {id_sql("c.key")} LEFT JOIN ({names}) n USING (source)"""


def _listed(stage: str, row: str, key: str = "", message: str = "") -> str:
    """The columns of a failure, in SQL."""
    columns = [f"{row}.{name}" for name in _ABOUT if name not in {"error_class", "error_message"}]
    head = [
        f"{literal(stage)} AS stage",
        f"{key or row + '.key'} AS key",
        f"coalesce({row}.error_class, '') AS error_class",
        f"{message or row + '.error_message'} AS error_message",
    ]
    return ", ".join([*head, *columns])


class _Recipes:
    """Commands that repeat one failure, from the recipes that the runs left behind."""

    def __init__(self, corpus: Corpus) -> None:
        self._corpus = corpus
        self._options: dict[str, list[str] | None] = {}

    def command(self, run_id: str, uri: str, clip_stage: str) -> str:
        """Reads one source alone into a new temporary corpus, in one process; empty without the run's recipe."""
        if run_id not in self._options:
            self._options[run_id] = self._of_recipe(run_id)
        options = self._options[run_id]
        if options is None:
            return ""
        only = ["--stages", clip_stage] if clip_stage else []
        words = ["curate", "run", redacted(uri), *options, *only, "--engine", "inline", "--no-export", "--strict"]
        return " ".join([*map(shell_word, words), "--out", '"$(mktemp -d)"'])

    def _of_recipe(self, run_id: str) -> list[str] | None:
        place = self._corpus.runs().child(run_id, "recipe.yaml")
        if not run_id or not place.exists():
            return None
        try:
            select = parse_yaml(place.read_text(), place.uri).get("select") or {}
        except ConfigError:
            return None
        columns = [str(condition.get("column")) for condition in select.get("conditions") or ()]
        dedup = select.get("dedup") or {}
        sets = ["--set", "select.conditions=[]"] if any(c.startswith("user.") for c in columns) else []
        sets += ["--set", "select.dedup.method=none"] if str(dedup.get("keep")).startswith("user.") else []
        return ["--recipe", redacted(place.uri), *sets, *self._limits(run_id)]

    def _limits(self, run_id: str) -> list[str]:
        """What decoding could take, where a complete run says that it was not the usual."""
        if not self._corpus.runs().child(run_id, "manifest.json").exists():
            return []
        decode = self._corpus.manifest(run_id).get("decode")
        if not decode:
            return []
        return ["--decode-memory-gb", f"{decode['memory_bytes'] / 1e9:g}", "--decode-s", f"{decode['least_s']:g}"]


def shell_word(text: str) -> str:
    """The text as one word of a POSIX shell; characters that a terminal obeys or hides are spelt out (bash, zsh)."""
    if text.isprintable():
        return shlex.quote(text)
    spelt = (
        char.replace("\\", "\\\\").replace("'", "\\'")
        if char.isprintable()
        else "".join(f"\\x{byte:02x}" for byte in char.encode("utf-8", "surrogateescape"))
        for char in text
    )
    return f"$'{''.join(spelt)}'"
