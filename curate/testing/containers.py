"""Containers and headers written by hand, so that they may say what no encoder would: Y4M, IVF, Matroska, MP4 boxes,
and the picture size in H.264 and AV1."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from typing import Any, cast

import av
import numpy as np

from curate.testing.footage import moving_texture, usual_scheduling


def encoded(codec: str, n: int, width: int, height: int, **options: str) -> list[bytes]:
    """Packets of a camera pan; ``pix_fmt`` among the options is the pixel format, the others are the encoder's."""
    context = cast("Any", av.CodecContext.create(codec, "w"))
    context.width, context.height = width, height
    context.pix_fmt = options.pop("pix_fmt", "yuv420p")
    context.time_base, context.framerate = Fraction(1, 25), Fraction(25)
    context.thread_count = 1
    context.options = options
    packets = []
    with usual_scheduling():
        for i, pixels in enumerate(moving_texture(n, width, height, (1.5, 0.5), seed=1)):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame = frame.reformat(format=context.pix_fmt)
            frame.pts = i
            packets += context.encode(frame)
        return [bytes(packet) for packet in [*packets, *context.encode(None)]]


def y4m(width: int, height: int, n: int, header: str = "F25:1 Ip A1:1 C420jpeg", frame_bytes: int = -1) -> bytes:
    """Uncompressed frames of slowly rising grey; ``frame_bytes`` of each, by default what 8-bit 4:2:0 takes."""
    if frame_bytes < 0:
        frame_bytes = width * height + 2 * ((width + 1) // 2) * ((height + 1) // 2)
    frames = (b"FRAME\n" + bytes([(40 + 3 * i) % 256]) * frame_bytes for i in range(n))
    return f"YUV4MPEG2 W{width} H{height} {header}\n".encode() + b"".join(frames)


def ivf(
    packets: Iterable[bytes],
    *,
    fourcc: bytes = b"VP80",
    size_px: tuple[int, int] = (64, 48),
    time_base: tuple[int, int] = (1, 25),
    pts: Sequence[int] | None = None,
    claimed: int | None = None,
) -> bytes:
    """Packets with their time stamps (default: counted); ``claimed`` is the number of frames in the header."""
    packets = list(packets)
    numbers = [*size_px, time_base[1], time_base[0], len(packets) if claimed is None else claimed, 0]
    sizes = (2, 2, 4, 4, 4, 4)
    out = [b"DKIF\0\0\x20\0", fourcc, *(n.to_bytes(size, "little") for n, size in zip(numbers, sizes, strict=True))]
    for i, packet in enumerate(packets):
        stamp = pts[i] if pts is not None else i
        out += [len(packet).to_bytes(4, "little"), stamp.to_bytes(8, "little", signed=True), packet]
    return b"".join(out)


def element(ident: int, content: bytes | int | Iterable[bytes], *, claimed: int | None = None) -> bytes:
    """A Matroska element; ``claimed`` is the length it pretends to have, -1 for an unknown one."""
    if isinstance(content, int):
        content = content.to_bytes(max(1, (content.bit_length() + 7) // 8), "big")
    elif not isinstance(content, bytes):
        content = b"".join(content)
    name = ident.to_bytes((ident.bit_length() + 7) // 8, "big")
    size = len(content) if claimed is None else claimed
    length = b"\x01" + (b"\xff" * 7 if size < 0 else size.to_bytes(7, "big"))
    return name + length + content


EBML, SEGMENT, INFO, TRACKS, TRACK, CLUSTER, TAGS = (
    0x1A45DFA3,
    0x18538067,
    0x1549A966,
    0x1654AE6B,
    0xAE,
    0x1F43B675,
    0x1254C367,
)


def matroska(
    tracks: Iterable[bytes], blocks: Iterable[bytes], *, tick_ns: int = 1_000_000, extra: bytes = b""
) -> bytes:
    """A file of one cluster. ``tracks``: what `video_track` gives; ``blocks``: what `block` gives."""
    head = element(EBML, element(0x4282, b"matroska"))
    body = [
        element(INFO, element(0x2AD7B1, tick_ns)),
        element(TRACKS, tracks),
        extra,
        element(CLUSTER, [element(0xE7, 0), *blocks]),
    ]
    return head + element(SEGMENT, body)


def video_track(number: int, codec: str, size_px: tuple[int, int], *more: bytes, video: bytes = b"") -> bytes:
    """A track of a codec (Matroska's name); ``more``: further elements of it, ``video``: of its picture."""
    shape = element(0xB0, size_px[0]) + element(0xBA, size_px[1]) + video
    parts = [element(0xD7, number), element(0x73C5, number), element(0x83, 1), element(0x86, codec.encode())]
    return element(TRACK, [*parts, element(0xE0, shape), *more])


def block(number: int, ticks: int, data: bytes, *, key: bool = False) -> bytes:
    """One frame of a track, ``ticks`` (16 bits, signed) after the cluster."""
    flags = b"\x80" if key else b"\0"
    return element(0xA3, bytes([0x80 | number]) + ticks.to_bytes(2, "big", signed=True) + flags + data)


def box(kind: bytes, content: bytes = b"", *, claimed: int | None = None) -> bytes:
    """An MP4 box; ``claimed`` is the length that it pretends to have, in the long form when it needs it."""
    size = len(content) + 8 if claimed is None else claimed
    if size < 1 << 32:
        return size.to_bytes(4, "big") + kind + content
    return (1).to_bytes(4, "big") + kind + size.to_bytes(8, "big") + content


def top_boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and bytes of each outermost box of an MP4 file."""
    at = 0
    while at + 8 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        yield data[at + 4 : at + 8], data[at : at + size]
        at += size


def patched(data: bytes, kind: bytes, offset: int, new: bytes) -> bytes:
    """A file with the bytes at ``offset`` behind the first four letters ``kind`` replaced."""
    at = data.index(kind) + 4 + offset
    return data[:at] + new + data[at + len(new) :]


def with_bits(data: bytes, first_bit: int, value: int, n_bits: int) -> bytes:
    """Bytes with ``n_bits`` from ``first_bit`` on (most significant first) replaced by a number."""
    shift = 8 * len(data) - first_bit - n_bits
    mask = ((1 << n_bits) - 1) << shift
    return (int.from_bytes(data, "big") & ~mask | value << shift).to_bytes(len(data), "big")


def h264_settings(width_px: int, height_px: int) -> bytes:
    """Sequence and picture parameters (Annex B) of a baseline stream; sizes in whole macroblocks."""
    numbers = [0, 0, 2, 1]  # parameter set, frame_num bits - 4, order of output, reference frames
    fields = "".join(_exp_golomb(n) for n in numbers) + "0"
    fields += _exp_golomb(width_px // 16 - 1) + _exp_golomb(height_px // 16 - 1) + "1100"
    pictures = "".join(_exp_golomb(n) for n in (0, 0)) + "00" + "111" + "000" + "111" + "000"
    start = b"\0\0\0\1"
    return start + b"\x67\x42\xc0\x33" + _as_bytes(fields) + start + b"\x68" + _as_bytes(pictures)


def _exp_golomb(number: int) -> str:
    digits = f"{number + 1:b}"
    return "0" * (len(digits) - 1) + digits


def _as_bytes(bits: str) -> bytes:
    """Bits, a one, and zeros up to a whole byte."""
    bits += "1"
    bits += "0" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


def av1_resized(packet: bytes, size_px: int) -> bytes:
    """An AV1 key packet whose sequence header claims a square; its other headers are left as they are."""
    at = packet.index(b"\x0a")  # sequence header with its length in one byte
    length = packet[at + 1]
    bits = f"{int.from_bytes(packet[at + 2 : at + 2 + length], 'big'):0{8 * length}b}"
    before = 29 + (int(bits[24:29], 2) > 7)  # profile to level, and tier
    n_width, n_height = (int(bits[before + 4 * i : before + 4 * i + 4], 2) + 1 for i in range(2))
    size = f"{size_px - 1:016b}"
    new = bits[:before] + "1" * 8 + size * 2 + bits[before + 8 + n_width + n_height :]
    new += "0" * (-len(new) % 8)
    data = int(new, 2).to_bytes(len(new) // 8, "big")
    return packet[: at + 1] + bytes([len(data)]) + data + packet[at + 2 + length :]
