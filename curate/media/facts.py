"""What a file holds, from its packets: nothing but one key frame is decoded."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import av.error
import numpy as np
from av.stream import Discard, Disposition
from av.video.format import VideoFormat
from av.video.stream import VideoStream

from curate.errors import DecodeError, NoVideoStreamError
from curate.media.bitstream import is_idr
from curate.media.container import MISSING_SHARE, MOST_FRAME_PX, check_complete, is_readable, lies_elsewhere, open_media
from curate.media.packets import demuxed
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

LEAST_RATE_FPS, MOST_RATE_FPS = Fraction(1, 86_400), Fraction(10_000)
"""From a frame a day on. Other rates are nobody's: the clock or the header is wrong."""

MOST_SAR = 10
"""A pixel that is wider or higher by more than this factor is a mistake: pixels then count as square."""

MOST_LENGTH_S = 10**8
"""Three years. A stream that claims to last longer has a broken clock."""

MOST_TIME_S = 10**10
"""Clocks count from the start, from 1970 or from 1904. Floating-point seconds tell frames apart up to here."""

_NO_PTS = -(1 << 63)
_MOST_TICKS = 1 << 62
"""Sums of larger time stamps would leave 64 bits."""


def read_facts(path: str, *, missing_share: float = MISSING_SHARE, clock: bool = True) -> SourceFacts:
    """Facts of the best video stream of a local file that lacks at most ``missing_share`` of its bytes.

    Without ``clock`` its time stamps are not used: frames are counted at the declared rate.

    Raises EmptyFileError, NotMediaError, NoVideoStreamError or DecodeError (truncated, cannot be read to its end, no
    frame decodes).
    """
    with open_media(path) as container:
        check_complete(path, missing_share)
        stream = best_video_stream(container, path)
        _check_size(stream, path)
        for other in container.streams:
            if other.index != stream.index:
                other.discard = Discard.all
        packets = _read_packets(container, stream, path, missing_share)
        if packets.first is None:
            what = f"no frame of stream {stream.index} ({stream.codec_context.name}) can be decoded"
            if lies_elsewhere(path):
                what = "its pictures lie in another file, and other files are never opened"
            raise DecodeError(what, subject=path, fix="Replace or re-download the file")
        return _facts(container, stream, packets, packets.first, clock=clock)


def best_video_stream(container: InputContainer, path: str) -> VideoStream:
    """The stream with the largest displayed area, then the most frames, then the longest, then the lowest index.

    Cover pictures, thumbnails and streams that no decoder in use reads do not count. NoVideoStreamError when nothing is
    left.
    """
    moving = [s for s in container.streams.video if is_readable(s) and not s.disposition & _STILL]
    usable = [s for s in moving if s.width and s.height]
    if not usable:
        found = ", ".join(f"{s['type']} ({s['codec']})" for s in _stream_list(container)) or "no streams at all"
        sizeless = f" (a size is missing, broken, or above {MOST_FRAME_PX >> 20} Mi pixels)" if moving else ""
        raise NoVideoStreamError(
            f"has no video stream that can be decoded{sizeless}; found {found}",
            subject=path,
            fix="Leave the file out of the sources, or give one with moving pictures",
        )
    return max(usable, key=_rank)


def _check_size(stream: VideoStream, path: str) -> None:
    """DecodeError for pictures that would take too much memory."""
    if stream.width * stream.height > MOST_FRAME_PX:
        size = f"{stream.width}x{stream.height}, more than {MOST_FRAME_PX >> 20} Mi pixels"
        raise DecodeError(
            f"has pictures of {size}", subject=path, fix="Reduce them, or leave the file out of the sources"
        )


def _rank(stream: VideoStream) -> tuple[Fraction, int, Fraction, int]:
    area = stream.width * stream.height * _sar(stream)
    length = (stream.duration or 0) * (stream.time_base or Fraction(0))
    return area, stream.frames, length, -stream.index


def _sar(stream: VideoStream) -> Fraction:
    """Width over height of a stored pixel."""
    declared = stream.sample_aspect_ratio or Fraction(1)
    return declared if Fraction(1, MOST_SAR) <= declared <= MOST_SAR else Fraction(1)


@dataclass(slots=True)
class _Packets:
    """What the demuxer said about the packets that are shown, in decode order: 16 bytes for each."""

    pts: array[int] = field(default_factory=lambda: array("q"))
    duration: array[int] = field(default_factory=lambda: array("q"))
    key: list[int] = field(default_factory=list)
    intact: list[bool] = field(default_factory=list)
    size_bytes: int = 0
    first: VideoFrame | None = None


def _read_packets(container: InputContainer, stream: VideoStream, path: str, missing_share: float) -> _Packets:
    stream.codec_context.thread_count = 1
    name = stream.codec_context.name
    extradata = stream.codec_context.extradata
    log = _Packets()
    lost_share = missing_share if missing_share > MISSING_SHARE else None
    for packet in demuxed(container, stream, path, lost_share=lost_share):
        if not packet.size or packet.is_discard or (name == "vp8" and not _vp8_shown(packet)):
            continue
        if packet.is_keyframe:
            log.first = log.first or _decode_alone(stream, packet)
            log.key.append(len(log.pts))
            log.intact.append(name != "h264" or is_idr(bytes(packet), extradata))
        log.pts.append(_NO_PTS if packet.pts is None else packet.pts)
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


def _facts(
    container: InputContainer, stream: VideoStream, packets: _Packets, frame: VideoFrame, *, clock: bool
) -> SourceFacts:
    counted = not clock or _counts_only(container, stream, packets)
    times = _clock(stream, packets, counted=counted)
    sar = _sar(stream)
    turn_deg = frame.rotation if abs(frame.rotation) <= 360 else 0  # a matrix of zeros gives nonsense
    rotation_deg = round(-turn_deg / 90) * 90 % 360
    shown = (max(1, round(frame.width * sar)), frame.height)
    width_px, height_px = shown if rotation_deg % 180 == 0 else shown[::-1]
    duration_s = float((times.end_pts - times.start_pts) * times.time_base)
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
        rate=fraction_text(times.rate),
        rate_fps=float(times.rate),
        vfr=times.vfr,
        has_pts=times.has_pts,
        time_base=fraction_text(times.time_base),
        start_pts=times.start_pts,
        end_pts=times.end_pts,
        duration_s=duration_s,
        n_frames=times.n_frames,
        key_frames_pts=times.key_pts,
        key_frames_closed=times.key_closed,
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
    if container.format.name != "avi" or not stream.codec_context.has_b_frames:
        return False
    known = _known(packets)
    return bool((known[:-1] < known[1:]).all())


def _known(packets: _Packets) -> np.ndarray:
    """int64: the time stamps that there are."""
    pts = np.array(packets.pts, dtype=np.int64)
    return pts[pts != _NO_PTS]


def _clock(stream: VideoStream, packets: _Packets, *, counted: bool) -> _Clock:
    rates = (stream.guessed_rate, stream.base_rate, stream.average_rate)
    declared = [rate for rate in rates if rate and LEAST_RATE_FPS <= rate <= MOST_RATE_FPS]
    time_base = stream.time_base
    pts = _known(packets)
    complete = len(pts) == len(packets.pts) and not counted
    if not (time_base and complete and _usable(pts, time_base, declared)):
        rate = (declared or [DEFAULT_RATE])[0]
        return _Clock(1 / rate, rate, False, False, 0, len(packets.pts), len(packets.pts), [0], [True])
    shown = np.unique(pts)
    rate, vfr = recover_rate(shown, time_base, declared)
    last_duration = packets.duration[int(pts.argmax())]
    if not 0 < last_duration * time_base < MOST_LENGTH_S:
        last_duration = max(1, round(1 / (rate * time_base)))
    key_pts, key_closed = _key_frames(pts, packets)
    start_pts, end_pts = int(shown[0]), int(shown[-1]) + last_duration
    return _Clock(time_base, rate, vfr, True, start_pts, end_pts, len(shown), key_pts, key_closed)


def _usable(pts: np.ndarray, time_base: Fraction, declared: Sequence[Fraction]) -> bool:
    """False when the clock stands still, races, or runs back by more than reordering explains (joined recordings)."""
    least, most, n_shown = int(pts.min()), int(pts.max()), len(np.unique(pts))
    length_s, farthest = (most - least) * time_base, max(-least, most)
    if farthest >= _MOST_TICKS or farthest * time_base > MOST_TIME_S:
        return False
    if length_s > MOST_LENGTH_S or not LEAST_RATE_FPS * length_s <= n_shown - 1 <= MOST_RATE_FPS * length_s:
        return False
    back = int((np.maximum.accumulate(pts) - pts).max())
    allowed_s = max(Fraction(1), _REORDER_FRAMES / (declared or [DEFAULT_RATE])[0])
    return back * time_base <= allowed_s and 2 * n_shown > len(pts)


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
