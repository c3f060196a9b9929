"""Giving up, for good, what a process that decodes never needs: new programs, the network, other processes, writing.

Defence in depth for the child, in case a file takes its decoder over. Three means of the Linux kernel, each used where
it is there: no new privileges, Landlock (writing, running and TCP below no folder), and a seccomp filter of system
calls for x86-64 and AArch64. Reading files and memory files still work, and so do sockets that are open already.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
import struct
from collections.abc import Sequence
from typing import Final

_PR_SET_NO_NEW_PRIVS: Final = 38
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446
_LANDLOCK_VERSION: Final = 1
"""Flag that asks for the version of Landlock's interface."""
_RULE_PATH_BENEATH: Final = 1

_EXECUTE, _WRITE_FILE, _TRUNCATE, _IOCTL_DEV = 1 << 0, 1 << 1, 1 << 14, 1 << 15
_MAKE_AND_REMOVE = sum(1 << bit for bit in range(4, 14))
"""Making and removing files of every kind, and moving them between folders."""
_TCP = 0b11
_SCOPES = 0b11
"""Abstract sockets of, and signals to, processes outside."""

_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_SECCOMP_CALL = {"x86_64": 317, "aarch64": 277}
_CLONE = {"x86_64": 56, "aarch64": 220}
_CLONE3: Final = 435
_CLONE_THREAD: Final = 0x10000
_X32_BIT: Final = 0x40000000
_SET_MODE_FILTER, _ALL_THREADS = 1, 1
_KILL, _ERRNO, _ALLOW = 0x80000000, 0x00050000, 0x7FFF0000
_LOAD, _IF_EQUAL, _IF_AT_LEAST, _IF_SET, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
"""Instructions of the filter."""

DENIED = {
    # name: (x86-64, AArch64); None where the architecture has no such call
    "socket": (41, 198),
    "connect": (42, 203),
    "accept": (43, 202),
    "bind": (49, 200),
    "listen": (50, 201),
    "accept4": (288, 242),
    "fork": (57, None),
    "vfork": (58, None),
    "execve": (59, 221),
    "execveat": (322, 281),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    "open_by_handle_at": (304, 265),
    "chroot": (161, 51),
    "pivot_root": (155, 41),
    "mount": (165, 40),
    "umount2": (166, 39),
    "unshare": (272, 97),
    "setns": (308, 268),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "kexec_load": (246, 104),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
}
"""System calls that end with EPERM."""


def confine(writable: Sequence[str] = ()) -> tuple[str, ...]:
    """Confine this process and all it starts; gives the names of what took hold: no_new_privs, landlock, seccomp.

    ``writable``: folders below which files may still be written, besides the null device. To be called before another
    thread is started, since Landlock holds for the calling thread and its children. What the kernel lacks or refuses is
    left out.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if platform.system() != "Linux" or libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return ()
    held = ["no_new_privs"]
    if _restrict_files(libc, writable):
        held.append("landlock")
    if _restrict_calls(libc, platform.machine()):
        held.append("seccomp")
    return tuple(held)


def _restrict_files(libc: ctypes.CDLL, writable: Sequence[str]) -> bool:
    version = _call(libc, _LANDLOCK_CREATE, None, 0, _LANDLOCK_VERSION)
    if version < 1:
        return False
    writing = _WRITE_FILE | _MAKE_AND_REMOVE
    writing &= ~(1 << 13) if version < 2 else -1
    writing |= (_TRUNCATE if version >= 3 else 0) | (_IOCTL_DEV if version >= 5 else 0)
    words = [_EXECUTE | writing, *([_TCP] if version >= 4 else []), *([_SCOPES] if version >= 6 else [])]
    rules = struct.pack(f"={len(words)}Q", *words)
    handle = _call(libc, _LANDLOCK_CREATE, rules, len(rules), 0)
    if handle < 0:
        return False
    try:
        for folder in ("/proc/self", *writable):
            _allow(libc, handle, folder, writing)
        # Libraries open it for writing when they are imported (dill, which torch imports where it is installed).
        _allow(libc, handle, os.devnull, writing & (_WRITE_FILE | _TRUNCATE))
        return _call(libc, _LANDLOCK_RESTRICT, handle, 0) == 0
    finally:
        os.close(handle)


def _allow(libc: ctypes.CDLL, rules: int, folder: str, access: int) -> None:
    with contextlib.suppress(OSError):
        below = os.open(folder, os.O_PATH | os.O_CLOEXEC)
        try:
            _call(libc, _LANDLOCK_ADD, rules, _RULE_PATH_BENEATH, struct.pack("=Qi", access, below), 0)
        finally:
            os.close(below)


def _restrict_calls(libc: ctypes.CDLL, machine: str) -> bool:
    if machine not in _AUDIT_ARCH:
        return False
    program = _filter(machine)
    code = ctypes.create_string_buffer(program, len(program))
    head = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(code))
    number = _SECCOMP_CALL[machine]
    return _call(libc, number, _SET_MODE_FILTER, _ALL_THREADS, head) == 0


def _filter(machine: str) -> bytes:
    """The filter as BPF: another architecture dies, denied calls fail, new processes fail, threads may start."""
    column = 0 if machine == "x86_64" else 1
    denied = sorted(numbers[column] for numbers in DENIED.values() if numbers[column] is not None)
    refuse, missing = _ERRNO | errno.EPERM, _ERRNO | errno.ENOSYS
    lines = [(_LOAD, 0, 0, 4), (_IF_EQUAL, 1, 0, _AUDIT_ARCH[machine]), (_RETURN, 0, 0, _KILL), (_LOAD, 0, 0, 0)]
    if machine == "x86_64":
        lines += [(_IF_AT_LEAST, 0, 1, _X32_BIT), (_RETURN, 0, 0, refuse)]
    for number in denied:
        lines += [(_IF_EQUAL, 0, 1, number), (_RETURN, 0, 0, refuse)]
    # The C library takes clone where clone3 is missing; of clone a filter can see what it is asked for.
    lines += [(_IF_EQUAL, 0, 1, _CLONE3), (_RETURN, 0, 0, missing)]
    lines += [(_IF_EQUAL, 0, 3, _CLONE[machine]), (_LOAD, 0, 0, 16), (_IF_SET, 1, 0, _CLONE_THREAD)]
    lines += [(_RETURN, 0, 0, refuse), (_RETURN, 0, 0, _ALLOW)]
    return b"".join(struct.pack("=HBBI", *line) for line in lines)


def _call(libc: ctypes.CDLL, number: int, *arguments: int | bytes | None) -> int:
    """A system call; -1 when it fails."""
    words = [ctypes.c_long(word) if isinstance(word, int) else ctypes.c_char_p(word) for word in arguments]
    return libc.syscall(ctypes.c_long(number), *words)
