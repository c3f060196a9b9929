"""Statistics of a run as queries over its tables: scores, failures, time, and the funnel of a selection."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import duckdb

from curate.config import nearest
from curate.errors import ConfigError
from curate.failures import FailureGroup, run_failures
from curate.query import (
    RunStage,
    RunTables,
    connect,
    identifier,
    last_run,
    listing_again,
    literal,
    run_query,
)
from curate.query.parts import id_sql
from curate.tables import Corpus

PERCENTILES = {"p1": 0.01, "p5": 0.05, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p95": 0.95, "p99": 0.99}
BINS = 20
_TOP = 20
_PROBE_COLUMNS = ("container", "codec", "width_px", "height_px", "rate_fps", "vfr", "duration_s")
_NUMBERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "FLOAT", "DOUBLE")
_CATEGORIES = ("VARCHAR", "BOOLEAN", "VARCHAR[]")
_MEAN = " (mean)"
_SCORES = "DOUBLE[]"
"""Lists of scores, one a frame or caption. Embeddings are of smaller floats."""


@dataclass(frozen=True, slots=True)
class NumberStats:
    """One numeric column over the run: ``n`` values, ``failed`` cells, nearest-rank ``percentiles`` by name.

    Of a column of lists it is the ``mean`` of each list, as ``column`` says then.

    ``counts[i]`` values lie from ``edges[i]`` up to ``edges[i+1]``; the last bin holds the maximum too.
    """

    stage: str
    column: str
    n: int
    failed: int
    min: float
    max: float
    percentiles: dict[str, float]
    edges: list[float]
    counts: list[int]

    @property
    def measured(self) -> tuple[str, str]:
        """The column, and what is made of its lists: ``mean``, or nothing where it holds numbers."""
        column = self.column.removesuffix(_MEAN)
        return column, "" if column == self.column else "mean"


@dataclass(frozen=True, slots=True)
class CategoryStats:
    """One column of names: the most frequent values with their counts. Values of lists count one by one."""

    stage: str
    column: str
    n: int
    failed: int
    n_distinct: int
    top: list[tuple[str, int]]


@dataclass(frozen=True, slots=True)
class StageSeconds:
    """Time of one stage over the run's cells, failed ones included.

    ``clips_per_s`` of one worker while it works and ``waited`` (share of its time between its first clip and its last
    in which it had none) are those of the run itself: None where it found all cells there.
    """

    stage: str
    n: int
    sum_s: float
    mean_s: float
    max_s: float
    clips_per_s: float | None = None
    waited: float | None = None


@dataclass(frozen=True, slots=True)
class SourceOutcome:
    """Inputs of the run that ended this way for this cause."""

    outcome: str
    cause: str
    n: int


@dataclass(frozen=True, slots=True)
class CorpusStats:
    """All of it. ``funnel`` is the funnel.json of the selection, None when none was made over this run."""

    run_id: str
    n_sources: int
    n_clips: int
    hours: float
    numbers: list[NumberStats]
    categories: list[CategoryStats]
    failures: list[FailureGroup]
    seconds: list[StageSeconds]
    sources: list[SourceOutcome]
    funnel: dict[str, Any] | None = field(default=None)
    stand_ins: dict[str, str] = field(default_factory=dict)
    """What some stages cannot do without bigger models, by stage."""
    lacks: dict[str, str] = field(default_factory=dict)
    """What was not done of the published recipe that the run's own follows."""


@listing_again
def corpus_stats(corpus: Corpus, run_id: str | None = None, selection: str | None = None) -> CorpusStats:
    """Statistics of a run (the last complete one), with the funnel of ``selection`` (the run's latest)."""
    corpus.check()
    funnel = run_funnel(corpus, run_id, selection)
    if run_id is None:
        run_id = str(funnel["run_id"]) if selection and funnel else last_run(corpus)
    with closing(connect()) as con:
        return run_stats(RunTables(con, corpus, run_id), funnel if funnel and funnel["run_id"] == run_id else None)


def run_stats(tables: RunTables, funnel: dict[str, Any] | None = None) -> CorpusStats:
    """The same of one run whose tables are open."""
    con = tables.con
    ((n_clips, hours),) = _prepare(tables)
    numbers: list[NumberStats] = []
    categories: list[CategoryStats] = []
    seconds = []
    for stage in tables.stages:
        kinds = _load_scores(tables, stage)
        seconds += _seconds(tables, stage)
        for found in _columns(con, stage, kinds):
            if isinstance(found, NumberStats):
                numbers.append(found)
            else:
                categories.append(found)
        con.execute("DROP TABLE scores")
    numbers += _durations(con)
    stats = CorpusStats(
        run_id=tables.run_id,
        n_sources=con.execute("SELECT count(*) FROM run_sources").fetchall()[0][0],
        n_clips=n_clips,
        hours=hours,
        numbers=numbers,
        categories=categories,
        failures=run_failures(tables, clips="run_clips"),
        seconds=seconds,
        sources=_outcomes(tables),
        funnel=funnel,
        stand_ins=tables.manifest.get("stand_ins", {}),
        lacks=tables.manifest.get("lacks", {}),
    )
    con.execute("DROP TABLE run_clips")
    return stats


@listing_again
def run_funnel(corpus: Corpus, run_id: str | None, selection: str | None = None) -> dict[str, Any] | None:
    """The funnel of the named selection, else of the latest over this run."""
    places = {name: corpus.selections().child(name, "funnel.json") for name in corpus.selections().folders()}
    if selection is not None:
        if selection not in places or not places[selection].exists():
            hint = nearest(selection, places) if places else "none was made yet"
            raise ConfigError(f"no selection is called {selection!r}, {hint}", subject=corpus.uri)
        funnel = json.loads(places[selection].read_text())
        if run_id not in {None, funnel["run_id"]}:
            raise ConfigError(f"selection {selection!r} was made over run {funnel['run_id']}, not {run_id}")
        return funnel
    run_id = run_id or last_run(corpus)
    made = [json.loads(place.read_text()) for place in places.values() if place.exists()]
    return max((f for f in made if f["run_id"] == run_id), key=lambda f: (f["created_at"], f["name"]), default=None)


def _prepare(tables: RunTables) -> list[tuple[int, float]]:
    """Tables ``run_clips`` and ``run_sources`` of ids; gives (clips, hours)."""
    tables.load("run_clips", ["clip.duration_s"])
    run_query(
        tables.con,
        lambda: (
            f"""CREATE OR REPLACE TEMP TABLE run_sources AS SELECT DISTINCT {id_sql("source_digest")} AS source
        FROM ({tables.inputs_sql()}) WHERE source_digest IS NOT NULL AND outcome <> 'skipped'"""
        ),
    )
    sql = 'SELECT count(*), coalesce(sum("clip.duration_s"), 0) / 3600 FROM run_clips'
    return tables.con.execute(sql).fetchall()


def _own_cells(tables: RunTables, stage: RunStage, columns: Sequence[str]) -> str:
    """SQL of a stage's cells of this run's clips or sources."""
    own = "SELECT clip FROM run_clips" if stage.kind == "clip" else "SELECT source FROM run_sources"
    listed = ", ".join(map(identifier, columns))
    cells = tables.cells_sql(stage.name, list(dict.fromkeys(["key", *columns])))
    return f"SELECT {listed} FROM ({cells}) WHERE {id_sql('key')} IN ({own})"


def _seconds(tables: RunTables, stage: RunStage) -> list[StageSeconds]:
    sql = "SELECT count(*), sum(seconds), avg(seconds), max(seconds) FROM scores"
    ((n, sum_s, mean_s, max_s),) = tables.con.execute(sql).fetchall()
    return [StageSeconds(stage.name, n, sum_s, mean_s, max_s, *_use(tables.manifest, stage.name))] if n else []


def _use(manifest: Mapping[str, Any], stage: str) -> tuple[float | None, float | None]:
    """(clips per second at work, share of the time without work) of a stage's workers in a run."""
    use = manifest.get("stage_use", {}).get(stage)
    if not use or not use["busy_s"]:
        return None, None
    return use["items"] / use["busy_s"], use["waited_s"] / (use["busy_s"] + use["waited_s"])


def _load_scores(tables: RunTables, stage: RunStage) -> dict[str, str]:
    """Make ``scores`` of the stage's own cells: outcome, seconds, and the columns that hold numbers or names, whose
    types are given."""
    wanted = [c for c in stage.columns if stage.kind != "probe" or c in _PROBE_COLUMNS]
    cells = tables.cells_sql(stage.name, wanted) if wanted else "SELECT 1 WHERE FALSE"
    kinds = {str(row[0]): str(row[1]) for row in tables.con.execute(f"DESCRIBE {cells}").fetchall()}
    lists = [c for c in wanted if kinds[c] == _SCORES and stage.kind == "clip"]
    chosen = [c for c in wanted if kinds[c] in (*_NUMBERS, *_CATEGORIES) or c in lists]
    sql = _own_cells(tables, stage, ["outcome", "seconds", *chosen])
    run_query(tables.con, lambda: f"CREATE OR REPLACE TEMP TABLE scores AS {sql}")
    return {column: kinds[column] for column in chosen}


def _columns(
    con: duckdb.DuckDBPyConnection, stage: RunStage, kinds: Mapping[str, str]
) -> Iterator[NumberStats | CategoryStats]:
    """Statistics of the columns in ``scores``; text of captions counts as names."""
    ((failed,),) = con.execute("SELECT count(*) FROM scores WHERE outcome = 'failed'").fetchall()
    for column, kind in kinds.items():
        if kind in _NUMBERS:
            yield from _number(con, "scores", (stage.name, column), identifier(column), failed)
        elif kind == _SCORES:
            name = f"{column}{_MEAN}"
            yield from _number(con, "scores", (stage.name, name), f"list_avg({identifier(column)})", failed)
        else:
            yield _category(con, stage.name, column, failed, kind)


def _durations(con: duckdb.DuckDBPyConnection) -> list[NumberStats]:
    con.execute(
        """CREATE OR REPLACE TEMP VIEW lengths AS
        SELECT 'ok' AS outcome, "clip.duration_s" AS duration_s FROM run_clips"""
    )
    return list(_number(con, "lengths", ("clip", "duration_s"), "duration_s", 0))


def _number(
    con: duckdb.DuckDBPyConnection, table: str, name: tuple[str, str], value: str, failed: int
) -> Iterator[NumberStats]:
    """Statistics of the SQL ``value`` under its ``name`` (stage, column)."""
    found = number_stats(con, f"SELECT {value}::DOUBLE AS v FROM {table} WHERE outcome = 'ok'", name, failed)
    yield from [found] if found else []


def number_stats(
    con: duckdb.DuckDBPyConnection, values: str, name: tuple[str, str], failed: int, *, bins: int = BINS
) -> NumberStats | None:
    """Statistics of the finite values of ``values``, SQL of a column ``v``; None where there is none."""
    found = ranked_stats(con, values, name, failed, bins=bins)
    return found[0] if found else None


def ranked_stats(
    con: duckdb.DuckDBPyConnection,
    values: str,
    name: tuple[str, str],
    failed: int,
    *,
    bins: int = BINS,
    shares: Sequence[float] = (),
) -> tuple[NumberStats, list[float]] | None:
    """The same with the nearest-rank quantiles at further ``shares``."""
    finite = f"(SELECT v FROM ({values}) WHERE isfinite(v))"
    wanted = [*PERCENTILES.values(), *shares]
    # As a parameter: hundreds of shares in the text of a question take longer than the question.
    sql = f"SELECT count(*), min(v), max(v), quantile_disc(v, ?) FROM {finite}"
    ((n, low, high, ranks),) = con.execute(sql, [wanted]).fetchall()
    if not n:
        return None
    width = (high / 2 - low / 2) / bins * 2  # halved, since the difference of huge values may be infinite
    edges = [low + i * width for i in range(bins)] + [high]
    halved = f"(v / 2 - {literal(low / 2)}) / {literal(width / 2)}"
    place = f"least({bins - 1}, floor({halved}))::INTEGER" if width else "0"
    found = dict(con.execute(f"SELECT {place} AS bin, count(*) FROM {finite} GROUP BY 1").fetchall())
    counts = [found.get(i, 0) for i in range(bins)]
    percentiles = dict(zip(PERCENTILES, ranks[: len(PERCENTILES)], strict=True))
    return NumberStats(*name, n, failed, low, high, percentiles, edges, counts), ranks[len(PERCENTILES) :]


def _category(con: duckdb.DuckDBPyConnection, stage: str, column: str, failed: int, kind: str) -> CategoryStats:
    value = f"unnest({identifier(column)})" if kind.endswith("[]") else identifier(column)
    values = f"(SELECT {value}::VARCHAR AS v FROM scores WHERE outcome = 'ok' AND {identifier(column)} IS NOT NULL)"
    ((n,),) = con.execute(
        f"SELECT count(*) FROM scores WHERE outcome = 'ok' AND {identifier(column)} IS NOT NULL"
    ).fetchall()
    ((n_distinct,),) = con.execute(f"SELECT count(DISTINCT v) FROM {values}").fetchall()
    top = con.execute(f"SELECT v, count(*) AS n FROM {values} GROUP BY v ORDER BY n DESC, v LIMIT {_TOP}").fetchall()
    return CategoryStats(stage, column, n, failed, n_distinct, top)


def _outcomes(tables: RunTables) -> list[SourceOutcome]:
    sql = f"""SELECT outcome, coalesce(cause, '') AS cause, count(*) AS n FROM ({tables.inputs_sql()})
        GROUP BY ALL ORDER BY n DESC, outcome, cause"""
    return [SourceOutcome(**row) for row in run_query(tables.con, lambda: sql).to_pylist()]
