"""How much memory this process holds, and the machine has."""

from __future__ import annotations

import contextlib
import os
import resource
import sys
from pathlib import Path

_CLEAR = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"
_PEAK = b"\nVmHWM:"
_STATUS_BYTES = 8192


def peak_memory_bytes(pid: int | None = None) -> int:
    """The most memory that was resident at once: since the last reset where the system keeps that, else ever.

    Of this process, or of another one of ours: 0 where that cannot be told any more.
    """
    with contextlib.suppress(OSError, ValueError):
        with open(f"/proc/{pid or 'self'}/status", "rb", buffering=0) as file:  # noqa: PTH123 - read for every clip
            status = file.read(_STATUS_BYTES)
        at = status.index(_PEAK) + len(_PEAK)
        return int(status[at : status.index(b"kB", at)]) * 1024
    if pid is not None:
        return 0
    unit_bytes = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit_bytes


def reset_peak_memory() -> None:
    """Count the peak from now on, where the system can (Linux)."""
    with contextlib.suppress(OSError):
        _CLEAR.write_text(_RESET_PEAK)


def machine_memory_bytes() -> int:
    """Main memory of this machine; 0 where the system does not tell."""
    names = os.sysconf_names if hasattr(os, "sysconf_names") else {}
    if "SC_PHYS_PAGES" not in names:
        return 0
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
