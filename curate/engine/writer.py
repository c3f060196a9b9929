"""The table writer: bundles become immutable parts, in the bundle's order; what it returns is on disk."""

from __future__ import annotations

from curate.engine.work import Summary, TableBundle
from curate.tables import Corpus, write_part


def write_bundle(corpus: Corpus, bundle: TableBundle) -> Summary:
    """Write every table of the bundle as one part of its folder; the summary acknowledges it."""
    for folder, table in bundle.tables:
        write_part(corpus.root.child(*folder.split("/")), table)
    return bundle.summary
