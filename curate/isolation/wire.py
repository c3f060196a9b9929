"""What parent and child say to each other.

The parent's word is trusted by the child: a pickle. The child's word is not: a decoder that a file took over may write
what it likes. So it is text and buffers that can only mean plain values (`plain`). Buffers travel in a memory file,
which the parent maps privately, after checking that the child can neither shrink nor change it any more; few bytes,
and all where no file may be written, travel behind the text.
"""

from __future__ import annotations

import fcntl
import mmap
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

__all__ = ["Answer", "ProtocolError", "receive", "receive_answer", "send", "send_answer"]

_HEAD = struct.Struct("!QQ")
"""Bytes of the text or pickle, bytes of the buffers: in the memory file where one comes along, else after the text."""

_PART = 1 << 20
MOST_BYTES: Final = 8 << 30
"""A longer message is nonsense."""

_LEAST_FILE_BYTES: Final = 1 << 16
"""Fewer bytes are not worth a memory file."""

_SEALS = ("F_SEAL_SHRINK", "F_SEAL_GROW", "F_SEAL_WRITE", "F_SEAL_SEAL")

Answer = tuple[str, Any, int]
"""Kind, value, and the peak memory of the child in bytes."""


def send(sock: socket.socket, value: Any) -> None:
    """Send what the receiver trusts: any value that can be pickled."""
    data = pickle.dumps(value, protocol=5)
    sock.sendall(_HEAD.pack(len(data), 0))
    sock.sendall(data)


def receive(sock: socket.socket) -> memoryview:
    """The next pickle that `send` sent: for a receiver that trusts it. EOFError when the other side is gone."""
    clock = _Deadline(sock, None)
    n_bytes, _ = _HEAD.unpack(_exactly(sock, _HEAD.size, clock))
    return _exactly(sock, n_bytes, clock)


def send_answer(sock: socket.socket, answer: Answer) -> None:
    """Send plain values, arrays, records and errors of ours. TypeError before anything is sent, for anything else."""
    text, buffers = encode(answer)
    n_bytes = sum(view.nbytes for view in buffers)
    if n_bytes > MOST_BYTES:
        raise TypeError(f"too much for a message: {n_bytes} bytes of arrays")
    try:
        handle = _memory_file(buffers) if n_bytes >= _LEAST_FILE_BYTES else None
    except OSError:  # a limit on the size of files holds for these too
        handle = None
    head = _HEAD.pack(len(text), n_bytes)
    if handle is None:
        sock.sendall(head)
    else:
        try:
            socket.send_fds(sock, [head], [handle])
        finally:
            os.close(handle)
    for part in (text, *(buffers if handle is None else ())):
        sock.sendall(part)


def receive_answer(sock: socket.socket, *, within_s: float) -> Answer:
    """The next answer of a sender that is not trusted.

    EOFError when the other side is gone, TimeoutError after ``within_s`` seconds, ProtocolError for all that is no
    answer. Arrays are the receiver's own.
    """
    clock = _Deadline(sock, within_s)
    head, handles = _head(sock, clock)
    try:
        n_text, n_bytes = _HEAD.unpack(head)
        if n_text > MOST_TEXT_BYTES or n_bytes > MOST_BYTES:
            raise ProtocolError("a message claims an impossible size")
        text = _exactly(sock, n_text, clock)
        buffers = _mapped(handles[0], n_bytes) if handles else _exactly(sock, n_bytes, clock)
    finally:
        for handle in handles:
            os.close(handle)
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


def _head(sock: socket.socket, clock: _Deadline) -> tuple[memoryview, list[int]]:
    clock.set()
    data, handles, _, _ = socket.recv_fds(sock, _HEAD.size, 1)
    try:
        if not data:
            raise EOFError
        return memoryview(data + bytes(_exactly(sock, _HEAD.size - len(data), clock))), handles
    except (OSError, EOFError):
        for handle in handles:
            os.close(handle)
        raise


def _exactly(sock: socket.socket, n_bytes: int, clock: _Deadline) -> memoryview:
    """So many bytes, as memory of this process. A claim costs nothing before its bytes have come."""
    try:
        found = np.empty(n_bytes, np.uint8).data
    except MemoryError as error:
        raise ProtocolError("a message claims more than there is memory for") from error
    rest = found
    while rest.nbytes:
        clock.set()
        n_read = sock.recv_into(rest, min(_PART, rest.nbytes))
        if not n_read:
            raise EOFError
        rest = rest[n_read:]
    return found


def _memory_file(views: Sequence[memoryview]) -> int:
    """A file without a name that holds the bytes; sealed where the system can, and gone with its last handle."""
    if not hasattr(os, "memfd_create"):
        with tempfile.TemporaryFile() as file:
            for view in views:
                file.write(view)
            file.flush()
            return os.dup(file.fileno())
    handle = os.memfd_create("curate-views", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        for view in views:
            rest = view
            while rest.nbytes:
                rest = rest[os.write(handle, rest) :]
        for seal in _SEALS:
            fcntl.fcntl(handle, fcntl.F_ADD_SEALS, getattr(fcntl, seal))
    except OSError:
        os.close(handle)
        raise
    return handle


def _mapped(handle: int, n_bytes: int) -> memoryview:
    """The memory file as private memory of this process."""
    try:
        if not 0 < n_bytes <= os.fstat(handle).st_size:
            raise ProtocolError("a message's memory is smaller than it says")
        if hasattr(os, "memfd_create"):
            wanted = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_WRITE
            if fcntl.fcntl(handle, fcntl.F_GET_SEALS) & wanted != wanted:
                raise ProtocolError("a message's memory is not sealed")
        return memoryview(mmap.mmap(handle, n_bytes, access=mmap.ACCESS_COPY))
    except OSError as error:  # no file that can be sealed, or none that can be mapped
        raise ProtocolError(f"a message's memory cannot be read: {error.strerror}") from error
