"""Near-duplicates among the survivors of one selection: from the tables to `dedup` and back."""

from __future__ import annotations

import duckdb
import numpy as np
import pyarrow as pa

from curate.query import RunTables, identifier
from curate.select.config import DedupConfig
from curate.select.dedup import Fingerprints, Rule, near_duplicates
from curate.select.judge import missing_cells
from curate.select.output import Verdict

NEAR_DUPLICATE = "near-duplicate"
_SURVIVORS = "SELECT clip FROM judged WHERE NOT forgotten AND fails = 0 AND errors = 0"
_HASHES = ("phash_first", "phash_middle", "phash_last")


def remove_duplicates(tables: RunTables, config: DedupConfig) -> list[Verdict]:
    """Table ``judged`` -> table ``duplicates``: clip, keeper and ``state``, an index into the verdicts given."""
    con = tables.con
    con.sql("CREATE OR REPLACE TEMP TABLE duplicates (clip UUID, keeper UUID, state INTEGER)")
    if config.method == "none":
        return []
    stage = tables.stage(config.stage).name
    names = {n: f"{stage}.{n}" for n in (*_HASHES, "phash_flat", "outcome")}
    keep = [config.keep] if config.keep else []
    keep_outcome = [f"{ref.stage.name}.outcome" for ref in map(tables.column, keep) if ref.stage]
    columns = ["clip.start_s", "clip.duration_s", *names.values(), *keep, *keep_outcome]
    tables.load("survivors", columns, only=_SURVIVORS)
    _check(tables, [names["outcome"], *keep_outcome])
    _rank(con, config, names)
    _mark(con, near_duplicates(_fingerprints(con), Rule(config.hamming, config.duration_tolerance)))
    verdict = "failed" if config.on_failed == "failed" else "dropped"
    if config.on_failed != "keep":
        failed = f"SELECT clip, NULL, 1 FROM survivors WHERE {identifier(names['outcome'])} = 'failed'"
        con.sql(f"INSERT INTO duplicates {failed}")
    con.sql("DROP TABLE survivors")
    con.sql("DROP TABLE ranked")
    lost = Verdict(verdict, f"{NEAR_DUPLICATE}: {stage} could not be measured", (NEAR_DUPLICATE,))
    return [Verdict("dropped", NEAR_DUPLICATE, (NEAR_DUPLICATE,)), lost]


def _check(tables: RunTables, outcomes: list[str]) -> None:
    counts = ", ".join(f"count(*) FILTER (WHERE {identifier(name)} IS NULL)" for name in outcomes)
    (found,) = tables.con.sql(f"SELECT {counts} FROM survivors").fetchall()
    missing = {name.removesuffix(".outcome"): n for name, n in zip(outcomes, found, strict=True) if n}
    if missing:
        raise missing_cells(tables, missing)


def _rank(con: duckdb.DuckDBPyConnection, config: DedupConfig, names: dict[str, str]) -> None:
    """Table ``ranked``: survivors with hashes from best to worst, ``place`` 0, 1, ..."""
    best = f"{identifier(config.keep)} DESC NULLS LAST, " if config.keep else ""
    hashes = ", ".join(f"{identifier(names[h])}::UBIGINT AS {h}" for h in _HASHES)
    con.sql(
        f"""CREATE OR REPLACE TEMP TABLE ranked AS SELECT row_number() OVER (ORDER BY {best}clip) - 1 AS place, clip,
        hash(source) AS source, "clip.start_s" AS start_s, "clip.duration_s" AS duration_s, {hashes},
        {identifier(names["phash_flat"])} AS flat FROM survivors WHERE {identifier(names["outcome"])} = 'ok'"""
    )


def _fingerprints(con: duckdb.DuckDBPyConnection) -> Fingerprints:
    table = con.sql(
        f"SELECT source, start_s, duration_s, flat, {', '.join(_HASHES)} FROM ranked ORDER BY place"
    ).to_arrow_table()
    hashes = np.stack([table[name].to_numpy() for name in _HASHES], axis=1).astype(np.uint64)
    flat = table["flat"].to_numpy().astype(bool)
    return Fingerprints(
        hashes, flat, table["source"].to_numpy(), table["start_s"].to_numpy(), table["duration_s"].to_numpy()
    )


def _mark(con: duckdb.DuckDBPyConnection, kept_for: np.ndarray) -> None:
    worse = np.flatnonzero(kept_for >= 0)
    con.register("pairs", pa.table({"worse": worse, "better": kept_for[worse]}))
    con.sql(
        """INSERT INTO duplicates SELECT w.clip, b.clip, 0 FROM pairs
        JOIN ranked w ON w.place = pairs.worse JOIN ranked b ON b.place = pairs.better"""
    )
    con.unregister("pairs")
