"""Which frames of a clip a stage sees, and the pixels it gets.

The grid: points g = k/4 s on the stream's clock. The candidate of g is the first reference frame at or after g. A
candidate belongs to a clip when it lies in [start, end) and its largest g is not before the clip's start, so that
membership follows from the span alone, wherever decoding began.
"""

from __future__ import annotations

import bisect
import hashlib
import math
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import numpy as np

from curate.errors import CurateError, DecodeError, StageError
from curate.media.canvas import Candidate, Canvas, scaled_size_px
from curate.media.decode import Frame, FrameReader
from curate.media.packets import Depth
from curate.media.pixels import Scaler, expand_range, rotate
from curate.media.vectors import cells_px, vector_cells
from curate.records import Clip, SourceFacts
from curate.units import exact, parse_fraction, s_to_pts_ceil
from curate.view import GRID_PER_S, MASTER_SHORT_SIDE_PX, THUMB_WIDTH_PX, View, ViewSpec

SEEK_GAP_KEY_FRAMES = 2
"""Gaps between spans longer than so many mean key-frame distances are sought over instead of decoded."""

VECTORS_BYTES_PER_PX = 1.25
"""What FFmpeg's own list of motion vectors takes at most, two of 40 bytes for 8 x 8 px: a small frame that is held as
it is keeps it."""

ASSUMED_RATE_FPS = 60.0
"""Frame rate of the memory estimate where the source is not known yet."""


@dataclass(frozen=True, slots=True)
class _Thumb:
    pts: int
    luma: np.ndarray
    full: bool


@dataclass(frozen=True, slots=True)
class _Wants:
    """What a set of views needs of each frame on the grid, and whether of all others a thumb."""

    pictures: bool
    vectors: bool
    thumbs: bool

    @classmethod
    def of(cls, specs: Mapping[str, ViewSpec]) -> _Wants:
        on_grid = [spec.pixels == "vectors" for spec in specs.values() if spec.sampling != "windows"]
        return cls(not all(on_grid), any(on_grid), len(on_grid) < len(specs))

    @property
    def grid(self) -> bool:
        return self.pictures or self.vectors


class ViewSampler:
    """Holds what open clips may still need while frames stream by, and gives each clip its views.

    ``held_bytes`` is what it holds. Not thread-safe.
    """

    def __init__(self, facts: SourceFacts, specs: Mapping[str, ViewSpec]) -> None:
        self._facts = facts
        self._specs = dict(specs)
        self._time_base = facts.time_base_fraction
        self._ticks = (GRID_PER_S * self._time_base.numerator, self._time_base.denominator)
        self._wants = _Wants.of(specs)
        self._candidates: deque[Candidate] = deque()
        self._thumbs: deque[_Thumb] = deque()
        self._previous_k: int | None = None
        self._size_px = (facts.coded_width_px, facts.coded_height_px)
        self._scaler = Scaler(self._size_px)

    @property
    def wants_vectors(self) -> bool:
        """Whether frames must come with their motion vectors."""
        return self._wants.vectors

    @property
    def held_bytes(self) -> int:
        """Bytes of what is held now."""
        return sum(c.held_bytes for c in self._candidates) + sum(t.luma.nbytes for t in self._thumbs)

    def push(self, frame: Frame, thumb: np.ndarray | None = None) -> None:
        """Take the next reference frame in display order, with its YUV thumb of THUMB_WIDTH_PX where there is one."""
        k = self._grid_index(frame.pts)
        if self._wants.grid and (self._previous_k is None or k > self._previous_k):
            first_k = k if self._previous_k is None else self._previous_k + 1
            master = frame.master() if self._wants.pictures else None
            vectors = vector_cells(frame.av_frame, self._size_px) if self._wants.vectors else None
            self._candidates.append(Candidate(frame.pts, first_k, k, master, vectors))
        self._previous_k = k
        if self._wants.thumbs:
            self._thumbs.append(_Thumb(frame.pts, self._luma_thumb(frame, thumb), frame.full_range))

    def _luma_thumb(self, frame: Frame, thumb: np.ndarray | None) -> np.ndarray:
        if thumb is not None and thumb.shape[1] == THUMB_WIDTH_PX:
            return np.ascontiguousarray(thumb[..., 0])
        return self._scaler.luma_thumb(frame.av_frame, THUMB_WIDTH_PX)

    def forget_before(self, pts: int) -> None:
        """Drop what lies before ``pts``: no clip that starts earlier will be taken any more."""
        while self._candidates and self._candidates[0].pts < pts:
            self._candidates.popleft()
        while self._thumbs and self._thumbs[0].pts < pts:
            self._thumbs.popleft()

    def take(self, clip: Clip) -> dict[str, View]:
        """The views of a clip all of whose frames were pushed. StageError when no frame of it lies on the grid."""
        views = {
            name: self._window_view(clip, spec) for name, spec in self._specs.items() if spec.sampling == "windows"
        }
        if self._wants.grid:
            members, canvas = self._members(clip), Canvas(self._facts)
            for name, spec in self._specs.items():
                if spec.sampling != "windows":
                    views[name] = canvas.view(spec, self._chosen(clip, spec, members))
            canvas.paint()
        return {name: views[name] for name in self._specs}

    def _grid_index(self, pts: int) -> int:
        return pts * self._ticks[0] // self._ticks[1]

    def _members(self, clip: Clip) -> list[Candidate]:
        least_k = self._least_k(clip)
        found = [c for c in self._candidates if clip.start_pts <= c.pts < clip.end_pts and c.last_k >= least_k]
        if not found:
            raise _no_frames(clip, self._facts)
        return found

    def _least_k(self, clip: Clip) -> int:
        """The first grid point that is not before the clip's start."""
        return -(-clip.start_pts * self._ticks[0] // self._ticks[1])

    def _chosen(self, clip: Clip, spec: ViewSpec, members: list[Candidate]) -> list[Candidate]:
        if spec.sampling == "every":
            return self._one_per_step(clip, spec, members)
        pts = [c.pts for c in members]
        return [members[_nearest(pts, clip, exact(point))] for point in spec.points]

    def _one_per_step(self, clip: Clip, spec: ViewSpec, members: list[Candidate]) -> list[Candidate]:
        """Candidates that serve a multiple of ``every_s`` inside the clip; the first one where no multiple falls in."""
        step = int(exact(spec.every_s) * GRID_PER_S)
        least_k = self._least_k(clip)
        chosen = [c for c in members if c.last_k // step * step >= max(c.first_k, least_k)]
        return chosen or members[:1]

    def _window_view(self, clip: Clip, spec: ViewSpec) -> View:
        """All reference frames of the windows; where these are so rare that none lies in one, the clip's first."""
        chosen: list[_Thumb] = []
        groups: list[int] = []
        for group, window_s in enumerate(windows_of(clip, spec.windows, exact(spec.window_s))):
            begin_pts, end_pts = (s_to_pts_ceil(bound_s, self._time_base) for bound_s in window_s)
            begin_pts, end_pts = max(begin_pts, clip.start_pts), min(end_pts, clip.end_pts)
            inside = [thumb for thumb in self._thumbs if begin_pts <= thumb.pts < end_pts]
            chosen += inside
            groups += [group] * len(inside)
        if not chosen:
            chosen = [thumb for thumb in self._thumbs if clip.start_pts <= thumb.pts < clip.end_pts][:1]
            groups = [0]
        if not chosen:
            raise _no_frames(clip, self._facts)
        frames = self._upright(chosen)
        scale = (self._facts.width_px / frames.shape[2], self._facts.height_px / frames.shape[1])
        pts = np.array([thumb.pts for thumb in chosen], dtype=np.int64)
        return View(frames, pts, self._time_base, np.array(groups, dtype=np.int64), scale)

    def _upright(self, thumbs: Sequence[_Thumb]) -> np.ndarray:
        frames = np.stack([rotate(thumb.luma, self._facts.rotation_deg) for thumb in thumbs])
        limited = np.array([not thumb.full for thumb in thumbs])
        if limited.all():
            return expand_range(frames)
        if limited.any():
            frames[limited] = expand_range(frames[limited])
        return frames


def windows_of(clip: Clip, n: int, window_s: Fraction) -> list[tuple[Fraction, Fraction]]:
    """[begin, end) in seconds of n windows that do not overlap, spread evenly over a clip.

    Each begins on the 1/4 s grid (snapped down, not before the clip). A clip too short for them is divided evenly.
    """
    share_s = clip.duration_s / n
    if share_s <= window_s:
        return [(clip.start_s + i * share_s, clip.start_s + (i + 1) * share_s) for i in range(n)]
    ideal = [clip.start_s + (i + Fraction(1, 2)) * share_s - window_s / 2 for i in range(n)]
    begins = [max(clip.start_s, Fraction(math.floor(b * GRID_PER_S), GRID_PER_S)) for b in ideal]
    return [(b, min(b + window_s, after)) for b, after in pairwise([*begins, clip.end_s])]


def sample_spans(
    path: str,
    facts: SourceFacts,
    clips: Sequence[Clip],
    specs: Mapping[str, ViewSpec],
    *,
    on_error: Callable[[Clip, CurateError], None] | None = None,
) -> Iterator[tuple[Clip, dict[str, View]]]:
    """Views of clips already known, sorted by start, bit-identical to those taken while streaming the whole source.

    Each needed stretch is decoded once. Clips come in the order of their ends. A clip that has no frame for a view is
    given to ``on_error`` where there is one; otherwise its StageError is raised. Where a stretch cannot be decoded
    (there is damage between the clips of a salvaged source), each of its clips is read alone, and what then fails goes
    to ``on_error`` as well. Raises DecodeError where none of them can be read.
    """
    for group in _stretches(facts, sorted(clips, key=lambda c: (c.start_pts, c.end_pts))):
        left = {clip.clip_id: clip for clip in group}
        reader = _Reader(path, facts, specs, on_error)
        try:
            for clip, views in reader.read(group):
                del left[clip.clip_id]
                yield clip, views
            continue
        except DecodeError as error:
            first = error
        left = {key: clip for key, clip in left.items() if key not in reader.blind}
        lost: list[tuple[Clip, DecodeError]] = []
        for clip in sorted(left.values(), key=lambda c: c.end_pts):
            try:
                yield from reader.read([clip], salvage=True)
            except DecodeError as error:
                lost.append((clip, error))
        if len(lost) == len(left) or on_error is None:
            raise first
        for clip, error in lost:
            on_error(clip, error)


class _Reader:
    """Reads the views of clips that lie close together. ``blind``: ids of those given to ``on_error``."""

    def __init__(
        self,
        path: str,
        facts: SourceFacts,
        specs: Mapping[str, ViewSpec],
        on_error: Callable[[Clip, CurateError], None] | None,
    ) -> None:
        self.blind: set[str] = set()
        self._path = path
        self._facts = facts
        self._specs = specs
        self._on_error = on_error

    def read(self, clips: Sequence[Clip], *, salvage: bool = False) -> Iterator[tuple[Clip, dict[str, View]]]:
        """Views of clips sorted by start, from one decoding, in the order of their ends."""
        sampler = ViewSampler(self._facts, self._specs)
        waiting = sorted(clips, key=lambda c: c.end_pts)
        span = (clips[0].start_pts, waiting[-1].end_pts)
        how = {"salvage": salvage, "vectors": sampler.wants_vectors}
        with FrameReader(self._path, self._facts, span, Depth.REFERENCE, **how) as frames:
            for frame in frames:
                while waiting[0].end_pts <= frame.pts:
                    yield from self._taken(sampler, waiting.pop(0))
                    sampler.forget_before(min(c.start_pts for c in waiting))
                sampler.push(frame)
        for clip in waiting:
            yield from self._taken(sampler, clip)

    def _taken(self, sampler: ViewSampler, clip: Clip) -> Iterator[tuple[Clip, dict[str, View]]]:
        try:
            views = sampler.take(clip)
        except StageError as error:
            if self._on_error is None:
                raise
            self.blind.add(clip.clip_id)
            self._on_error(clip, error)
            return
        yield clip, views


def _stretches(facts: SourceFacts, clips: Sequence[Clip]) -> list[list[Clip]]:
    """Clips grouped so that the gaps between groups are worth a seek."""
    length = facts.end_pts - facts.start_pts
    gap = SEEK_GAP_KEY_FRAMES * length / max(1, len(facts.key_frames_pts))
    groups: list[list[Clip]] = []
    reached = 0
    for clip in clips:
        if groups and clip.start_pts - reached <= gap:
            groups[-1].append(clip)
            reached = max(reached, clip.end_pts)
        else:
            groups.append([clip])
            reached = clip.end_pts
    return groups


def estimated_bytes(facts: SourceFacts | None, specs: Mapping[str, ViewSpec], longest_clip_s: float) -> int:
    """Upper estimate of what a sampler holds for one open clip of this length, its views included.

    Without facts (at plan time): for the largest 16:9 source that is held as it is, at ASSUMED_RATE_FPS.
    """
    width_px, height_px, rate = _assumed_size(facts)
    clip_s = min(longest_clip_s, facts.duration_s) if facts else longest_clip_s
    if math.isinf(clip_s):
        return sys.maxsize
    shown = (facts.width_px, facts.height_px) if facts else (width_px, height_px)
    n_grid = math.ceil(clip_s * min(GRID_PER_S, rate)) + 1
    short_px = min(width_px, height_px)
    scale = 1.0 if short_px <= MASTER_SHORT_SIDE_PX else MASTER_SHORT_SIDE_PX / short_px
    padded_px = (width_px * scale + 64) * (height_px * scale + 32)
    thumb_px = THUMB_WIDTH_PX * max(2, round(THUMB_WIDTH_PX * height_px / width_px))
    wants = _Wants.of(specs)
    masters = n_grid * padded_px * (1.5 + (VECTORS_BYTES_PER_PX if wants.vectors else 0)) if wants.pictures else 0
    vectors_bytes = _vectors_bytes(width_px, height_px)
    vectors = n_grid * vectors_bytes if wants.vectors else 0
    thumbs = (clip_s * rate + 1) * thumb_px if wants.thumbs else 0
    views = sum(_view_bytes(shown, spec, clip_s, thumbs, vectors_bytes) for spec in specs.values())
    return math.ceil(masters + vectors + thumbs + views)


def _vectors_bytes(width_px: int, height_px: int) -> int:
    columns, rows = cells_px(width_px, height_px)
    return columns * rows * 2 * np.dtype(np.int16).itemsize


def _assumed_size(facts: SourceFacts | None) -> tuple[int, int, float]:
    if facts is None:
        return MASTER_SHORT_SIDE_PX * 16 // 9, MASTER_SHORT_SIDE_PX, ASSUMED_RATE_FPS
    return facts.coded_width_px, facts.coded_height_px, float(parse_fraction(facts.rate))


def _view_bytes(
    shown_px: tuple[int, int], spec: ViewSpec, clip_s: float, thumbs_bytes: float, vectors_bytes: int
) -> float:
    if spec.sampling == "windows":
        return thumbs_bytes * min(1.0, spec.windows * spec.window_s / clip_s) if clip_s else 0.0
    n_frames = len(spec.points) if spec.sampling == "points" else clip_s / spec.every_s + 1
    if spec.pixels == "vectors":
        return n_frames * vectors_bytes
    width_px, height_px = scaled_size_px(shown_px, spec)
    return n_frames * width_px * height_px * (3 if spec.pixels == "rgb" else 1)


def view_digest(view: View) -> str:
    """sha256 over pixels, shape, time stamps and groups: equal for equal views."""
    digest = hashlib.sha256(f"{view.frames.shape}|{view.frames.dtype}|{view.time_base}|{view.px_scale}".encode())
    for array in (view.frames, view.pts, view.groups):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _nearest(pts: Sequence[int], clip: Clip, point: Fraction) -> int:
    """Index of the nearest of ascending pts to a fraction of a clip; of two as near, the earlier."""
    target = clip.start_pts * point.denominator + point.numerator * (clip.end_pts - clip.start_pts)
    after = bisect.bisect_left(pts, -(-target // point.denominator))
    around = range(max(0, after - 1), min(len(pts), after + 1))
    return min(around, key=lambda i: abs(pts[i] * point.denominator - target))


def _no_frames(clip: Clip, facts: SourceFacts) -> StageError:
    return StageError(
        f"no frame of this {float(clip.duration_s):.3f} s clip lies on the 1/{GRID_PER_S} s grid: "
        f"it is too short for the frame rate ({facts.rate_fps:.3g}/s)",
        subject=clip.clip_id,
        fix="Raise cut.min_len_s",
    )
