"""What became of each input: kept, dropped, failed or skipped, and why. The counts add up to the inputs found."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

from curate.errors import CorpusError
from curate.query import RunTables, connect, identifier, run_query, tombstones_sql
from curate.query.parts import file_sql, id_sql
from curate.select.funnel import Counts, Reason, load_funnel
from curate.tables import Corpus

NO_CLIP = "no clip of at least the minimum length"
FORGOTTEN = "forgotten"
_MISSING = "missing"
_LISTED = 200
"""Reasons that funnel.json lists one by one; error messages may name many."""


@dataclass(frozen=True, slots=True)
class InputVerdict:
    """How one input ended."""

    uri: str
    verdict: str
    reason: str


def forgotten_sql(tables: RunTables) -> str:
    """SQL of the 128-bit ids of sources of the run that were taken down, by content or by name."""
    stones = tombstones_sql(tables.con, tables.corpus)
    return f"""SELECT {id_sql("source_digest")} AS source FROM ({stones}) WHERE coalesce(source_digest, '') <> ''
        UNION SELECT {id_sql("i.source_digest")} FROM ({tables.inputs_sql()}) i JOIN ({stones}) t ON i.uri = t.uri
        WHERE coalesce(t.source_digest, '') = '' AND i.source_digest IS NOT NULL"""


def inputs_sql(tables: RunTables, clips: str) -> str:
    """SQL of (uri, verdict, reason) per input. ``clips`` is SQL of (source UUID, verdict, reason) per clip."""
    probe = tables.cells_sql(tables.probe.name, ["key", "outcome", "error_class", "error_message"])
    cut = tables.cells_sql(tables.cut.name, ["key", "outcome", "error_class", "error_message", "n_clips"])
    return f"""WITH reasons AS (SELECT source, verdict, reason, count(*) AS n FROM ({clips}) GROUP BY ALL),
        tally AS (SELECT source, sum(n) AS n_clips,
            coalesce(sum(n) FILTER (WHERE verdict = 'kept'), 0) AS n_kept,
            coalesce(sum(n) FILTER (WHERE verdict = 'failed'), 0) AS n_failed,
            count(*) AS n_reasons, first(reason ORDER BY n DESC, reason) AS top FROM reasons GROUP BY source),
        every AS (SELECT i.uri, i.outcome, i.cause, {_failure("p")} AS probe_error, {_failure("c")} AS cut_error,
            i.source_digest IS NULL OR p.key IS NULL OR c.key IS NULL AS unread, c.n_clips AS promised, t.*,
            {id_sql("i.source_digest")} IN ({forgotten_sql(tables)}) AS gone FROM ({tables.inputs_sql()}) i
            LEFT JOIN ({probe}) p ON p.key = i.source_digest LEFT JOIN ({cut}) c ON c.key = i.source_digest
            LEFT JOIN tally t ON t.source = {id_sql("i.source_digest")})
        SELECT uri, CASE WHEN outcome <> 'ok' THEN outcome
            WHEN probe_error IS NOT NULL OR cut_error IS NOT NULL THEN 'failed' WHEN gone THEN 'dropped'
            WHEN unread OR (promised > 0 AND n_clips IS NULL) THEN '{_MISSING}' WHEN promised = 0 THEN 'dropped'
            WHEN n_kept > 0 THEN 'kept' WHEN n_failed = n_clips THEN 'failed' ELSE 'dropped' END AS verdict,
        CASE WHEN outcome <> 'ok' THEN coalesce(nullif(cause, ''), outcome)
            WHEN probe_error IS NOT NULL THEN probe_error WHEN cut_error IS NOT NULL THEN cut_error
            WHEN gone THEN '{FORGOTTEN}' WHEN promised = 0 THEN '{NO_CLIP}' WHEN n_kept > 0 THEN ''
            ELSE if(n_failed = n_clips, 'every clip failed', 'no clip kept')
                || if(n_reasons > 1, ', mostly: ', ': ') || coalesce(top, '') END AS reason FROM every"""


def _failure(cell: str) -> str:
    text = f"{cell}.error_class || ': ' || coalesce({cell}.error_message, '')"
    return f"CASE WHEN {cell}.outcome = 'failed' THEN coalesce({text}, 'failed') END"


def count_inputs(tables: RunTables, clips: str) -> tuple[Counts, list[Reason]]:
    """Inputs by verdict, and by reason (the most frequent ones, the rest in one entry per verdict)."""
    sql = f"SELECT verdict, reason, count(*) AS n FROM ({inputs_sql(tables, clips)}) GROUP BY ALL"
    rows = run_query(tables.con, lambda: f"{sql} ORDER BY n DESC, verdict, reason").to_pylist()
    totals: dict[str, int] = {}
    for row in rows:
        totals[row["verdict"]] = totals.get(row["verdict"], 0) + row["n"]
    if _MISSING in totals:
        raise CorpusError(
            f"run {tables.run_id} is not computed to its end: {totals[_MISSING]} inputs have no clips yet",
            subject=tables.corpus.uri,
            fix="Run the same `curate run` again, then select again",
        )
    listed = [Reason(row["verdict"], row["reason"], row["n"]) for row in rows if row["verdict"] != "kept"]
    rest: dict[str, int] = {}
    for reason in listed[_LISTED:]:
        rest[reason.verdict] = rest.get(reason.verdict, 0) + reason.n
    others = [Reason(verdict, "other reasons", n) for verdict, n in rest.items()]
    return Counts(found=sum(totals.values()), **totals), [*listed[:_LISTED], *others]


def input_verdicts(corpus: Corpus, name: str) -> Iterator[InputVerdict]:
    """Every input of the run that selection ``name`` was made over, sorted by URI."""
    run_id = load_funnel(corpus, name).run_id
    with closing(connect()) as con:
        tables = RunTables(con, corpus, run_id)
        chosen = file_sql(con, corpus.selections().child(name, "selection.parquet"))
        owned = tables.clips_sql(["clip_id", "source_digest"])
        clips = f"""SELECT {id_sql("source_digest")} AS source, verdict, reason FROM ({chosen}) s
            JOIN ({owned}) c ON {id_sql("c.clip_id")} = {id_sql("s.clip_id")}"""
        rows = run_query(con, lambda: f"SELECT * FROM ({inputs_sql(tables, clips)}) ORDER BY {identifier('uri')}")
    for batch in rows.to_batches():
        yield from (InputVerdict(**row) for row in batch.to_pylist())
