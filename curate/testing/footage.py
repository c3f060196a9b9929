"""Write footage with known truth: any codec, rate, rotation, pixel aspect, time stamps and number of streams.

    write_video("pan.mp4", moving_texture(60, 320, 180, velocity_px=(3, 0)))

The scene makers of `curate.testing.scenes` can be imported from here too.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TypedDict, Unpack, cast

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from curate.testing.scenes import (
    crossfade,
    fade,
    letterbox,
    moving_object,
    moving_texture,
    noise,
    roll_texture,
    slideshow,
    static_texture,
    text_card,
    texture,
    with_flashes,
    zoom_texture,
)

__all__ = [
    "PTS_PER_S",
    "Track",
    "crossfade",
    "fade",
    "letterbox",
    "moving_object",
    "moving_texture",
    "noise",
    "roll_texture",
    "slideshow",
    "static_texture",
    "text_card",
    "texture",
    "usual_scheduling",
    "with_flashes",
    "write_tone",
    "write_tracks",
    "write_video",
    "zoom_texture",
]

PTS_PER_S = 90_000
"""Ticks a second of the time stamps given for a variable frame rate."""

TONE_RATE_HZ = 48_000

# mbtree 0: x264 (core 165) with its macroblock tree gives other bits from run to run on CPUs with AVX-512.
_FAST: Mapping[str, Mapping[str, str]] = {
    "libx264": {"preset": "veryfast", "crf": "18", "mbtree": "0"},
    "libx265": {"preset": "ultrafast", "crf": "20", "x265-params": "log-level=error:pools=none"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8", "crf": "24", "b": "0"},
    "libsvtav1": {"preset": "12", "crf": "28", "svtav1-params": "lp=1"},
    "mpeg4": {"qscale": "3"},
}


class TrackOptions(TypedDict, total=False):
    """The less common settings of a `Track`."""

    pts: Sequence[int] | None
    options: Mapping[str, str] | None
    gop: int | None
    rotation_deg: int
    sar: Fraction | None
    pix_fmt: str | None


@dataclass(frozen=True)
class Track:
    """One video stream to write.

    ``frames``: uint8 (height, width, 3) RGB, stored as they are. ``pts``: one rising time stamp a frame in
    1/PTS_PER_S seconds, for a variable frame rate. ``options``: encoder options over quick defaults. ``gop``: frames
    from key frame to key frame, exactly. ``rotation_deg``: how far a player must turn the stored picture clockwise.
    ``sar``: width over height of a pixel.
    """

    frames: Iterable[np.ndarray]
    fps: Fraction = Fraction(30)
    codec: str = "libx264"
    pts: Sequence[int] | None = None
    options: Mapping[str, str] | None = None
    gop: int | None = None
    rotation_deg: int = 0
    sar: Fraction | None = None
    pix_fmt: str | None = None


def write_video(
    path: str | Path,
    frames: Iterable[np.ndarray],
    fps: Fraction = Fraction(30),
    codec: str = "libx264",
    **more: Unpack[TrackOptions],
) -> None:
    """Write one video stream; the container follows the file name. ``more``: see `Track`."""
    write_tracks(path, [Track(frames, Fraction(fps), codec, **more)])


def write_tracks(
    path: str | Path,
    tracks: Sequence[Track],
    *,
    tone_s: float = 0.0,
    container_options: Mapping[str, str] | None = None,
) -> None:
    """Write several video streams, and a tone of ``tone_s`` seconds (AAC), into one file."""
    options = {"fflags": "+bitexact", **(container_options or {})}  # no random ids inside: the same bytes every time
    with usual_scheduling(), av.open(str(path), "w", container_options=options) as container:
        writers = [_Writer.open(container, track) for track in tracks]
        tone = cast("AudioStream", container.add_stream("aac", rate=TONE_RATE_HZ)) if tone_s else None
        for writer in writers:
            container.mux(list(writer.packets()))
        if tone is not None:
            for frame in _tone(tone_s):
                container.mux(tone.encode(frame))
            container.mux(tone.encode(None))


@contextmanager
def usual_scheduling() -> Iterator[None]:
    """Keep this thread's scheduling as it is: as root, SVT-AV1 makes itself and who calls it real-time for ever."""
    if not hasattr(os, "sched_setscheduler"):
        yield
        return
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, parameters)


def write_tone(path: str | Path, seconds: float) -> None:
    """Write a file that has sound and no picture."""
    write_tracks(path, [], tone_s=seconds)


@dataclass
class _Writer:
    track: Track
    stream: VideoStream
    frames: Iterator[np.ndarray]
    first: np.ndarray

    @classmethod
    def open(cls, container: OutputContainer, track: Track) -> _Writer:
        """Add the stream; its size is that of the first frame."""
        if track.codec == "libsvtav1":
            os.environ.setdefault("SVT_LOG", "1")  # errors only: it reads its log level from nowhere else
        frames = iter(track.frames)
        first = next(frames)
        options = {**_FAST.get(track.codec, {}), **(track.options or {})}
        stream = cast("VideoStream", container.add_stream(track.codec, rate=track.fps))
        stream.height, stream.width = first.shape[:2]
        stream.pix_fmt = track.pix_fmt or "yuv420p"
        stream.codec_context.time_base = _clock(track)
        stream.codec_context.thread_count = 1
        if track.gop:
            stream.gop_size = track.gop
            options = {**options, **_exact_gop(track)}
        stream.codec_context.options = options
        if track.sar:
            stream.codec_context.sample_aspect_ratio = track.sar
        if track.rotation_deg:
            stream.set_display_rotation(-track.rotation_deg)
        return cls(track, stream, frames, first)

    def packets(self) -> Iterator[Packet]:
        """Encode all frames."""
        yield from self._encode(0, self.first)
        for i, pixels in enumerate(self.frames, start=1):
            yield from self._encode(i, pixels)
        yield from self.stream.encode(None)

    def _encode(self, i: int, pixels: np.ndarray) -> list[Packet]:
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        frame = frame.reformat(format=self.stream.pix_fmt)
        frame.pts = self.track.pts[i] if self.track.pts else i
        frame.time_base = Fraction(1, PTS_PER_S) if self.track.pts else 1 / self.track.fps
        return self.stream.encode(frame)


def _clock(track: Track) -> Fraction:
    """The encoder's tick. MPEG-4 part 2 knows no finer one than 1/65535 s: there, time stamps are rounded."""
    if not track.pts:
        return 1 / track.fps
    return Fraction(1, 30_000 if track.codec == "mpeg4" else PTS_PER_S)


def _exact_gop(track: Track) -> dict[str, str]:
    """Options that keep an encoder from setting key frames of its own."""
    given = dict(track.options or {})
    extra = {
        "libx264": {"sc_threshold": "0", "keyint_min": str(track.gop)},
        "libx265": {"x265-params": f"log-level=error:pools=none:scenecut=0:keyint={track.gop}:min-keyint={track.gop}"},
    }.get(track.codec, {})
    return {name: value for name, value in extra.items() if name not in given}


def _tone(seconds: float) -> Iterator[av.AudioFrame]:
    """A quiet 440 Hz tone in frames of 1024 samples."""
    size = 1024
    for start in range(0, round(seconds * TONE_RATE_HZ), size):
        times_s = (start + np.arange(size)) / TONE_RATE_HZ
        wave = (0.1 * np.sin(2 * np.pi * 440 * times_s)).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(np.stack([wave, wave]), format="fltp", layout="stereo")
        frame.sample_rate, frame.pts, frame.time_base = TONE_RATE_HZ, start, Fraction(1, TONE_RATE_HZ)
        yield frame
