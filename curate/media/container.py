"""Opening files that nobody vouched for.

A container may name other files or addresses (playlists, patterns of picture names, session descriptions). None of
that is followed here: the path is opened by the ``file`` protocol alone, by demuxers that read one self-contained file.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import av
import av.error

from curate.errors import DecodeError, EmptyFileError, NotMediaError, StorageError
from curate.units import format_bytes

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.stream import Stream

VIDEO_DEMUXERS = (
    "mov,matroska,avi,mpegts,mpeg,mpegvideo,m4v,h263,h264,hevc,vvc,av1,obu,ivf,flv,asf,ogg,nut,mxf,rm,dv,"
    "yuv4mpegpipe,gif,mjpeg"
)
"""Containers of cameras, editors, broadcasters and the web. Each reads one self-contained file; docs/security.md says
what was left out and why."""

AUDIO_DEMUXERS = "wav,mp3,aac,flac,ac3,eac3,aiff,caf,amr"
"""Common audio files are opened too, so that the error can say what was found in them."""

VIDEO_DECODERS = (
    "h264,hevc,vvc,av1,libdav1d,vp8,libvpx,vp9,libvpx-vp9,vp6,vp6a,vp6f,mpeg1video,mpeg2video,mpegvideo,mpeg4,"
    "msmpeg4v1,msmpeg4v2,msmpeg4,wmv1,wmv2,wmv3,vc1,h261,h263,h263i,h263p,flv,theora,dirac,rv10,rv20,rv30,rv40,rv60,"
    "svq1,svq3,cinepak,indeo3,indeo4,indeo5,mjpeg,mjpegb,jpeg2000,jpegls,dvvideo,prores,prores_raw,dnxhd,cfhd,hap,"
    "hq_hqa,hqx,aic,apv,ffv1,ffvhuff,huffyuv,utvideo,magicyuv,lagarith,rawvideo,v210,v308,v408,v410,yuv4,r210,r10k,"
    "qtrle,rpza,smc,8bps,msrle,msvideo1,camtasia,flashsv,flashsv2,zmbv,png,gif"
)
"""Codecs of the containers above that cameras, editors, screen recorders and the web have written."""

AUDIO_DECODERS = (
    "aac,aac_latm,mp3float,mp3,mp2float,mp2,mp1float,mp1,opus,libopus,vorbis,flac,alac,ac3,eac3,dca,truehd,mlp,"
    "wmav1,wmav2,wmapro,wmalossless,amrnb,amrwb,libopencore_amrnb,libopencore_amrwb,speex,nellymoser,"
    "cook,sipr,real_144,real_288,qdm2,qdmc,mace3,mace6,gsm,gsm_ms,adpcm_ms,adpcm_ima_wav,adpcm_ima_qt,adpcm_swf,"
    "pcm_s8,pcm_u8,pcm_s16le,pcm_s16be,pcm_s24le,pcm_s24be,pcm_s32le,pcm_s32be,pcm_f32le,pcm_f32be,pcm_f64le,"
    "pcm_f64be,pcm_alaw,pcm_mulaw,pcm_bluray,pcm_dvd,s302m"
)
"""Codecs of the sound that lies beside them."""

_DECODERS = f"{VIDEO_DECODERS},{AUDIO_DECODERS}"
_DECODER_NAMES = frozenset(_DECODERS.split(","))
_OPTIONS = {
    "protocol_whitelist": "file",
    "format_whitelist": f"{VIDEO_DEMUXERS},{AUDIO_DEMUXERS}",
    "codec_whitelist": _DECODERS,
    "enable_drefs": "0",  # MOV tracks whose data lies in another file: off, whatever a build's default is
    "use_absolute_path": "0",
}

MOST_FRAME_PX = 1 << 27
"""Larger pictures are not decoded: 15360x8640 ("16K") fits. Sixteen reference frames of that size take 3.2 GB, and a
file of a few bytes may claim them."""

MISSING_SHARE = 0.02
"""A file that lacks more than this share of the bytes its container declares is called truncated."""

_PLAYLIST_MARKS = (
    b"#extm3u",
    b"ffconcat version",
    b"<mpd",
    b"<smoothstreamingmedia",
    b"<compositionplaylist",
    b"<asx",
    b"<smil",
    b"[playlist]",
    b"[reference]",
    b"rtsptext",
    b"# vobsub index file",
)
"""In lower case. Names of other files or addresses follow them."""
_ADDRESS = re.compile(rb"(?:v=0\r?\n|[a-z]{3,5}://|file )")
"""How session descriptions, RealMedia links and concat scripts begin."""
_MOST_BOXES = 100_000
_REFERENCE = re.compile(rb"dref\0{4}.{8}(?:alis|rsrc|url |urn )\0..(.)", re.DOTALL)
_IN_THIS_FILE = 1
_MOST_INDEX_BYTES = 16 << 20
_EBML_HEADER = b"\x1a\x45\xdf\xa3"
_EBML_SEGMENT = b"\x18\x53\x80\x67"


def open_media(path: str) -> InputContainer:
    """Open a local file for demuxing; the caller closes it (it is a context manager).

    Raises EmptyFileError, NotMediaError (also for playlists and for MP4 files without their index) or StorageError.
    """
    size_bytes = _size_bytes(path)
    if size_bytes == 0:
        raise EmptyFileError("the file has no bytes", subject=path, fix="Upload or download it again")
    try:
        container = av.open(
            f"file:{path}",
            mode="r",
            options={"max_pixels": str(MOST_FRAME_PX)},
            container_options=dict(_OPTIONS),
            metadata_errors="replace",
        )
    except (av.error.FFmpegError, ValueError) as error:
        raise NotMediaError(_why_not_media(path, size_bytes, error), subject=path, fix=_FIX) from error
    for stream in container.streams:
        # The container's own list holds for its first look at the streams alone.
        if stream.codec_context is not None:
            stream.codec_context.options = {"codec_whitelist": _DECODERS, "max_pixels": str(MOST_FRAME_PX)}
    return container


def is_readable(stream: Stream) -> bool:
    """True when the stream has a decoder, and one of those that are used here; any other fails when it is opened."""
    return stream.codec_context is not None and stream.codec_context.codec.name in _DECODER_NAMES


_FIX = "Replace the file, or leave it out of the sources"


def check_complete(path: str, missing_share: float = MISSING_SHARE) -> None:
    """DecodeError when the file is clearly shorter than its container says (MP4/MOV, Matroska/WebM, AVI)."""
    size_bytes = _size_bytes(path)
    declared_bytes = _declared_bytes(path, size_bytes)
    if declared_bytes - size_bytes > missing_share * declared_bytes:
        sizes = f"its container declares {format_bytes(declared_bytes)}, the file has {format_bytes(size_bytes)}"
        raise DecodeError(f"is truncated: {sizes}", subject=path, fix="Replace or re-download the file")


def lies_elsewhere(path: str) -> bool:
    """True when a track of a MOV or MP4 file says that its data lies in another file."""
    start = 0
    for kind, end in _boxes(path, _size_bytes(path)):
        if kind == b"moov":
            with Path(path).open("rb") as file:
                file.seek(start)
                index = file.read(min(end - start, _MOST_INDEX_BYTES))
            return any(not match[1][0] & _IN_THIS_FILE for match in _REFERENCE.finditer(index))
        start = end
    return False


def _size_bytes(path: str) -> int:
    """StorageError for what is no regular file: opening a FIFO would wait."""
    try:
        facts = Path(path).stat()
    except OSError as error:
        raise StorageError(
            f"cannot be read: {error.strerror}", subject=path, fix="Check that the file exists"
        ) from error
    if not stat.S_ISREG(facts.st_mode):
        raise StorageError("is not a regular file", subject=path)
    return facts.st_size


def _why_not_media(path: str, size_bytes: int, error: Exception) -> str:
    with Path(path).open("rb") as file:
        head = file.read(2048)
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if any(mark in text for mark in _PLAYLIST_MARKS) or _ADDRESS.match(text):
        return "is a playlist, which names other files or addresses; those are never opened"
    if head[4:8] == b"ftyp" and b"moov" not in dict(_boxes(path, size_bytes)):
        return "looks truncated or incomplete: it starts as an MP4 file, but the index (moov) is missing"
    return f"no video demuxer reads it ({getattr(error, 'strerror', None) or error})"


def _declared_bytes(path: str, size_bytes: int) -> int:
    """End of the last top-level element, as far as the container tells; else the size of the file."""
    with Path(path).open("rb") as file:
        head = file.read(4096)
    if head[4:8] in {b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"}:
        return max([size_bytes, *dict(_boxes(path, size_bytes)).values()])
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return max(size_bytes, 8 + int.from_bytes(head[4:8], "little"))
    if head[:4] == _EBML_HEADER:
        return max(size_bytes, _segment_end(head))
    return size_bytes


def _boxes(path: str, size_bytes: int) -> list[tuple[bytes, int]]:
    """Type and declared end of each top-level box of an ISO base media file, until one makes no sense."""
    found: list[tuple[bytes, int]] = []
    offset = 0
    with Path(path).open("rb") as file:
        while offset + 8 <= size_bytes and len(found) < _MOST_BOXES:
            file.seek(offset, os.SEEK_SET)
            head = file.read(16)
            length = int.from_bytes(head[:4], "big")
            length = int.from_bytes(head[8:16], "big") if length == 1 else length or size_bytes - offset
            if length < 8:
                break
            offset += length
            found.append((head[4:8], offset))
    return found


def _segment_end(head: bytes) -> int:
    """Declared end of a Matroska segment; 0 when it is unknown (live recordings)."""
    at = head.find(_EBML_SEGMENT)
    if at < 0 or at + 5 > len(head) or head[at + 4] == 0:
        return 0
    width = 9 - head[at + 4].bit_length()
    value = int.from_bytes(head[at + 4 : at + 4 + width], "big") - (1 << (7 * width))
    unknown = value == (1 << (7 * width)) - 1
    return 0 if unknown else at + 4 + width + value
