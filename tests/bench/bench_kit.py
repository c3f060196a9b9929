"""Wall and CPU seconds of a command with everything it starts, and Markdown tables. Linux only.

CPU: this process becomes the reaper of orphans (PR_SET_CHILD_SUBREAPER), so that whatever the command starts, daemons
included, stays among our descendants. Ten times a second user + system time of each is read from /proc/PID/stat; its
last reading counts. A process that ends between two readings loses at most the time since the last one, so for a
command that waits for its children the kernel's own sum (RUSAGE_CHILDREN) is larger and is taken instead.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import platform
import resource
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

CURATE = (sys.executable, "-m", "curate.cli.main")
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
POLL_S = 0.1
_PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True)
class Spent:
    """What a command cost."""

    wall_s: float
    cpu_s: float


def timed(command: Sequence[str], *, env: Mapping[str, str] | None = None, log: Path | None = None) -> Spent:
    """Run a command to its end. Its output goes to ``log``; CalledProcessError when it fails."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    before = _reaped_s()
    began = time.perf_counter()
    process = subprocess.Popen(
        command, env={**os.environ, **(env or {})}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    watch = _CpuWatch()
    output, _ = process.communicate()
    wall_s = time.perf_counter() - began
    polled_s = watch.stop()
    _reap_orphans()
    if log is not None:
        log.write_bytes(output)
    if process.returncode:
        print(output.decode(errors="replace")[-4000:], file=sys.stderr)
        raise subprocess.CalledProcessError(process.returncode, command)
    return Spent(wall_s, max(polled_s, _reaped_s() - before))


def stage_seconds(corpus: Path) -> float:
    """Sum of ``seconds`` over all cells of a corpus."""
    parts = sorted((corpus / "tables" / "cells").rglob("part-*.parquet"))
    return sum(sum(pq.read_table(part, columns=["seconds"])["seconds"].to_pylist()) for part in parts)


def probed_s(corpus: Path) -> tuple[int, float, int]:
    """Sources, seconds of video and clips of a corpus."""
    cells = corpus / "tables" / "cells"
    probes = [pq.read_table(part, columns=["duration_s"]) for part in sorted((cells / "probe").rglob("part-*.parquet"))]
    durations = [value for table in probes for value in table["duration_s"].to_pylist() if value is not None]
    clips = sum(pq.read_metadata(part).num_rows for part in (corpus / "tables" / "clips").rglob("part-*.parquet"))
    return len(durations), sum(durations), clips


def middle(values: Sequence[float], digits: int = 1) -> str:
    """Median with the range behind it."""
    low, high = min(values), max(values)
    text = f"{statistics.median(values):.{digits}f}"
    return text if len(values) == 1 else f"{text} ({low:.{digits}f}-{high:.{digits}f})"


def markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def machine() -> str:
    """One line about this machine. Without cached bytecode every process compiles every module it imports anew."""
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    parts = [
        f"{len(os.sched_getaffinity(0))} cores",
        f"{memory_gib:.0f} GiB",
        f"Python {platform.python_version()}",
        f"bytecode {'cached' if _has_bytecode() else 'NOT cached'}",
        f"load {os.getloadavg()[0]:.1f}",
    ]
    return ", ".join(parts)


def _has_bytecode() -> bool:
    found = importlib.util.find_spec("torch")
    return bool(found and found.origin and Path(importlib.util.cache_from_source(found.origin)).exists())


class _CpuWatch:
    """Last CPU reading of every descendant of this process, by (pid, start time)."""

    def __init__(self) -> None:
        self._seen: dict[tuple[int, int], int] = {}
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._loop, daemon=True)
        self._thread.start()

    def stop(self) -> float:
        """Seconds of CPU seen since the start."""
        self._done.set()
        self._thread.join()
        return sum(self._seen.values()) / TICKS_PER_S

    def _loop(self) -> None:
        while not self._done.wait(POLL_S):
            self._seen.update(_descendants())


def _descendants() -> Iterator[tuple[tuple[int, int], int]]:
    stats = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                text = (entry / "stat").read_text()
            except OSError:
                continue
            fields = text[text.rindex(")") + 2 :].split()
            stats[int(entry.name)] = (int(fields[1]), int(fields[19]), int(fields[11]) + int(fields[12]))
    ours = {os.getpid()}
    grew = True
    while grew:
        found = {pid for pid, (parent, _, _) in stats.items() if parent in ours} - ours
        ours |= found
        grew = bool(found)
    for pid in ours - {os.getpid()}:
        yield (pid, stats[pid][1]), stats[pid][2]


def _reap_orphans() -> None:
    """Wait for orphans that have ended; those that live on are left alone."""
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return


def _reaped_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
