"""Clips of one length at whole strides of the clock. No picture is looked at: the time stamps of all frames do."""

from __future__ import annotations

from collections.abc import Sequence

from curate.records import CutKind, SourceFacts
from curate.stage import Thumb
from curate.stages.cut.model import Edge
from curate.units import exact


class StrideFinder:
    """Clip k begins with the first frame from k strides after the start on, and ends before the first frame from its
    length later on: exact at any rate, also a varying one, and nothing adds up. What lies between belongs to none.
    """

    n_flashes = 0

    def __init__(self, facts: SourceFacts, length_s: float, stride_s: float) -> None:
        self.settled_pts = facts.start_pts
        self._start_pts = facts.start_pts
        self._length_ticks = exact(length_s) / facts.time_base_fraction
        self._stride_ticks = exact(stride_s) / facts.time_base_fraction
        self._inside: int | None = 0

    def wants_between(self, thumb: Thumb) -> bool:
        """No frame is ever needed."""
        return False

    def push(self, thumb: Thumb) -> list[Edge]:
        """Take the next frame, and the time stamps of those it skips; give the edges among them."""
        edges = [edge for pts in (*thumb.skipped, thumb.pts) for edge in self._at(pts)]
        self.settled_pts = thumb.pts
        return edges

    def finish(self, skipped: Sequence[int] = ()) -> list[Edge]:
        """The edges among the last frames; what is open then ends with the stream."""
        return [edge for pts in skipped for edge in self._at(pts)]

    def _at(self, pts: int) -> list[Edge]:
        """The edges at a frame."""
        since = pts - self._start_pts
        number = since // self._stride_ticks
        inside = number if since - number * self._stride_ticks < self._length_ticks else None
        before, self._inside = self._inside, inside
        if inside == before:
            return []
        ends = [Edge(pts, False, CutKind.STRIDE, "")] if before is not None else []
        return [*ends, Edge(pts, True, CutKind.STRIDE, "")] if inside is not None else ends
