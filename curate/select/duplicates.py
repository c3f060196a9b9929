"""Near-duplicates among the survivors of one selection: from the tables to `dedup` and back."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import duckdb
import numpy as np
import pyarrow as pa

from curate.errors import CorpusError
from curate.query import RunTables, identifier
from curate.query.parts import id_sql
from curate.select.config import DedupConfig
from curate.select.dedup import Fingerprints, Rule, near_duplicates
from curate.select.embeddings import CosineRule, Embedded, near_duplicates_by_embedding
from curate.select.judge import missing_cells
from curate.select.output import Verdict
from curate.storage import storage_error

NEAR_DUPLICATE = "near-duplicate"
_SURVIVORS = "SELECT clip FROM judged WHERE NOT forgotten AND fails = 0 AND errors = 0"
_HASHES = ("phash_first", "phash_middle", "phash_last", "phash_flat")
_FRAMES = ("first", "middle", "last")
_BATCH_ROWS = 2048


def remove_duplicates(tables: RunTables, config: DedupConfig) -> list[Verdict]:
    """Table ``judged`` -> table ``duplicates``: clip, keeper and ``state``, an index into the verdicts given."""
    con = tables.con
    con.execute("CREATE OR REPLACE TEMP TABLE duplicates (clip UUID, keeper UUID, state INTEGER)")
    method = config.method_of({stage.name for stage in tables.stages})
    if method == "none":
        return []
    stage = tables.stage(config.stage if method == "hash" else config.embedding_stage).name
    outcome = f"{stage}.outcome"
    values = {name: f"{stage}.{name}" for name in (_HASHES if method == "hash" else ())}
    keep = [config.keep] if config.keep else []
    keep_outcome = [f"{ref.stage.name}.outcome" for ref in map(tables.column, keep) if ref.stage]
    columns = ["clip.start_s", "clip.duration_s", outcome, *values.values(), *keep, *keep_outcome]
    tables.load("survivors", columns, only=_SURVIVORS)
    _check(tables, [outcome, *keep_outcome])
    _rank(con, config, outcome, values)
    if method == "hash":
        _mark(con, near_duplicates(_fingerprints(con), Rule(config.hamming, config.duration_tolerance)))
    else:
        rule = CosineRule(config.cosine, config.duration_tolerance)
        with _embedded(tables, stage) as clips:
            _mark(con, near_duplicates_by_embedding(clips, rule))
    verdict = "failed" if config.on_failed == "failed" else "dropped"
    if config.on_failed != "keep":
        failed = f"SELECT clip, NULL, 1 FROM survivors WHERE {identifier(outcome)} = 'failed'"
        con.execute(f"INSERT INTO duplicates {failed}")
    con.execute("DROP TABLE survivors")
    con.execute("DROP TABLE ranked")
    lost = Verdict(verdict, f"{NEAR_DUPLICATE}: {stage} could not be measured", (NEAR_DUPLICATE,))
    return [Verdict("dropped", NEAR_DUPLICATE, (NEAR_DUPLICATE,)), lost]


def _check(tables: RunTables, outcomes: list[str]) -> None:
    counts = ", ".join(f"count(*) FILTER (WHERE {identifier(name)} IS NULL)" for name in outcomes)
    (found,) = tables.con.execute(f"SELECT {counts} FROM survivors").fetchall()
    missing = {name.removesuffix(".outcome"): n for name, n in zip(outcomes, found, strict=True) if n}
    if missing:
        raise missing_cells(tables, missing)


def _rank(con: duckdb.DuckDBPyConnection, config: DedupConfig, outcome: str, values: dict[str, str]) -> None:
    """Table ``ranked``: survivors that were measured, from best to worst, ``place`` 0, 1, ..., with these values."""
    best = f"{identifier(config.keep)} DESC NULLS LAST, " if config.keep else ""
    listed = "".join(f", {identifier(column)} AS {name}" for name, column in values.items())
    con.execute(
        f"""CREATE OR REPLACE TEMP TABLE ranked AS SELECT row_number() OVER (ORDER BY {best}clip) - 1 AS place, clip,
        hash(source) AS source, "clip.start_s" AS start_s, "clip.duration_s" AS duration_s{listed}
        FROM survivors WHERE {identifier(outcome)} = 'ok'"""
    )


def _spans(con: duckdb.DuckDBPyConnection, *values: str) -> dict[str, np.ndarray]:
    """Columns of ``ranked`` from best to worst."""
    names = ["source", "start_s", "duration_s", *values]
    table = con.sql(f"SELECT {', '.join(names)} FROM ranked ORDER BY place").to_arrow_table()
    return {name: table[name].to_numpy() for name in names}


def _fingerprints(con: duckdb.DuckDBPyConnection) -> Fingerprints:
    found = _spans(con, *_HASHES)
    hashes = np.stack([found[name] for name in _HASHES[:3]], axis=1).astype(np.uint64)
    flat = found["phash_flat"].astype(bool)
    return Fingerprints(hashes, flat, found["source"], found["start_s"], found["duration_s"])


@contextmanager
def _embedded(tables: RunTables, stage: str) -> Iterator[Embedded]:
    """Clips with their embeddings, which lie in a temporary file as long as this is open."""
    found = _spans(tables.con)
    n = len(found["source"])
    with tempfile.TemporaryFile(prefix="curate-embeddings-") as file:
        vectors = np.zeros((0, len(_FRAMES), 0), np.float16)
        for places, part in _embeddings(tables, stage):
            if not vectors.size:
                try:
                    vectors = np.memmap(file, np.float16, "w+", shape=(n, *part.shape[1:]))
                except OSError as error:
                    raise storage_error(error, tempfile.gettempdir(), writing=True) from error
            if part.shape[1:] != vectors.shape[1:]:
                raise _of_another_length(stage)
            vectors[places] = part
        yield Embedded(vectors, found["source"], found["start_s"], found["duration_s"])


def _embeddings(tables: RunTables, stage: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Places of clips in ``ranked`` and their embeddings, float16 (n, 3, length), in any order, batch by batch."""
    cells = tables.cells_sql(stage, ["key", "outcome", *_FRAMES])
    listed = ", ".join(f"c.{identifier(name)}" for name in _FRAMES)
    sql = f"""SELECT r.place, {listed} FROM ({cells}) c JOIN ranked r ON r.clip = {id_sql("c.key")}
        WHERE c.outcome = 'ok'"""
    try:
        for batch in tables.con.sql(sql).to_arrow_reader(_BATCH_ROWS):
            if len(batch):
                yield batch["place"].to_numpy(), np.stack([_matrix(batch[name], stage) for name in _FRAMES], axis=1)
    except (pa.ArrowException, OSError) as error:
        # What goes wrong while rows are handed over comes in Arrow's words; `listing_again` looks for DuckDB's.
        raise duckdb.IOException(str(error)) from error


def _matrix(lists: pa.Array, stage: str) -> np.ndarray:
    """Lists of one length as float16 (n, length). CorpusError when they are not."""
    lengths = lists.value_lengths().to_numpy(zero_copy_only=False)
    if lists.null_count or not lengths[0] or (lengths != lengths[0]).any():
        raise _of_another_length(stage)
    return lists.flatten().to_numpy(zero_copy_only=False).astype(np.float16).reshape(len(lists), -1)


def _of_another_length(stage: str) -> CorpusError:
    return CorpusError(
        "a cell that is ok holds no embedding, or one of another length", subject=f"tables/cells/{stage}"
    )


def _mark(con: duckdb.DuckDBPyConnection, kept_for: np.ndarray) -> None:
    worse = np.flatnonzero(kept_for >= 0)
    con.register("pairs", pa.table({"worse": worse, "better": kept_for[worse]}))
    con.execute(
        """INSERT INTO duplicates SELECT w.clip, b.clip, 0 FROM pairs
        JOIN ranked w ON w.place = pairs.worse JOIN ranked b ON b.place = pairs.better"""
    )
    con.unregister("pairs")
