"""From the edges of shots to spans: length limits, pieces, remainder rule, key-frame snap (SVD_SPEC 1.2 and 1.3)."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

from curate.errors import StageError
from curate.records import CutKind, SourceFacts, Span
from curate.stages.cut.model import Edge
from curate.units import exact, s_to_pts_ceil, s_to_pts_floor


@dataclass(frozen=True, slots=True)
class SpanRule:
    """Length limits in ticks of the stream's clock.

    ``max_ticks`` 0 means no limit. ``piece_kind`` is what a boundary put by the limit is called. ``points`` are the
    only pts at which a span may begin or end (None: at any frame); the end of the source is always allowed.
    ``piece_ticks``: length of the pieces of longer shots, where it is not ``max_ticks``; of such a shot only the first
    stays where ``truncates``. ``trim_ticks`` are taken off both ends of whatever would be a span.
    """

    min_ticks: int
    max_ticks: int
    piece_kind: CutKind = CutKind.MAX_LEN
    points: frozenset[int] | None = None
    piece_ticks: int = 0
    truncates: bool = False
    trim_ticks: int = 0

    @classmethod
    def of(cls, facts: SourceFacts, min_s: float, max_s: float, *, piece_kind: CutKind, snap: bool) -> SpanRule:
        """Limits in seconds as ticks of this source. Snapping allows closed key frames only: with nothing before
        them needed, a clip that begins there can be copied, and the one before can stop there."""
        base = facts.time_base_fraction
        pairs = zip(facts.key_frames_pts, facts.key_frames_closed, strict=True)
        points = frozenset(pts for pts, closed in pairs if closed) if snap else None
        return cls(s_to_pts_ceil(exact(min_s), base), s_to_pts_floor(exact(max_s), base), piece_kind, points)


class _Point(NamedTuple):
    """Where a span may begin or end, and how many frames come before it."""

    pts: int
    number: int


class SpanMaker:
    """Turns frames and edges into spans, each given as soon as nothing can change it any more.

    A shot longer than ``max_ticks`` is split in pieces that end at the last allowed point within the limit; what
    remains at its end is kept when it reaches ``min_ticks``, else dropped and counted. Where no allowed point lies
    within the limit (one frame held on for longer, or with snapping one group of pictures), that stretch is dropped
    and counted as well, and so is all but the first piece where the rule truncates. What is trimmed is not counted.
    """

    def __init__(self, rule: SpanRule, time_base: Fraction) -> None:
        self.n_frames = 0
        self.dropped = 0
        self.dropped_ticks = 0
        self._rule = rule
        self._base = time_base
        self._points: deque[_Point] = deque()
        self._edges: deque[Edge] = deque()
        self._opened = Edge(0, True, CutKind.SOURCE_START, "")
        self._in_shot = True
        self._rest_pts: int | None = None
        self._last_pts = 0

    @property
    def dropped_s(self) -> float:
        """Seconds of the dropped stretches."""
        return float(self.dropped_ticks * self._base)

    @property
    def opened_pts(self) -> int | None:
        """Where the open shot, or its piece in the making, begins; None between shots."""
        return self._opened.pts if self._in_shot else None

    def frame(self, pts: int) -> None:
        """The next frame in display order."""
        if not self.n_frames:
            self._opened = Edge(pts, True, CutKind.SOURCE_START, "")
        elif pts <= self._last_pts:
            raise StageError(f"frames out of order: pts {pts} after {self._last_pts}", subject="cut")
        if self._rule.points is None or pts in self._rule.points:
            self._points.append(_Point(pts, self.n_frames))
        self.n_frames += 1
        self._last_pts = pts

    def settle(self, edges: Sequence[Edge], settled_pts: int) -> list[Span]:
        """Spans that became certain, given new edges and that none to come lies before ``settled_pts``."""
        self._edges.extend(edges)
        out: list[Span] = []
        while self._edges and self._edges[0].pts <= settled_pts:
            self._take(self._edges.popleft(), out)
        if self._in_shot:
            self._pieces(settled_pts, out)
        self._forget(settled_pts)
        return out

    def finish(self, edges: Sequence[Edge], end_pts: int) -> list[Span]:
        """The remaining spans of a source that ended at ``end_pts``."""
        if not self.n_frames:
            return []
        end_pts = max(end_pts, self._last_pts + 1)
        self._edges.extend(edges)
        out: list[Span] = []
        while self._edges:
            self._take(self._edges.popleft(), out)
        if self._in_shot or self._rest_pts is not None:
            self._points.append(_Point(end_pts, self.n_frames))
            self._close(Edge(end_pts, False, CutKind.SOURCE_END, ""), out)
        return out

    def _take(self, edge: Edge, out: list[Span]) -> None:
        if edge.opens:
            self._opened, self._in_shot = edge, True
        else:
            self._close(edge, out)
            self._in_shot = False

    def _close(self, edge: Edge, out: list[Span]) -> None:
        self._pieces(edge.pts, out)
        if self._rest_pts is not None:
            self._drop(self._rest_pts, edge.pts)
            self._rest_pts = None
            return
        start, end = self._start(), self._last_point(edge.pts)
        if start is not None and end is not None and end > start:
            self._emit(start, end, Edge(end.pts, False, edge.kind, edge.detector), out)
        elif edge.pts > self._opened.pts:
            self._drop(self._opened.pts, edge.pts)

    def _pieces(self, limit_pts: int, out: list[Span]) -> None:
        """Pieces of the open shot that end at the length limit before ``limit_pts``."""
        longest = self._rule.max_ticks
        while longest and self._in_shot and (start := self._start()) is not None and start.pts + longest < limit_pts:
            end = self._last_point(start.pts + (self._rule.piece_ticks or longest))
            if end is not None and end > start:
                self._emit(start, end, Edge(end.pts, False, self._rule.piece_kind, ""), out)
                if self._rule.truncates:
                    self._rest_pts, self._in_shot = end.pts, False
            elif len(self._points) > 1 and self._points[1].pts <= limit_pts:
                self._drop(start.pts, self._points[1].pts)
                self._opened = Edge(self._points[1].pts, True, self._rule.piece_kind, "")
            else:
                return

    def _emit(self, start: _Point, end: _Point, edge: Edge, out: list[Span]) -> None:
        if self._rule.trim_ticks:
            start, end = self._trimmed(start, end)
        if end.pts - start.pts >= max(self._rule.min_ticks, 1):
            left, n_frames = self._opened, end.number - start.number
            out.append(Span(start.pts, end.pts, left.kind, edge.kind, left.detector, edge.detector, n_frames))
        else:
            self._drop(start.pts, max(start.pts, end.pts))
        self._opened = edge

    def _trimmed(self, start: _Point, end: _Point) -> tuple[_Point, _Point]:
        """The first and last allowed point of what is left of a span."""
        at = bisect_left(self._points, start.pts + self._rule.trim_ticks, key=lambda point: point.pts)
        first = self._points[min(at, len(self._points) - 1)]
        return first, self._last_point(end.pts - self._rule.trim_ticks) or start

    def _drop(self, start: int, end: int) -> None:
        self.dropped += 1
        self.dropped_ticks += end - start

    def _start(self) -> _Point | None:
        """First allowed point of the open shot or piece; points before it are forgotten."""
        while self._points and self._points[0].pts < self._opened.pts:
            self._points.popleft()
        return self._points[0] if self._points else None

    def _last_point(self, limit_pts: int) -> _Point | None:
        at = bisect_right(self._points, limit_pts, key=lambda point: point.pts)
        return self._points[at - 1] if at else None

    def _forget(self, settled_pts: int) -> None:
        """Hold no more points than a decision to come may need."""
        if not self._in_shot:
            while self._points and self._points[0].pts < settled_pts:
                self._points.popleft()
        elif not (self._rule.max_ticks or self._rule.trim_ticks) and self._start() is not None:
            while len(self._points) > 2 and self._points[2].pts <= settled_pts:
                del self._points[1]
