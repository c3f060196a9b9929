"""The one decode of a source: what goes to the cut detector, and what to the view sampler.

packets -> needed ones -> frames -> reference frames -----------------> view sampler
                            \\-> looks (12/s), and between where asked -> cut detector -> spans
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from curate.media.decode import FrameReader, iter_frames
from curate.media.looks import Looks
from curate.media.packets import Depth
from curate.media.views import ViewSampler
from curate.records import CutKind, SourceFacts, Span
from curate.stage import CutDetector, CutStage, Thumb
from curate.view import THUMB_WIDTH_PX

DAMAGED = "damaged_s"
"""The column of the cut cell that says how much was left out; filled in for stages that declare it."""


class Detection:
    """The spans of one local file. ``salvage`` leaves out what cannot be decoded: each sound stretch is cut by itself.

    ``damaged_s``: seconds left out, known at the end.
    """

    def __init__(
        self, path: str, facts: SourceFacts, cut: CutStage[Any], sampler: ViewSampler, *, salvage: bool = False
    ) -> None:
        self.damaged_s = 0.0
        self._path = path
        self._facts = facts
        self._cut = cut
        self._sampler = sampler
        self._salvage = salvage
        self._detectors: list[CutDetector] = []
        self._begin_stretch(facts.start_pts)

    def _begin_stretch(self, start_pts: int) -> None:
        self._detector = self._cut.detector(replace(self._facts, start_pts=start_pts))
        self._detectors.append(self._detector)
        self._looks = Looks(self._path, self._facts, self._cut.thumb_width_px, every=self._cut.every_frame)

    def spans(self) -> Iterator[list[Span]]:
        """Decode once; spans come as they are certain, while the sampler holds what they need. DecodeError."""
        depth = Depth.REFERENCE if self._cut.blind else Depth.EVERY if self._cut.every_frame else Depth.LIKELY
        how = {"salvage": self._salvage, "vectors": self._sampler.wants_vectors}
        with iter_frames(self._path, self._facts, depth=depth, **how) as frames:
            for frame in frames:
                if frame.gap_pts is not None:
                    yield self._ended(frame.gap_pts, (), damaged=True)
                    self._begin_stretch(frame.pts)
                look = self._looks.push(frame)
                if frame.reference:
                    shared = look.yuv if look and self._cut.thumb_width_px == THUMB_WIDTH_PX else None
                    self._sampler.push(frame, shared)
                if look is not None:
                    yield self._pushed(look)
                    self._sampler.forget_before(self._detector.needed_pts)
                    if self._looks.wasteful:
                        frames.decode_every()
            yield self._last(frames)
        self.damaged_s = float(frames.damaged_ticks * self._facts.time_base_fraction)

    def _last(self, frames: FrameReader) -> list[Span]:
        truncated = frames.damaged_ticks > 0 and frames.reached_pts < self._facts.end_pts and not frames.trailing
        if truncated:
            return self._ended(frames.reached_pts, (), damaged=True)
        return self._ended(self._facts.end_pts, frames.trailing, damaged=False)

    def _ended(self, end_pts: int, trailing: tuple[int, ...], *, damaged: bool) -> list[Span]:
        """A sound stretch ends, with the stream or at damage."""
        spans: list[Span] = []
        if (look := self._looks.last()) is not None:
            spans += self._pushed(look)
        spans += self._detector.finish(end_pts, trailing)
        if damaged and spans and spans[-1].end_kind is CutKind.SOURCE_END:
            spans[-1] = replace(spans[-1], end_kind=CutKind.DAMAGE)
        return self._named(spans)

    def _pushed(self, look: Thumb) -> list[Span]:
        """Show a look, after what lies before it where the detector wants that."""
        if not self._wanted(look):
            return self._named(self._detector.push(look))
        spans: list[Span] = []
        for near in self._looks.nearer(look):
            for thumb in self._looks.all_between(near) if self._wanted(near) else [near]:
                spans += self._detector.push(thumb)
        return self._named(spans)

    def _wanted(self, thumb: Thumb) -> bool:
        return bool(thumb.skipped) and self._detector.wants_between(thumb)

    def _named(self, spans: list[Span]) -> list[Span]:
        """In a stretch after damage the first span begins with damage, not with the source."""
        if len(self._detectors) == 1:
            return spans
        start = CutKind.SOURCE_START
        return [replace(s, start_kind=CutKind.DAMAGE) if s.start_kind is start else s for s in spans]

    def summary(self) -> dict[str, Any]:
        """The cut cell's values except ``n_clips``: numbers and lists of all stretches together."""
        parts = [detector.summary() for detector in self._detectors]
        found = dict(parts[0])
        for part in parts[1:]:
            found.update({name: found[name] + value for name, value in part.items() if _adds(value)})
        if any(column.name == DAMAGED for column in self._cut.columns):
            found[DAMAGED] = self.damaged_s
        return found


def _adds(value: Any) -> bool:
    return isinstance(value, int | float | list) and not isinstance(value, bool)
