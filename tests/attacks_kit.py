"""Files that name other files or addresses, and watches that see whether anything followed the names.

Every attack lies in a folder with canaries: files that it names and nobody may open. Its addresses lead to a port of
this machine that somebody listens at.
"""

from __future__ import annotations

import ctypes
import os
import select
import shutil
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import av.error

from curate.testing.footage import Track, moving_texture, write_tracks, write_video

IN_OPEN = 0x20
_EVENT = struct.Struct("iIII")
PERMISSIVE = {
    "protocol_whitelist": "file,http,tcp,udp,rtp,crypto,data,concat,concatf,subfile,async,cache",
    "allowed_extensions": "ALL",
    "allowed_segment_extensions": "ALL",
    "extension_picky": "0",
    "safe": "0",
    "enable_drefs": "1",
    "use_absolute_path": "1",
}
"""Options with which FFmpeg follows what a file names: the controls show that the watches see it."""


class Opens:
    """Names of files below some folders that were opened, by whatever process (inotify)."""

    def __init__(self, *folders: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._fd = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        assert self._fd >= 0
        for folder in folders:
            assert libc.inotify_add_watch(self._fd, os.fsencode(folder), IN_OPEN) >= 0

    def names(self) -> set[str]:
        """What was opened since this was asked last."""
        found: set[str] = set()
        with suppress(BlockingIOError):
            while data := os.read(self._fd, 1 << 16):
                while data:
                    _, mask, _, length = _EVENT.unpack_from(data)
                    assert mask & IN_OPEN, "events were lost"
                    found.add(os.fsdecode(data[_EVENT.size : _EVENT.size + length].rstrip(b"\0")))
                    data = data[_EVENT.size + length :]
        return found - {""}

    def close(self) -> None:
        os.close(self._fd)


class Port:
    """A port of this machine, TCP and UDP. What knocks is seen without being answered."""

    def __init__(self) -> None:
        self._tcp, self._udp = socket.socket(), socket.socket(type=socket.SOCK_DGRAM)
        self._tcp.bind(("127.0.0.1", 0))
        self._tcp.listen(64)
        self.number = self._tcp.getsockname()[1]
        self._udp.bind(("127.0.0.1", self.number))

    def visits(self) -> int:
        """Connections and datagrams since this was asked last."""
        count = 0
        while ready := select.select([self._tcp, self._udp], [], [], 0)[0]:
            for each in ready:
                each.accept()[0].close() if each is self._tcp else each.recv(1 << 16)
                count += 1
        return count

    def close(self) -> None:
        self._tcp.close()
        self._udp.close()


@dataclass(frozen=True)
class Ground:
    """Where the attacks lie, and what they name."""

    folder: Path
    outside: Path
    port: Port
    opens: Opens

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port.number}"

    @property
    def secret(self) -> Path:
        """A video elsewhere on the machine."""
        return self.outside / "canary-secret.mp4"


@contextmanager
def ground(root: Path) -> Iterator[Ground]:
    """A folder with canaries, another one outside, and watches on both."""
    folder, outside = root / "bucket", root / "outside"
    folder.mkdir(parents=True)
    outside.mkdir()
    write_video(outside / "canary-secret.mp4", moving_texture(30, 96, 64, (1, 0), 1), Fraction(25))
    for name in ("canary.mp4", "canary.ts", "canary.key", "canary.mkv", "canary-vob.sub"):
        shutil.copy(outside / "canary-secret.mp4", folder / name)
    write_video(folder / "canary001.png", moving_texture(1, 96, 64, (1, 0), 1), codec="png", pix_fmt="rgb24")
    port, opens = Port(), Opens(folder, outside)
    try:
        yield Ground(folder, outside, port, opens)
    finally:
        opens.close()
        port.close()


@dataclass(frozen=True)
class Attack:
    """A file that names others. ``reason`` is part of why it fails, or empty where it is a sound video all the same.

    ``control`` is the demuxer that follows the names when it may; None where FFmpeg as it is built knows none.
    """

    file: str
    write: Callable[[Ground, Path], object]
    reason: str = "is a playlist, which names other files or addresses; those are never opened"
    control: str | None = None


def text(pattern: str) -> Callable[[Ground, Path], object]:
    """A text file; URL, SECRET and PORT stand for what the ground has."""

    def write(at: Ground, path: Path) -> object:
        filled = pattern.replace("URL", at.url).replace("SECRET", str(at.secret)).replace("PORT", str(at.port.number))
        return path.write_bytes(filled.encode())

    return write


def follow(attack: Attack, at: Ground) -> None:
    """Open an attack as a careless program does, and read a little."""
    path = f"file:{at.folder / attack.file}"
    with (
        suppress(av.error.FFmpegError, ValueError),
        av.open(path, format=attack.control, container_options=PERMISSIVE, timeout=0.5) as container,
    ):
        next(container.demux())


def _behind_a_tag(_at: Ground, path: Path) -> int:
    """A playlist after the tag of a sound file, which probing skips."""
    playlist = _HLS.format(key="", name="canary.ts").encode()
    return path.write_bytes(b"ID3\x03\x00\x00\x00\x00\x00\x0a" + bytes(10) + playlist)


def _plain(at: Ground) -> bytes:
    """The bytes of a sound MP4, which the canaries are copies of."""
    copy = at.folder.parent / "plain.mp4"
    if not copy.exists():
        write_video(copy, moving_texture(30, 96, 64, (1, 0), 1), Fraction(25))
    return copy.read_bytes()


def box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", len(body) + 8, kind) + body


def _inside(data: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """The same boxes with every data reference entry (of ``dref``) changed."""
    out, at = b"", 0
    while at < len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        body = data[at + 8 : at + size]
        if kind in (b"moov", b"trak", b"mdia", b"minf", b"dinf"):
            body = _inside(body, change)
        elif kind == b"dref":
            body = struct.pack(">II", 0, 1) + change(body[8:])
        out += box(kind, body)
        at += size
    return out


def _alias(target: Path, *, levels: int) -> bytes:
    """A Macintosh alias record: how many folders up the target is (-1: unknown), and its absolute path."""
    folder = target.parent.name.encode()[:63]
    head = bytearray(150)
    head[10:13] = b"\2HD"
    name = target.name.encode()
    head[50] = len(name)
    head[51 : 51 + len(name)] = name
    struct.pack_into(">hh", head, 130, levels, levels)
    tail = b""
    for kind, value in ((2, str(target).encode()), (0, folder)):
        tail += struct.pack(">hH", kind, len(value)) + value + bytes(len(value) % 2)
    return box(b"alis", struct.pack(">I", 0) + bytes(head) + tail + struct.pack(">hH", -1, 0))


def _reference(kind: str) -> Callable[[Ground, Path], object]:
    """A QuickTime film whose pictures lie in another file."""

    def write(at: Ground, path: Path) -> object:
        named = at.secret if kind == "absolute" else at.folder / "canary.mp4"
        entry = _alias(named, levels=1 if kind == "relative" else -1)
        if kind == "url":
            entry = box(b"url ", struct.pack(">I", 0) + f"{at.url}/a.mp4".encode() + b"\0")
        return path.write_bytes(_inside(_plain(at), lambda _old: entry))

    return write


def _sound_elsewhere(at: Ground, path: Path) -> None:
    """A sound film whose sound track lies in another file."""
    made = at.folder.parent / "tone.mp4"
    write_tracks(made, [Track(moving_texture(30, 96, 64, (1, 0), 2), Fraction(25))], tone_s=1.0)
    data = made.read_bytes()
    entries = iter((None, _alias(at.secret, levels=-1)))  # pictures are the first track
    path.write_bytes(_inside(data, lambda old: next(entries) or old))


def ebml(ident: bytes, body: bytes) -> bytes:
    return ident + struct.pack(">Q", len(body) | 1 << 56) + body


def _linked(at: Ground, path: Path) -> None:
    """A Matroska file that says which file goes before and after it."""
    made = at.folder.parent / "linked.mkv"
    write_video(made, moving_texture(30, 96, 64, (1, 0), 3), Fraction(25))
    data = bytearray(made.read_bytes())
    size_at = data.index(b"\x18\x53\x80\x67") + 5  # a size of eight bytes, the first of them 1
    names = ebml(b"\x3e\x83\xbb", b"canary.mkv") + ebml(b"\x3c\x83\xab", b"canary.mkv")
    names += ebml(b"\x3e\xb9\x23", bytes(16))
    extra = ebml(b"\x15\x49\xa9\x66", ebml(b"\x2a\xd7\xb1", (1_000_000).to_bytes(4, "big")) + names)
    size = int.from_bytes(data[size_at : size_at + 7], "big") + len(extra)
    data[size_at : size_at + 7] = size.to_bytes(7, "big")
    path.write_bytes(bytes(data) + extra)


def _subtitled(at: Ground, path: Path) -> None:
    """An AVI whose subtitle chunk (GAB2) holds a playlist: how FFmpeg was once made to open files."""
    made = at.folder.parent / "gab2.avi"
    write_video(made, moving_texture(30, 96, 64, (1, 0), 4), Fraction(25), codec="mpeg4")
    playlist = f"#EXTM3U\n#EXTINF:1,\nfile:{at.secret}\n#EXTINF:1,\n{at.url}/a.ts\n#EXT-X-ENDLIST\n".encode()
    title = "x".encode("utf-16-le")
    gab2 = b"GAB2\0" + struct.pack("<HI", 2, len(title)) + title + struct.pack("<HI", 4, len(playlist)) + playlist
    path.write_bytes(_with_text_stream(made.read_bytes(), gab2))


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack("<4sI", kind, len(body)) + body + bytes(len(body) % 2)


def _with_text_stream(data: bytes, packet: bytes) -> bytes:
    """An AVI with one more stream, of text, with one packet at the beginning."""
    hdrl_size = struct.unpack_from("<I", data, 16)[0]
    movi = data.index(b"LIST", 20 + hdrl_size)
    header = struct.pack("<4sIIHHIIIIIIIIHHHH", b"txts", 0, 0, 0, 0, 0, 1, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0)
    more = _chunk(b"LIST", b"strl" + _chunk(b"strh", header) + _chunk(b"strf", b""))
    hdrl = bytearray(data[20 : 20 + hdrl_size] + more)
    struct.pack_into("<I", hdrl, 12 + 24, struct.unpack_from("<I", hdrl, 12 + 24)[0] + 1)
    at = data.index(b"movi")
    size = struct.unpack_from("<I", data, at - 4)[0]
    movie = b"movi" + _chunk(b"01tx", packet) + data[at + 4 : at - 4 + 4 + size]
    body = b"AVI " + _chunk(b"LIST", bytes(hdrl)) + data[20 + hdrl_size : movi] + _chunk(b"LIST", movie)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _muxed(suffix: str, codec: str) -> Callable[[Ground, Path], object]:
    def write(_at: Ground, path: Path) -> None:
        made = path.with_suffix(suffix)
        write_video(made, moving_texture(30, 96, 64, (1, 0), 5), Fraction(25), codec=codec)
        made.rename(path)

    return write


_SDP = """v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r
m=video PORT RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n"""
_SMOOTH = '<?xml version="1.0"?><SmoothStreamingMedia><StreamIndex Url="URL/a"/></SmoothStreamingMedia>'
_SVG = '<svg xmlns="http://127.0.0.1/svg" width="9" height="9"><image href="file:SECRET"/></svg>'
_IDX = "# VobSub index file, v7 (do not modify this line!)\nid: en, index: 0\ntimestamp: 00:00:01:000, filepos: 0\n"
_MPD = """<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"
mediaPresentationDuration="PT1S"><Period><AdaptationSet mimeType="video/mp4"><Representation id="1" bandwidth="1">
<BaseURL>URL/a.mp4</BaseURL>
</Representation></AdaptationSet></Period></MPD>"""
_CPL = """<?xml version="1.0"?><CompositionPlaylist xmlns="http://127.0.0.1/cpl"><SegmentList><Segment><TrackFile>
file:SECRET</TrackFile></Segment></SegmentList></CompositionPlaylist>"""
_HLS = "#EXTM3U\n#EXT-X-TARGETDURATION:9\n{key}#EXTINF:9,\n{name}\n#EXT-X-ENDLIST\n"
_KEY = '#EXT-X-KEY:METHOD=AES-128,URI="{name}"\n'
ELSEWHERE = "its pictures lie in another file, and other files are never opened"
NO_DEMUXER = "no video demuxer reads it"

ATTACKS = (
    Attack("hls-file.mp4", text(_HLS.format(key="", name="canary.ts")), control="hls"),
    Attack("hls-absolute.m3u8", text(_HLS.format(key="", name="file:SECRET")), control="hls"),
    Attack("hls-http.mp4", text(_HLS.format(key="", name="URL/a.ts")), control="hls"),
    Attack("hls-key.ts", text(_HLS.format(key=_KEY.format(name="canary.key"), name="canary.ts")), control="hls"),
    Attack("hls-key-http.ts", text(_HLS.format(key=_KEY.format(name="URL/key"), name="data:,x")), control="hls"),
    Attack("hls-crypto.mkv", text(_HLS.format(key="", name="crypto:file:SECRET"))),
    Attack("hls-concat.avi", text(_HLS.format(key="", name="concat:URL/?|subfile,,start,0,end,9,,:SECRET"))),
    Attack("hls-behind-a-tag.mp4", _behind_a_tag),
    Attack("hls-master.mov", text("#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nURL/b.m3u8\n"), control="hls"),
    Attack("m3u-bare.m3u", text("URL/a.mp4\nSECRET\n")),
    Attack("concat-file.mp4", text("ffconcat version 1.0\nfile canary.mp4\n"), control="concat"),
    Attack("concat-absolute.mkv", text("ffconcat version 1.0\nfile 'file:SECRET'\n"), control="concat"),
    Attack("concat-http.mp4", text("ffconcat version 1.0\nfile URL/a.mp4\n"), control="concat"),
    Attack("concat-bare.mp4", text("file canary.mp4\nfile SECRET\n"), control="concat"),
    Attack("session.mp4", text(_SDP)),
    Attack("dash.mp4", text(_MPD)),
    Attack("imf.mxf", text(_CPL)),
    Attack("smooth.ism", text(_SMOOTH)),
    Attack("reference.asf", text("[Reference]\r\nRef1=URL/a.asf\r\nRef2=SECRET\r\n")),
    Attack("list.asx", text('<asx version="3.0"><entry><ref href="URL/a.wmv"/></entry></asx>')),
    Attack("list.wpl", text('<?wpl version="1.0"?><smil><body><seq><media src="SECRET"/></seq></body></smil>')),
    Attack("list.pls", text("[playlist]\nFile1=URL/a.mp4\nNumberOfEntries=1\n")),
    Attack("redirect.rm", text("URL/a.rm\n")),
    Attack("redirect.ram", text("rtsp://127.0.0.1:PORT/a.rm\n")),
    Attack("redirect.mov", text("RTSPtext\r\nrtsp://127.0.0.1:PORT/a.mov\r\n")),
    Attack("canary-vob.idx", text(_IDX), control="vobsub"),
    Attack("microdvd.sub", text("{1}{1}25.000\n{1}{50}file:SECRET\n"), NO_DEMUXER),
    Attack("picture.svg", text(_SVG), NO_DEMUXER),
    Attack("canary%03d.png", text("one picture of many"), NO_DEMUXER, control="image2"),
    Attack("concat:canary.mp4|canary.mkv", text("named like one protocol"), NO_DEMUXER),
    Attack("subfile,,start,0,end,9,,:canary.mp4", text("named like another"), NO_DEMUXER),
    Attack("data:canary.mp4", text("named like a third"), NO_DEMUXER),
    Attack("alias.mov", _reference("relative"), ELSEWHERE, control="mov"),
    Attack("alias-absolute.mp4", _reference("absolute"), ELSEWHERE, control="mov"),
    Attack("flash.swf", _muxed(".swf", "flv"), NO_DEMUXER),
    Attack("recorder.wtv", _muxed(".wtv", "mpeg2video"), NO_DEMUXER),
)
"""Each ends as failed."""

HARMLESS = (
    Attack("alias-url.mov", _reference("url"), ""),
    Attack("sound-elsewhere.mp4", _sound_elsewhere, "", control="mov"),
    Attack("linked.mkv", _linked, ""),
    Attack("subtitled.avi", _subtitled, ""),
)
"""Sound videos that name others as well: what they name is left alone, and they are read."""
