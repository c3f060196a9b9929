"""Small files of every codec and container that frames are read from."""

import hashlib
from fractions import Fraction

import av

from curate.media.decode import Frame
from curate.media.facts import read_facts
from curate.testing.footage import moving_texture, write_video

X264_OPEN = {"x264-params": "open-gop=1:bframes=3:ref=4:keyint=12:min-keyint=12:scenecut=0:b-adapt=0", "bf": "3"}
X265_OPEN = {"x265-params": "log-level=error:pools=none:open-gop=1:keyint=12:min-keyint=12:scenecut=0:bframes=3"}
FILES = {
    "closed.mp4": {"codec": "libx264", "options": {"bf": "3"}},
    "open.mp4": {"codec": "libx264", "options": X264_OPEN},
    "open.mkv": {"codec": "libx264", "options": X264_OPEN},
    "open.ts": {"codec": "libx264", "options": X264_OPEN},
    "short_gops.ts": {"codec": "libx264", "options": {"bf": "3"}, "gop": 4},
    "short_gops.flv": {"codec": "libx264", "options": {"bf": "3"}, "gop": 3},
    "refresh.mkv": {"codec": "libx264", "options": {"x264-params": "intra-refresh=1:keyint=12:bframes=0"}},
    "open_hevc.mp4": {"codec": "libx265", "options": X265_OPEN},
    "deep_hevc.mkv": {"codec": "libx265", "pix_fmt": "yuv420p10le"},
    "vp8.webm": {"codec": "libvpx", "options": {"auto-alt-ref": "1", "lag-in-frames": "16", "b": "300k"}},
    "vp9.webm": {"codec": "libvpx-vp9"},
    "av1.mp4": {"codec": "libsvtav1"},
    "mpeg4.mp4": {"codec": "mpeg4", "options": {"bf": "2", "qscale": "3"}},
    "mpeg4.avi": {"codec": "mpeg4", "options": {"bf": "2", "qscale": "3"}},
    "h264.avi": {"codec": "libx264", "options": {"bf": "3"}},
    "mpeg2.mpg": {"codec": "mpeg2video", "options": {"bf": "2", "b": "2M"}},
    "raw.h264": {"codec": "libx264", "options": {"bf": "3"}},
    "flash.flv": {"codec": "libx264", "options": {"bf": "3"}},
}


def digest(frame: Frame) -> str:
    return hashlib.sha256(frame.av_frame.to_ndarray().tobytes()).hexdigest()


def small(path, n=48, **more):
    write_video(path, moving_texture(n, 96, 54, (3, 1), 1), Fraction(25), **{"gop": 12, **more})
    return str(path), read_facts(str(path))


def damaged_packets(path, out, numbers):
    """A copy in which some packets, by number in decode order, make no sense; the rest is whole."""
    with av.open(str(path)) as container:
        places = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    for number in numbers:
        at, size = places[number]
        begin = at + 4
        data[begin : at + size] = b"\xff" * (at + size - begin)
    out.write_bytes(data)


def stamped_by_decoding(path, out):
    """A copy whose frames are stamped with when they are decoded: where they are reordered they run backwards."""
    with av.open(str(path)) as old, av.open(str(out), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(video=0):
            if packet.size:
                packet.pts = packet.dts
                packet.stream = stream
                new.mux(packet)
