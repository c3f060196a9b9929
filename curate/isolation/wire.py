"""What parent and child say to each other: pickles in frames, large arrays beside them in a sealed memory file.

The parent's word is trusted by the child. The child's word is not: a decoder that a file took over may write what it
likes. So the parent reads it with an unpickler that knows only plain values, arrays and a few records of ours, and
maps the child's memory file privately, after checking that the child can neither shrink nor change it any more.
"""

from __future__ import annotations

import fcntl
import io
import mmap
import os
import pickle
import socket
import struct
import tempfile
import time
from collections.abc import Sequence
from dataclasses import is_dataclass
from enum import Enum
from itertools import pairwise
from typing import Any

import numpy as np

from curate.errors import CurateError, EngineError

_HEAD = struct.Struct("!QQ")
"""Bytes of the pickle, bytes of the memory file (0: there is none)."""

_LENGTHS = struct.Struct("!Q")
_PART = 1 << 20
MOST_BYTES = 8 << 30
"""A longer message is nonsense."""

_RECORDS = frozenset(
    {"curate.records", "curate.stage", "curate.errors", "curate.media.encode", "curate.media.playback"}
)
_VALUES = {
    ("fractions", "Fraction"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy._core.numeric", "_frombuffer"),
    ("numpy._core.multiarray", "_reconstruct"),
}
_VALUES |= {("builtins", cls.__name__) for cls in (OSError, *OSError.__subclasses__()) if cls.__module__ == "builtins"}
_VALUES |= {("builtins", cls.__name__) for cls in ConnectionError.__subclasses__() if cls.__module__ == "builtins"}
_SEALS = ("F_SEAL_SHRINK", "F_SEAL_GROW", "F_SEAL_WRITE", "F_SEAL_SEAL")


class ProtocolError(EngineError):
    """The other side said something that is not in the protocol."""


def send(sock: socket.socket, value: Any) -> None:
    """Send one value; arrays travel in a memory file, copied once, or in the message where none may be written."""
    buffers: list[pickle.PickleBuffer] = []
    data = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    views = [buffer.raw() for buffer in buffers]
    total_bytes = sum(view.nbytes for view in views)
    try:
        handle = _memory_file(views) if total_bytes else None
    except OSError:  # a limit on the size of files holds for these too
        handle, views, total_bytes = None, [], 0
        data = pickle.dumps(value, protocol=5)
    sizes = b"".join(_LENGTHS.pack(view.nbytes) for view in views)
    body = [_LENGTHS.pack(len(views)), sizes, data]
    head = _HEAD.pack(sum(map(len, body)), total_bytes)
    if handle is None:
        sock.sendall(head)
    else:
        try:
            socket.send_fds(sock, [head], [handle])
        finally:
            os.close(handle)
    for part in body:
        sock.sendall(part)


def receive(sock: socket.socket, *, trusted: bool, within_s: float | None = None) -> Any:
    """The next value. EOFError when the other side is gone, TimeoutError after ``within_s`` seconds, ProtocolError."""
    clock = _Deadline(sock, within_s)
    head, handles = _head(sock, clock)
    try:
        n_bytes, n_file_bytes = _HEAD.unpack(head)
        if n_bytes > MOST_BYTES or n_file_bytes > MOST_BYTES or len(handles) != (n_file_bytes > 0):
            raise ProtocolError("a message claims an impossible size")
        body = memoryview(_exactly(sock, n_bytes, clock))
        memory = _mapped(handles[0], n_file_bytes, sealed=not trusted) if handles else None
    finally:
        for handle in handles:
            os.close(handle)
    try:
        n_buffers = _LENGTHS.unpack_from(body)[0]
        sizes = [size for (size,) in _LENGTHS.iter_unpack(body[8 : 8 + 8 * n_buffers])]
        buffers = _cut_up(memory, sizes)
        return _Reader(io.BytesIO(body[8 + 8 * n_buffers :]), buffers, trusted=trusted).load()
    except (struct.error, pickle.UnpicklingError, ValueError, TypeError, AttributeError, IndexError, KeyError) as error:
        raise ProtocolError(f"a message cannot be read: {error}") from error


class _Reader(pickle.Unpickler):
    """Unpickles a child's word: plain values, arrays, records and errors of ours, nothing that does anything."""

    def __init__(self, file: io.BytesIO, buffers: Sequence[memoryview], *, trusted: bool) -> None:
        super().__init__(file, buffers=buffers)
        self._trusted = trusted

    def find_class(self, module: str, name: str) -> Any:
        if self._trusted or (module, name) in _VALUES:
            return super().find_class(module, name)
        if module in _RECORDS and "." not in name:
            found = super().find_class(module, name)
            if is_dataclass(found) or (isinstance(found, type) and issubclass(found, (CurateError, Enum))):
                return found
            if (module, name) == ("curate.errors", "_rebuild"):
                return found
        raise ProtocolError(f"a message holds {module}.{name}")


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


def _head(sock: socket.socket, clock: _Deadline) -> tuple[bytes, list[int]]:
    clock.set()
    data, handles, _, _ = socket.recv_fds(sock, _HEAD.size, 1)
    try:
        if not data:
            raise EOFError
        return data + _exactly(sock, _HEAD.size - len(data), clock), handles
    except (OSError, EOFError):
        for handle in handles:
            os.close(handle)
        raise


def _exactly(sock: socket.socket, n_bytes: int, clock: _Deadline) -> bytes:
    found = bytearray()
    while len(found) < n_bytes:
        clock.set()
        part = sock.recv(min(_PART, n_bytes - len(found)))
        if not part:
            raise EOFError
        found += part
    return bytes(found)


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


def _mapped(handle: int, n_bytes: int, *, sealed: bool) -> mmap.mmap:
    """The memory file as private memory of this process."""
    if os.fstat(handle).st_size < n_bytes:
        raise ProtocolError("a message's memory is smaller than it says")
    if sealed and hasattr(os, "memfd_create"):
        wanted = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_WRITE
        if fcntl.fcntl(handle, fcntl.F_GET_SEALS) & wanted != wanted:
            raise ProtocolError("a message's memory is not sealed")
    return mmap.mmap(handle, n_bytes, access=mmap.ACCESS_COPY)


def _cut_up(memory: mmap.mmap | None, sizes: Sequence[int]) -> list[memoryview]:
    whole = memoryview(memory) if memory is not None else memoryview(b"")
    ends = np.cumsum([0, *sizes], dtype=np.uint64).tolist()
    if ends[-1] != whole.nbytes:
        raise ProtocolError("a message's parts do not add up")
    return [whole[begin:end] for begin, end in pairwise(ends)]
