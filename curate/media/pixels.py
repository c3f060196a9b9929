"""From decoded planes to the pixels that stages see: reduced frames, thumbnails, RGB and luma pictures.

Colour: the frame's own matrix and range. Where the stream names none: BT.709 from 720 lines on, else BT.601, limited
range (full for the yuvj and gray formats). RGB and luma come out in full range. HDR curves are not tone-mapped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

import cv2
import numpy as np
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter

from curate.stage import MASTER_SHORT_SIDE_PX

if TYPE_CHECKING:
    from av.video.frame import VideoFrame
    from av.video.plane import VideoPlane

HD_HEIGHT_PX = 720

# AVColorSpace code of a frame -> matrix code of the scaler. The codes not listed are reserved, unspecified or RGB.
_MATRIX_OF_CODE: Mapping[int, int] = MappingProxyType({1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9, 10: 9})
_BT709, _BT601 = 1, 5
_HELD_FORMATS = frozenset({"yuv420p", "yuvj420p", "nv12"})
_PLANAR_8 = frozenset(
    {f"yuv{j}{s}p" for j in ("", "j") for s in ("420", "422", "444", "440", "411")} | {"yuv410p", "nv12", "gray"}
)
_PLANAR_16 = frozenset({f"yuv{s}p{bits}le" for s in ("420", "422", "444", "440") for bits in (9, 10, 12, 14, 16)})
_EXACT = (
    Interpolation.ACCURATE_RND | Interpolation.BITEXACT | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP
)
_ROTATIONS = MappingProxyType({90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_COUNTERCLOCKWISE})


@dataclass(frozen=True, slots=True)
class Master:
    """A frame as it is held for views: 8-bit 4:2:0, short side at most MASTER_SHORT_SIDE_PX, coded orientation.

    ``matrix`` is the scaler's code of the colour matrix, ``full`` the range.
    """

    frame: VideoFrame
    matrix: int
    full: bool

    @property
    def held_bytes(self) -> int:
        """Bytes of its planes."""
        return sum(plane.buffer_size for plane in self.frame.planes)


class Scaler:
    """Scaling contexts by target, kept because setting one up costs more than using it. One per thread."""

    def __init__(self) -> None:
        self._contexts: dict[tuple[int, int, str], VideoReformatter] = {}

    def convert(self, source: Master, width_px: int, height_px: int, pix_fmt: str, *, full: bool) -> VideoFrame:
        """Scale and convert: area averaging downwards, bicubic where either side grows. Deterministic, one thread."""
        frame = source.frame
        shrinks = width_px <= frame.width and height_px <= frame.height
        method = Interpolation.AREA if shrinks else Interpolation.BICUBIC
        context = self._contexts.setdefault((width_px, height_px, pix_fmt), VideoReformatter())
        return context.reformat(
            frame,
            width=width_px,
            height=height_px,
            format=pix_fmt,
            src_colorspace=None if frame.format.is_rgb else source.matrix,
            dst_colorspace=source.matrix,
            src_color_range=ColorRange.JPEG if source.full else ColorRange.MPEG,
            dst_color_range=ColorRange.JPEG if full else ColorRange.MPEG,
            interpolation=method | _EXACT,
            threads=1,
        )

    def master(self, frame: VideoFrame) -> Master:
        """The frame itself where it is small enough and 8-bit 4:2:0, else a reduced copy."""
        short = min(frame.width, frame.height)
        source = Master(frame, matrix_of(frame), is_full_range(frame))
        if short <= MASTER_SHORT_SIDE_PX and frame.format.name in _HELD_FORMATS:
            return source
        scale = min(1.0, MASTER_SHORT_SIDE_PX / short)
        width_px, height_px = max(1, round(frame.width * scale)), max(1, round(frame.height * scale))
        full = source.full and not frame.format.is_rgb
        reduced = self.convert(source, width_px, height_px, "yuv420p", full=full)
        return Master(reduced, source.matrix, full)

    def rgb(self, master: Master, width_px: int, height_px: int) -> np.ndarray:
        """uint8 (height, width, 3), full range, unrotated."""
        return self.convert(master, width_px, height_px, "rgb24", full=True).to_ndarray()

    def thumb(self, frame: VideoFrame, width_px: int) -> np.ndarray:
        """uint8 (height, width_px, 3): Y, U, V in the stream's own range, area-averaged, coded aspect, unrotated."""
        size = (width_px, max(2, round(width_px * frame.height / frame.width)))
        name = frame.format.name
        if name in _PLANAR_16:
            shift = frame.format.components[0].bits - 8
            planes = [_to_8_bit(_shrink(plane_view(p, np.uint16), size), shift) for p in frame.planes]
            return cv2.merge(planes)
        if name not in _PLANAR_8:
            source = Master(frame, matrix_of(frame), is_full_range(frame))
            full = source.full and not frame.format.is_rgb
            frame = self.convert(source, frame.width, frame.height, "yuv420p", full=full)
            name = "yuv420p"
        luma = _shrink(plane_view(frame.planes[0]), size)
        if name == "gray":
            return cv2.merge([luma, *[np.full_like(luma, 128)] * 2])
        if name == "nv12":
            return cv2.merge([luma, *cv2.split(_shrink(_interleaved_view(frame.planes[1]), size))])
        return cv2.merge([luma, *[_shrink(plane_view(plane), size) for plane in frame.planes[1:3]]])


def luma(master: Master, width_px: int, height_px: int) -> np.ndarray:
    """uint8 (height, width), full range, unrotated, area-averaged downwards."""
    plane = plane_view(master.frame.planes[0])
    shrinks = width_px <= plane.shape[1] and height_px <= plane.shape[0]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    scaled = cv2.resize(plane, (width_px, height_px), interpolation=method)
    return scaled if master.full else expand_range(scaled)


def expand_range(luma_limited: np.ndarray) -> np.ndarray:
    """Limited-range luma (16..235) as full-range luma (0..255), uint8 in and out, any shape."""
    table = np.clip(np.rint((np.arange(256) - 16) * (255 / 219)), 0, 255).astype(np.uint8)
    return table[luma_limited]


def rotate(picture: np.ndarray, rotation_deg: int) -> np.ndarray:
    """Turn clockwise by 0, 90, 180 or 270 degrees."""
    return cv2.rotate(picture, _ROTATIONS[rotation_deg]) if rotation_deg else picture


def matrix_of(frame: VideoFrame) -> int:
    """The scaler's code of the frame's colour matrix."""
    guess = _BT709 if frame.height >= HD_HEIGHT_PX else _BT601
    return _MATRIX_OF_CODE.get(frame.colorspace, guess)


def is_full_range(frame: VideoFrame) -> bool:
    """True when luma runs from 0 to 255 instead of 16 to 235."""
    unspecified = frame.color_range not in (ColorRange.MPEG, ColorRange.JPEG)
    by_format = frame.format.name.startswith(("yuvj", "gray")) or frame.format.is_rgb
    return by_format if unspecified else frame.color_range == ColorRange.JPEG


def plane_view(plane: VideoPlane, dtype: type[np.generic] = np.uint8) -> np.ndarray:
    """(height, width) view of a plane with one component, without a copy; it keeps the frame alive."""
    rows = np.frombuffer(plane, dtype).reshape(plane.height, -1)  # pyright: ignore[reportArgumentType, reportCallIssue]
    return (rows[::-1] if plane.line_size < 0 else rows)[:, : plane.width]


def _interleaved_view(plane: VideoPlane) -> np.ndarray:
    rows = np.frombuffer(plane, np.uint8).reshape(plane.height, -1)  # pyright: ignore[reportArgumentType, reportCallIssue]
    return rows[:, : 2 * plane.width].reshape(plane.height, plane.width, 2)


def _shrink(plane: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Average down to (width, height): by halves, whose fast path makes this a tenth of one area average, then exactly.

    A half of an odd size is interpolated, so that the picture stays in place.
    """
    while plane.shape[1] >= 4 * size[0] and plane.shape[0] >= 4 * size[1]:
        half = ((plane.shape[1] + 1) // 2, (plane.shape[0] + 1) // 2)
        plane = cv2.resize(plane, half, interpolation=cv2.INTER_LINEAR)
    return cv2.resize(plane, size, interpolation=cv2.INTER_AREA)


def _to_8_bit(plane: np.ndarray, shift: int) -> np.ndarray:
    rounded = (plane.astype(np.uint32) + ((1 << shift) >> 1)) >> shift
    return np.minimum(rounded, 255).astype(np.uint8)
