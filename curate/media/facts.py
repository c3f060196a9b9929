"""What a file holds, from its packets: nothing but one key frame is decoded."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import av.error
import numpy as np
from av.stream import Discard, Disposition
from av.video.format import VideoFormat
from av.video.stream import VideoStream

from curate.errors import DecodeError, NoVideoStreamError
from curate.media.bitstream import is_idr
from curate.media.container import check_complete, open_media
from curate.records import SourceFacts
from curate.units import fraction_text

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame

DEFAULT_RATE = Fraction(25)
"""Rate of a stream that has neither time stamps nor a declared rate."""

_STILL = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
_COMMON_RATES = tuple(
    [Fraction(n) for n in (10, 12, 15, 24, 25, 30, 48, 50, 60, 90, 100, 120, 240)]
    + [Fraction(n * 1000, 1001) for n in (12, 15, 24, 30, 48, 60, 120, 240)]
    + [Fraction(25, 2)]
)
_SAME_RATE = 2e-4
_REORDER_FRAMES = 64


def read_facts(path: str) -> SourceFacts:
    """Facts of the best video stream of a local file.

    Raises EmptyFileError, NotMediaError, NoVideoStreamError or DecodeError (truncated, or no frame decodes).
    """
    with open_media(path) as container:
        check_complete(path)
        stream = best_video_stream(container, path)
        for other in container.streams:
            if other.index != stream.index:
                other.discard = Discard.all
        packets = _read_packets(container, stream)
        if packets.first is None:
            raise DecodeError(
                f"no frame of stream {stream.index} ({stream.codec_context.name}) can be decoded",
                subject=path,
                fix="Replace or re-download the file",
            )
        return _facts(container, stream, packets, packets.first)


def best_video_stream(container: InputContainer, path: str) -> VideoStream:
    """The stream with the largest displayed area, then the most frames, then the longest, then the lowest index.

    Cover pictures, thumbnails and streams without a decoder do not count. NoVideoStreamError when nothing is left.
    """
    moving = [s for s in container.streams.video if s.codec_context is not None and not s.disposition & _STILL]
    usable = [s for s in moving if s.width and s.height]
    if not usable:
        found = ", ".join(f"{s['type']} ({s['codec']})" for s in _stream_list(container)) or "no streams at all"
        raise NoVideoStreamError(
            f"has no video stream that can be decoded; found {found}",
            subject=path,
            fix="Leave the file out of the sources, or give one with moving pictures",
        )
    return max(usable, key=_rank)


def _rank(stream: VideoStream) -> tuple[Fraction, int, Fraction, int]:
    area = stream.width * stream.height * (stream.sample_aspect_ratio or Fraction(1))
    length = (stream.duration or 0) * (stream.time_base or Fraction(0))
    return area, stream.frames, length, -stream.index


@dataclass(slots=True)
class _Packets:
    """What the demuxer said about the packets that are shown, in decode order."""

    pts: list[int | None] = field(default_factory=list)
    duration: list[int] = field(default_factory=list)
    key: list[int] = field(default_factory=list)
    intact: list[bool] = field(default_factory=list)
    size_bytes: int = 0
    first: VideoFrame | None = None


def _read_packets(container: InputContainer, stream: VideoStream) -> _Packets:
    stream.codec_context.thread_count = 1
    name = stream.codec_context.name
    extradata = stream.codec_context.extradata
    log = _Packets()
    for packet in container.demux(stream):
        if not packet.size or packet.is_discard or (name == "vp8" and not _vp8_shown(packet)):
            continue
        if packet.is_keyframe:
            log.first = log.first or _decode_alone(stream, packet)
            log.key.append(len(log.pts))
            log.intact.append(name != "h264" or is_idr(bytes(packet), extradata))
        log.pts.append(packet.pts)
        log.duration.append(packet.duration or 0)
        log.size_bytes += packet.size
    return log


def _decode_alone(stream: VideoStream, packet: Packet[VideoStream]) -> VideoFrame | None:
    """The frame of one key packet; rotation and the true pixel format are known only after decoding."""
    context = stream.codec_context
    try:
        frames = context.decode(packet) or context.decode(None)
        context.flush_buffers()
    except (av.error.FFmpegError, ValueError):
        context.flush_buffers()
        return None
    return frames[0] if frames else None


def _vp8_shown(packet: Packet[VideoStream]) -> bool:
    """VP8 stores its hidden reference frames as packets of their own; bit 4 of the first byte tells them apart."""
    return bool(bytes(packet)[0] & 0x10)


def _facts(container: InputContainer, stream: VideoStream, packets: _Packets, frame: VideoFrame) -> SourceFacts:
    clock = _clock(stream, packets, counted=_counts_only(container, stream, packets))
    sar = stream.sample_aspect_ratio or Fraction(1)
    rotation_deg = round(-frame.rotation / 90) * 90 % 360
    shown = (max(1, round(frame.width * sar)), frame.height)
    width_px, height_px = shown if rotation_deg % 180 == 0 else shown[::-1]
    duration_s = float((clock.end_pts - clock.start_pts) * clock.time_base)
    return SourceFacts(
        stream=stream.index,
        container=container.format.name,
        codec=stream.codec_context.codec.canonical_name,
        pix_fmt=frame.format.name,
        bit_depth=VideoFormat(frame.format.name).components[0].bits,
        coded_width_px=frame.width,
        coded_height_px=frame.height,
        width_px=width_px,
        height_px=height_px,
        rotation_deg=rotation_deg,
        sar=fraction_text(sar),
        rate=fraction_text(clock.rate),
        rate_fps=float(clock.rate),
        vfr=clock.vfr,
        has_pts=clock.has_pts,
        time_base=fraction_text(clock.time_base),
        start_pts=clock.start_pts,
        end_pts=clock.end_pts,
        duration_s=duration_s,
        n_frames=clock.n_frames,
        key_frames_pts=clock.key_pts,
        key_frames_closed=clock.key_closed,
        bit_rate_bps=round(packets.size_bytes * 8 / duration_s) if duration_s > 0 else 0,
        streams_json=json.dumps(_stream_list(container), separators=(",", ":")),
    )


@dataclass(frozen=True, slots=True)
class _Clock:
    """When frames are shown. ``key_pts`` ascends."""

    time_base: Fraction
    rate: Fraction
    vfr: bool
    has_pts: bool
    start_pts: int
    end_pts: int
    n_frames: int
    key_pts: list[int]
    key_closed: list[bool]


def _counts_only(container: InputContainer, stream: VideoStream, packets: _Packets) -> bool:
    """AVI has no presentation times: where frames are reordered and the codec does not tell, its stamps only count."""
    known = [pts for pts in packets.pts if pts is not None]
    ascending = all(a < b for a, b in pairwise(known))
    return container.format.name == "avi" and stream.codec_context.has_b_frames and ascending


def _clock(stream: VideoStream, packets: _Packets, *, counted: bool) -> _Clock:
    declared = [r for r in (stream.guessed_rate, stream.base_rate, stream.average_rate) if r]
    time_base = stream.time_base
    known = [pts for pts in packets.pts if pts is not None]
    complete = len(known) == len(packets.pts) and not counted
    if not (time_base and complete and _usable(known, time_base, declared)):
        rate = (declared or [DEFAULT_RATE])[0]
        return _Clock(1 / rate, rate, False, False, 0, len(packets.pts), len(packets.pts), [0], [True])
    pts = np.array(known, dtype=np.int64)
    shown = np.unique(pts)
    rate, vfr = recover_rate(shown, time_base, declared)
    last_duration = packets.duration[int(pts.argmax())] or max(1, round(1 / (rate * time_base)))
    key_pts, key_closed = _key_frames(pts, packets)
    start_pts, end_pts = int(shown[0]), int(shown[-1]) + last_duration
    return _Clock(time_base, rate, vfr, True, start_pts, end_pts, len(shown), key_pts, key_closed)


def _usable(pts: Sequence[int], time_base: Fraction, declared: Sequence[Fraction]) -> bool:
    """False when the clock stands still or runs back by more than reordering explains (joined recordings)."""
    values = np.array(pts, dtype=np.int64)
    back = int((np.maximum.accumulate(values) - values).max())
    allowed_s = max(Fraction(1), _REORDER_FRAMES / (declared or [DEFAULT_RATE])[0])
    return back * time_base <= allowed_s and 2 * len(np.unique(values)) > len(values)


def _key_frames(pts: np.ndarray, packets: _Packets) -> tuple[list[int], list[bool]]:
    """Key frames by time. One is closed when nothing decoded after it is shown before it and it is an IDR in H.264."""
    after = np.append(np.minimum.accumulate(pts[::-1])[::-1][1:], np.iinfo(np.int64).max)
    found = {int(pts[at]): bool(after[at] > pts[at]) and ok for at, ok in zip(packets.key, packets.intact, strict=True)}
    ordered = sorted(found)
    return ordered, [found[at] for at in ordered]


def recover_rate(pts: np.ndarray, time_base: Fraction, declared: Iterable[Fraction]) -> tuple[Fraction, bool]:
    """Exact rate of ascending time stamps and whether it varies.

    A constant rate puts every frame within one tick of its place (a container's clock may be too coarse for it). The
    declared rates are tried first, each as the common rate next to it (29.97 is 30000/1001), then the mean rate.
    """
    trials = list(declared)
    if len(pts) < 2:
        return (_nearest_common(trials[0]) if trials else DEFAULT_RATE), False
    mean = Fraction(len(pts) - 1) / (int(pts[-1] - pts[0]) * time_base)
    for trial in [*trials, mean]:
        for rate in (_nearest_common(trial), trial):
            if _fits(pts, time_base, rate):
                return rate, False
    return mean.limit_denominator(1001) or mean, True  # a frame every half hour rounds to none


def _nearest_common(rate: Fraction) -> Fraction:
    best = min(_COMMON_RATES, key=lambda common: abs(common - rate))
    return best if abs(best - rate) <= _SAME_RATE * best else rate


def _fits(pts: np.ndarray, time_base: Fraction, rate: Fraction) -> bool:
    step = 1 / (rate * time_base)
    ideal = np.arange(len(pts)) * float(step)
    return bool(np.abs((pts - pts[0]) - ideal).max() <= 1 + 1e-6 * float(step))


def _stream_list(container: InputContainer) -> list[dict[str, Any]]:
    return [_stream_entry(stream) for stream in container.streams]


def _stream_entry(stream: Any) -> dict[str, Any]:
    known = stream.codec_context is not None
    sized = known and isinstance(stream, VideoStream)
    return {
        "index": stream.index,
        "type": stream.type,
        "codec": stream.codec_context.codec.canonical_name if known else "",
        "size": f"{stream.width}x{stream.height}" if sized else "",
        "language": stream.metadata.get("language", ""),
    }
