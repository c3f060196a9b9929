"""As much of AV1's headers as tells whether a frame is kept as a reference (AV1 specification, 5.5 and 5.9)."""

from __future__ import annotations

from dataclasses import dataclass

_SEQUENCE_HEADER, _FRAME_HEADER, _FRAME = 1, 3, 6
_KEY, _INTER, _INTRA_ONLY, _SWITCH = range(4)
_CONFIG_BYTES = 4
_SELECT = 2
_LAST_LEVEL_WITHOUT_TIER = 7
_HEAD_BYTES = 64
_MOST_SIZE_BYTES = 8
_MOST_UNITS = 1024
"""Of one packet: encoders write a few for each tile."""


class _Bits:
    """Reads bits from the most significant one on; IndexError beyond the end."""

    def __init__(self, data: bytes) -> None:
        self._value = int.from_bytes(data, "big")
        self._left = 8 * len(data)

    def read(self, n: int) -> int:
        self._left -= n
        if self._left < 0:
            raise IndexError
        return self._value >> self._left & ((1 << n) - 1)

    def uvlc(self) -> int:
        zeros = 0
        while not self.read(1):
            zeros += 1
        return (1 << zeros) - 1 + self.read(zeros) if zeros < 32 else (1 << 32) - 1


@dataclass(frozen=True, slots=True)
class _Sequence:
    """The settings that the layout of a frame header depends on. ``screen_content`` and ``integer_mv``: 2 means that
    each frame says."""

    frame_id_bits: int
    screen_content: int
    integer_mv: int
    order_hint_bits: int


class Av1Headers:
    """Follows a stream's sequence headers and judges its temporal units."""

    def __init__(self, extradata: bytes) -> None:
        self._sequence: _Sequence | None = None
        for kind, _, payload in _units(extradata[_CONFIG_BYTES:] if extradata[:1] == b"\x81" else extradata):
            self._take(kind, payload)

    def needed_bytes(self, data: bytes | memoryview) -> int:
        """Leading bytes of a temporal unit that other units need: a unit ends with its one shown frame, and only that
        may refresh no reference slot."""
        leaf_at, before = None, False
        units = _units(data)
        for kind, at, payload in units:
            self._take(kind, payload)
            if kind in (_FRAME_HEADER, _FRAME):
                if leaf_at is not None or self._sequence is None:
                    return len(data)
                if self._keeps(payload):
                    before = True
                else:
                    leaf_at = at
            before = before or kind == _SEQUENCE_HEADER
        if leaf_at is None or len(units) > _MOST_UNITS:
            return len(data)
        return leaf_at if before else 0

    def _take(self, kind: int, payload: bytes) -> None:
        if kind == _SEQUENCE_HEADER:
            try:
                self._sequence = _sequence(_Bits(payload))
            except IndexError:
                self._sequence = None

    def _keeps(self, payload: bytes) -> bool:
        assert self._sequence is not None
        try:
            return _refreshes(_Bits(payload), self._sequence)
        except IndexError:
            return True


def _units(data: bytes | memoryview) -> list[tuple[int, int, bytes]]:
    """Kind, place and first bytes of the payload of the units (OBU) of a packet; of very many, the first."""
    found, at = [], 0
    while at < len(data) and len(found) <= _MOST_UNITS:
        begin, head = at, data[at]
        at += 2 if head & 4 else 1
        size = len(data) - at
        if head & 2:
            size = shift = 0
            while at < len(data) and shift < 7 * _MOST_SIZE_BYTES:
                byte = data[at]
                size |= (byte & 127) << shift
                at, shift = at + 1, shift + 7
                if not byte & 128:
                    break
        found.append((head >> 3 & 15, begin, bytes(data[at : at + min(size, _HEAD_BYTES)])))
        at += size
    return found


def _sequence(bits: _Bits) -> _Sequence | None:
    """None for what is not followed further: still pictures, scalable streams (several operating points) and streams
    with a decoder model, whose frame headers hold more times."""
    bits.read(4)
    if bits.read(1):
        return None
    if bits.read(1) and _timing_has_decoder_model(bits):
        return None
    display_delay = bits.read(1)
    if bits.read(5):
        return None
    bits.read(12)
    if bits.read(5) > _LAST_LEVEL_WITHOUT_TIER:
        bits.read(1)
    if display_delay and bits.read(1):
        bits.read(4)
    width_bits, height_bits = bits.read(4) + 1, bits.read(4) + 1
    bits.read(width_bits + height_bits)
    frame_id_bits = bits.read(4) + 2 + bits.read(3) + 1 if bits.read(1) else 0
    bits.read(7)
    order_hint = bits.read(1)
    bits.read(2 if order_hint else 0)
    screen_content = _SELECT if bits.read(1) else bits.read(1)
    integer_mv = _SELECT
    if screen_content:
        integer_mv = _SELECT if bits.read(1) else bits.read(1)
    return _Sequence(frame_id_bits, screen_content, integer_mv, bits.read(3) + 1 if order_hint else 0)


def _timing_has_decoder_model(bits: _Bits) -> bool:
    bits.read(64)
    if bits.read(1):
        bits.uvlc()
    return bool(bits.read(1))


def _refreshes(bits: _Bits, sequence: _Sequence) -> bool:
    """False only when a frame header is read that is shown and refreshes no slot."""
    existing, kind, shown = bits.read(1), bits.read(2), bits.read(1)
    if existing or not shown or kind in (_KEY, _SWITCH):
        return True
    resilient = bits.read(1)
    bits.read(1)
    tools = bits.read(1) if sequence.screen_content == _SELECT else sequence.screen_content
    if tools and sequence.integer_mv == _SELECT:
        bits.read(1)
    bits.read(sequence.frame_id_bits)
    bits.read(1)
    bits.read(sequence.order_hint_bits)
    if kind != _INTRA_ONLY and not resilient:
        bits.read(3)
    return bool(bits.read(8))
