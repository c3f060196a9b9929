"""What parent and child say to each other.

The parent's word is trusted by the child: a pickle. The child's word is not: a decoder that a file took over may write
what it likes. So it is text and buffers that can only mean plain values (`plain`). Many bytes of buffers travel in a
memory file that the parent made and both keep, so that its pages are there from the second message on: the parent
copies them before it looks at them. Few bytes, and all where no file may be written, travel behind the text.
"""

from __future__ import annotations

import os
import pickle
import socket
import struct
import tempfile
import time
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from curate.isolation.plain import MOST_TEXT_BYTES, ProtocolError, decode, encode

__all__ = ["Answer", "ProtocolError", "memory_file", "receive", "receive_answer", "send", "send_answer"]

_HEAD = struct.Struct("!QQ?")
"""Bytes of the text or pickle, bytes of the buffers, and whether these are in the memory file, not behind the text."""

_PART = 1 << 20
MOST_BYTES: Final = 8 << 30
"""A longer message is nonsense."""

_LEAST_FILE_BYTES: Final = 1 << 16
"""Fewer bytes are not worth the way through a file."""

_MOST_KEPT_BYTES: Final = 64 << 20
"""A memory file that had to hold more is emptied when it was read: views of long clips in full size."""

Answer = tuple[str, Any, int]
"""Kind, value, and the peak memory of the child in bytes."""


def send(sock: socket.socket, value: Any) -> None:
    """Send what the receiver trusts: any value that can be pickled."""
    data = pickle.dumps(value, protocol=5)
    sock.sendall(_HEAD.pack(len(data), 0, False) + data)


def receive(sock: socket.socket) -> memoryview:
    """The next pickle that `send` sent: for a receiver that trusts it. EOFError when the other side is gone."""
    clock = _Deadline(sock, None)
    n_bytes, _, _ = _HEAD.unpack(_exactly(sock, _HEAD.size, clock))
    return _exactly(sock, n_bytes, clock)


def memory_file() -> int:
    """A handle of an empty file without a name, which goes with its last handle."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("curate-views", os.MFD_CLOEXEC)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def send_answer(sock: socket.socket, answer: Answer, file: int) -> None:
    """Send plain values, arrays, records and errors of ours. TypeError before anything is sent, for anything else.

    ``file`` is the memory file of this receiver, which must have taken the answer before the next is sent.
    """
    text, buffers = encode(answer)
    n_bytes = sum(view.nbytes for view in buffers)
    if n_bytes > MOST_BYTES:
        raise TypeError(f"too much for a message: {n_bytes} bytes of arrays")
    in_file = n_bytes >= _LEAST_FILE_BYTES and _written(file, buffers)
    head = _HEAD.pack(len(text), n_bytes, in_file)
    sock.sendall(b"".join((head, text, *(() if in_file else buffers))))


def receive_answer(sock: socket.socket, file: int, *, within_s: float) -> Answer:
    """The next answer of a sender that is not trusted.

    EOFError when the other side is gone, TimeoutError after ``within_s`` seconds, ProtocolError for all that is no
    answer. Arrays are the receiver's own.
    """
    clock = _Deadline(sock, within_s)
    n_text, n_bytes, in_file = _HEAD.unpack(_exactly(sock, _HEAD.size, clock))
    if n_text > MOST_TEXT_BYTES or n_bytes > MOST_BYTES:
        raise ProtocolError("a message claims an impossible size")
    text = _exactly(sock, n_text, clock)
    buffers = _read(file, n_bytes) if in_file else _exactly(sock, n_bytes, clock)
    match decode(text, buffers):
        case (str(kind), value, int(peak_bytes)) as found if type(found) is tuple and peak_bytes >= 0:
            return kind, value, peak_bytes
    raise ProtocolError("a message is no answer")


class _Deadline:
    """Sets a socket's time limit so that all its calls together end in time."""

    def __init__(self, sock: socket.socket, within_s: float | None) -> None:
        self._sock = sock
        self._end_s = None if within_s is None else time.monotonic() + within_s

    def set(self) -> None:
        if self._end_s is None:
            self._sock.settimeout(None)
            return
        left_s = self._end_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        self._sock.settimeout(left_s)


def _exactly(sock: socket.socket, n_bytes: int, clock: _Deadline) -> memoryview:
    """So many bytes, as memory of this process. A claim costs nothing before its bytes have come."""
    found = rest = _room(n_bytes)
    while rest.nbytes:
        clock.set()
        n_read = sock.recv_into(rest, min(_PART, rest.nbytes))
        if not n_read:
            raise EOFError
        rest = rest[n_read:]
    return found


def _room(n_bytes: int) -> memoryview:
    try:
        return np.empty(n_bytes, np.uint8).data
    except MemoryError as error:
        raise ProtocolError("a message claims more than there is memory for") from error


def _written(file: int, views: Sequence[memoryview]) -> bool:
    """Put bytes into the memory file; False where that is refused: a limit on the size of files holds for it too."""
    at = 0
    try:
        for view in views:
            rest = view
            while rest.nbytes:
                n_written = os.pwrite(file, rest, at)
                at += n_written
                rest = rest[n_written:]
    except OSError:
        return False
    return True


def _read(file: int, n_bytes: int) -> memoryview:
    """So many bytes of the memory file, as memory of this process: what is written there later changes nothing."""
    if n_bytes > os.fstat(file).st_size:
        raise ProtocolError("a message's memory is smaller than it says")
    found = rest = _room(n_bytes)
    while rest.nbytes:
        n_read = os.preadv(file, [rest], n_bytes - rest.nbytes)
        if not n_read:
            raise ProtocolError("a message's memory is smaller than it says")
        rest = rest[n_read:]
    if n_bytes > _MOST_KEPT_BYTES:
        os.truncate(file, 0)
    return found
