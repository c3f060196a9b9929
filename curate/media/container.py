"""Opening files that nobody vouched for.

A container may name other files or addresses (playlists, patterns of picture names, session descriptions). None of
that is followed here: the path is opened by the ``file`` protocol alone, by demuxers that read one self-contained file.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import av
import av.error

from curate.errors import DecodeError, EmptyFileError, NotMediaError, StorageError
from curate.units import format_bytes

if TYPE_CHECKING:
    from av.container import InputContainer

VIDEO_DEMUXERS = (
    "mov,matroska,avi,mpegts,mpeg,mpegvideo,m4v,h261,h263,h264,hevc,vvc,av1,obu,ivf,flv,live_flv,kux,asf,ogg,nut,nuv,"
    "nsv,mxf,gxf,rm,dv,yuv4mpegpipe,gif,apng,mjpeg,vc1,vc1test,dirac,dnxhd,cavsvideo,avs2,avs3,wtv,ty,swf,smk,bink,flic,roq"
)
AUDIO_DEMUXERS = "wav,w64,mp3,aac,flac,ac3,eac3,dts,dtshd,truehd,mlp,aiff,caf,au,amr,ape,wv,tta,tak,mpc,mpc8,loas,voc"
"""Audio files are opened too, so that the error can say what was found in them."""

MISSING_SHARE = 0.02
"""A file that lacks more than this share of the bytes its container declares is called truncated."""

_PLAYLIST_MARKS = (
    b"#EXTM3U",
    b"ffconcat version",
    b"<MPD",
    b"<SmoothStreamingMedia",
    b"v=0\r\n",
    b"v=0\n",
    b"[playlist]",
)
_EBML_HEADER = b"\x1a\x45\xdf\xa3"
_EBML_SEGMENT = b"\x18\x53\x80\x67"


def open_media(path: str) -> InputContainer:
    """Open a local file for demuxing; the caller closes it (it is a context manager).

    Raises EmptyFileError, NotMediaError (also for playlists and for MP4 files without their index) or StorageError.
    """
    size_bytes = _size_bytes(path)
    if size_bytes == 0:
        raise EmptyFileError("the file has no bytes", subject=path, fix="Upload or download it again")
    options = {"protocol_whitelist": "file", "format_whitelist": f"{VIDEO_DEMUXERS},{AUDIO_DEMUXERS}"}
    try:
        return av.open(f"file:{path}", mode="r", container_options=options, metadata_errors="replace")
    except (av.error.FFmpegError, ValueError) as error:
        raise NotMediaError(_why_not_media(path, size_bytes, error), subject=path, fix=_FIX) from error


_FIX = "Replace the file, or leave it out of the sources"


def check_complete(path: str) -> None:
    """DecodeError when the file is clearly shorter than its container says (MP4/MOV, Matroska/WebM, AVI)."""
    size_bytes = _size_bytes(path)
    declared_bytes = _declared_bytes(path, size_bytes)
    if declared_bytes - size_bytes > MISSING_SHARE * declared_bytes:
        sizes = f"its container declares {format_bytes(declared_bytes)}, the file has {format_bytes(size_bytes)}"
        raise DecodeError(f"is truncated: {sizes}", subject=path, fix="Replace or re-download the file")


def _size_bytes(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except OSError as error:
        raise StorageError(
            f"cannot be read: {error.strerror}", subject=path, fix="Check that the file exists"
        ) from error


def _why_not_media(path: str, size_bytes: int, error: Exception) -> str:
    with Path(path).open("rb") as file:
        head = file.read(2048)
    if any(mark in head for mark in _PLAYLIST_MARKS):
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
        while offset + 8 <= size_bytes:
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
