"""What is held of a grid frame, and the pictures that are painted from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from curate.errors import StageError
from curate.media.pixels import Master, Pyramid, rotate
from curate.records import SourceFacts
from curate.view import VECTOR_CELL_PX, View, ViewSpec


@dataclass(frozen=True, slots=True)
class Candidate:
    """A held grid frame; it is the first frame at or after the grid points ``first_k`` to ``last_k``.

    ``master`` where pictures of it may be wanted, ``vectors`` (see `media.vectors`) where those are.
    """

    pts: int
    first_k: int
    last_k: int
    master: Master | None
    vectors: np.ndarray | None = None

    @property
    def held_bytes(self) -> int:
        """Bytes of what is held."""
        master = self.master.held_bytes if self.master is not None else 0
        return master + (self.vectors.nbytes if self.vectors is not None else 0)


class Canvas:
    """The views of one clip's grid frames, painted frame by frame: halves and equal pictures are made once."""

    def __init__(self, facts: SourceFacts) -> None:
        self._facts = facts
        self._turn_deg = facts.rotation_deg
        self._wanted: dict[int, tuple[Candidate, list[tuple[str, np.ndarray]]]] = {}

    def view(self, spec: ViewSpec, chosen: Sequence[Candidate]) -> View:
        """A view whose frames `paint` fills; one of motion vectors is whole at once."""
        if spec.pixels == "vectors":
            return self._vectors(chosen)
        width_px, height_px = view_size_px(self._facts, spec)
        channels = (3,) if spec.pixels == "rgb" else ()
        frames = np.empty((len(chosen), height_px, width_px, *channels), np.uint8)
        for i, candidate in enumerate(chosen):
            self._wanted.setdefault(candidate.pts, (candidate, []))[1].append((spec.pixels, frames[i]))
        pts = np.array([c.pts for c in chosen], dtype=np.int64)
        scale = (self._facts.width_px / width_px, self._facts.height_px / height_px)
        return View(frames, pts, self._facts.time_base_fraction, np.zeros(len(chosen), dtype=np.int64), scale)

    def _vectors(self, chosen: Sequence[Candidate]) -> View:
        held = [c.vectors for c in chosen if c.vectors is not None]
        if len(held) < len(chosen):
            raise StageError("the motion vectors of these frames were not kept: no sampler was told to")
        pts = np.array([c.pts for c in chosen], dtype=np.int64)
        cell = float(VECTOR_CELL_PX)
        zeros = np.zeros(len(chosen), dtype=np.int64)
        return View(np.stack(held), pts, self._facts.time_base_fraction, zeros, (cell, cell))

    def paint(self) -> None:
        """Make all pixels."""
        for candidate, places in self._wanted.values():
            assert candidate.master is not None
            pyramid = Pyramid(candidate.master)
            made: dict[tuple[str, tuple[int, ...]], np.ndarray] = {}
            for pixels, place in places:
                key = (pixels, place.shape)
                if key in made:
                    place[:] = made[key]
                else:
                    self._picture(pyramid, pixels, place)
                    made[key] = place

    def _picture(self, pyramid: Pyramid, pixels: str, place: np.ndarray) -> None:
        make = pyramid.rgb if pixels == "rgb" else pyramid.luma
        height_px, width_px = place.shape[:2]
        if self._turn_deg == 0:
            make((width_px, height_px), place)
        else:
            stored = (width_px, height_px) if self._turn_deg == 180 else (height_px, width_px)
            place[:] = rotate(make(stored), self._turn_deg)


def view_size_px(facts: SourceFacts, spec: ViewSpec) -> tuple[int, int]:
    """(width, height) of a points or every view of this source, as displayed."""
    return scaled_size_px((facts.width_px, facts.height_px), spec)


def scaled_size_px(shown_px: tuple[int, int], spec: ViewSpec) -> tuple[int, int]:
    """(width, height) that a picture of this size is asked for at."""
    if spec.size_px is not None:
        return spec.size_px
    if min(shown_px) <= spec.short_side_px:
        return shown_px
    scale = Fraction(spec.short_side_px, min(shown_px))
    return max(1, round(shown_px[0] * scale)), max(1, round(shown_px[1] * scale))
