"""What a plain reader gets out of a clip file."""

from __future__ import annotations

import io
from dataclasses import dataclass
from fractions import Fraction
from typing import cast

import av
import av.error
from av.container import InputContainer

from curate.errors import DecodeError


@dataclass(frozen=True, slots=True)
class Shown:
    """A decoded clip file. Sizes in displayed pixels; ``duration_s`` from the container."""

    width_px: int
    height_px: int
    n_frames: int
    first_s: float
    duration_s: float


def decode_fully(data: bytes) -> Shown:
    """Decode every frame of an MP4 in memory; DecodeError when that cannot be done."""
    try:
        with cast("InputContainer", av.open(io.BytesIO(data), format="mp4")) as container:
            stream = container.streams.video[0]
            stream.thread_count = 1
            base = stream.time_base or Fraction(1)
            frames = [(frame.pts or 0, frame.width, frame.height, frame.rotation) for frame in container.decode(stream)]
            sar = stream.sample_aspect_ratio or Fraction(1)
            duration_s = float((stream.duration or 0) * base)
    except (av.error.FFmpegError, IndexError) as error:
        raise DecodeError(f"cannot be decoded: {error}") from error
    if not frames:
        raise DecodeError("holds no frame")
    first_pts, coded_width_px, height_px, rotation_deg = frames[0]
    width_px = round(coded_width_px * sar)
    if rotation_deg % 180:
        width_px, height_px = height_px, width_px
    return Shown(width_px, height_px, len(frames), float(first_pts * base), duration_s)
