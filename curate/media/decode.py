"""Frames of a source in display order, from its start or from any point, always the same bits."""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Generator, Iterator
from contextlib import closing
from fractions import Fraction
from typing import TYPE_CHECKING

import av.error
import numpy as np
from av.stream import Discard
from av.video.stream import VideoStream

from curate.errors import ClockError, DecodeError
from curate.media.container import open_media
from curate.media.packets import Depth, PacketFilter, demuxed
from curate.media.pixels import Master, Scaler, is_full_range
from curate.media.vectors import ask_for_vectors
from curate.records import SourceFacts
from curate.units import parse_fraction

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame

EARLY_END_SHARE = 0.02
EARLY_END_FRAMES = 2
"""Decoding that ends before the facts say by more than this share and at least so many frames is an error."""

MOST_TRAILING = 16
"""Frames left out after the last decoded one that count as there: more would mean that decoding ended early."""

BACKWARD_SHARE = 0.02
BACKWARD_FRAMES = 2
"""Frames shown earlier than their predecessor are dropped; more than this share of them is an error."""

SEEK_MARGIN_S = 1
"""How far before a key frame the container is asked to go."""

MOST_DAMAGED_SHARE = 0.1
"""Of a damaged stream that is salvaged at most this share of the duration may be left out; with more it is an error."""

_FIX = "Replace or re-download the file"


class Frame:
    """One decoded frame. ``pts`` is the frame index for streams without usable time stamps (``facts.has_pts``).

    ``reference`` is False for a frame that no other frame needs, which is not decoded at every depth. ``skipped``: pts,
    ascending, of the frames since the one before that were not decoded. ``gap_pts``: where the stretch before it ended,
    for the first frame after damage.
    """

    __slots__ = ("_scaler", "_thumbs", "av_frame", "gap_pts", "pts", "reference", "skipped")

    def __init__(
        self,
        pts: int,
        av_frame: VideoFrame,
        scaler: Scaler,
        *,
        reference: bool = True,
        skipped: tuple[int, ...] = (),
    ) -> None:
        self.pts = pts
        self.av_frame = av_frame
        self.reference = reference
        self.skipped = skipped
        self.gap_pts: int | None = None
        self._scaler = scaler
        self._thumbs: dict[int, np.ndarray] = {}

    def thumb(self, width_px: int) -> np.ndarray:
        """uint8 (height, width_px, 3): Y, U, V area-averaged, coded aspect, not rotated. Memoised."""
        if width_px not in self._thumbs:
            self._thumbs[width_px] = self._scaler.thumb(self.av_frame, width_px)
        return self._thumbs[width_px]

    @property
    def full_range(self) -> bool:
        """True when the thumb's luma runs from 0 to 255 instead of 16 to 235 (RGB sources become limited)."""
        return is_full_range(self.av_frame) and not self.av_frame.format.is_rgb

    def master(self) -> Master:
        """The reduced frame from which views are taken; the frame itself where it is small enough."""
        return self._scaler.master(self.av_frame)


class FrameReader(Iterator[Frame]):
    """Iterator over frames. Close it, or exhaust it.

    ``corrupt`` counts frames that the decoder flagged or could not give, ``decoded`` all that it gave. ``trailing``:
    pts of the frames after the last one given that were not decoded, once the stream ended. ``damaged_ticks``: how much
    was left out because it could not be decoded; ``reached_pts``: the end of the last frame given.
    """

    def __init__(
        self,
        path: str,
        facts: SourceFacts,
        span_pts: tuple[int | None, int | None],
        depth: Depth,
        *,
        salvage: bool = False,
        vectors: bool = False,
    ) -> None:
        start_pts, end_pts = span_pts
        self.corrupt = 0
        self.decoded = 0
        self.damaged_ticks = 0
        self.reached_pts = facts.start_pts
        self._salvage = salvage and facts.has_pts
        self._vectors = vectors
        self._n_gaps = 0
        self._lost_tail = False
        self.trailing: tuple[int, ...] = ()
        self._depth = depth
        self._filter: PacketFilter | None = None
        self._path = path
        self._facts = facts
        self._start_pts = facts.start_pts if start_pts is None else start_pts
        self._end_pts = facts.end_pts if end_pts is None else min(end_pts, facts.end_pts)
        self._seeks = start_pts is not None and start_pts > facts.start_pts
        self._stop_pts = end_pts
        self._time_base = facts.time_base_fraction
        self._nominal_ticks = 1 / (parse_fraction(facts.rate) * self._time_base)
        self._whole_ticks = math.ceil(self._nominal_ticks)
        self._frames = self._read()

    def __next__(self) -> Frame:
        return next(self._frames)

    def decode_every(self) -> None:
        """From here on decode every frame."""
        self._depth = Depth.EVERY
        if self._filter is not None:
            self._filter.depth = Depth.EVERY

    def close(self) -> None:
        """Close the file; iteration ends."""
        self._frames.close()

    def __enter__(self) -> FrameReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self) -> Generator[Frame, None, None]:
        scaler = Scaler((self._facts.coded_width_px, self._facts.coded_height_px))
        last_pts: int | None = None
        end_pts = self._start_pts
        n_backward = n_frames = n_gaps = 0
        with closing(self._from_best_entry()) as frames:
            for pts, frame in frames:
                gap_pts, n_gaps = (end_pts if self._n_gaps > n_gaps else None), self._n_gaps
                if self._stop_pts is not None:
                    self._check_span(pts, gap_pts)
                    if pts >= self._stop_pts:
                        return
                end_pts = pts + max((frame.duration or 0) if self._facts.has_pts else 1, self._whole_ticks)
                if pts < self._start_pts:
                    continue
                n_frames += 1
                if last_pts is not None and pts <= last_pts:
                    n_backward += pts < last_pts
                    continue
                last_pts = pts
                self.corrupt += frame.is_corrupt
                self.reached_pts = end_pts
                yield self._frame(pts, frame, scaler, gap_pts)
        if n_backward >= BACKWARD_FRAMES and n_backward > BACKWARD_SHARE * n_frames:
            text = f"the time stamps of {n_backward} of {n_frames} frames run backwards"
            raise ClockError(text, subject=self._path, fix=_FIX)
        self.trailing = self._filter.take_skipped() if self._filter and not self._lost_tail else ()
        near = [pts for pts in self.trailing if pts <= end_pts + MOST_TRAILING * self._whole_ticks]
        if near:
            end_pts = max(end_pts, near[-1] + self._whole_ticks)
        self._check_end(end_pts if self.decoded else None)

    def _frame(self, pts: int, frame: VideoFrame, scaler: Scaler, gap_pts: int | None) -> Frame:
        if self._filter is None:
            return Frame(pts, frame, scaler)
        reference, skipped = self._filter.is_reference(pts), self._filter.take_skipped(pts)
        if gap_pts is None:
            return Frame(pts, frame, scaler, reference=reference, skipped=skipped)
        self.damaged_ticks += max(0, pts - gap_pts)
        found = Frame(pts, frame, scaler, reference=reference)  # what was skipped lies in the damage, or may
        found.gap_pts = gap_pts
        return found

    def _check_span(self, pts: int, gap_pts: int | None) -> None:
        """DecodeError when a gap before a frame took something of the span. Where not every frame is decoded, the last
        ones before the gap may be among those left out."""
        left_out = 0 if self._depth is Depth.EVERY else MOST_TRAILING * self._whole_ticks
        if gap_pts is not None and gap_pts + left_out < self._end_pts and pts > self._start_pts:
            raise self._error("is damaged", gap_pts)

    def _check_end(self, reached: int | None) -> None:
        """DecodeError when the stream ended clearly before the facts say."""
        if reached is None:
            raise self._error("no frame can be decoded", None)
        missing = self._end_pts - reached
        whole = self._end_pts - self._start_pts
        if self._salvage and self._stop_pts is None:
            self._check_damage(max(0, missing), whole)
        elif missing > EARLY_END_SHARE * whole and missing >= EARLY_END_FRAMES * self._nominal_ticks:
            end_s = float(self._end_pts * self._time_base)
            raise self._error(f"the stream ends early (expected until {end_s:.3f} s)", reached)

    def _check_damage(self, missing: int, whole: int) -> None:
        if missing >= EARLY_END_FRAMES * self._nominal_ticks:
            self.damaged_ticks += missing
        if self.damaged_ticks > MOST_DAMAGED_SHARE * whole:
            lost_s, whole_s = (float(ticks * self._time_base) for ticks in (self.damaged_ticks, whole))
            raise self._error(f"is damaged: {lost_s:.3f} s of {whole_s:.3f} s cannot be decoded", None)

    def _error(self, what: str, at_pts: Fraction | int | None) -> DecodeError:
        where = "" if at_pts is None else f" at {float(at_pts * self._time_base):.3f} s"
        return DecodeError(f"{what}{where}", subject=self._path, fix=_FIX)

    def _entries(self) -> list[int | None]:
        """Key frames to decode from, the first choice first; None is the start of the file, which always works.

        An open key frame is entered from the one before it: what follows it then rests on complete references.
        """
        if not (self._seeks and self._facts.has_pts):
            return [None]
        keys = self._facts.key_frames_pts
        at = bisect.bisect_right(keys, self._start_pts) - 1
        if at > 0 and not self._facts.key_frames_closed[at]:
            at -= 1
        return [*keys[max(1, at - 2) : at + 1][::-1], None]

    def _from_best_entry(self) -> Generator[tuple[int, VideoFrame], None, None]:
        for entry_pts in self._entries():
            with closing(self._from_entry(entry_pts)) as frames:
                first = next(frames, None)
                if first is not None:
                    yield first
                    yield from frames
                    return

    def _from_entry(self, entry_pts: int | None) -> Generator[tuple[int, VideoFrame], None, None]:
        """Frames from a key frame on; none at all when the container does not lead there exactly."""
        with open_media(self._path) as container:
            stream = container.streams[self._facts.stream]
            if not isinstance(stream, VideoStream):
                raise self._error(f"stream {self._facts.stream} is no video stream", None)
            stream.codec_context.thread_count = 1
            if self._vectors:
                ask_for_vectors(stream)
            for other in container.streams:
                if other.index != stream.index:
                    other.discard = Discard.all
            self._filter = PacketFilter(stream, self._facts, self._depth, self._start_pts)
            lost_share = MOST_DAMAGED_SHARE if self._salvage else None
            packets: Iterator[Packet[VideoStream]] = demuxed(container, stream, self._path, lost_share=lost_share)
            if entry_pts is None:
                yield from self._numbered(self._decoded(stream, packets, tolerant=True))
                return
            entered = self._enter(container, stream, entry_pts)
            if entered is None:
                return
            first, packets = entered
            frames = self._decoded(stream, itertools.chain([first], packets), tolerant=False)
            yield from self._complete_from(frames, first.pts or 0)

    def _enter(
        self, container: InputContainer, stream: VideoStream, entry_pts: int
    ) -> tuple[Packet[VideoStream], Iterator[Packet[VideoStream]]] | None:
        """The packet of a key frame and what follows it; None when seeking does not lead before it.

        Some demuxers seek by decoding time or land just anywhere near, hence the margin; passing over packets is cheap.
        """
        target = max(self._facts.start_pts, entry_pts - round(SEEK_MARGIN_S / self._time_base))
        try:
            container.seek(target, stream=stream, backward=True)
        except av.error.FFmpegError:
            return None
        packets = demuxed(container, stream, self._path)
        for packet in packets:
            if packet.is_keyframe and packet.pts is not None and packet.pts >= entry_pts:
                return (packet, packets) if packet.pts == entry_pts else None
        return None

    def _complete_from(
        self, frames: Iterator[VideoFrame], key_pts: int
    ) -> Generator[tuple[int, VideoFrame], None, None]:
        """Frames with their pts; none when the decoder kept the key frame back (a slow recovery point)."""
        try:
            first = next(frames, None)
        except DecodeError:
            return
        if first is None or first.pts is None or first.pts > key_pts:
            return
        for frame in itertools.chain([first], frames):
            if frame.pts is not None:
                yield frame.pts, frame

    def _numbered(self, frames: Iterator[VideoFrame]) -> Iterator[tuple[int, VideoFrame]]:
        if not self._facts.has_pts:
            return enumerate(frames)
        return ((frame.pts, frame) for frame in frames if frame.pts is not None)

    def _decoded(
        self, stream: VideoStream, packets: Iterator[Packet[VideoStream]], *, tolerant: bool
    ) -> Iterator[VideoFrame]:
        """Frames of packets. Errors count as corrupt for packets flagged so and, if tolerant, before the first frame
        (a recording that begins in mid-GOP); any other is a DecodeError.
        """
        seen = waiting = False
        position: int | None = None
        context = stream.codec_context
        assert self._filter is not None
        for each in packets:
            if waiting and not self._is_closed_key(each):
                continue
            if waiting:
                context.flush_buffers()
                self._n_gaps, waiting = self._n_gaps + 1, False
            packet = self._filter.kept(each)
            if packet is None:
                continue
            try:
                frames = context.decode(packet)
            except (av.error.FFmpegError, ValueError) as error:
                if not (packet.is_corrupt or (tolerant and not seen) or self._filter.broken(packet)):
                    if not (self._salvage and seen):
                        why = getattr(error, "strerror", None) or error
                        raise self._error(f"cannot be decoded ({why})", position) from error
                    waiting = True
                self.corrupt += 1
                continue
            for frame in frames:
                seen, position = True, frame.pts
                self.decoded += 1
                yield frame
        self._lost_tail = waiting

    def _is_closed_key(self, packet: Packet[VideoStream]) -> bool:
        """Whether decoding may begin anew at this packet: nothing after it needs what lies before."""
        if not packet.is_keyframe or packet.pts is None:
            return False
        at = bisect.bisect_left(self._facts.key_frames_pts, packet.pts)
        keys = self._facts.key_frames_pts
        return at < len(keys) and keys[at] == packet.pts and self._facts.key_frames_closed[at]


def iter_frames(
    path: str,
    facts: SourceFacts,
    *,
    start_pts: int | None = None,
    end_pts: int | None = None,
    depth: Depth = Depth.EVERY,
    salvage: bool = False,
    vectors: bool = False,
) -> FrameReader:
    """Frames of ``facts.stream`` with start_pts <= pts < end_pts, in display order with strictly ascending pts.

    ``depth`` says which of them are decoded; frames that nothing needs are never decoded before ``start_pts``.
    Frames are bit-identical to those of a full decode wherever decoding starts. One decoder thread. Of frames with the
    same pts the first is taken. Raises DecodeError, with the position in seconds, when the stream breaks or ends early.
    ``salvage`` goes on at the next closed key frame instead, as long as little is lost (MOST_DAMAGED_SHARE) of a whole
    stream, and nothing of a span: damage behind it, which decoding may reach, is no error then.
    ``vectors``: frames come with the codec's motion vectors (`media.vectors`), where it has any.
    """
    return FrameReader(path, facts, (start_pts, end_pts), depth, salvage=salvage, vectors=vectors)
