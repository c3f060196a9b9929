"""What runs in the decoding process: all that reads the bytes of a source. Nothing here knows of tables or models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import cv2

from curate.engine.detect import Detection
from curate.isolation import told
from curate.media.views import ViewSampler, sample_spans
from curate.records import Clip, SourceFacts, Span
from curate.stage import CutStage, ProbeStage, SourceFile, boundary
from curate.view import View, ViewSpec

Pixels = dict[str, View]
Found = tuple[Span, Pixels | None, Exception | None]
"""A span with the views of its clip, or with why there are none."""


def get_ready(probe: ProbeStage[Any], cut: CutStage[Any]) -> None:
    """Nothing: once it is done, what the stages import is there."""


def probe_source(probe: ProbeStage[Any], file: SourceFile) -> SourceFacts:
    """Facts of a local file."""
    return probe.probe(file)


def cut_source(
    file: SourceFile, facts: SourceFacts, cut: CutStage[Any], specs: Mapping[str, ViewSpec], salvage: bool
) -> Iterator[Found | dict[str, Any]]:
    """The one decode: spans with their views as they are certain, then the values of the cut cell."""
    cv2.setNumThreads(1)
    sampler = ViewSampler(facts, specs)
    detection = Detection(file.path, facts, cut, sampler, salvage=salvage)
    for spans in detection.spans():
        for span in spans:
            clip = Clip.of_span(file.digest, facts.stream, facts.time_base_fraction, span)
            pixels: Pixels | None = None
            with boundary() as blind:
                pixels = sampler.take(clip)
            yield span, pixels, told(blind.error) if blind.error else None
    yield detection.summary()


def see_clips(
    file: SourceFile, facts: SourceFacts, clips: Sequence[Clip], specs: Mapping[str, ViewSpec]
) -> Iterator[tuple[Clip, Pixels | None, Exception | None]]:
    """Views of clips already known, or why one has none."""
    cv2.setNumThreads(1)
    blind: list[tuple[Clip, Exception]] = []
    for clip, pixels in sample_spans(
        file.path, facts, clips, specs, on_error=lambda clip, error: blind.append((clip, error))
    ):
        yield from ((lost, None, told(error)) for lost, error in blind)
        blind.clear()
        yield clip, pixels, None
    yield from ((lost, None, told(error)) for lost, error in blind)
