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
from curate.query.run import ColumnRef, RunGate, RunStage, RunTables, check_run, column_names, last_run, run_stages

__all__ = [
    "TOMBSTONES",
    "ColumnRef",
    "RunGate",
    "RunStage",
    "RunTables",
    "cells_sql",
    "check_run",
    "clips_sql",
    "column_names",
    "connect",
    "identifier",
    "last_run",
    "literal",
    "parts_sql",
    "run_query",
    "run_stages",
    "sources_sql",
    "tombstones_sql",
]
