"""What a person said of clips, as tables hold it: cells of a stage that no run computes and no manifest lists.

The cells lie and are read like those of every stage; of several with one key the last counts, since each mark is the
attempt after the one before it. One without a verdict takes a mark back.
"""

from __future__ import annotations

import duckdb
import pyarrow as pa

from curate.query.folders import TableFolder
from curate.query.parts import CELLS_RULE, cells_sql
from curate.stage import Column
from curate.tables import Corpus, cells_schema

MARK = "mark"
MARK_FINGERPRINT = "by-hand-1"
"""Marks depend on nothing that could change: they hold for the clip, whichever run found it."""

MARK_COLUMNS = (
    Column("verdict", pa.string(), "", "`keep` or `drop`"),
    Column("note", pa.string(), "", "why, if anything was said"),
    Column("by", pa.string(), "", "who said it, if known"),
)
MARK_SCHEMA = cells_schema(MARK_COLUMNS)


def mark_folder(corpus: Corpus) -> TableFolder:
    """Where marks lie, whether there are any by now or not."""
    name = f"tables/cells/{MARK}/{MARK_FINGERPRINT}"
    return TableFolder(name, "cells", corpus.cells(MARK, MARK_FINGERPRINT), *CELLS_RULE)


def marks_sql(con: duckdb.DuckDBPyConnection, corpus: Corpus) -> str:
    """SQL of the marks that stand, one row a clip (`MARK_SCHEMA`)."""
    cells = cells_sql(con, corpus, MARK, MARK_FINGERPRINT, MARK_SCHEMA, MARK_SCHEMA.names)
    return f"SELECT * FROM ({cells}) WHERE verdict IS NOT NULL"
