"""Broken files: a small file of every container and codec that FFmpeg writes and reads, and ways to damage them.

    seeds = seed_files("seeds")
    for mutation in mutations(seeds, 300, seed=1):
        Path("broken", mutation.name).write_bytes(mutation.data)

The same seed gives the same damage to the same files; `mutation` makes one of them again alone.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from curate.testing.footage import Track, moving_texture, write_tracks

_PAL = Fraction(25)


@dataclass(frozen=True)
class _Seed:
    """How a seed file is made; sizes in pixels. ``more``: see `curate.testing.footage.Track`."""

    codec: str
    n_frames: int = 25
    size_px: tuple[int, int] = (64, 48)
    tone_s: float = 0.0
    container: Mapping[str, str] = field(default_factory=dict)
    more: Mapping[str, Any] = field(default_factory=dict)

    def write(self, path: Path, frames: Sequence[np.ndarray]) -> None:
        track = Track(frames[: self.n_frames], _PAL, self.codec, **{"gop": 10, **self.more})
        write_tracks(path, [track], tone_s=self.tone_s, container_options=self.container)


_X264 = {"options": {"preset": "ultrafast", "bf": "0", "crf": "30"}}
_X264_B = {"options": {"preset": "veryfast", "bf": "3", "crf": "30", "mbtree": "0"}}

_SEEDS: Mapping[str, _Seed] = MappingProxyType(
    {
        "h264.mp4": _Seed("libx264", 50, tone_s=2.0, more=_X264),
        "h264_b.mp4": _Seed("libx264", 50, more=_X264_B),
        "h264_fast.mp4": _Seed("libx264", 50, container={"movflags": "faststart"}, more=_X264_B),
        "h264_frag.mp4": _Seed(
            "libx264", 50, tone_s=2.0, container={"movflags": "frag_keyframe+empty_moov"}, more=_X264
        ),
        "h264_turned.mov": _Seed("libx264", more={**_X264_B, "rotation_deg": 90, "sar": Fraction(4, 3)}),
        "h264.mkv": _Seed("libx264", 50, tone_s=2.0, more=_X264_B),
        "h264_open.mkv": _Seed("libx264", 50, more={"options": {"x264-params": "open-gop=1:bframes=3:keyint=10"}}),
        "h264_fields.ts": _Seed("libx264", 25, more={"options": {"x264-params": "tff=1:bframes=2"}}),
        "h264_uneven.mp4": _Seed("libx264", 25, more={**_X264_B, "pts": [i * (3000 + i % 3) for i in range(25)]}),
        "h264.ts": _Seed("libx264", 50, tone_s=2.0, more=_X264_B),
        "h264.flv": _Seed("libx264", 50, tone_s=2.0, more=_X264_B),
        "h264.avi": _Seed("libx264", 50, more=_X264_B),
        "h264.nut": _Seed("libx264", 50, tone_s=2.0, more=_X264_B),
        "h264.3gp": _Seed("libx264", 25, more=_X264),
        "h264.f4v": _Seed("libx264", 25, more=_X264),
        "raw.h264": _Seed("libx264", 50, more=_X264_B),
        "h264_422_10.mkv": _Seed("libx264", 12, more={**_X264_B, "pix_fmt": "yuv422p10le"}),
        "h264_rgb.mkv": _Seed("libx264rgb", 12, more={"pix_fmt": "rgb24", "options": {"preset": "ultrafast"}}),
        "hevc.mp4": _Seed("libx265", tone_s=1.0),
        "hevc_10.mkv": _Seed("libx265", more={"pix_fmt": "yuv420p10le"}),
        "hevc.ts": _Seed("libx265"),
        "hevc_open.mkv": _Seed("libx265", more={"options": {"x265-params": "open-gop=1:bframes=3:log-level=error"}}),
        "raw.hevc": _Seed("libx265"),
        "vp8.webm": _Seed("libvpx", more={"options": {"auto-alt-ref": "1", "lag-in-frames": "8", "b": "100k"}}),
        "vp8.ivf": _Seed("libvpx", more={"options": {"b": "100k"}}),
        "vp8.ogv": _Seed("libvpx", more={"options": {"b": "100k"}}),
        "vp9.webm": _Seed("libvpx-vp9"),
        "vp9.mp4": _Seed("libvpx-vp9"),
        "vp9_hidden.webm": _Seed("libvpx-vp9", more={"options": {"auto-alt-ref": "1", "lag-in-frames": "16"}}),
        "av1.mp4": _Seed("libsvtav1"),
        "av1.mkv": _Seed("libsvtav1"),
        "av1_10.mkv": _Seed("libsvtav1", more={"pix_fmt": "yuv420p10le"}),
        "av1.ivf": _Seed("libsvtav1"),
        "raw.obu": _Seed("libsvtav1"),
        "mpeg4.mp4": _Seed("mpeg4", more={"options": {"bf": "2", "qscale": "5"}}),
        "mpeg4.avi": _Seed("mpeg4", tone_s=1.0, more={"options": {"bf": "2", "qscale": "5"}}),
        "mpeg4.asf": _Seed("mpeg4", tone_s=1.0),
        "raw.m4v": _Seed("mpeg4"),
        "mpeg2.mpg": _Seed("mpeg2video", more={"options": {"bf": "2", "b": "500k"}}),
        "mpeg2.vob": _Seed("mpeg2video", more={"options": {"bf": "2", "b": "500k"}}),
        "mpeg2.ts": _Seed("mpeg2video", more={"options": {"bf": "2", "b": "500k"}}),
        "mpeg2.mxf": _Seed("mpeg2video", more={"options": {"bf": "2", "b": "500k"}}),
        "raw.m2v": _Seed("mpeg2video", more={"options": {"bf": "2", "b": "500k"}}),
        "mpeg1.mpg": _Seed("mpeg1video", more={"options": {"b": "500k"}}),
        "raw.m1v": _Seed("mpeg1video", more={"options": {"b": "500k"}}),
        "mjpeg.avi": _Seed("mjpeg", 12, more={"pix_fmt": "yuvj420p"}),
        "mjpeg.mov": _Seed("mjpeg", 12, more={"pix_fmt": "yuvj422p"}),
        "raw.mjpg": _Seed("mjpeg", 12, more={"pix_fmt": "yuvj420p"}),
        "prores.mov": _Seed("prores_ks", 6, more={"pix_fmt": "yuv422p10le"}),
        "prores_4444.mov": _Seed("prores_ks", 6, more={"pix_fmt": "yuva444p10le"}),
        "dnxhr.mov": _Seed(
            "dnxhd", 3, (256, 120), more={"pix_fmt": "yuv422p", "options": {"profile": "dnxhr_lb"}, "gop": None}
        ),
        "ffv1.mkv": _Seed("ffv1", 6),
        "ffv1_16.mkv": _Seed("ffv1", 6, more={"pix_fmt": "gray16le"}),
        "huffyuv.avi": _Seed("huffyuv", 6, more={"pix_fmt": "yuv422p"}),
        "ffvhuff.nut": _Seed("ffvhuff", 6),
        "utvideo.avi": _Seed("utvideo", 6),
        "magicyuv.avi": _Seed("magicyuv", 6),
        "qtrle.mov": _Seed("qtrle", 6, more={"pix_fmt": "argb"}),
        "png.mov": _Seed("png", 6, more={"pix_fmt": "rgba"}),
        "jpeg2000.mxf": _Seed("jpeg2000", 6),
        "v210.mov": _Seed("v210", 3, more={"pix_fmt": "yuv422p10le"}),
        "raw.avi": _Seed("rawvideo", 4),
        "raw.y4m": _Seed("rawvideo", 4),
        "wmv1.asf": _Seed("wmv1"),
        "wmv2.wmv": _Seed("wmv2"),
        "msmpeg4.avi": _Seed("msmpeg4"),
        "flv1.flv": _Seed("flv", tone_s=1.0),
        "flash.swf": _Seed("flv"),
        "anim.gif": _Seed("gif", 8, more={"pix_fmt": "rgb8", "gop": None}),
        "anim.apng": _Seed("apng", 5, more={"pix_fmt": "rgba"}),
        "h261.h261": _Seed("h261", 10, (176, 144)),
        "h263.3gp": _Seed("h263", 10, (176, 144)),
        "dv.dv": _Seed("dvvideo", 2, (720, 576), more={"gop": None}),
        "dv.avi": _Seed("dvvideo", 2, (720, 576), more={"gop": None}),
        "cfhd.mov": _Seed("cfhd", 3, more={"pix_fmt": "yuv422p10le"}),
        "snow.nut": _Seed("snow", 10),
        "svq1.mov": _Seed("svq1", 10, more={"pix_fmt": "yuv410p"}),
        "cinepak.avi": _Seed("cinepak", 5, more={"pix_fmt": "rgb24"}),
        "msvideo1.avi": _Seed("msvideo1", 5, more={"pix_fmt": "rgb555le"}),
        "zmbv.avi": _Seed("zmbv", 5, more={"pix_fmt": "bgr0"}),
        "flashsv.flv": _Seed("flashsv", 5, more={"pix_fmt": "bgr24"}),
        "rv20.rm": _Seed("rv20", 10, (176, 144)),
        "roq.roq": _Seed("roqvideo", 5, more={"pix_fmt": "yuvj444p", "gop": None}),
        "speedhq.avi": _Seed("speedhq", 5, more={"pix_fmt": "yuv422p"}),
        "wtv.wtv": _Seed("mpeg2video"),
        "gxf.gxf": _Seed("mpeg2video", 5, (720, 576)),
    }
)


def seed_files(folder: str | Path, names: Sequence[str] = ()) -> list[Path]:
    """Make what is missing of the seed corpus: whole files of a few KiB, all of them or those named; sorted paths."""
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    footage: dict[tuple[int, int], list[np.ndarray]] = {}
    paths = []
    for name, recipe in sorted(_SEEDS.items()):
        if names and name not in names:
            continue
        path, size_px = target / name, recipe.size_px
        if not path.exists():
            if size_px not in footage:
                n_frames = max(seed.n_frames for seed in _SEEDS.values() if seed.size_px == size_px)
                footage[size_px] = list(moving_texture(n_frames, *size_px, (1.5, 0.5), seed=1))
            unfinished = path.with_name(f".unfinished-{name}")
            recipe.write(unfinished, footage[size_px])
            unfinished.replace(path)
        paths.append(path)
    return paths


@dataclass(frozen=True)
class Mutation:
    """A damaged file. ``name`` is a file name that tells how it came about: NUMBER-KIND-SEED FILE."""

    name: str
    kind: str
    seed_name: str
    data: bytes


def mutations(seeds: Sequence[Path], n: int, seed: int, *, first: int = 0) -> Iterator[Mutation]:
    """``n`` damaged files from number ``first`` on; every kind of damage meets every seed file in turn."""
    for number in range(first, first + n):
        yield mutation(seeds, number, seed)


def mutation(seeds: Sequence[Path], number: int, seed: int) -> Mutation:
    """One damaged file: the same for the same seed files, number and seed."""
    rng = random.Random(f"{seed}/{number}")
    path = seeds[number % len(seeds)]
    kind = KINDS[(number // len(seeds) + number % len(seeds)) % len(KINDS)]
    other = rng.choice([each for each in seeds if each.suffix == path.suffix and each != path] or seeds)
    data = _MUTATORS[kind](rng, path.read_bytes(), other.read_bytes())
    return Mutation(f"{number:06d}-{kind}-{path.name}", kind, path.name, data)


_HEADER_BYTES = 1024
_EXTREMES = (0, 1, 0x7F, 0x80, 0xFF)
_WORDS = tuple(
    value.to_bytes(4, order)
    for order in ("big", "little")
    for value in (0, 1, 8, 0x7FFF, 0xFFFF, 0x10000, 0xFFFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFF0, 0xFFFFFFFF)
)


def _at(rng: random.Random, data: bytes | bytearray) -> int:
    return rng.randrange(max(1, len(data)))


def _truncated(rng: random.Random, data: bytes, _other: bytes) -> bytes:
    """Cut off: anywhere, in the header, or just before the end."""
    return data[: rng.choice([_at(rng, data), min(_at(rng, data), _HEADER_BYTES), len(data) - rng.randint(1, 16)])]


def _bits_flipped(rng: random.Random, data: bytes, _other: bytes) -> bytes:
    """Single bits, one to a few hundred, anywhere."""
    out = bytearray(data)
    for _ in range(2 ** rng.randint(0, 8)):
        out[_at(rng, out)] ^= 1 << rng.randrange(8)
    return bytes(out)


def _header_fuzzed(rng: random.Random, data: bytes, _other: bytes) -> bytes:
    """Extreme bytes and words where the description of the streams lies: at the start, or in an MP4 index."""
    out = bytearray(data)
    index = data.find(b"moov")
    begin = index if index >= 0 and rng.random() < 0.8 else 0
    end = min(len(data) - 4, begin + _HEADER_BYTES)
    for _ in range(2 ** rng.randint(0, 4)):
        at = rng.randrange(begin, max(begin + 1, end))
        if rng.random() < 0.5:
            out[at] = rng.choice((*_EXTREMES, rng.randrange(256)))
        else:
            out[at : at + 4] = rng.choice(_WORDS)
    return bytes(out)


def _sizes_fuzzed(rng: random.Random, data: bytes, _other: bytes) -> bytes:
    """Extreme words beside four letters: the sizes and counts of boxes and chunks."""
    places = [at for at in range(4, len(data) - 8) if data[at : at + 4].isalnum()]
    out = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        at = (rng.choice(places) if places else _at(rng, data)) + rng.choice((-4, 4, 8, 12))
        out[max(0, at) : max(0, at) + 4] = rng.choice(_WORDS)
    return bytes(out)


def _spliced(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """The head of one file and the tail of another, of the same container where there is one."""
    share = rng.random()
    return data[: round(share * len(data))] + other[round(share * len(other)) :]


def _rearranged(rng: random.Random, data: bytes, _other: bytes) -> bytes:
    """A stretch removed, doubled, moved, or overwritten with zeros or noise."""
    begin = _at(rng, data)
    size = 1 << rng.randint(0, max(1, len(data).bit_length() - 2))
    head, stretch, tail = data[:begin], data[begin : begin + size], data[begin + size :]
    to = _at(rng, tail)
    return rng.choice(
        [
            head + tail,
            head + stretch + stretch + tail,
            head + tail[:to] + stretch + tail[to:],
            head + bytes(len(stretch)) + tail,
            head + rng.randbytes(len(stretch)) + tail,
            head + rng.randbytes(size) + stretch + tail,
        ]
    )


_MUTATORS: Mapping[str, Callable[[random.Random, bytes, bytes], bytes]] = MappingProxyType(
    {
        "truncated": _truncated,
        "bits": _bits_flipped,
        "header": _header_fuzzed,
        "sizes": _sizes_fuzzed,
        "spliced": _spliced,
        "rearranged": _rearranged,
    }
)

KINDS = tuple(_MUTATORS)
"""Kinds of damage, in the order in which `mutations` goes through them."""
