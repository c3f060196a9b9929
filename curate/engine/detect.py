"""The one decode of a source: what goes to the cut detector, and what to the view sampler.

packets -> needed ones -> frames -> reference frames -----------------> view sampler
                            \\-> looks (12/s), and between where asked -> cut detector -> spans
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from curate.media.decode import iter_frames
from curate.media.looks import Looks
from curate.media.packets import Depth
from curate.media.views import ViewSampler
from curate.records import SourceFacts, Span
from curate.stage import THUMB_WIDTH_PX, CutDetector, CutStage, Thumb


def detect_spans(
    path: str, facts: SourceFacts, cut: CutStage[Any], detector: CutDetector, sampler: ViewSampler
) -> Iterator[list[Span]]:
    """Decode a local file once; spans come as they are certain, while the sampler holds what they need. DecodeError."""
    looks = Looks(path, facts, cut.thumb_width_px, every=cut.every_frame)
    shares_thumb = cut.thumb_width_px == THUMB_WIDTH_PX
    with iter_frames(path, facts, depth=Depth.EVERY if cut.every_frame else Depth.LIKELY) as frames:
        for frame in frames:
            look = looks.push(frame)
            if frame.reference:
                sampler.push(frame, look.yuv if look and shares_thumb else None)
            if look is not None:
                yield _pushed(detector, looks, look)
                sampler.forget_before(detector.needed_pts)
                if looks.wasteful:
                    frames.decode_every()
        if (look := looks.last()) is not None:
            yield _pushed(detector, looks, look)
    yield detector.finish(facts.end_pts, frames.trailing)


def _pushed(detector: CutDetector, looks: Looks, look: Thumb) -> list[Span]:
    """Show a look, after what lies before it where the detector wants that."""
    if not _wanted(detector, look):
        return detector.push(look)
    spans: list[Span] = []
    for near in looks.nearer(look):
        for thumb in looks.all_between(near) if _wanted(detector, near) else [near]:
            spans += detector.push(thumb)
    return spans


def _wanted(detector: CutDetector, thumb: Thumb) -> bool:
    return bool(thumb.skipped) and detector.wants_between(thumb)
