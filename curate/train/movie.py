"""Pictures in, films out: the first frame of a clip that is to be drawn, and drawn clips as MP4 files."""

from __future__ import annotations

import math
import tempfile
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import cv2
import numpy as np
import torch
from av.codec.context import Flags
from av.container import OutputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace
from av.video.stream import VideoStream

from curate.errors import ConfigError, UsageError
from curate.media.encode import ENCODER
from curate.storage import Place
from curate.units import exact

__all__ = ["beside", "rate_of", "read_picture", "to_uint8", "write_movie"]

_BT709 = 1
"""Its code as primaries and as transfer; spelt out, since what has no tags is taken for BT.601 where it is small."""
_MOST_PARTS = 1 << 16
"""Rates are fractions with denominators up to this: 29.97002997 is 30000/1001 then, and the format can name them."""
_OPTIONS = {"preset": "medium", "crf": "16", "bf": "0", "x264-params": "threads=1:cpu-independent=1:mbtree=0"}
"""One thread, no macroblock tree: the same frames give the same bytes. Fine enough to judge a network by."""
_GAP = 255, 32
"""Grey level of the gap, and the share of the height that it is wide: one part in so many."""


def to_uint8(frames: torch.Tensor) -> np.ndarray:
    """uint8 (..., H, W, 3) of float frames (..., 3, H, W) in [-1, 1], rounded as diffusers does."""
    in_unit = (frames.detach().float().cpu() * 0.5 + 0.5).clamp(0, 1).movedim(-3, -1)
    return (in_unit.numpy() * 255).round().astype(np.uint8)


def rate_of(fps: float | Fraction) -> Fraction:
    """The rate as a film's file has it. ConfigError for one that is none."""
    rate = exact(fps).limit_denominator(_MOST_PARTS) if math.isfinite(fps) else Fraction(0)
    if not 0 < rate < _MOST_PARTS:
        raise ConfigError(f"{fps} frames/s cannot be written", subject="fps")
    return rate


def write_movie(path: Path | str, frames: np.ndarray, fps: float | Fraction) -> None:
    """An MP4 file of frames, uint8 (T, H, W, 3) RGB, at this rate, whole or not at all; any place will do.

    H.264, 4:2:0, BT.709, index first. Odd sides are filled up by repeating the last row or column. The same frames
    give the same bytes. ConfigError for a rate that is none.
    """
    rate = rate_of(fps)
    height_px, width_px = frames.shape[1:3]
    even = np.pad(frames, ((0, 0), (0, height_px % 2), (0, width_px % 2), (0, 0)), mode="edge")
    with tempfile.TemporaryDirectory(prefix="curate-movie-") as folder:
        file = Path(folder) / "movie.mp4"
        options = {"movflags": "+faststart", "fflags": "+bitexact"}
        with cast("OutputContainer", av.open(str(file), "w", container_options=options)) as container:
            _encode(container, even, rate)
        Place(str(path)).write_bytes(file.read_bytes())


def _encode(container: OutputContainer, frames: np.ndarray, rate: Fraction) -> None:
    stream = cast("VideoStream", container.add_stream(ENCODER, rate=rate, options=_OPTIONS))
    context = cast("Any", stream.codec_context)
    context.height, context.width, context.pix_fmt = *frames.shape[1:3], "yuv420p"
    context.thread_count = 1
    context.flags |= Flags.bitexact
    context.colorspace = context.color_primaries = context.color_trc = _BT709
    context.color_range = ColorRange.MPEG
    stream.time_base = context.time_base = 1 / rate
    for number, pixels in enumerate(frames):
        picture = VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24").reformat(
            format="yuv420p",
            dst_colorspace=Colorspace.ITU709,
            src_color_range=ColorRange.JPEG,
            dst_color_range=ColorRange.MPEG,
        )
        picture.pts, picture.duration, picture.time_base = number, 1, 1 / rate
        container.mux(stream.encode(picture))
    container.mux(stream.encode(None))


def beside(frame: np.ndarray, clip: np.ndarray) -> np.ndarray:
    """A clip, uint8 (T, H, W, 3), with a picture, uint8 (h, w, 3), at the left of each frame: (T, H, more, 3).

    The picture is scaled to the clip's height; a thin white gap lies between, so wide that the sum is even.
    """
    n_frames, height_px = clip.shape[:2]
    if frame.shape[0] != height_px:
        width_px = max(1, round(frame.shape[1] * height_px / frame.shape[0]))
        way = cv2.INTER_AREA if height_px < frame.shape[0] else cv2.INTER_CUBIC
        frame = cv2.resize(frame, (width_px, height_px), interpolation=way)
    level, part = _GAP
    gap_px = max(2, height_px // part)
    gap_px += (frame.shape[1] + clip.shape[2] + gap_px) % 2
    gap = np.full((n_frames, height_px, gap_px, 3), level, np.uint8)
    return np.concatenate([np.broadcast_to(frame, (n_frames, *frame.shape)), gap, clip], axis=2)


def read_picture(path: Path, width_px: int, height_px: int) -> torch.Tensor:
    """Float32 (1, 3, height_px, width_px) in [-1, 1] of a picture file.

    Turned upright as its EXIF data say, scaled until it covers that size, and cropped in the middle, as clips are in
    training; what is transparent shows black. UsageError when it is no picture.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(path) as opened:
            upright = _rgb(ImageOps.exif_transpose(opened))
    except FileNotFoundError as error:
        raise UsageError("there is no such picture", subject=str(path)) from error
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        why = "it is of no known format" if isinstance(error, UnidentifiedImageError) else str(error)
        raise UsageError(f"is no picture that can be read: {why}", subject=str(path)) from error
    fitted = ImageOps.fit(upright, (width_px, height_px), Image.Resampling.LANCZOS)
    pixels = torch.from_numpy(np.array(fitted)).permute(2, 0, 1)[None]
    return pixels.float() / 127.5 - 1


def _rgb(image: Any) -> Any:
    """The picture as RGB, over black where it is transparent; 16 bits of grey become 8, not white."""
    from PIL import Image

    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8))
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image).convert("RGB")
