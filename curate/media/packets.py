"""Which packets of a stream are given to the decoder.

Frames that no other frame needs may be left out and leave all others bit for bit as they were (`media.bitstream`).
Where the sizes of packets hint at a new picture they are decoded after all, because a cut is placed to the frame.
"""

from __future__ import annotations

import bisect
from collections import deque
from collections.abc import Iterator
from enum import Enum
from typing import TYPE_CHECKING, TypeVar, cast

import av.error
from av.packet import Packet
from av.stream import Stream

from curate.errors import DecodeError
from curate.media.bitstream import needed_bytes
from curate.stage import LOOKS_PER_S

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

    from curate.records import SourceFacts

_StreamT = TypeVar("_StreamT", bound=Stream)

HINT_WINDOW = 16
"""Packets whose sizes say what is usual: the ninth in ten by size, since kinds of frames are mixed."""

HINT_REFERENCE, HINT_FREE = 1.4, 1.5
"""A packet this many times as large as usual hints at a new picture: one that others need, and one that none needs (it
cannot be predicted from both sides). Measured on nine encodings of a reel with a cut every 2.4 s: of the gaps in which
a cut lay 80 % were decoded at once, for 5 to 9 % more frames (AV1: 86 % for 15 %)."""

HINT_GROUP_FRAMES = 16
"""AV1 sends a frame that is shown up to so many frames later before the frames between."""


MOST_SKIPPED = 1024
"""After so many frames in a row that are not needed every frame is decoded: no encoder leaves so many free."""


def demuxed(
    container: InputContainer, stream: _StreamT, path: str, *, lost_share: float | None = None
) -> Iterator[Packet[_StreamT]]:
    """The packets of one stream, and at its end the empty one that flushes the decoder.

    DecodeError where the container cannot be read on. With ``lost_share`` that is the end of the stream, unless more
    than this share of the file lies behind the last packet.
    """
    reached_bytes = 0
    try:
        for packet in cast("Iterator[Packet[_StreamT]]", container.demux(stream)):
            reached_bytes = max(reached_bytes, (packet.pos or 0) + packet.size)
            yield packet
    except IndexError:
        return  # after the last packet PyAV stumbles over a stream that the container began later
    except av.error.FFmpegError as error:
        if lost_share is not None and reached_bytes >= (1 - lost_share) * (container.size or 0):
            end = cast("Packet[_StreamT]", Packet())
            end.stream = stream
            yield end
            return
        raise DecodeError(
            f"cannot be read to its end ({error.strerror})", subject=path, fix="Replace or re-download the file"
        ) from error


class Depth(Enum):
    """How much of a stream is decoded.

    ``REFERENCE``: what other frames need. ``LIKELY``: that, and stretches whose packets hint at a change of picture.
    ``EVERY``: all frames.
    """

    REFERENCE = "reference"
    LIKELY = "likely"
    EVERY = "every"


class PacketFilter:
    """Goes over the packets of one stream in order, and remembers what was left out.

    Everything is needed where the codec's headers are not understood, where frames cannot be told apart by their pts,
    and at rates so low that a clip of a second might be left without a frame.
    """

    def __init__(self, stream: VideoStream, facts: SourceFacts, depth: Depth, start_pts: int) -> None:
        context = stream.codec_context
        self.depth = depth
        self._lenient = depth is not Depth.EVERY
        skips = facts.has_pts and facts.rate_fps >= LOOKS_PER_S
        self._needed = needed_bytes(facts.codec, context.extradata) if skips else None
        self._given_pts = -(1 << 63)
        self._start_pts = start_pts
        self._skipped: list[int] = []
        self._extra: set[int] = set()
        self._hint = _ChangeHint()

    def kept(self, packet: Packet[VideoStream]) -> Packet[VideoStream] | None:
        """The packet to decode instead of this one: itself, its needed part, or None."""
        pts = packet.pts
        if self._needed is None or not packet.size or pts is None or len(self._skipped) >= MOST_SKIPPED:
            return packet
        view = memoryview(packet)  # pyright: ignore[reportArgumentType]
        needed = self._needed(view)
        if needed == packet.size:
            self._hint.needed(packet.size, pts, key=packet.is_keyframe)
            return packet
        self._hint.free(packet.size - needed, needed, pts, ticks=packet.duration or 0)
        if self._wanted(pts):
            self._extra.add(pts)
            return packet
        if not packet.is_discard:
            bisect.insort(self._skipped, pts)
        return _part(packet, bytes(view[:needed])) if needed else None

    def _wanted(self, pts: int) -> bool:
        if pts < self._start_pts or self.depth is Depth.REFERENCE:
            return False
        return self.depth is Depth.EVERY or pts < self._hint.until_pts

    def is_reference(self, pts: int) -> bool:
        """Whether the decoded frame at ``pts`` is needed by others, or not known not to be. Asked once a frame."""
        if pts in self._extra:
            self._extra.discard(pts)
            return False
        return True

    def take_skipped(self, before_pts: int | None = None) -> tuple[int, ...]:
        """pts of the shown frames left out since the last call: those before the frame at ``before_pts``, else all.

        They ascend, and none is that of a frame given before: of two frames with one pts one counts.
        """
        least, at = max(self._given_pts + 1, self._start_pts), len(self._skipped)
        if before_pts is not None:
            at, self._given_pts = bisect.bisect_left(self._skipped, before_pts), before_pts
        if not at:
            return ()
        taken, self._skipped = self._skipped[:at], self._skipped[at:]
        return tuple(sorted({pts for pts in taken if pts >= least}))

    def broken(self, packet: Packet[VideoStream]) -> bool:
        """Whether a packet that cannot be decoded was asked for by a hint alone: its frame then counts as left out."""
        if packet.pts not in self._extra or not self._lenient:
            return False
        self._extra.discard(packet.pts)
        bisect.insort(self._skipped, packet.pts)
        return True


class _ChangeHint:
    """Up to which pts frames that nothing needs are worth decoding, by sizes of packets and places of key frames.

    A new picture makes the frame behind it large, if others need that, and the frames in the gap as well. Key frames
    at a steady distance say nothing.
    """

    def __init__(self) -> None:
        self.until_pts = -(1 << 63)
        self._needed = _Usual()
        self._parts: deque[int] = deque(maxlen=HINT_WINDOW // 2)
        self._free = _Usual()
        self._newest_pts = -(1 << 63)
        self._since_key = 0
        self._key_distance = 0

    def needed(self, size_bytes: int, pts: int, *, key: bool) -> None:
        """A packet that is needed whole."""
        self._since_key += 1
        if key:
            unsteady = self._since_key != self._key_distance
            self._key_distance, self._since_key = self._since_key, 0
        else:
            unsteady = self._needed.exceeded(size_bytes, HINT_REFERENCE)
        if unsteady:
            self.until_pts = max(self.until_pts, pts)
        self._newest_pts = max(self._newest_pts, pts)

    def free(self, size_bytes: int, part_bytes: int, pts: int, *, ticks: int) -> None:
        """A packet with a frame that nothing needs, and ``part_bytes`` of others that are shown later."""
        self._since_key += 1
        if part_bytes:
            if self._parts and part_bytes > max(self._parts):
                self.until_pts = max(self.until_pts, pts + HINT_GROUP_FRAMES * ticks)
            self._parts.append(part_bytes)
        if self._free.exceeded(size_bytes, HINT_FREE):
            self.until_pts = max(self.until_pts, pts + 1, self._newest_pts)


class _Usual:
    """What is usual among the newest sizes."""

    def __init__(self) -> None:
        self._sizes: deque[int] = deque(maxlen=HINT_WINDOW)

    def exceeded(self, size_bytes: int, ratio: float) -> bool:
        """Whether a size is so many times the usual; it then counts for the next."""
        known = sorted(self._sizes)
        self._sizes.append(size_bytes)
        return bool(known) and size_bytes > ratio * known[9 * (len(known) - 1) // 10]


def _part(packet: Packet[VideoStream], data: bytes) -> Packet[VideoStream]:
    part = cast("Packet[VideoStream]", Packet(data))
    part.pts, part.dts, part.time_base = packet.pts, packet.dts, packet.time_base
    part.is_keyframe = packet.is_keyframe
    return part
