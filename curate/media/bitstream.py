"""Facts that packet headers tell without decoding: which frames nothing else needs, and which begin afresh.

A packet may hold a frame, shown, that no other frame refers to: a decoder that is never given that part gives every
other frame bit for bit. Where the headers leave a doubt, all of a packet is needed.
Sources: ITU-T H.264 7.3.1 and 7.4.1 (nal_ref_idc), ITU-T H.265 table 7-1 (sub-layer non-reference pictures), ISO/IEC
14496-2 6.2.5 (vop_coding_type), ISO/IEC 13818-2 6.2.3 (picture_coding_type). VP9 is left alone: a frame that refreshes
no reference still hands its probabilities and motion vectors on to the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from types import MappingProxyType

from curate.media.av1 import Av1Headers

Buffer = bytes | memoryview
NeededBytes = Callable[[Buffer], int]
"""How many leading bytes of a packet other packets need: none, all, or in AV1 the part before the shown frame."""

_Droppable = Callable[[Buffer], bool]

_START_CODE = b"\0\0\1"
_VOP, _PICTURE = _START_CODE + b"\xb6", _START_CODE + b"\0"
_MPEG4_B, _MPEG2_B = 2, 3
_HEVC_FIRST_NON_SLICE = 32
_HEVC_LAST_SUB_LAYER = 15
_HEVC_SPS = 33
_H264_SETTINGS = frozenset({7, 8, 13, 15})
_HEVC_SETTINGS = frozenset({32, 33, 34})
_MPEG2_SETTINGS = (_START_CODE + b"\xb3", _START_CODE + b"\xb2")


def needed_bytes(codec: str, extradata: Buffer | None) -> NeededBytes | None:
    """How to read the packets of a codec (FFmpeg's name); None where its headers are not understood.

    Packets must be given in the order of the stream: some codecs announce their settings along the way.
    """
    if codec == "av1":
        return Av1Headers(bytes(extradata or b"")).needed_bytes
    make = _TESTS.get(codec)
    droppable = make(bytes(extradata or b"")) if make else None
    return (lambda data: 0 if droppable(data) else len(data)) if droppable else None


def is_idr(data: Buffer, extradata: Buffer | None) -> bool:
    """True when the first slice of an H.264 access unit is of an IDR picture: nothing later reaches back beyond it."""
    for header in nal_headers(data, _h264_length_bytes(bytes(extradata or b""))):
        kind = header[0] & 31
        if kind in (1, 2, 5):
            return kind == 5
    return False


def nal_headers(data: Buffer, length_bytes: int) -> Iterator[Buffer]:
    """Two bytes from the start of each NAL unit; ``length_bytes`` of each length field, 0 for start codes."""
    at, end = 0, len(data)
    if length_bytes:
        while at + length_bytes + 2 <= end:
            length = int.from_bytes(data[at : at + length_bytes], "big")
            at += length_bytes
            yield data[at : at + 2]
            at += length
        return
    whole = bytes(data)
    while (at := whole.find(_START_CODE, at)) >= 0 and at + 5 <= end:
        at += 3
        yield whole[at : at + 2]


def _h264_length_bytes(extradata: bytes) -> int:
    return (extradata[4] & 3) + 1 if len(extradata) > 4 and extradata[0] == 1 else 0


def _h264(extradata: bytes) -> _Droppable:
    length_bytes = _h264_length_bytes(extradata)

    def test(data: Buffer) -> bool:
        found = False
        for header in nal_headers(data, length_bytes):
            kind = header[0] & 31
            if kind in _H264_SETTINGS or (1 <= kind <= 5 and header[0] & 0x60):
                return False
            found = found or 1 <= kind <= 5
        return found

    return test


def _hevc(extradata: bytes) -> _Droppable | None:
    """None without the number of temporal layers: a frame that its own layer does not need may serve a higher one."""
    in_hvcc = len(extradata) > 22 and extradata[0] == 1
    length_bytes = (extradata[21] & 3) + 1 if in_hvcc else 0
    layers = extradata[21] >> 3 & 7 if in_hvcc else _annex_b_layers(extradata)
    if not layers:
        return None

    def test(data: Buffer) -> bool:
        found = False
        for header in nal_headers(data, length_bytes):
            kind, layer = header[0] >> 1 & 63, (header[1] & 7) - 1
            if kind in _HEVC_SETTINGS:
                return False
            if kind < _HEVC_FIRST_NON_SLICE:
                if kind > _HEVC_LAST_SUB_LAYER or kind % 2 or layer != layers - 1:
                    return False
                found = True
        return found

    return test


def _annex_b_layers(extradata: bytes) -> int:
    at = 0
    while (at := extradata.find(_START_CODE, at)) >= 0 and at + 6 <= len(extradata):
        at += 3
        if extradata[at] >> 1 & 63 == _HEVC_SPS:
            return (extradata[at + 2] >> 1 & 7) + 1
    return 0


def _mpeg4(_extradata: bytes) -> _Droppable:
    def test(data: Buffer) -> bool:
        kinds = [data[at] >> 6 for at in islice(_after(bytes(data), _VOP), 2)]
        return kinds == [_MPEG4_B]  # packed streams hold two pictures in one packet

    return test


def _mpeg2(_extradata: bytes) -> _Droppable:
    def test(data: Buffer) -> bool:
        whole = bytes(data)
        if any(code in whole for code in _MPEG2_SETTINGS):
            return False
        found = False
        for at in _after(whole, _PICTURE):
            found = at + 1 < len(whole)
            if found and whole[at + 1] >> 3 & 7 != _MPEG2_B:
                return False
        return found

    return test


def _after(data: bytes, code: bytes) -> Iterator[int]:
    """Positions that follow each occurrence of a start code."""
    at = 0
    while (at := data.find(code, at)) >= 0 and at + len(code) < len(data):
        at += len(code)
        yield at


_TESTS: Mapping[str, Callable[[bytes], _Droppable | None]] = MappingProxyType(
    {"h264": _h264, "hevc": _hevc, "mpeg4": _mpeg4, "mpeg2video": _mpeg2}
)
