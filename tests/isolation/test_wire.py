"""Messages between parent and child: they come whole, and one that is none is refused and does nothing."""

import os
import pickle
import random
import socket
import struct

import numpy as np
import pytest
from wire_kit import FILE, answers, joined, mutated_bytes

from curate.isolation import plain
from curate.isolation.plain import ProtocolError, encode
from curate.isolation.wire import memory_file, receive_answer, send_answer
from curate.records import Outcome


@pytest.fixture(scope="module")
def file():
    handle = memory_file()
    yield handle
    os.close(handle)


def heard(data, file, within_s=5.0):
    """What the receiver makes of bytes that end there."""
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            theirs.sendall(data)
        return receive_answer(ours, file, within_s=within_s)


def framed(text, buffers=b""):
    return head(len(text), len(buffers)) + text + buffers


def head(n_text, n_bytes, in_file=False):
    return struct.pack("!QQ?", n_text, n_bytes, in_file)


@pytest.mark.parametrize("answer", [1, ["item", 1, 1], ("item", 1), (1, 1, 1), ("item", 1, -1), ("item", 1, 1.5), None])
def test_a_message_that_is_no_answer_is_refused(answer, file):
    with pytest.raises(ProtocolError, match="no answer"):
        heard(framed(encode(answer)[0]), file)


def test_pickles_do_nothing(file):
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
            heard(framed(data), file)
    assert not hasattr(Outcome, "hacked")


@pytest.mark.parametrize("sizes", [(1 << 62, 0), (plain.MOST_TEXT_BYTES + 1, 0), (1, (8 << 30) + 1), (1, 1 << 63)])
def test_a_size_beyond_all_bounds_is_refused_before_anything_is_read(sizes, file):
    with pytest.raises(ProtocolError, match="impossible size"):
        heard(head(*sizes), file)


def test_a_message_that_breaks_off_is_the_end(file):
    data = framed(*map(bytes, joined(("item", b"abc", 0))))
    for end in range(len(data)):
        with pytest.raises(EOFError):
            heard(data[:end], file)
    with pytest.raises(EOFError):
        heard(head(1, 8 << 30) + b"1", file)


def test_a_sender_that_stops_in_the_middle_is_waited_for_no_longer_than_allowed(file):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(framed(b"[]")[:-1])
        with pytest.raises(TimeoutError):
            receive_answer(ours, file, within_s=0.05)


def test_a_memory_file_that_holds_less_than_it_should_is_refused():
    file = memory_file()
    text = encode(("item", bytes(10), 0))[0]
    for n_bytes in (0, 9):
        os.truncate(file, n_bytes)
        with pytest.raises(ProtocolError, match="smaller"):
            heard(head(len(text), 10, True) + text, file)
    os.truncate(file, 10)
    assert heard(head(len(text), 10, True) + text, file) == ("item", bytes(10), 0)
    with pytest.raises(ProtocolError, match="add up"):
        heard(head(len(text), 9, True) + text, file)
    os.close(file)


def test_what_the_sender_does_to_the_memory_file_afterwards_changes_nothing():
    file = memory_file()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        send_answer(theirs, ("item", np.full(100_000, 7, np.uint8), 0), file)
        found = receive_answer(ours, file, within_s=5.0)[1]
    assert os.pwrite(file, bytes(100_000), 0) == 100_000
    os.truncate(file, 0)
    assert int(found.min()) == 7
    found[:] = 1
    os.close(file)


def test_a_memory_file_keeps_its_room_unless_that_is_large():
    file = memory_file()
    sizes = []
    for n_bytes in (100_000, 200_000, 80 << 20, 100_000):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            send_answer(theirs, ("item", bytes(n_bytes), 0), file)
            assert len(receive_answer(ours, file, within_s=60.0)[1]) == n_bytes
        sizes.append(os.fstat(file).st_size)
    assert sizes == [100_000, 200_000, 0, 100_000]
    os.close(file)


def same(ours, theirs):
    """By their text and bytes: errors and arrays do not compare."""
    ours, theirs = joined(ours), joined(theirs)
    return (ours[0], bytes(ours[1])) == (theirs[0], bytes(theirs[1]))


def test_answers_of_tasks_come_through_a_socket_whether_large_or_small(file):
    large = np.arange(1 << 20, dtype=np.uint16)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        wanted = [*answers(), ("item", [large, large[::3], b"a" * 100_000, "b" * 100_000], 9)]
        found = []
        for answer in wanted:
            send_answer(theirs, answer, file)
            found.append(receive_answer(ours, file, within_s=60.0))
    assert all(map(same, wanted, found))


def test_mutated_frames_are_read_refused_or_the_end(file):
    chance = random.Random(5)
    real = [framed(*map(bytes, joined(answer))) for answer in answers() if answer[1] is not FILE]
    for _ in range(1500):
        data = chance.choice(real)
        at = chance.randrange(20) if chance.random() < 0.5 else 0
        try:
            kind, _, peak_bytes = heard(
                data[:at] + mutated_bytes(data[at : at + 2000], chance) + data[at + 2000 :], file
            )
        except (ProtocolError, EOFError):
            continue
        assert type(kind) is str and peak_bytes >= 0
