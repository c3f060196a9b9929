"""What is known of every input before one is decoded: its size from the listing and, where files lie on this machine,
how long and how large its pictures are.

Reading the packets of a file takes a thousandth of the time of scoring it, and pixels foretell that time far better
than bytes. Files of an object store would have to be fetched whole, so there it is their sizes alone.
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from curate.engine.pipeline import Pipeline
from curate.engine.reading import SourceReader
from curate.errors import class_name
from curate.ingest.spool import spooled
from curate.ingest.tars import split_member_uri
from curate.isolation import Limits
from curate.records import InputRef, SourceFacts
from curate.stage import boundary
from curate.storage import is_remote

MOST_PROBED = 2000
MOST_PROBED_BYTES = 64 << 30
"""More inputs, or more bytes, are not read through: their sizes must do."""

SAME_CONTENT = "same content as another"


@dataclass(frozen=True)
class Survey:
    """A bucket. ``refs``: what a run would decode, as far as is known. ``skipped`` and ``failed`` count the other
    inputs by cause and class; ``predictors``: by name, one number a ref, from the most telling on. ``video_s`` is None
    where the files were not read through."""

    refs: tuple[InputRef, ...]
    predictors: Mapping[str, np.ndarray]
    seconds: float = 0.0
    video_s: float | None = None
    skipped: Mapping[str, int] = field(default_factory=dict)
    failed: Mapping[str, int] = field(default_factory=dict)

    @property
    def n_inputs(self) -> int:
        """All that was listed."""
        return len(self.refs) + sum(self.skipped.values()) + sum(self.failed.values())

    @property
    def weights(self) -> np.ndarray:
        """How much is to be learnt from each: its length, else less than its size, which says little of that."""
        length = self.predictors.get("duration")
        return np.maximum(np.sqrt(self.sizes_bytes) if length is None else length, 1e-3)

    @property
    def sizes_bytes(self) -> np.ndarray:
        """Of the files of ``refs``; those that nobody knows are taken to be like the others."""
        known = [ref.size_bytes for ref in self.refs if ref.size_bytes is not None]
        usual = sum(known) / len(known) if known else 1.0
        return np.array([usual if ref.size_bytes is None else ref.size_bytes for ref in self.refs], float)


def survey(
    refs: Sequence[InputRef], pipeline: Pipeline, limits: Limits | None, counted: Callable[[int, int], None]
) -> Survey:
    """Look at every input that was listed. ``counted`` hears how many of how many were read through."""
    began = time.perf_counter()
    taken = [ref for ref in refs if not ref.cause]
    skipped = Counter(ref.cause for ref in refs if ref.cause)
    found = Survey(tuple(taken), {}, skipped=skipped)
    if not _worth_probing(taken):
        return Survey(found.refs, _known(found), time.perf_counter() - began, skipped=skipped)
    facts: list[tuple[InputRef, SourceFacts]] = []
    failed: Counter[str] = Counter()
    digests: set[str] = set()
    with closing(SourceReader(limits)) as reader, tempfile.TemporaryDirectory(prefix="curate-") as scratch:
        for number, ref in enumerate(taken, 1):
            with boundary() as caught, spooled(ref, Path(scratch)) as file:
                if file.digest in digests:
                    skipped[SAME_CONTENT] += 1
                else:
                    digests.add(file.digest)
                    facts.append((ref, reader.probe(pipeline.probe, file)))
            if caught.error is not None:
                failed[class_name(caught.error)] += 1
            counted(number, len(taken))
    readable = Survey(tuple(ref for ref, _ in facts), {}, skipped=skipped, failed=failed)
    known = {**_seen([each for _, each in facts]), **_known(readable)}
    video_s = sum(each.duration_s for _, each in facts)
    return Survey(readable.refs, known, time.perf_counter() - began, video_s, skipped, failed)


def _worth_probing(refs: Sequence[InputRef]) -> bool:
    local = all(not is_remote(ref.uri) and not split_member_uri(ref.uri) for ref in refs)
    return local and len(refs) <= MOST_PROBED and sum(ref.size_bytes or 0 for ref in refs) <= MOST_PROBED_BYTES


def _seen(facts: Sequence[SourceFacts]) -> dict[str, np.ndarray]:
    """What the packets tell: pixels of all frames, and seconds."""
    return {
        "pixels": np.array([each.n_frames * each.coded_width_px * each.coded_height_px for each in facts], float),
        "duration": np.array([each.duration_s for each in facts], float),
    }


def _known(found: Survey) -> dict[str, np.ndarray]:
    """What the listing tells."""
    return {"bytes": found.sizes_bytes, "number": np.ones(len(found.refs))}
