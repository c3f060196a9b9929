"""Questions to the tables, in SQL on DuckDB: the reading rules (`parts`), one run's view of them (`run`)."""

from curate.query.parts import (
    TOMBSTONES,
    cells_sql,
    clips_sql,
    connect,
    identifier,
    literal,
    parts_sql,
    run_query,
    sources_sql,
    tombstones_sql,
)
from curate.query.run import ColumnRef, RunGate, RunStage, RunTables, last_run

__all__ = [
    "TOMBSTONES",
    "ColumnRef",
    "RunGate",
    "RunStage",
    "RunTables",
    "cells_sql",
    "clips_sql",
    "connect",
    "identifier",
    "last_run",
    "literal",
    "parts_sql",
    "run_query",
    "sources_sql",
    "tombstones_sql",
]
