"""Copy a clip's packets without decoding them, where both its ends are key frames that nothing reaches across."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av.error
from av.container import OutputContainer
from av.packet import Packet

from curate.errors import DecodeError
from curate.media.audio import add_audio
from curate.media.container import open_media
from curate.media.packets import demuxed
from curate.records import Clip, SourceFacts

COPYABLE = frozenset({"h264", "hevc", "av1", "vp9", "mpeg4"})
"""Codecs that MP4 holds and common readers decode."""


def can_copy(facts: SourceFacts, clip: Clip) -> bool:
    """True when both ends are closed key frames (the end of the source counts) of a codec that MP4 holds."""
    closed = {pts for pts, ok in zip(facts.key_frames_pts, facts.key_frames_closed, strict=True) if ok}
    ends_well = clip.end_pts in closed or clip.end_pts == facts.end_pts
    return facts.has_pts and facts.codec in COPYABLE and clip.start_pts in closed and ends_well


def copy_packets(
    path: str,
    facts: SourceFacts,
    clip: Clip,
    target: Path,
    open_output: Callable[[Path], OutputContainer],
    *,
    audio: bool,
) -> int:
    """Write the clip's packets; gives the number of frames, or 0 when the copy does not decode to exactly the span."""
    try:
        with open_media(path) as source:
            stream: Any = source.streams[facts.stream]
            source.seek(clip.start_pts, stream=stream, backward=True)
            packets = _packets_of(demuxed(source, stream, path), clip)
            times = sorted(
                (packet.pts - clip.start_pts) * clip.time_base for packet in packets if packet.pts is not None
            )
            if not packets or times[0] != 0:
                return 0
            with open_output(target) as container:
                copied = container.add_stream_from_template(cast("Any", stream), opaque=True)
                _shift(packets, copied, clip)
                sound = add_audio(container, path, clip) if audio else []
                mux_in_order(container, [*packets, *sound])
        return len(times) if _decoded_times(target) == times else 0
    except (av.error.FFmpegError, DecodeError):
        return 0  # whatever made the copy impossible, the re-encoding that follows either works or says why


def _packets_of(demuxed: Iterable[Packet], clip: Clip) -> list[Packet]:
    """The span's packets in decoding order. Reading stops at the packet that the end lies on."""
    packets = []
    for packet in demuxed:
        if packet.pts is None:
            continue
        if clip.start_pts <= packet.pts < clip.end_pts:
            packets.append(packet)
        elif packet.pts >= clip.end_pts and packet.is_keyframe:
            break
    return packets


def _shift(packets: list[Packet], stream: Any, clip: Clip) -> None:
    for packet in packets:
        packet.pts = (packet.pts or 0) - clip.start_pts
        packet.dts = (packet.dts if packet.dts is not None else packet.pts) - clip.start_pts
        packet.stream = stream
    last = max(packets, key=lambda packet: packet.pts or 0)
    last.duration = clip.end_pts - clip.start_pts - (last.pts or 0)


def mux_in_order(container: OutputContainer, packets: list[Packet]) -> None:
    """Write packets of all streams by decoding time, so that sound lies beside its pictures."""
    container.mux(sorted(packets, key=lambda packet: ((packet.dts or 0) * packet.time_base, packet.stream_index)))


def _decoded_times(target: Path) -> list[Fraction]:
    """Seconds of each frame that a reader of the file gets."""
    with open_media(str(target)) as container:
        container.streams.video[0].thread_count = 1  # type: ignore[attr-defined]
        return [(frame.pts or 0) * (frame.time_base or Fraction(1)) for frame in container.decode(video=0)]
