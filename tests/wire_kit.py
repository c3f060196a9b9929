"""What tasks of the decoding process give, one of each kind, and bytes that went wrong on the way."""

import errno
import math
from fractions import Fraction

import numpy as np

from curate.errors import DecodeError, DecoderCrashError
from curate.isolation.plain import encode
from curate.media.encode import ClipFile
from curate.media.playback import Shown
from curate.records import Clip, CutKind, SourceFacts, Span
from curate.view import View

BASE = Fraction(1001, 30000)
SPAN = Span(0, 90, CutKind.SOURCE_START, CutKind.HARD, "", "content", 3)
CLIP = Clip.of_span("0" * 64, 0, BASE, SPAN)
N_KEY_FRAMES = 500
FACTS = SourceFacts(
    stream=0,
    container="mp4",
    codec="h264",
    pix_fmt="yuv420p",
    bit_depth=8,
    coded_width_px=64,
    coded_height_px=36,
    width_px=64,
    height_px=36,
    rotation_deg=0,
    sar="1:1",
    rate="30000/1001",
    rate_fps=29.97,
    vfr=False,
    has_pts=True,
    time_base="1/30000",
    start_pts=-3,
    end_pts=1 << 40,
    duration_s=3.0,
    n_frames=90,
    key_frames_pts=list(range(N_KEY_FRAMES)),
    key_frames_closed=[at % 3 == 0 for at in range(N_KEY_FRAMES)],
    bit_rate_bps=1000,
    streams_json="[]",
)
FILE = ClipFile(b"\x00\xff" * 50_000, 64, 36, 90, 29.97, "h264", "copy", False)


def made_view():
    frames = np.arange(3 * 36 * 64 * 3, dtype=np.uint8).reshape(3, 36, 64, 3)
    return View(frames, np.array([0, 30, 60]), BASE, np.zeros(3, np.int64), (1.0, 2.5))


def made_error():
    error = DecodeError("cannot be decoded", subject="a\udc80.mp4", fix="Replace it")
    error.peak_memory_bytes = 1 << 30
    error.add_note("In the decoding process:\nthere")
    return error


def answers():
    """What tasks give, one of each kind."""
    return [
        ("item", FACTS, 1),
        ("item", (SPAN, {"rgb": made_view()}, None), 2),
        ("item", (SPAN, None, made_error()), 3),
        ("item", (CLIP, None, DecoderCrashError("died")), 3),
        ("item", {"damaged_s": 0.5, "hard": [1.5] * 100, "kinds": ["hard", None], "at": {2: -2, True: math.inf}}, 4),
        ("item", FILE, 5),
        ("item", Shown(64, 36, 90, 0.0, 3.0), 6),
        ("error", OSError(errno.ENOSPC, "No space left on device"), 7),
        ("end", None, 8),
    ]


def joined(value):
    text, buffers = encode(value)
    return text, memoryview(bytearray(b"".join(buffers)))


def mutated_bytes(data, chance):
    found = bytearray(data)
    for _ in range(chance.randrange(1, 4)):
        at, end = sorted(chance.randrange(len(found) + 1) for _ in range(2))
        kind = chance.randrange(4)
        if kind == 0 and at < len(found):
            found[at] = chance.randrange(256)
        elif kind == 1:
            del found[at : at + chance.randrange(8)]
        elif kind == 2:
            found[at:at] = chance.choice([b"[", b"]", b",", b'"', b"9", b"-", b"null", b"1e99", b"\\ud800", b"\x00"])
        else:
            found[at:at] = found[end : end + 32]
    return bytes(found)
