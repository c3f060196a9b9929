"""The table writer: bundles become immutable parts, in the bundle's order; what it returns is on disk."""

from __future__ import annotations

from curate.engine.work import Summary, TableBundle
from curate.tables import Corpus, parquet_bytes, put_part


def write_bundle(corpus: Corpus, bundle: TableBundle) -> Summary:
    """Write every table of the bundle as one part of its folder; the summary acknowledges it."""
    written_bytes = 0
    for folder, table in bundle.tables:
        data = parquet_bytes(table)
        put_part(corpus.root.child(*folder.split("/")), data)
        written_bytes += len(data)
    bundle.summary.written_bytes = written_bytes
    return bundle.summary
