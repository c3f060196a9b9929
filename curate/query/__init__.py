"""Questions to the tables, in SQL on DuckDB: reading rules (`parts`), folders (`folders`), one run's view (`run`)."""

from curate.query.described import Description, described
from curate.query.folders import TableFolder, table_folders
from curate.query.marks import MARK, MARK_COLUMNS, MARK_FINGERPRINT, MARK_SCHEMA, mark_folder, marks_sql
from curate.query.parts import (
    TOMBSTONES,
    cells_sql,
    clips_sql,
    connect,
    identifier,
    list_parts,
    listing_again,
    literal,
    parts_sql,
    ranked_sql,
    repeated_rows,
    run_query,
    sources_sql,
    tombstones_sql,
)
from curate.query.run import ColumnRef, RunGate, RunStage, RunTables, check_run, column_names, last_run, run_stages

__all__ = [
    "MARK",
    "MARK_COLUMNS",
    "MARK_FINGERPRINT",
    "MARK_SCHEMA",
    "TOMBSTONES",
    "ColumnRef",
    "Description",
    "RunGate",
    "RunStage",
    "RunTables",
    "TableFolder",
    "cells_sql",
    "check_run",
    "clips_sql",
    "column_names",
    "connect",
    "described",
    "identifier",
    "last_run",
    "list_parts",
    "listing_again",
    "literal",
    "mark_folder",
    "marks_sql",
    "parts_sql",
    "ranked_sql",
    "repeated_rows",
    "run_query",
    "run_stages",
    "sources_sql",
    "table_folders",
    "tombstones_sql",
]
