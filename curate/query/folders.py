"""The table folders of a corpus, each with its reading rule: what compaction and verification go through."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from curate.query.parts import CELLS_RULE, CLIPS_RULE, SOURCES_RULE, TOMBSTONES_RULE
from curate.storage import Place
from curate.tables import Corpus


@dataclass(frozen=True, slots=True)
class TableFolder:
    """One folder of parts. ``name`` is its path below the corpus; ``key`` and ``rank`` are its reading rule."""

    name: str
    kind: Literal["sources", "clips", "cells", "tombstones"]
    place: Place
    key: tuple[str, ...]
    rank: str


def table_folders(corpus: Corpus) -> list[TableFolder]:
    """Every folder of parts that there is, in the order in which a run writes them."""
    tables = corpus.root.child("tables")
    found: list[TableFolder] = []
    for fingerprint in tables.child("clips").folders():
        name = f"tables/clips/{fingerprint}"
        found.append(TableFolder(name, "clips", corpus.clips(fingerprint), *CLIPS_RULE))
    for stage in tables.child("cells").folders():
        for fingerprint in tables.child("cells", stage).folders():
            name = f"tables/cells/{stage}/{fingerprint}"
            found.append(TableFolder(name, "cells", corpus.cells(stage, fingerprint), *CELLS_RULE))
    present = tables.folders()
    if "sources" in present:
        found.append(TableFolder("tables/sources", "sources", corpus.sources(), *SOURCES_RULE))
    if "tombstones" in present:
        found.append(TableFolder("tables/tombstones", "tombstones", tables.child("tombstones"), *TOMBSTONES_RULE))
    return found
