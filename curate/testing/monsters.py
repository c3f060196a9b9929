"""Files that are legal in letter or claim what cannot be, each with the outcome that a run must give it.

    for path in monster_files("monsters"):
        expected = MONSTERS[path.name]     # "ok", "failed", or "either" where decoders may differ

All are small on disk, whatever they claim.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import av
from av.stream import Disposition

from curate.testing.containers import (
    CLUSTER,
    EBML,
    SEGMENT,
    TAGS,
    TRACK,
    av1_resized,
    block,
    box,
    element,
    encoded,
    h264_settings,
    ivf,
    matroska,
    patched,
    top_boxes,
    video_track,
    with_bits,
    y4m,
)
from curate.testing.footage import Track, moving_texture, write_tone, write_tracks

Outcome = Literal["ok", "failed", "either"]

_PAL = Fraction(25)
_GIANT_PX = 16_000
_CLAIMED_FRAMES = 10**9


class _Samples:
    """Sound material, made once and only when a monster needs it."""

    @cached_property
    def vp8(self) -> list[bytes]:
        return encoded("libvpx", 25, 64, 48, **{"b": "100k", "g": "10", "deadline": "realtime"})

    @cached_property
    def small_key(self) -> bytes:
        return encoded("libvpx", 1, 16, 16)[0]

    @cached_property
    def large_vp8(self) -> list[bytes]:
        return encoded("libvpx", 25, 128, 96, **{"b": "100k", "deadline": "realtime"})

    @cached_property
    def vp9(self) -> list[bytes]:
        return encoded("libvpx-vp9", 10, 64, 48, **{"deadline": "realtime", "cpu-used": "8"})

    @cached_property
    def av1(self) -> list[bytes]:
        os.environ.setdefault("SVT_LOG", "1")  # errors only: it reads its log level from nowhere else
        return encoded("libsvtav1", 5, 64, 64, preset="12", **{"svtav1-params": "lp=1"})

    @cached_property
    def slices(self) -> bytes:
        """H.264 key frames without their parameter sets."""
        packets = encoded("libx264", 10, 64, 48, preset="ultrafast", profile="baseline", g="1")
        units = [unit for packet in packets for unit in packet.split(b"\0\0\1") if unit and unit[0] & 31 == 5]
        return b"".join(b"\0\0\0\1" + unit for unit in units)

    @cached_property
    def jpegs(self) -> list[bytes]:
        return encoded("mjpeg", 12, 64, 48, pix_fmt="yuvj420p")

    @cached_property
    def full_colour_jpegs(self) -> list[bytes]:
        return encoded("mjpeg", 12, 64, 48, pix_fmt="yuvj444p")

    @cached_property
    def mp4(self) -> bytes:
        return _written("a.mp4", _track(50))

    @cached_property
    def fragmented(self) -> bytes:
        return _written("a.mp4", _track(75), movflags="frag_keyframe+empty_moov")

    def without_boxes(self, kinds: Sequence[bytes]) -> bytes:
        """The MP4 file without boxes of these kinds."""
        return b"".join(data for kind, data in top_boxes(self.mp4) if kind not in kinds)

    def vp8_ivf(self, pts: Sequence[int], **more: Any) -> bytes:
        """VP8 with these time stamps, its packets in turn."""
        return ivf([self.vp8[i % 25] for i in range(len(pts))], pts=pts, **more)

    def vp8_mkv(self, *more: bytes, tick_ns: int = 1_000_000, step: int = 40, video: bytes = b"") -> bytes:
        """VP8 in Matroska."""
        blocks = [block(1, i * step, data, key=i % 10 == 0) for i, data in enumerate(self.vp8)]
        return matroska([video_track(1, "V_VP8", (64, 48), *more, video=video)], blocks, tick_ns=tick_ns)


def _track(n: int, **more: Any) -> Track:
    options = {"preset": "ultrafast", "bf": "0", "crf": "30"}
    return Track(moving_texture(n, 64, 48, (1.5, 0.5), seed=1), _PAL, "libx264", gop=25, options=options, **more)


def _written(name: str, *tracks: Track, tone_s: float = 0.0, **container_options: str) -> bytes:
    with tempfile.TemporaryDirectory(prefix="curate-monster-") as folder:
        path = Path(folder) / name
        if tracks:
            write_tracks(path, tracks, tone_s=tone_s, container_options=container_options)
        else:
            write_tone(path, tone_s)
        return path.read_bytes()


def _hundred_streams(_: _Samples) -> bytes:
    frames = list(moving_texture(3, 16, 16, (1.5, 0.5), seed=1))
    return _written("a.mkv", *[Track(frames, _PAL, "mpeg4") for _ in range(100)])


def _cover_only(_: _Samples) -> bytes:
    with tempfile.TemporaryDirectory(prefix="curate-monster-") as folder:
        path = Path(folder) / "a.mp4"
        with av.open(str(path), "w") as container:
            cover: Any = container.add_stream("mjpeg", rate=1)
            cover.width, cover.height, cover.pix_fmt = 64, 64, "yuvj420p"
            cover.disposition = Disposition.attached_pic
            container.mux([*cover.encode(av.VideoFrame(64, 64, "yuvj420p")), *cover.encode(None)])
        return path.read_bytes()


def _subtitles_only(_: _Samples) -> bytes:
    parts = [element(0xD7, 1), element(0x73C5, 1), element(0x83, 0x11), element(0x86, b"S_TEXT/UTF8")]
    return matroska([element(TRACK, parts)], [block(1, 0, b"Hello"), block(1, 500, b"World")])


def _nested(ident: int, depth: int) -> bytes:
    inner = element(0x45A3, b"deep")
    for _ in range(depth):
        inner = element(ident, inner)
    return inner


def _nested_boxes(samples: _Samples) -> bytes:
    inner = b""
    for _ in range(5_000):
        inner = box(b"moov", inner)
    return samples.without_boxes([b"moov"]) + inner


def _giant_vp8(samples: _Samples, size_px: int, at: int) -> bytes:
    """The key frame at packet ``at`` claims to be a square of this size."""
    packets = list(samples.vp8)
    packets[at] = _claiming(packets[at], size_px)
    return ivf(packets)


def _claiming(key: bytes, size_px: int) -> bytes:
    """A VP8 key frame that claims to be a square."""
    size = size_px.to_bytes(2, "little")
    return key[:6] + size + size + key[10:]


def _giant_vp9(samples: _Samples) -> bytes:
    first = with_bits(with_bits(samples.vp9[0], 36, _GIANT_PX - 1, 16), 52, _GIANT_PX - 1, 16)
    return ivf([first, *samples.vp9[1:]], fourcc=b"VP90")


def _giant_jpeg(samples: _Samples, size_px: int) -> bytes:
    """The size lies behind the frame header's marker, length and depth."""
    size = size_px.to_bytes(2, "big")
    jpeg = samples.jpegs[0]
    at = jpeg.index(b"\xff\xc0") + 5
    return (jpeg[:at] + size + size + jpeg[at + 4 :]) * 3


def _giant_png(_: _Samples) -> bytes:
    """Its size lies behind the name of the first chunk of each frame."""
    track = Track(moving_texture(3, 64, 48, (1.5, 0.5), seed=1), _PAL, "png", pix_fmt="rgb24")
    size = _GIANT_PX.to_bytes(4, "big")
    whole = b"IHDR" + (64).to_bytes(4, "big") + (48).to_bytes(4, "big")
    return _written("a.mov", track).replace(whole, b"IHDR" + size + size)


def _every_size(samples: _Samples) -> bytes:
    """VP8 key frames, each of another size; what is missing of the larger ones decodes as grey."""
    sizes = [(16 + 2 * i, 80 - i) for i in range(60)]
    key = samples.vp8[0]
    parts = [key[:6] + w.to_bytes(2, "little") + h.to_bytes(2, "little") + key[10:] for w, h in sizes]
    return ivf(parts)


def _hole(samples: _Samples) -> bytes:
    """A fragmented MP4 without its second fragment."""
    boxes = [data for _, data in top_boxes(samples.fragmented)]
    first = next(i for i, data in enumerate(boxes) if data[4:8] == b"moof")
    return b"".join(boxes[: first + 2] + boxes[first + 4 :])


def _turned(samples: _Samples, matrix: Sequence[float]) -> bytes:
    """The display matrix of the track, 16.16 but for the last column."""
    words = b"".join(round(value * 65536).to_bytes(4, "big", signed=True) for value in matrix)
    return patched(samples.mp4, b"tkhd", 40, words)


_ODD_TURN = (0.83867, 0.54464, 0, -0.54464, 0.83867, 0, 0, 0, 16384)
_NO_TURN_AT_ALL = (0.0,) * 9
_SECOND = 25
_NS = 10**9

_MAKERS: Mapping[str, tuple[Outcome, Callable[[_Samples], bytes]]] = MappingProxyType(
    {
        # Sizes and pixels
        "size_0x0.y4m": ("failed", lambda _: y4m(0, 0, 5)),
        "size_1x1.y4m": ("ok", lambda _: y4m(1, 1, 30)),
        "size_2x2.y4m": ("ok", lambda _: y4m(2, 2, 30)),
        "size_65535x2.y4m": ("ok", lambda _: y4m(65535, 2, 3)),
        "size_2x65535.y4m": ("ok", lambda _: y4m(2, 65535, 3)),
        "size_65535x65535.y4m": ("failed", lambda _: y4m(65535, 65535, 1, frame_bytes=100_000)),
        "sar_1_65535.y4m": ("ok", lambda _: y4m(64, 48, 30, "F25:1 Ip A1:65535 C420jpeg")),
        "sar_65535_1.y4m": ("ok", lambda _: y4m(64, 48, 30, "F25:1 Ip A65535:1 C420jpeg")),
        "interlaced.y4m": ("ok", lambda _: y4m(64, 48, 30, "F25:1 It A1:1 C420mpeg2")),
        "bits_16.y4m": ("ok", lambda _: y4m(64, 48, 30, "F25:1 Ip A1:1 C444p16", 64 * 48 * 6)),
        "grey_16.y4m": ("ok", lambda _: y4m(64, 48, 30, "F25:1 Ip A1:1 Cmono16", 64 * 48 * 2)),
        "alpha.y4m": ("ok", lambda _: y4m(64, 48, 30, "F25:1 Ip A1:1 C444alpha", 64 * 48 * 4)),
        "giant_vp8.ivf": ("failed", lambda s: ivf([_claiming(s.vp8[0], 16_383)] * 3)),
        "giant_first.ivf": ("either", lambda s: _giant_vp8(s, 16_383, 0)),
        "giant_later.ivf": ("either", lambda s: _giant_vp8(s, 16_383, 10)),
        "large_vp8.ivf": ("either", lambda s: _giant_vp8(s, 6_000, 20)),
        "giant_vp9.ivf": ("failed", _giant_vp9),
        "giant_av1.ivf": ("failed", lambda s: ivf([av1_resized(s.av1[0], _GIANT_PX)] * 3, fourcc=b"AV01")),
        "giant_h264.h264": ("failed", lambda s: h264_settings(_GIANT_PX, _GIANT_PX) + s.slices),
        "large_h264.h264": ("either", lambda s: h264_settings(4_000, 4_000) + s.slices),
        "giant_png.mov": ("failed", _giant_png),
        "giant_jpeg.mjpg": ("failed", lambda s: _giant_jpeg(s, _GIANT_PX)),
        "large_jpeg.mjpg": ("either", lambda s: _giant_jpeg(s, 8_000)),
        "other_size.ivf": ("ok", lambda s: ivf([*s.vp8, *s.large_vp8, *s.vp8])),
        "every_size.ivf": ("either", _every_size),
        "other_format.mjpg": ("ok", lambda s: b"".join([*s.jpegs, *s.full_colour_jpegs, *s.jpegs])),
        "screen_65535.gif": ("failed", lambda _: b"GIF89a" + b"\xff" * 4 + b"\x80\0\0" + bytes(6) + b";"),
        # Clocks
        "rate_1.y4m": ("ok", lambda _: y4m(64, 48, 4, "F1:1 Ip A1:1 C420jpeg")),
        "rate_1000.y4m": ("ok", lambda _: y4m(32, 24, 1500, "F1000:1 Ip A1:1 C420jpeg")),
        "rate_1e9.y4m": ("ok", lambda _: y4m(64, 48, 30, "F1000000000:1 Ip A1:1 C420jpeg")),
        "rate_1e-9.y4m": ("ok", lambda _: y4m(64, 48, 3, "F1:1000000000 Ip A1:1 C420jpeg")),
        "one_frame.y4m": ("ok", lambda _: y4m(64, 48, 1)),
        "base_1s.ivf": ("ok", lambda s: ivf(s.vp8, time_base=(1, 1))),
        "base_1ns.ivf": ("ok", lambda s: s.vp8_ivf([i * _NS // _SECOND for i in range(50)], time_base=(1, _NS))),
        "base_0.ivf": ("either", lambda s: ivf(s.vp8, time_base=(0, 0))),
        "pts_negative.ivf": ("ok", lambda s: s.vp8_ivf(range(-60, -10))),
        "pts_looping.ivf": ("ok", lambda s: s.vp8_ivf([i % 10 for i in range(60)])),
        "pts_back.ivf": ("ok", lambda s: s.vp8_ivf([*range(10_000, 10_030), *range(30)])),
        "pts_falling.ivf": ("either", lambda s: s.vp8_ivf(range(100, 50, -1))),
        "pts_still.ivf": ("ok", lambda s: s.vp8_ivf([7] * 50)),
        "pts_huge.ivf": ("ok", lambda s: s.vp8_ivf(range(1 << 60, (1 << 60) + 50))),
        "pts_last.ivf": ("ok", lambda s: s.vp8_ivf(range((1 << 63) - 60, (1 << 63) - 10))),
        "pts_stray.ivf": ("ok", lambda s: s.vp8_ivf([*range(49), 1 << 61])),
        "pts_both_ends.ivf": ("ok", lambda s: s.vp8_ivf([-(1 << 62), *range(48), (1 << 62) + 5])),
        "pts_hole.ivf": ("ok", lambda s: s.vp8_ivf([*range(25), *range(25_000_000, 25_000_025)])),
        "frames_1e9.ivf": ("ok", lambda s: ivf(s.vp8, claimed=_CLAIMED_FRAMES)),
        "keys_10000.ivf": ("ok", lambda s: ivf([s.small_key] * 10_000, time_base=(1, 500))),
        # Matroska
        "ticks_1ns.mkv": ("ok", lambda s: s.vp8_mkv(tick_ns=1, step=1_000)),
        "ticks_1s.mkv": ("ok", lambda s: s.vp8_mkv(tick_ns=_NS, step=1)),
        "ticks_0.mkv": ("either", lambda s: s.vp8_mkv(tick_ns=0)),
        "blocks_negative.mkv": ("either", lambda s: s.vp8_mkv(step=-40)),
        "private_4MiB.mkv": ("ok", lambda s: s.vp8_mkv(element(0x63A2, bytes(4 << 20)))),
        "shown_65535x1.mkv": ("ok", lambda s: s.vp8_mkv(video=element(0x54B0, 65535) + element(0x54BA, 1))),
        "crop_all.mkv": ("either", lambda s: s.vp8_mkv(video=element(0x54CC, 64) + element(0x54AA, 48))),
        "rate_0.mkv": ("ok", lambda s: s.vp8_mkv(element(0x23E383, 0))),
        "subtitles_only.mkv": ("failed", _subtitles_only),
        "tags_deep.mkv": ("either", lambda _: matroska([], [], extra=element(TAGS, _nested(0x67C8, 2_000)))),
        "segment_claimed.mkv": ("failed", lambda _: element(EBML, b"") + element(SEGMENT, b"", claimed=1 << 54)),
        "cluster_claimed.mkv": ("either", lambda s: s.vp8_mkv() + element(CLUSTER, b"", claimed=(1 << 56) - 2)),
        "segment_unknown.mkv": ("failed", lambda _: element(EBML, b"") + element(SEGMENT, b"", claimed=-1)),
        "streams_100.mkv": ("ok", _hundred_streams),
        # MP4
        "moov_empty.mp4": ("failed", lambda s: s.without_boxes([b"moov"]) + box(b"moov")),
        "moov_missing.mp4": ("failed", lambda s: s.without_boxes([b"moov"])),
        "box_claimed.mp4": ("failed", lambda s: s.mp4 + box(b"free", claimed=1 << 62)),
        "box_0.mp4": ("either", lambda s: box(b"free", claimed=0) + s.mp4),
        "boxes_nested.mp4": ("failed", _nested_boxes),
        "boxes_many.mp4": ("ok", lambda s: s.mp4 + box(b"free") * 50_000),
        "samples_1e9.mp4": ("either", lambda s: patched(s.mp4, b"stsz", 4, b"\0\0\0\1" + (10**9).to_bytes(4, "big"))),
        "durations_1e9.mp4": ("either", lambda s: patched(s.mp4, b"stts", 8, (10**9).to_bytes(4, "big"))),
        "durations_0.mp4": ("ok", lambda s: patched(s.mp4, b"stts", 12, bytes(4))),
        "durations_negative.mp4": ("either", lambda s: patched(s.mp4, b"stts", 12, b"\xff" * 4)),
        "timescale_0.mp4": ("either", lambda s: patched(s.mp4, b"mdhd", 12, bytes(4))),
        "timescale_max.mp4": ("ok", lambda s: patched(s.mp4, b"mdhd", 12, b"\x7f\xff\xff\xff")),
        "edit_hides_all.mp4": ("either", lambda s: patched(s.mp4, b"elst", 12, (1 << 30).to_bytes(4, "big"))),
        "edit_empty.mp4": ("either", lambda s: patched(s.mp4, b"elst", 12, b"\xff" * 4)),
        "turned_33.mp4": ("ok", lambda s: _turned(s, _ODD_TURN)),
        "turned_nowhere.mp4": ("ok", lambda s: _turned(s, _NO_TURN_AT_ALL)),
        "fragment_missing.mp4": ("either", _hole),
        "audio_only.mp4": ("failed", lambda _: _written("a.mp4", tone_s=1.0)),
        "cover_only.mp4": ("failed", _cover_only),
        # No containers at all
        "one_byte.mp4": ("failed", lambda _: b"\0"),
        "zeros.mp4": ("failed", lambda _: bytes(1 << 20)),
        "ones.mkv": ("failed", lambda _: b"\xff" * (1 << 20)),
        "sync_bytes.ts": ("failed", lambda _: b"\x47" * (188 << 10)),
        "start_codes.h264": ("failed", lambda _: b"\0\0\0\1" * (1 << 18)),
        "units_endless.ivf": ("failed", lambda _: ivf([b"\x0a" + b"\x80" * (1 << 20)] * 3, fourcc=b"AV01")),
        "units_empty.ivf": ("failed", lambda _: ivf([b"\x7a\0" * (1 << 18)] * 3, fourcc=b"AV01")),
    }
)

MONSTERS: Mapping[str, Outcome] = MappingProxyType({name: expected for name, (expected, _) in sorted(_MAKERS.items())})
"""File name -> how a run must end with it."""


def monster_files(folder: str | Path, names: Sequence[str] = ()) -> list[Path]:
    """Make what is missing of the monsters, all of them or those named; sorted paths."""
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    samples = _Samples()
    paths = [target / name for name in MONSTERS if not names or name in names]
    for path in paths:
        if not path.exists():
            path.write_bytes(_MAKERS[path.name][1](samples))
    return paths
