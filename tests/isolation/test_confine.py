"""A confined process: what decoding needs works, and what an attacker needs does not. Each in a process of its own."""

from __future__ import annotations

import json
import platform
import signal
import struct
import subprocess
import sys
from fractions import Fraction

import pytest

from curate.isolation import confine
from curate.testing.footage import moving_texture, write_video

ATTEMPT = """
import json, os, signal, socket, subprocess, sys, threading
from pathlib import Path
from curate.isolation.confine import confine

folder, video = sys.argv[1:3]
inherited = socket.socketpair()
listening = socket.create_server(("127.0.0.1", 0))
udp = socket.socket(type=socket.SOCK_DGRAM)
tcp = socket.socket()
held = confine([folder + "/scratch"])

def attempt(action):
    try:
        action()
    except OSError as error:
        return type(error).__name__
    return "done"

def threads():
    found = []
    started = [threading.Thread(target=found.append, args=(n,)) for n in range(4)]
    [each.start() for each in started], [each.join() for each in started]
    assert len(found) == 4

def memory_file():
    handle = os.memfd_create("frames", os.MFD_ALLOW_SEALING)
    os.ftruncate(handle, 1 << 20)
    os.write(handle, b"pixels")
    socket.send_fds(inherited[0], [b"x"], [handle])
    _, (got,), _, _ = socket.recv_fds(inherited[1], 1, 1)
    assert os.pread(got, 6, 0) == b"pixels"

def decode():
    import av
    with av.open(video) as container:
        assert len(list(container.decode(video=0))) == 12

NEEDED = {
    "decode": decode,
    "memory file": memory_file,
    "threads": threads,
    "late import": lambda: __import__("sqlite3"),
    "write to scratch": lambda: Path(folder, "scratch", "new").write_text("x"),
    "write to nowhere": lambda: open(os.devnull, "r+b", buffering=0).close(),
    "reset the peak": lambda: Path("/proc/self/clear_refs").write_text("5"),
}
OUT_OF_REACH = {
    "new socket": socket.socket,
    "connect": lambda: tcp.connect(listening.getsockname()),
    "unix socket": lambda: socket.socket(socket.AF_UNIX),
    "accept": listening.accept,
    "run a program": lambda: subprocess.run(["true"]),
    "become a program": lambda: os.execv(sys.executable, [sys.executable, "-c", ""]),
    "fork": os.fork,
    "spawn": lambda: os.posix_spawn(sys.executable, [sys.executable, "-c", ""], {}),
}
READ_ONLY = {
    "write elsewhere": lambda: Path(folder, "new").write_text("x"),
    "write over": lambda: Path(video).open("r+b"),
    "cut off": lambda: os.truncate(video, 0),
    "remove": lambda: os.unlink(video),
    "rename": lambda: os.rename(video, video + "2"),
    "link": lambda: os.symlink("/", folder + "/link"),
}
found = [{name: attempt(action) for name, action in NEEDED.items()}]
found += [{name: attempt(action) for name, action in OUT_OF_REACH.items()} if "seccomp" in held else {}]
found += [{name: attempt(action) for name, action in READ_ONLY.items()} if "landlock" in held else {}]
print(json.dumps([held, found]), flush=True)
os.killpg(0, signal.SIGKILL)
"""


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """(how each attempt ended: what decoding needs, what seccomp denies, what Landlock denies; exit status)"""
    folder = tmp_path_factory.mktemp("confined")
    (folder / "scratch").mkdir()
    write_video(folder / "a.mp4", moving_texture(12, 96, 64, (1, 0), 1), Fraction(25))
    command = [sys.executable, "-c", ATTEMPT, str(folder), str(folder / "a.mp4")]
    done = subprocess.run(command, check=False, capture_output=True, text=True, start_new_session=True)
    assert done.stdout, done.stderr
    _, found = json.loads(done.stdout)
    return *found, done.returncode


def test_what_decoding_needs_still_works(ended):
    assert set(ended[0].values()) == {"done"}


def test_programs_processes_and_the_network_are_out_of_reach(ended):
    """Nothing to see where the kernel has no seccomp."""
    assert {name: how for name, how in ended[1].items() if how != "PermissionError"} == {}


def test_files_are_only_read(ended):
    """Nothing to see where the kernel has no Landlock."""
    assert {name: how for name, how in ended[2].items() if how != "PermissionError"} == {}


def test_the_process_may_still_end_itself_with_its_group(ended):
    assert ended[3] == -signal.SIGKILL


def test_this_machine_confines():
    """On the systems that the tests are run on: so that the conditions above are not all there is."""
    command = [sys.executable, "-c", "from curate.isolation.confine import confine; print(*confine())"]
    held = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    assert "no_new_privs" in held or platform.system() != "Linux"


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_filter_denies_by_number(machine):
    """Runs the filter by hand over every call: only the denied ones and new processes are refused."""
    lines = [
        struct.unpack_from("=HBBI", confine._filter(machine), at) for at in range(0, len(confine._filter(machine)), 8)
    ]
    column = ("x86_64", "aarch64").index(machine)
    denied = {numbers[column] for numbers in confine.DENIED.values()}
    arch, clone = confine._AUDIT_ARCH[machine], confine._CLONE[machine]

    def answer(number, arch=arch, flags=0):
        data, here, value = struct.pack("=IIQQ", number, arch, 0, flags), 0, 0
        while True:
            code, yes, no, constant = lines[here]
            if code == 0x06:
                return constant
            here += 1
            if code == 0x20:
                value = struct.unpack_from("=I", data, constant)[0]
            else:
                tests = {0x15: value == constant, 0x35: value >= constant, 0x45: bool(value & constant)}
                here += yes if tests[code] else no

    refused = {number for number in range(600) if answer(number) != 0x7FFF0000}
    assert refused == {number for number in denied if number is not None} | {435, clone}
    assert answer(clone, flags=0x10000) == 0x7FFF0000
    assert answer(1, arch=0x40000003) == 0x80000000
    assert machine != "x86_64" or answer(0x40000001) == 0x50001


def test_another_machine_is_left_alone(monkeypatch):
    assert not confine._restrict_calls(None, "riscv64")
    monkeypatch.setattr(confine.platform, "system", lambda: "Darwin")
    assert confine.confine() == ()
