"""Messages between parent and child: they come whole, and one that is none is refused and does nothing."""

import fcntl
import gc
import os
import pickle
import random
import socket
import struct
import threading
from pathlib import Path

import numpy as np
import pytest
from wire_kit import FILE, answers, joined, mutated_bytes

from curate.isolation import plain
from curate.isolation.plain import ProtocolError, encode
from curate.isolation.wire import receive_answer, send_answer
from curate.records import Outcome


def heard(data, handles=(), within_s=5.0):
    """What the receiver makes of bytes that end there."""
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            if handles:
                socket.send_fds(theirs, [data[:16]], handles)
                data = data[16:]
            theirs.sendall(data)
        return receive_answer(ours, within_s=within_s)


def framed(text, buffers=b""):
    return struct.pack("!QQ", len(text), len(buffers)) + text + buffers


@pytest.mark.parametrize("answer", [1, ["item", 1, 1], ("item", 1), (1, 1, 1), ("item", 1, -1), ("item", 1, 1.5), None])
def test_a_message_that_is_no_answer_is_refused(answer):
    with pytest.raises(ProtocolError, match="no answer"):
        heard(framed(encode(answer)[0]))


def test_pickles_do_nothing():
    class Bad:
        def __reduce__(self):
            return os._exit, (1,)

    address = id(None).to_bytes(8, "little")
    for data in (
        pickle.dumps(Bad()),
        b"\x80\x04ccurate.records\nOutcome\nN}\x8c\x06hackedK\x01s\x86b.",
        b"\x80\x04cfractions\nFraction\n\x8c\x0b1e300000000\x85R.",
        b"\x80\x05cnumpy\nndarray\nK\x01\x85\x8c\x01OC\x08" + address + b"\x87R.",
    ):
        with pytest.raises(ProtocolError):
            heard(framed(data))
    assert not hasattr(Outcome, "hacked")


@pytest.mark.parametrize("sizes", [(1 << 62, 0), (plain.MOST_TEXT_BYTES + 1, 0), (1, (8 << 30) + 1), (1, 1 << 63)])
def test_a_size_beyond_all_bounds_is_refused_before_anything_is_read(sizes):
    with pytest.raises(ProtocolError, match="impossible size"):
        heard(struct.pack("!QQ", *sizes))


def test_a_message_that_breaks_off_is_the_end():
    data = framed(*map(bytes, joined(("item", b"abc", 0))))
    for end in range(len(data)):
        with pytest.raises(EOFError):
            heard(data[:end])
    with pytest.raises(EOFError):
        heard(struct.pack("!QQ", 1, 8 << 30) + b"1")


def test_a_sender_that_stops_in_the_middle_is_waited_for_no_longer_than_allowed():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(framed(b"[]")[:-1])
        with pytest.raises(TimeoutError):
            receive_answer(ours, within_s=0.05)


def memory_file(n_bytes, seals=("F_SEAL_SHRINK", "F_SEAL_GROW", "F_SEAL_WRITE")):
    handle = os.memfd_create("a", os.MFD_ALLOW_SEALING)
    os.truncate(handle, n_bytes)
    for seal in seals:
        fcntl.fcntl(handle, fcntl.F_ADD_SEALS, getattr(fcntl, seal))
    return handle


def test_memory_that_is_small_open_or_none_is_refused(tmp_path):
    text = encode(("item", bytes(10), 0))[0]
    (tmp_path / "file").write_bytes(bytes(10))
    cases = {
        "smaller": [memory_file(9), os.pipe()[0], os.open("/dev/zero", os.O_RDONLY)],
        "not sealed": [memory_file(10, ()), memory_file(10, ["F_SEAL_SHRINK"]), memory_file(10, ["F_SEAL_WRITE"])],
        "cannot be read": [os.open(tmp_path / "file", os.O_RDWR)],
    }
    for reason, handles in cases.items():
        for handle in handles:
            with pytest.raises(ProtocolError, match=reason):
                heard(struct.pack("!QQ", len(text), 10) + text, [handle])
            os.close(handle)
    handle = memory_file(10)
    assert heard(struct.pack("!QQ", len(text), 10) + text, [handle]) == ("item", bytes(10), 0)
    with pytest.raises(ProtocolError):
        heard(framed(encode(("item", 1, 0))[0]), [handle])
    os.close(handle)


def n_open():
    gc.collect()  # what an error's traceback held
    return len(list(Path("/proc/self/fd").iterdir()))


def test_nothing_stays_open_after_a_refusal():
    handle = memory_file(10)
    before = n_open()
    for _ in range(20):
        with pytest.raises(ProtocolError):
            heard(struct.pack("!QQ", 3, 10) + b"[1]", [handle] * 3)
        with pytest.raises(EOFError):
            heard(struct.pack("!QQ", 3, 10) + b"[1", [handle])
    assert n_open() == before
    os.close(handle)


def same(ours, theirs):
    """By their text and bytes: errors and arrays do not compare."""
    ours, theirs = joined(ours), joined(theirs)
    return (ours[0], bytes(ours[1])) == (theirs[0], bytes(theirs[1]))


def test_answers_of_tasks_come_through_a_socket_whether_large_or_small():
    large = np.arange(1 << 20, dtype=np.uint16)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        wanted = [*answers(), ("item", [large, large[::3], b"a" * 100_000, "b" * 100_000], 9)]
        sender = threading.Thread(target=lambda: [send_answer(theirs, answer) for answer in wanted])
        sender.start()
        found = [receive_answer(ours, within_s=60.0) for _ in wanted]
        sender.join()
    assert all(map(same, wanted, found))


def test_mutated_frames_are_read_refused_or_the_end():
    chance = random.Random(5)
    real = [framed(*map(bytes, joined(answer))) for answer in answers() if answer[1] is not FILE]
    for _ in range(1500):
        data = chance.choice(real)
        at = chance.randrange(20) if chance.random() < 0.5 else 0
        try:
            kind, _, peak_bytes = heard(data[:at] + mutated_bytes(data[at : at + 2000], chance) + data[at + 2000 :])
        except (ProtocolError, EOFError):
            continue
        assert type(kind) is str and peak_bytes >= 0
