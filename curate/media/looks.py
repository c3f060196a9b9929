"""The frames that a cut detector is shown: a few a second, and those between where it asks.

decoded frames -> first reference frame at or after each k/12 s -> Thumb(pts, picture, pts it skips)
              \\-> held until the next look, for the case that what lies between is wanted

A detector that wants what lies between gets the reference frames there, which were decoded anyway; what lies between
two of those only where it still wants it. So what it sees does not depend on how much was decoded.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from curate.errors import DecodeError
from curate.media.decode import Frame, iter_frames
from curate.media.packets import Depth
from curate.stage import LOOKS_PER_S, Thumb

if TYPE_CHECKING:
    from curate.records import SourceFacts

HELD_PX = 4 << 20
"""Frames between two looks are held while they have fewer pixels together, the others as their thumbs alone."""

AGAIN_SHARE = 0.05
AGAIN_FRAMES = 250
"""When more frames than this, and than this share of the stream so far, were decoded again, decoding every frame at
once is cheaper."""


class Looks:
    """Chooses looks among decoded frames in display order, and finds the frames between two of them.

    Frames that were decoded are at hand; others are decoded again from the key frame before. ``every``: each frame
    is a look.
    """

    def __init__(self, path: str, facts: SourceFacts, width_px: int, *, every: bool = False) -> None:
        self._path = path
        self._facts = facts
        self._width_px = width_px
        self._every = every
        self._base = facts.time_base_fraction
        self._reached: int | None = None
        self._held: dict[int, _Held] = {}
        self._skipped: list[int] = []
        self._given = False
        self._seen = 0
        self._again = 0

    @property
    def wasteful(self) -> bool:
        """True when so much was decoded again that every frame should be decoded at once."""
        return self._again > AGAIN_FRAMES and self._again > AGAIN_SHARE * self._seen

    def push(self, frame: Frame) -> Thumb | None:
        """Take the next decoded frame; its thumb when it is a look. Until the next, what lies between may be asked."""
        if self._given:
            self._held, self._skipped, self._given = {}, [], False
        self._skipped += frame.skipped
        self._seen += 1 + len(frame.skipped)
        at = look_slot(frame.pts, self._base)
        is_look = self._every or (frame.reference and (self._reached is None or at > self._reached))
        if frame.reference:
            self._reached = at
        if not is_look:
            large = (len(self._held) + 1) * frame.av_frame.width * frame.av_frame.height > HELD_PX
            self._held[frame.pts] = _Held(frame.reference, frame.thumb(self._width_px) if large else frame)
            return None
        return self._look(frame.pts, frame.thumb(self._width_px), frame.reference)

    def last(self) -> Thumb | None:
        """The stream ended: the last decoded frame becomes a look if it is none yet."""
        if self._given or not self._held:
            return None
        pts = max(self._held)
        held = self._held.pop(pts)
        return self._look(pts, self._thumb(held), held.reference)

    def nearer(self, look: Thumb) -> list[Thumb]:
        """The reference frames between, and then the look: each skips less."""
        found = {pts: self._thumb(held) for pts, held in self._held.items() if held.reference}
        return filled(look, found)

    def all_between(self, thumb: Thumb) -> list[Thumb]:
        """Every frame that a thumb skips, and then the thumb; what cannot be decoded stays skipped."""
        found = {pts: self._thumb(self._held[pts]) for pts in thumb.skipped if pts in self._held}
        if len(found) < len(thumb.skipped):
            found = {**self._decoded_again(thumb), **found}
        return filled(thumb, found)

    def _look(self, pts: int, thumb: np.ndarray, reference: bool) -> Thumb:
        self._given = True
        return Thumb(pts, thumb, tuple(sorted([*self._skipped, *self._held])), reference)

    def _thumb(self, held: _Held) -> np.ndarray:
        return held.picture.thumb(self._width_px) if isinstance(held.picture, Frame) else held.picture

    def _decoded_again(self, thumb: Thumb) -> dict[int, np.ndarray]:
        """Nothing where the file cannot be decoded from a key frame before: the frames stay unseen."""
        start_pts, end_pts = thumb.skipped[0], thumb.pts
        frames = iter_frames(self._path, self._facts, start_pts=start_pts, end_pts=end_pts, depth=Depth.EVERY)
        found: dict[int, np.ndarray] = {}
        with frames, suppress(DecodeError):
            for frame in frames:
                found[frame.pts] = frame.thumb(self._width_px)
        self._again += frames.decoded
        return found


@dataclass(frozen=True, slots=True)
class _Held:
    """A decoded frame that is no look, or its thumb alone."""

    reference: bool
    picture: Frame | np.ndarray


def look_slot(pts: int, time_base: Fraction) -> int:
    """Number of the 1/12 s in which a frame begins: the first reference frame in each is a look."""
    return pts * LOOKS_PER_S * time_base.numerator // time_base.denominator


def filled(thumb: Thumb, found: Mapping[int, np.ndarray]) -> list[Thumb]:
    """The found ones of the frames that a thumb skips, and the thumb; each names those that it still skips."""
    out: list[Thumb] = []
    missing: list[int] = []
    for pts in thumb.skipped:
        if pts in found:
            out.append(Thumb(pts, found[pts], tuple(missing)))
            missing = []
        else:
            missing.append(pts)
    return [*out, replace(thumb, skipped=tuple(missing))]
