"""Which file names are taken for videos, and why the others are not."""

from __future__ import annotations

import posixpath
import re

_VIDEO_NAMES = (
    "264 265 3g2 3gp asf av1 avi divx dv f4v flv h264 h265 hevc ivf m1v m2t m2ts m2v m4v mjpeg mjpg mkv mov mp4 mpe "
    "mpeg mpg mts mxf obu ogm ogv qt rm rmvb ts vob webm wmv y4m"
)
VIDEO_SUFFIXES = frozenset(f".{name}" for name in _VIDEO_NAMES.split())
LIST_SUFFIXES = frozenset({".txt", ".list", ".csv", ".tsv", ".parquet"})
TAR_SUFFIX = ".tar"

CORPUS_PARTS = frozenset({"corpus.json", "tables"})
"""What lies in a corpus. One below a source folder is no source: its shards would be curated again."""
CORPUS_CAUSE = "a corpus, which is no source"

_SURROGATE = re.compile("[\ud800-\udfff]")
_COMPRESSED_TARS = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
_TEMPORARY = (".tmp", ".temp", ".part", ".partial", ".crdownload", ".download", ".!ut", "~")


def suffix_of(path: str) -> str:
    """The last extension in lower case; of a web address the query does not count."""
    if path.startswith(("http://", "https://")):
        path = path.split("#", 1)[0].split("?", 1)[0]
    return posixpath.splitext(path)[1].lower()


def cause_of_hidden(name: str) -> str:
    """Why a file or folder of this base name is never looked at; empty when it is."""
    if name.startswith("."):
        return "hidden"
    if name.lower().endswith(_TEMPORARY):
        return "temporary file, not yet complete"
    return ""


def cause_of_name(path: str) -> str:
    """Why a file found in a folder is not taken for a video; empty for videos and plain tars."""
    name = posixpath.basename(path)
    hidden = cause_of_hidden(name)
    if hidden:
        return hidden
    if name.lower().endswith(_COMPRESSED_TARS):
        return "compressed tar: store it as plain .tar"
    suffix = suffix_of(path)
    if suffix in VIDEO_SUFFIXES or suffix == TAR_SUFFIX:
        return ""
    return f"not a video file name ({suffix or 'no extension'})"


def printable(name: str) -> str:
    """The name with backslash codes for what is no Unicode text: bytes that are not UTF-8, lone surrogates."""
    return _SURROGATE.sub(_coded, name)


def _coded(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"
