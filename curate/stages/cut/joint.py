"""The cascade and TransNet V2 over the same source: all cuts of the first, and those of the second that it lacks.

every frame -> those that the cascade would see by itself -> cascade ----\\
           \\-> TransNet V2 ------------------------------------------------> edges of both, each cut once
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from fractions import Fraction

from curate.media.looks import filled, look_slot
from curate.stage import Thumb
from curate.stages.cut.model import BEFORE_ALL, HARD, Edge, ShotFinder, Transition

SAME_S = Fraction(1, 12)
"""Changes of shot that overlap, or lie no further apart than this, are one."""

_NEVER = 1 << 62
"""A pts after any other."""


class JointFinder:
    """A cut that both find is the cascade's, with its place and kind; its detector then names both. A stretch that the
    second finder cannot place, for it goes on too long, adds nothing.
    """

    def __init__(self, cascade: ShotFinder, second: ShotFinder, time_base: Fraction) -> None:
        self._cascade = _Source(cascade)
        self._second = _Source(second)
        self._shown = AsAlone(cascade, time_base)
        self._slack = int(SAME_S / time_base)
        self._asked: deque[Transition] = deque()
        self._changes: list[Transition] = []
        self._ended = False
        self._horizon = BEFORE_ALL

    @property
    def n_flashes(self) -> int:
        """The cascade's count."""
        return self._cascade.finder.n_flashes

    @property
    def settled_pts(self) -> int:
        """No edge to come lies before this pts."""
        first = self._changes[0] if self._changes else None
        if first is None or (self._ended and first.clean is None):
            return self._horizon
        return min(self._horizon, first.clean if self._ended and first.clean is not None else first.first)

    def wants_between(self, thumb: Thumb) -> bool:
        """All of them: TransNet V2 counts frames."""
        return True

    def push(self, thumb: Thumb) -> list[Edge]:
        """Take the next frame; give the edges that are now certain."""
        self._insert(self._cascade.began(self._shown.push(thumb)))
        self._asked += [each for each in self._second.began(self._second.finder.push(thumb)) if each.clean is not None]
        return self._resolve(self._cascade.finder.settled_pts, self._second.finder.settled_pts)

    def finish(self, skipped: Sequence[int] = ()) -> list[Edge]:
        """The stream ended; give the remaining edges."""
        self._insert(self._cascade.began(self._shown.finish()))
        self._asked += self._second.began(self._second.finder.finish())
        return self._resolve(_NEVER, _NEVER)

    def _insert(self, changes: Iterable[Transition]) -> None:
        self._changes = sorted([*self._changes, *changes], key=lambda each: each.first)

    def _resolve(self, cascade_pts: int, second_pts: int) -> list[Edge]:
        """Edges of the changes that nothing to come touches; the two have told all that begins before these pts."""
        while self._asked and _end(self._asked[0]) + self._slack < cascade_pts:
            self._judge(self._asked.popleft())
        self._horizon = min([cascade_pts, second_pts, *(each.first for each in list(self._asked)[:1])])
        edges: list[Edge] = []
        while self._changes and _end(change := self._changes[0]) + self._slack < self._horizon:
            if not self._ended:
                edges.append(Edge(change.first, False, change.end_kind, change.end_detector))
            self._ended = change.clean is None
            if change.clean is None:
                break
            edges.append(Edge(change.clean, True, change.start_kind, change.start_detector))
            self._changes.pop(0)
        return edges

    def _judge(self, asked: Transition) -> None:
        """Where the cascade has the change, it is noted who found it too; else it is one more."""
        others = [each for each in self._changes if each.end_detector != asked.end_detector]
        touched = [each for each in others if self._touch(each, asked)]
        for each in touched:
            each.end_detector = _both(each.end_detector, asked.end_detector)
            each.start_detector = _both(each.start_detector, asked.start_detector)
        if not touched:
            self._insert([asked])

    def _touch(self, a: Transition, b: Transition) -> bool:
        return all(x.clean is None or y.first <= x.clean + self._slack for x, y in ((a, b), (b, a)))


class _Source:
    """A finder whose edges are put together in pairs. The second of a pair, entered in the first's, may come late."""

    def __init__(self, finder: ShotFinder) -> None:
        self.finder = finder
        self._open: Transition | None = None

    def began(self, edges: Iterable[Edge]) -> list[Transition]:
        """The changes that begin among these edges."""
        found: list[Transition] = []
        for edge in edges:
            if not edge.opens:
                self._open = Transition.of(HARD, edge.pts, None, edge.kind, edge.detector)
                found.append(self._open)
            elif self._open is not None:
                self._open.clean, self._open.start_kind, self._open.start_detector = edge.pts, edge.kind, edge.detector
                self._open = None
        return found


class AsAlone:
    """Shows a finder, of every frame, those that it would be shown if nobody else looked on: the looks, and what lies
    between two where it wants that."""

    def __init__(self, finder: ShotFinder, time_base: Fraction) -> None:
        self._finder = finder
        self._base = time_base
        self._reached: int | None = None
        self._held: list[Thumb] = []

    def push(self, thumb: Thumb) -> list[Edge]:
        """Take the next frame; give what the finder gave."""
        slot = look_slot(thumb.pts, self._base)
        is_look = thumb.reference and (self._reached is None or slot > self._reached)
        if thumb.reference:
            self._reached = slot
        self._held.append(thumb)
        return self._look() if is_look else []

    def finish(self) -> list[Edge]:
        """The stream ended: the last frame is looked at whatever it is."""
        return (self._look() if self._held else []) + self._finder.finish()

    def _look(self) -> list[Edge]:
        *between, look = self._held
        self._held = []
        everything = {each.pts: each.yuv for each in between}
        references = {each.pts: each.yuv for each in between if each.reference}
        edges: list[Edge] = []
        for near in self._nearer(Thumb(look.pts, look.yuv, tuple(everything)), references):
            for thumb in self._nearer(near, everything):
                edges += self._finder.push(thumb)
        return edges

    def _nearer(self, thumb: Thumb, found: dict) -> list[Thumb]:
        return filled(thumb, found) if thumb.skipped and self._finder.wants_between(thumb) else [thumb]


def _end(change: Transition) -> int:
    return change.first if change.clean is None else change.clean


def _both(one: str, other: str) -> str:
    return one if other in one.split("+") else f"{one}+{other}"
