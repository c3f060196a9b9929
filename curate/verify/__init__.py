"""Proof that a corpus is whole: tables (`tables`), runs and selections (`runs`), shard sets (`shards`), and what
interrupted work left behind (`leftovers`)."""

from curate.verify.leftovers import Leftover, clean, leftovers
from curate.verify.problem import Problem
from curate.verify.runs import verify_runs, verify_selections
from curate.verify.shards import verify
from curate.verify.tables import verify_tables

__all__ = [
    "Leftover",
    "Problem",
    "clean",
    "leftovers",
    "verify",
    "verify_runs",
    "verify_selections",
    "verify_tables",
]
