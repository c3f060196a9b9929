"""One run's view of the tables: its inputs, sources, clips and cells, and columns by the names that people use.

``clip.duration_s``, ``clip.start_s`` ...   a clip's own row
``source.width_px``, ``source.uri`` ...     facts of its source (the probe cell) and of its input
``user.KEY``                                an extra column of the source list; keys that differ only in case are one
``STAGE.COLUMN``                            a cell's value or bookkeeping (``motion.outcome``, ``motion.error_class``)
``mark.verdict``, ``mark.note``, ``mark.by``  what a person said of the clip (`curate.marks`), whichever run found it

"Skipped by a gate" is derived, never stored: no cell, and a gate above the stage does not pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import duckdb

from curate.config import nearest
from curate.errors import ConfigError, CorpusError
from curate.query.marks import MARK, MARK_COLUMNS, marks_sql
from curate.query.parts import cells_sql, clips_sql, file_sql, id_sql, id_text_sql, identifier, literal, run_query
from curate.tables import CLIPS, Corpus

_TAIL = ("outcome", "error_class", "error_message", "error_traceback", "attempt", "seconds", "host", "run_id")
_TAIL += ("peak_memory_bytes",)
_INPUT_FACTS = {"uri": "uri", "size_bytes": "size_bytes", "version": "version", "digest": "source_digest"}
_MARKS = tuple(f"{MARK}.{column.name}" for column in MARK_COLUMNS)
_CLIP_FACTS = {**{name: identifier(name) for name in CLIPS.names}, "duration_s": "(end_s - start_s)"}


@dataclass(frozen=True, slots=True)
class RunStage:
    """A stage of a run; ``index`` is its place in the recipe, which gates refer to."""

    name: str
    kind: Literal["probe", "cut", "clip"]
    fingerprint: str
    columns: tuple[str, ...]
    index: int


@dataclass(frozen=True, slots=True)
class RunGate:
    """An absolute condition: stages with an index beyond ``after_index`` ran only for clips that pass."""

    after_index: int
    column: str
    min: float | None = None
    max: float | None = None
    one_of: tuple[Any, ...] = ()
    none_of: tuple[Any, ...] = ()

    @property
    def sql(self) -> str:
        """Boolean SQL over a relation of `RunTables.wide_sql`; a failed or missing value does not pass."""
        value = identifier(self.column)
        parts = [f"{value} IS NOT NULL"]
        parts += [f"{value} >= {literal(self.min)}"] if self.min is not None else []
        parts += [f"{value} <= {literal(self.max)}"] if self.max is not None else []
        parts += [f"{value} IN ({_listed(self.one_of)})"] if self.one_of else []
        parts += [f"{value} NOT IN ({_listed(self.none_of)})"] if self.none_of else []
        return f"coalesce({' AND '.join(parts)}, FALSE)"


@dataclass(frozen=True, slots=True)
class ColumnRef:
    """What a column name stands for. ``stage`` is the stage whose cell it comes from: None for the clip's own row, and
    for marks, which a clip need not have. ``spellings`` are the keys that a column of the source list is made of.
    """

    name: str
    scope: Literal["clip", "input", "user", "source", "stage", "mark"]
    column: str
    stage: RunStage | None = None
    spellings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Join:
    """A relation with the id column ``id`` and the wanted columns under their full names."""

    sql: str
    on: Literal["clip", "source"]
    names: tuple[str, ...]


def last_run(corpus: Corpus) -> str:
    """Id of the last complete run; CorpusError when there is none."""
    for run_id in reversed(corpus.run_ids()):
        if corpus.manifest(run_id).get("complete"):
            return run_id
    raise CorpusError(
        "holds no complete run", subject=corpus.uri, fix="Run `curate run SOURCE... --out` on it until it completes"
    )


def check_run(corpus: Corpus, run_id: str) -> None:
    """ConfigError, with the nearest id, unless the corpus holds this complete run."""
    known = corpus.run_ids()
    if run_id not in known:
        hint = nearest(run_id, known) if known else "there is none"
        raise ConfigError(f"no run is called {run_id!r}, {hint}", subject=corpus.uri)


def run_stages(entries: Iterable[dict[str, Any]]) -> tuple[RunStage, ...]:
    """The stages as a manifest lists them."""
    return tuple(
        RunStage(entry["name"], entry["kind"], entry["fingerprint"], tuple(entry["columns"]), index)
        for index, entry in enumerate(entries)
    )


def column_names(stages: Sequence[RunStage], user_keys: Iterable[str], *, bookkeeping: bool = False) -> list[str]:
    """All names of columns that a run of these stages, over inputs with these extra columns, knows."""
    tail = _TAIL if bookkeeping else ()
    cells = [f"{stage.name}.{column}" for stage in stages for column in (*stage.columns, *tail)]
    probed = next(stage.columns for stage in stages if stage.kind == "probe")
    facts = [f"source.{name}" for name in (*_INPUT_FACTS, *probed)]
    users = [f"user.{key}" for key in user_keys]
    return list(dict.fromkeys([*(f"clip.{name}" for name in _CLIP_FACTS), *facts, *users, *cells, *_MARKS]))


class RunTables:
    """The tables as one run sees them."""

    def __init__(self, con: duckdb.DuckDBPyConnection, corpus: Corpus, run_id: str) -> None:
        check_run(corpus, run_id)
        self.con = con
        self.corpus = corpus
        self.run_id = run_id
        self.manifest: dict[str, Any] = corpus.manifest(run_id)
        self.stages = run_stages(self.manifest["stages"])
        self.gates = tuple(_gate(g) for g in self.manifest.get("gates", []))

    @cached_property
    def probe(self) -> RunStage:
        """The probe stage."""
        return next(stage for stage in self.stages if stage.kind == "probe")

    @cached_property
    def cut(self) -> RunStage:
        """The cut stage."""
        return next(stage for stage in self.stages if stage.kind == "cut")

    @cached_property
    def user_keys(self) -> tuple[str, ...]:
        """Names of the extra columns of the source list, each in its first spelling."""
        return tuple(spellings[0] for spellings in self.user_spellings.values())

    @cached_property
    def user_spellings(self) -> dict[str, tuple[str, ...]]:
        """Keys that differ only in case, in order: SQL takes their columns for one, so they are one."""
        sql = f'SELECT DISTINCT unnest(map_keys("user")) AS k FROM ({self.inputs_sql()}) ORDER BY k'
        found: dict[str, tuple[str, ...]] = {}
        for key in run_query(self.con, lambda: sql)["k"].to_pylist():
            found[key.lower()] = (*found.get(key.lower(), ()), key)
        return found

    def stage(self, name: str) -> RunStage:
        """The stage of this name; ConfigError names the nearest."""
        found = next((stage for stage in self.stages if stage.name == name), None)
        if found is None:
            raise ConfigError(
                f"run {self.run_id} has no stage {name!r}, {nearest(name, (s.name for s in self.stages))}"
            )
        return found

    def inputs_sql(self) -> str:
        """SQL of the run's inputs (`tables.INPUTS`)."""
        return file_sql(self.con, self.corpus.runs().child(self.run_id, "inputs.parquet"))

    def run_sources_sql(self) -> str:
        """SQL of the sources of the run: one input a content, with its digest."""
        return f"""SELECT * FROM ({self.inputs_sql()}) WHERE outcome = 'ok' AND source_digest IS NOT NULL
            QUALIFY row_number() OVER (PARTITION BY source_digest ORDER BY uri) = 1"""

    def cells_sql(self, stage: str, columns: Sequence[str] | None = None) -> str:
        """SQL of a stage's de-duplicated cells under the run's fingerprint (other runs' clips may be among them)."""
        found = self.stage(stage)
        names = columns or ["key", *found.columns, *_TAIL]
        return cells_sql(self.con, self.corpus, found.name, found.fingerprint, columns=names)

    def clips_sql(self, columns: Sequence[str] | None = None) -> str:
        """SQL of the run's clips: those that count, of the run's sources."""
        names = list(columns or CLIPS.names)
        wanted = names if "source_digest" in names else [*names, "source_digest"]
        clips = clips_sql(self.con, self.corpus, self.cut.name, self.cut.fingerprint, columns=wanted)
        sources = f"SELECT {id_sql('source_digest')} FROM ({self.inputs_sql()}) WHERE outcome = 'ok'"
        return f"""SELECT {", ".join(map(identifier, names))} FROM ({clips})
            WHERE {id_sql("source_digest")} IN ({sources} AND source_digest IS NOT NULL)"""

    def column(self, name: str) -> ColumnRef:
        """What a column name stands for; ConfigError names the nearest valid one."""
        scope, _, rest = name.partition(".")
        stages = [s for s in self.stages if name.startswith(s.name + ".")]
        if stages:
            stage = max(stages, key=lambda s: len(s.name))
            column = name[len(stage.name) + 1 :]
            if column in stage.columns or column in _TAIL:
                return ColumnRef(name, "stage", column, stage)
        if scope == "clip" and rest in _CLIP_FACTS:
            return ColumnRef(name, "clip", rest)
        if scope == "source" and rest in _INPUT_FACTS:
            return ColumnRef(name, "input", rest)
        if scope == "source" and rest in self.probe.columns:
            return ColumnRef(name, "source", rest, self.probe)
        if scope == "user" and (spellings := self.user_spellings.get(rest.lower())):
            return ColumnRef(name, "user", rest, spellings=spellings)
        if name in _MARKS:
            return ColumnRef(name, "mark", rest)
        raise ConfigError(f"run {self.run_id} has no column {name!r}, {nearest(name, self.column_names())}")

    def listed_name(self, name: str) -> str:
        """A column's name as `column_names` has it: keys of the source list may be asked for in any case."""
        spellings = self.column(name).spellings
        return f"user.{spellings[0]}" if spellings else name

    def column_names(self) -> list[str]:
        """All names that `column` knows, bookkeeping left out."""
        return column_names(self.stages, self.user_keys)

    def gates_above(self, column: ColumnRef) -> tuple[RunGate, ...]:
        """Gates that decide whether this column was computed."""
        own = self.cut.index if column.scope == "clip" else self.probe.index
        index = column.stage.index if column.stage else own
        return tuple(gate for gate in self.gates if gate.after_index < index)

    def wide_sql(self, columns: Sequence[str]) -> str:
        """SQL of one row a clip of the run: ``clip_id`` and the columns under their full names, null where no cell is.

        For millions of clips and several stages use `load`, which joins one stage at a time.
        """
        refs = self._refs(columns)
        joins = list(self._joins(refs))
        text = " ".join(f"LEFT JOIN ({join.sql}) j{i} ON j{i}.id = base.{join.on}" for i, join in enumerate(joins))
        listed = ", ".join([f"{id_text_sql('base.clip')} AS clip_id", *(identifier(ref.name) for ref in refs)])
        return f"SELECT {listed} FROM ({self._base(refs)}) base {text}"

    def load(self, table: str, columns: Sequence[str], *, only: str | None = None) -> None:
        """Make a temporary table: ``clip`` and ``source`` (UUID), then the columns under their full names.

        One join after another keeps a single hash table in memory at a time. ``only`` is SQL of a single UUID column
        that narrows the clips.
        """
        refs = self._refs(columns)
        where = f" WHERE clip IN ({only})" if only else ""
        self._replace(table, lambda: f"SELECT * FROM ({self._base(refs)}){where}")
        for join in self._joins(refs):
            names = ", ".join(f"j.{identifier(name)}" for name in join.names)
            self._replace(
                table,
                lambda join=join, names=names: (
                    f"SELECT base.*, {names} FROM {table} base LEFT JOIN ({join.sql}) j ON j.id = base.{join.on}"
                ),
            )

    def _replace(self, table: str, make_sql: Any) -> None:
        run_query(self.con, lambda: f"CREATE OR REPLACE TEMP TABLE {table}_next AS {make_sql()}")
        self.con.execute(f"DROP TABLE IF EXISTS {table}")
        self.con.execute(f"ALTER TABLE {table}_next RENAME TO {table}")

    def _refs(self, columns: Iterable[str]) -> list[ColumnRef]:
        """Each column once: for SQL names that differ only in case are one."""
        return [self.column(name) for name in {name.lower(): name for name in columns}.values()]

    def _base(self, refs: Iterable[ColumnRef]) -> str:
        own = [ref for ref in refs if ref.scope == "clip"]
        values = [f"{_CLIP_FACTS[ref.column]} AS {identifier(ref.name)}" for ref in own]
        needed = {"clip_id", "source_digest", *(ref.column for ref in own)} - {"duration_s"}
        needed |= {"start_s", "end_s"} if any(ref.column == "duration_s" for ref in own) else set()
        ids = [f"{id_sql('clip_id')} AS clip", f"{id_sql('source_digest')} AS source"]
        return f"SELECT {', '.join([*ids, *values])} FROM ({self.clips_sql([n for n in CLIPS.names if n in needed])})"

    def _joins(self, refs: Sequence[ColumnRef]) -> Iterator[_Join]:
        """One relation per stage, and one for the inputs, each with the columns that ``refs`` want of it."""
        for stage in dict.fromkeys(ref.stage for ref in refs if ref.stage):
            wanted = [ref for ref in refs if ref.stage == stage]
            cells = self.cells_sql(stage.name, ["key", *dict.fromkeys(ref.column for ref in wanted)])
            yield _join(cells, "key", "clip" if stage.kind == "clip" else "source", wanted)
        wanted = [ref for ref in refs if ref.scope == "mark"]
        if wanted:
            yield _join(marks_sql(self.con, self.corpus), "key", "clip", wanted)
        wanted = [ref for ref in refs if ref.scope in {"input", "user"}]
        if wanted:
            yield _join(self.run_sources_sql(), "source_digest", "source", wanted)


def _join(relation: str, key: str, on: Literal["clip", "source"], refs: Sequence[ColumnRef]) -> _Join:
    values = ", ".join(f"{_value(ref)} AS {identifier(ref.name)}" for ref in refs)
    return _Join(f"SELECT {id_sql(key)} AS id, {values} FROM ({relation})", on, tuple(ref.name for ref in refs))


def _value(ref: ColumnRef) -> str:
    if ref.scope == "input":
        return _INPUT_FACTS[ref.column]
    if ref.scope == "user":
        said = ", ".join(f'"user"[{literal(key)}]' for key in ref.spellings)
        return f"coalesce({said})"
    return identifier(ref.column)


def _listed(values: Iterable[Any]) -> str:
    return ", ".join(literal(value) for value in values)


def _gate(entry: dict[str, Any]) -> RunGate:
    one_of, none_of = tuple(entry.get("in") or ()), tuple(entry.get("not_in") or ())
    return RunGate(entry["after_index"], entry["column"], entry.get("min"), entry.get("max"), one_of, none_of)
