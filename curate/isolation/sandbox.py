"""The parent's side of the killable child."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from curate.errors import CurateError, DecodeLimitError, DecoderCrashError, InputError
from curate.isolation.child import Request
from curate.isolation.wire import ProtocolError, memory_file, receive_answer, send
from curate.memory import peak_memory_bytes

T = TypeVar("T")

KEPT_VARIABLES = (
    "PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PYTHONDONTWRITEBYTECODE", "VIRTUAL_ENV",
    "HOME", "CURATE_MODELS", "CURATE_CARDS",
)  # fmt: skip
"""What the child sees of the environment: no credentials. The last three say where cards and model files lie."""

END_S = 5.0
"""How long a child that should end a task may take before it is killed."""

RECYCLE_SHARE = 0.5
"""A child whose memory peaked above this share of its limit is replaced after the task."""

_STDERR_TAIL_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Limits:
    """What decoding may take. ``memory_bytes`` is private memory of the child beyond nothing; 0 for no limit.

    ``least_s`` is the shortest wall-clock limit of a task; a source's own limit grows with its pixels
    (``s_per_megapixel`` for every million pixels of all its frames, ``most_s`` at most, for a few bytes can claim many
    pixels) and with its bytes (``bytes_per_s``).
    """

    memory_bytes: int = 4_000_000_000
    least_s: float = 60.0
    s_per_megapixel: float = 0.05
    bytes_per_s: float = 10e6
    most_s: float = 12 * 3600.0

    def read_s(self, size_bytes: int) -> float:
        """Seconds that reading all packets of a file may take."""
        return max(self.least_s, size_bytes / self.bytes_per_s)

    def decode_s(self, n_frames: int, frame_px: int, size_bytes: int) -> float:
        """Seconds that decoding so many frames of so many pixels may take: the frames were counted, not claimed."""
        decode_s = n_frames * frame_px / 1e6 * self.s_per_megapixel
        return max(self.read_s(size_bytes), min(decode_s, self.most_s))


class Sandbox:
    """One persistent child process, started when it is first needed and again after it died. Not thread-safe.

    The child has its own session, no terminal and none of this process's open files; it is killed with its group.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self._child: _Child | None = None
        self._cpu_s = 0.0

    def start(self) -> None:
        """Start the child if there is none; does not wait for it. One that died since its last task is replaced: the
        next task is not to blame."""
        if self._child is not None and not self._child.in_task and self._child.is_gone():
            self._drop()
        if self._child is None:
            self._child = _spare() or _Child()
            self._cpu_s -= self._child.cpu_s()

    def cpu_s(self) -> float:
        """CPU seconds that the children took for this sandbox, as far as the system tells."""
        return self._cpu_s + (self._child.cpu_s() if self._child is not None else 0.0)

    def call(self, function: Callable[..., T], *args: Any, limit_s: float) -> T:
        """What a module-level function returns there."""
        with contextlib.closing(self.run(_once, function, args, limit_s=limit_s)) as results:
            return next(results)

    def run(self, task: Callable[..., Iterator[T]], *args: Any, limit_s: float) -> Generator[T, None, None]:
        """Results of a module-level generator function that runs in the child, each computed when it is asked for.

        ``limit_s`` is the wall-clock time that all results together may take; time between them does not count.
        Raises what the task raises (other errors than ours as UnexpectedError), DecoderCrashError when the child dies,
        DecodeLimitError when it takes too long or too much memory; then the next task gets a new child.
        """
        self.start()
        child = self._child
        assert child is not None
        ended = False
        left_s = limit_s
        try:
            began = time.monotonic()
            child.ask(Request(pickle.dumps((task, args)), limit_s, self.limits.memory_bytes), limit_s)
            while True:
                kind, value, peak_bytes = child.answer(left_s, limit_s)
                left_s -= time.monotonic() - began
                child.peak_bytes = peak_bytes
                if kind != "item":
                    ended = True
                    break
                yield value
                del value
                began = time.monotonic()
                child.say("next", END_S)
            if kind == "error":
                raise _with_peak(value, peak_bytes)
        except (DecoderCrashError, DecodeLimitError) as error:
            if not ended:
                self._drop()
            raise _with_peak(error, child.peak_bytes) from error.__cause__
        finally:
            if self._child is not None and not (ended or child.ends_task()):
                self._drop()
            if self._child is not None and self._is_bloated(child):
                self._drop()

    def _is_bloated(self, child: _Child) -> bool:
        limit_bytes = self.limits.memory_bytes
        return bool(limit_bytes) and child.peak_bytes > RECYCLE_SHARE * limit_bytes

    def _drop(self) -> None:
        self._cpu_s = self.cpu_s()
        child, self._child = self._child, None
        if child is not None:
            child.kill()

    def close(self) -> None:
        """Let go of the child: the next sandbox of this process may take it, and else it ends with the process."""
        self._cpu_s = self.cpu_s()
        child, self._child = self._child, None
        if child is not None:
            _keep(child)

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_SPARES: list[tuple[int, _Child]] = []
"""At most one idle child, with the process that it belongs to (a fork of it has none). To start one takes as long as
decoding a minute of small video; an export after a run, and each of its shards, would start another."""


def _spare() -> _Child | None:
    """The idle child, if there is one that is alive and was started as one would be started now."""
    with contextlib.suppress(IndexError):
        owner, child = _SPARES.pop()
        if owner != os.getpid():
            return None
        if child.is_like_new():
            return child
        child.kill()
    return None


def _keep(child: _Child) -> None:
    if _SPARES or child.in_task:
        child.kill()
    else:
        _SPARES.append((os.getpid(), child))


def end_spare() -> None:
    """End the idle child, if there is one."""
    with contextlib.suppress(IndexError):
        owner, child = _SPARES.pop()
        if owner == os.getpid():
            child.kill()


def _once(function: Callable[..., Any], args: tuple[Any, ...]) -> Iterator[Any]:
    yield function(*args)


def _with_peak(error: Exception, peak_bytes: int) -> Exception:
    if isinstance(error, CurateError):
        error.peak_memory_bytes = peak_bytes
    return error


def _is_dying(pid: int) -> bool:
    """Whether its first thread has ended: until the others have too, the system says that it runs."""
    with contextlib.suppress(OSError):
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
        return stat.rpartition(")")[2].split()[0] in {"Z", "X"}
    return False


class _Child:
    """The process, its channel, its memory file, what it writes to stderr, and the one folder in which it may write."""

    def __init__(self) -> None:
        self.peak_bytes = 0
        self.busy = False
        self.in_task = False
        self._environment = _environment()
        self._whereabouts = _whereabouts()
        self._folder = tempfile.TemporaryDirectory(prefix="curate-decoding-")
        self._stderr = tempfile.TemporaryFile(mode="ab+", buffering=0)  # noqa: SIM115 - lives as long as the child
        ours, theirs = socket.socketpair()
        end, self._lifeline = os.pipe()
        self._sock = ours
        self._file = memory_file()
        with theirs:
            handles = (theirs.fileno(), end, self._file)
            command = [sys.executable, "-P", "-m", "curate.isolation"]
            command += [str(handle) for handle in handles]
            try:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=self._stderr,
                    env={**self._environment, "TMPDIR": self._folder.name},
                    pass_fds=handles,
                    start_new_session=True,
                )
            finally:
                os.close(end)

    def cpu_s(self) -> float:
        """CPU seconds that it took since it was started; 0 where the system does not tell."""
        with contextlib.suppress(OSError, ValueError, IndexError):
            stat = Path(f"/proc/{self._process.pid}/stat").read_text(encoding="ascii", errors="replace")
            user, system = stat.rpartition(")")[2].split()[11:13]
            return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
        return 0.0

    def is_gone(self) -> bool:
        """Whether it has ended, or is ending."""
        return self._process.poll() is not None or _is_dying(self._process.pid)

    def is_like_new(self) -> bool:
        """Whether it is alive, and a child started now would see the same environment and work in the same folder."""
        is_same = self._environment == _environment() and self._whereabouts == _whereabouts()
        return is_same and not self.is_gone()

    def ask(self, request: Request, limit_s: float) -> None:
        """Give it a task; it may still be starting."""
        self.in_task = True
        self._stderr.truncate(0)
        self.say(request, limit_s)

    def say(self, value: Any, within_s: float) -> None:
        """Send it something. DecoderCrashError, DecodeLimitError."""
        try:
            self._sock.settimeout(within_s)
            send(self._sock, value)
        except TimeoutError as error:
            raise _too_slow(within_s) from error
        except OSError as error:
            raise self._crash() from error

    def answer(self, left_s: float, limit_s: float) -> tuple[str, Any, int]:
        """Its next message. DecoderCrashError, DecodeLimitError."""
        self.busy = True
        try:
            kind, value, peak_bytes = receive_answer(self._sock, self._file, within_s=max(left_s, 0.0))
        except TimeoutError as error:
            raise _too_slow(limit_s) from error
        except (EOFError, ConnectionError) as error:
            raise self._crash() from error
        except ProtocolError as error:
            raise DecoderCrashError(f"the decoding process spoke nonsense ({error.message})") from error
        if kind not in {"item", "end", "error"} or (kind == "error" and not isinstance(value, Exception)):
            raise DecoderCrashError(f"the decoding process spoke nonsense ({kind!r})")
        self.busy, self.in_task = False, kind == "item"
        return kind, value, peak_bytes

    def ends_task(self) -> bool:
        """Ask it, when it waits to be asked for the next result, to give up its task; whether it did."""
        if self.busy:
            return False
        try:
            self.say("stop", END_S)
            return self.answer(END_S, END_S)[0] == "end"
        except InputError:
            return False

    def _crash(self) -> InputError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(END_S)  # its channel is closed: it is ending, and how is worth knowing
        self.kill()
        code = self._process.returncode
        if code == -signal.SIGXCPU:
            return DecodeLimitError("took more CPU time than decoding may take", fix=_FIX)
        self._stderr.seek(max(0, self._stderr.seek(0, os.SEEK_END) - _STDERR_TAIL_BYTES))
        error = DecoderCrashError(f"the decoding process died ({_how(code)})", fix=_FIX)
        if tail := self._stderr.read().decode(errors="replace").strip():
            error.add_note(f"Its last words:\n{tail}")
        return error

    def kill(self) -> None:
        """Kill it with its group, and wait until it is gone."""
        if self._lifeline < 0:
            return
        self.peak_bytes = peak_memory_bytes(self._process.pid) or self.peak_bytes
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._sock.close()
        os.close(self._file)
        os.close(self._lifeline)
        self._lifeline = -1
        self._folder.cleanup()


_FIX = "Look at the file alone, or leave it out of the sources"


def _too_slow(limit_s: float) -> DecodeLimitError:
    return DecodeLimitError(f"took more than the {limit_s:.0f} s that decoding it may take", fix=_FIX)


def _how(code: int | None) -> str:
    if code is None or code >= 0:
        return f"exit status {code}"
    with contextlib.suppress(ValueError):
        return signal.Signals(-code).name
    return f"signal {-code}"


def _whereabouts() -> tuple[int, int]:
    """The working folder, by which a child resolves relative paths. Its name would not tell that another folder has
    taken the place of one that was removed."""
    status = Path().stat()
    return status.st_dev, status.st_ino


def _environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
    path = os.pathsep.join(entry for entry in sys.path if entry)
    return {**kept, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
