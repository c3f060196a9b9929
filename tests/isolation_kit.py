"""Tasks for the decoding process, and what it is to withstand."""

import ctypes
import os
import pickle
import signal
import socket
import struct
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from curate.errors import DecodeError


def process_id():
    return os.getpid()


def environment():
    return dict(os.environ)


def open_files():
    return len(list(Path("/proc/self/fd").iterdir()))


def arrays(n, shape):
    """Arrays that hold their number."""
    for i in range(n):
        yield {"number": i, "pixels": np.full(shape, i % 251, np.uint8), "text": "a" * i}


def endless():
    """Numbers for ever; says where it stands by its process id."""
    number = 0
    while True:
        yield number, os.getpid()
        number += 1


MADE = []


def note_each():
    """Numbers for ever, each noted when it is made."""
    number = 0
    while True:
        MADE.append(number)
        yield number
        number += 1


def made():
    return MADE


def spin():
    """Works for ever without a result."""
    while True:
        pass
    yield


def leave_a_thread_spinning():
    """Ends while a thread of it goes on for ever."""
    threading.Thread(target=lambda: next(spin()), daemon=True).start()


def sleep_for_ever():
    signal.pause()
    yield


def eat_memory():
    """Takes memory until there is none."""
    held = []
    while True:
        held.append(np.ones(64 << 20, np.uint8))
    yield


def crash_after(n):
    """Some results, then a segmentation fault."""
    yield from range(n)
    ctypes.string_at(0)


def leave(status):
    """Ends the process in the middle of a task."""
    yield 1
    sys.stderr.write("this is why\n")
    sys.stderr.flush()
    os._exit(status)


def fork():
    """Tries to leave a process behind."""
    if os.fork() == 0:
        while True:
            time.sleep(0.01)


def write_to(path):
    Path(path).write_text("here")
    return Path(path).read_text()


def temporary_folder():
    return tempfile.gettempdir()


def leave_files(n):
    """Writes into the temporary folder, and gives it."""
    for number in range(n):
        Path(tempfile.gettempdir(), str(number)).touch()
    return tempfile.gettempdir()


def talk_to(port):
    with socket.create_connection(("127.0.0.1", port)):
        return "connected"


def fail(error):
    yield 1
    raise error


def fail_as(module, name):
    """Raises an error by its class."""
    raise getattr(__import__(module), name)("bad news")


def broken_file():
    raise DecodeError("cannot be decoded", subject="a.mp4", fix="Replace it")


class Attack:
    """Runs a command when it is unpickled by a careless reader."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def attack(path):
    """Writes to the parent itself, past all that would refuse to."""
    data = pickle.dumps(("item", Attack(path), 0))
    os.write(int(sys.argv[1]), struct.pack("!QQ?", len(data), 0, False) + data)
    yield


def strange_value():
    yield 1
    yield Attack("")


def shout(n_bytes):
    """Writes a lot where nobody reads."""
    os.write(1, b"x" * n_bytes)
    os.write(2, b"y" * n_bytes)
    return "done"
