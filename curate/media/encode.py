"""Cut one clip out of a source into an MP4 file: by re-encoding (the rule) or by copying packets (where that is exact).

A file holds exactly the frames with start_pts <= pts < end_pts, the first at time 0, each at its own time: the time
base is the source's, so a variable frame rate stays what it was. Without B-frames there is nothing to reorder and no
edit list to honour, so every reader gives the same frames.

Measured with PyAV 18.1 on one core, crf 18, three 480p/432p films (frames/s; bits per pixel): ultrafast 630-1000; 0.31,
superfast 330-430; 0.23, veryfast 200-260; 0.12, veryfast without B-frames 275-365; 0.13, fast 93-124; 0.13,
medium 69-106; 0.13. Without B-frames veryfast is a third faster and 0.6 to 1.2 dB better for 3 to 15 % more bytes.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any, Literal, cast

import av
import av.error
from av.codec.context import Flags
from av.container import OutputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from pydantic import Field

from curate.config import Config
from curate.errors import DecodeError
from curate.media.audio import add_audio
from curate.media.container import open_media
from curate.media.decode import iter_frames
from curate.media.geometry import Crop, Geometry, Shaper, geometry_of, matrix_code
from curate.media.remux import can_copy, copy_packets, mux_in_order
from curate.records import Clip, SourceFacts
from curate.units import parse_fraction

ENCODER = "libx264"
_MUXER_OPTIONS = {"movflags": "+faststart", "fflags": "+bitexact"}

Preset = Literal["ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow"]


class EncodeOptions(Config):
    """How clips are written. ``auto`` copies packets where both ends are closed key frames, else re-encodes."""

    mode: Literal["auto", "encode"] = "encode"
    crf: int = Field(default=18, ge=0, le=51)
    preset: Preset = "veryfast"
    gop_frames: int = Field(default=48, ge=1)
    """Most frames from key frame to key frame: what a reader decodes in vain to reach a frame."""
    audio: bool = False
    """Carry the first sound track as AAC, cut to the span within 40 ms."""


@dataclass(frozen=True, slots=True)
class ClipFile:
    """One clip as an MP4 file in memory. Sizes in displayed pixels; ``fps`` is frames over the span's seconds."""

    data: bytes
    width_px: int
    height_px: int
    n_frames: int
    fps: float
    codec: str
    mode: Literal["copy", "encode"]
    has_audio: bool


@cache
def encoder_version() -> str:
    """What wrote the bytes: encoder, its build, PyAV and libavcodec. The same text means the same bytes."""
    context = cast("av.VideoCodecContext", av.CodecContext.create(ENCODER, "w"))
    context.width = context.height = 16
    context.pix_fmt, context.time_base, context.framerate = "yuv420p", Fraction(1, 25), Fraction(25)
    packets = [*context.encode(VideoFrame(16, 16, "yuv420p")), *context.encode(None)]
    data = b"".join(bytes(packet) for packet in packets)
    at = data.find(b"x264 - core")
    build = data[at + 7 : data.find(b" - ", at + 7)].decode("ascii", "replace") if at >= 0 else "unknown build"
    avcodec = ".".join(str(part) for part in av.library_versions["libavcodec"])
    return f"{ENCODER} {build}, PyAV {av.__version__}, libavcodec {avcodec}"


def extract_clip(
    path: str,
    facts: SourceFacts,
    clip: Clip,
    options: EncodeOptions,
    crop: Crop | None = None,
    most_short_side_px: int | None = None,
) -> ClipFile:
    """The clip as an MP4 file, index first.

    Re-encoded: H.264, 8-bit 4:2:0, square pixels, upright, even sizes (a last odd row or column is left out), colour
    tags of the source, reduced to ``most_short_side_px`` where that is given. Copied: the source's packets with its
    rotation and pixel aspect; never with ``crop`` or a smaller size.
    DecodeError when the span holds no frame or cannot be decoded to its end.
    """
    with tempfile.TemporaryDirectory(prefix="curate-clip-") as folder:
        target = Path(folder) / "clip.mp4"
        whole = crop is None and most_short_side_px is None
        if options.mode == "auto" and whole and can_copy(facts, clip):
            n_frames = copy_packets(path, facts, clip, target, _open_output, audio=options.audio)
            if n_frames:
                size_px = (facts.width_px, facts.height_px)
                return _clip_file(target, clip, size_px, n_frames, facts.codec, "copy")
        try:
            geometry = geometry_of(facts, crop, most_short_side_px)
            size_px, n_frames = _encode(path, facts, clip, options, geometry, target)
        except av.error.FFmpegError as error:
            raise DecodeError(f"cannot be encoded ({error.strerror or error})", subject=clip.clip_id) from error
        return _clip_file(target, clip, size_px, n_frames, "h264", "encode")


def _clip_file(
    target: Path, clip: Clip, size_px: tuple[int, int], n_frames: int, codec: str, mode: Literal["copy", "encode"]
) -> ClipFile:
    with open_media(str(target)) as container:
        has_audio = bool(container.streams.audio)
    fps = float(n_frames / clip.duration_s)
    return ClipFile(target.read_bytes(), *size_px, n_frames, fps, codec, mode, has_audio)


def _open_output(target: Path) -> OutputContainer:
    return cast("OutputContainer", av.open(str(target), "w", format="mp4", container_options=_MUXER_OPTIONS))


def _encode(
    path: str, facts: SourceFacts, clip: Clip, options: EncodeOptions, geometry: Geometry, target: Path
) -> tuple[tuple[int, int], int]:
    """Write the re-encoded clip; gives its size in pixels and its number of frames."""
    if min(geometry.out_width_px, geometry.out_height_px) < 2:
        raise DecodeError("nothing is left of the picture after the crop", subject=clip.clip_id)
    shaper = Shaper(facts, geometry)
    frames = _timed(path, facts, clip)
    first = next(frames, None)
    if first is None:
        raise DecodeError("the span holds no frame", subject=clip.clip_id)
    with _open_output(target) as container:
        shaped = shaper.shape(first.picture)
        stream = _video_stream(container, shaped, facts, clip, options)
        packets = _encode_frame(stream, shaped, first, clip)
        n_frames, timed = 1, first
        for timed in frames:
            packets += _encode_frame(stream, shaper.shape(timed.picture), timed, clip)
            n_frames += 1
        packets += stream.encode(None)
        packets[-1].duration = timed.duration  # the others last until the next one
        sound = add_audio(container, path, clip) if options.audio else []
        mux_in_order(container, [*packets, *sound])
    return (geometry.out_width_px, geometry.out_height_px), n_frames


@dataclass(frozen=True, slots=True)
class _Timed:
    """A decoded picture with its time after the clip's first frame and how long it is shown, in ticks."""

    picture: VideoFrame
    pts: int
    duration: int


def _timed(path: str, facts: SourceFacts, clip: Clip) -> Iterator[_Timed]:
    """Frames of the span; each waits for the next one to know how long it is shown."""
    origin = last_pts = 0
    waiting: VideoFrame | None = None
    with iter_frames(path, facts, start_pts=clip.start_pts, end_pts=clip.end_pts, salvage=True) as frames:
        for frame in frames:
            if waiting is None:
                origin = frame.pts
            else:
                yield _Timed(waiting, last_pts - origin, frame.pts - last_pts)
            waiting, last_pts = frame.av_frame, frame.pts
    if waiting is not None:
        yield _Timed(waiting, last_pts - origin, clip.end_pts - last_pts)


def _video_stream(
    container: OutputContainer, like: VideoFrame, facts: SourceFacts, clip: Clip, options: EncodeOptions
) -> VideoStream:
    """The output stream, set up so that the same frames always give the same bytes."""
    choices = {
        "preset": options.preset,
        "crf": str(options.crf),
        "g": str(options.gop_frames),
        "bf": "0",
        "a53cc": "0",
        "x264-params": "threads=1:cpu-independent=1:open-gop=0",
    }
    rate = parse_fraction(facts.rate)
    stream = cast("VideoStream", container.add_stream(ENCODER, rate=rate, options=choices))
    context = cast("Any", stream.codec_context)
    context.width, context.height, context.pix_fmt = like.width, like.height, like.format.name
    context.thread_count = 1
    context.flags |= Flags.bitexact
    context.sample_aspect_ratio = Fraction(1)
    context.color_range, context.colorspace = like.color_range, matrix_code(like, facts)
    context.color_primaries, context.color_trc = like.color_primaries, like.color_trc
    stream.time_base = context.time_base = clip.time_base
    return stream


def _encode_frame(stream: VideoStream, picture: VideoFrame, timed: _Timed, clip: Clip) -> list[Packet]:
    picture.pts, picture.duration, picture.time_base = timed.pts, timed.duration, clip.time_base
    picture.pict_type = 0  # the source's own picture types would force key frames where it had them
    return stream.encode(picture)
