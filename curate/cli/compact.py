"""`curate compact`: merge the small parts of the tables."""

from __future__ import annotations

from typing import Annotated

import typer

from curate.cli.console import ending, out, plain
from curate.cli.look import CorpusName


def compact_command(
    corpus: CorpusName,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be merged; change nothing.")] = False,
) -> None:
    """Merge the small parts of every table, so that reading opens few files; what the tables say stays the same.

    Runs and readers may go on meanwhile. Stopped half-way, it leaves rows twice at most, which reading resolves.

    Example: `curate compact corpus --dry-run`, then `curate compact corpus`
    """
    from curate.compact import compact
    from curate.tables import Corpus

    with ending():
        before = after = repeated = 0
        for done in compact(Corpus(corpus), dry_run=dry_run):
            before, after, repeated = before + done.parts_before, after + done.parts_after, repeated + done.repeated
            if done.parts_after < done.parts_before:
                text = f"{plain(done.folder)}: {done.parts_before} -> {done.parts_after} parts, {done.rows} rows merged"
                out.print(text, soft_wrap=True)
        verb = "would become" if dry_run else "became"
        twice = f"; {repeated} repeated rows left out" if repeated else ""
        out.print(f"{before} parts {verb} {after}{twice}.")
