"""The child: takes tasks from its parent, one at a time, and gives their results one by one as they are asked for."""

from __future__ import annotations

import errno
import faulthandler
import os
import pickle
import resource
import shutil
import signal
import socket
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from curate.errors import CurateError, DecodeLimitError, UnexpectedError
from curate.isolation.confine import confine
from curate.isolation.wire import Answer, receive, send_answer
from curate.memory import peak_memory_bytes, reset_peak_memory
from curate.stage import boundary

CPU_GRACE_S = 1
"""What still computes in a child that nobody waits for, a decoder's thread say, is stopped by the kernel this long
after the task's limit. While the parent waits, its own limit comes first: one thread uses no more CPU than time."""


MOST_FILE_BYTES = 4 << 30
"""What it may write into one file: an exported clip, or what libraries have to say."""


@dataclass(frozen=True, slots=True)
class Request:
    """A task: a pickled (generator function, arguments), and the CPU seconds and the memory it may take (0: any)."""

    task: bytes
    cpu_s: float
    memory_bytes: int


def main(channel: int, lifeline: int, file: int) -> None:
    """Serve until the parent closes the channel."""
    confine([tempfile.gettempdir()])  # first of all: what it denies, it denies to this thread and those that it starts
    faulthandler.enable()
    threading.Thread(target=_die_with_parent, args=(lifeline,), daemon=True).start()
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_FSIZE, MOST_FILE_BYTES)
    with socket.socket(fileno=channel) as sock:
        try:
            while True:
                _serve(sock, file, pickle.loads(receive(sock)))
        except (EOFError, ConnectionError):
            _end()


def _die_with_parent(lifeline: int) -> None:
    """The other end of this pipe closes when the parent ends, however it ends."""
    os.read(lifeline, 1)
    _end()


def _end() -> None:
    """Leave nothing behind; the folder itself only where it may be removed. Returning from `main` would not wait for
    the thread that does the same."""
    shutil.rmtree(tempfile.gettempdir(), ignore_errors=True)
    os.killpg(0, signal.SIGKILL)


def _limit(kind: int, value: int) -> None:
    """Set a soft limit, as far as the hard one allows."""
    _, hard = resource.getrlimit(kind)
    beyond = value == resource.RLIM_INFINITY or (hard != resource.RLIM_INFINITY and value > hard)
    resource.setrlimit(kind, (hard if beyond else value, hard))


def _serve(sock: socket.socket, file: int, request: Request) -> None:
    """Give ("item", value) for each result, then ("end", None) or ("error", error); "stop" for "next" ends it."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _limit(resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime + request.cpu_s + CPU_GRACE_S))
    _limit(resource.RLIMIT_DATA, request.memory_bytes or resource.RLIM_INFINITY)
    reset_peak_memory()
    results: Iterator[Any] = iter(())
    with boundary() as caught:
        task, arguments = pickle.loads(request.task)
        results = iter(task(*arguments))
    while True:
        value: Any = None
        ended = False
        if caught.error is None:
            with boundary() as caught:
                try:
                    value = next(results)
                except StopIteration:
                    ended = True
        kind = "end" if ended else "item"
        if caught.error is not None:
            kind, value = "error", told(caught.error)
        kind = _say(sock, file, (kind, value, peak_memory_bytes()))
        if kind != "item":
            _close(results)
            return
        del value
        if pickle.loads(receive(sock)) != "next":
            _close(results)
            _say(sock, file, ("end", None, peak_memory_bytes()))
            return


def _say(sock: socket.socket, file: int, answer: Answer) -> str:
    """Send an answer, or why it cannot be sent; gives the kind of what was sent."""
    try:
        send_answer(sock, answer, file)
    except (TypeError, MemoryError) as error:
        send_answer(sock, ("error", told(error), peak_memory_bytes()), file)
        return "error"
    return answer[0]


def _close(results: Iterator[Any]) -> None:
    close: Callable[[], None] | None = getattr(results, "close", None)
    if close is not None:
        with boundary():  # nobody waits for this task's results any more
            close()


def told(error: Exception) -> Exception:
    """An error as the parent can be told of it: ours and the system's as they are, others by class and message.

    Running out of memory is a limit that was passed, and running out of room no fault of a file. The traceback goes
    along as a note.
    """
    trace = "".join(traceback.format_exception(error))
    room = _no_room(error)
    if room is not None:
        found: Exception = room
    elif isinstance(error, CurateError) and type(error).__module__ == CurateError.__module__:
        found = type(error)(error.message, subject=error.subject, fix=error.fix)
    elif isinstance(error, MemoryError) or "Insufficient memory" in str(error):
        found = DecodeLimitError("needs more memory than decoding may take")
    elif isinstance(error, OSError) and error.errno in errno.errorcode:
        found = OSError(error.errno, error.strerror)
    else:
        found = UnexpectedError(str(error) or "failed", subject=type(error).__name__)
    found.add_note(f"In the decoding process:\n{trace}")
    return found


def _no_room(error: BaseException) -> OSError | None:
    """The full disk that lies behind an error."""
    here: BaseException | None = error
    while here is not None:
        if isinstance(here, OSError) and here.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            return OSError(here.errno, os.strerror(here.errno))
        here = here.__cause__
    return None
