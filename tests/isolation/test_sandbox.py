"""The child process: results come over whole, and whatever it does, its parent goes on."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import isolation_kit as kit
import numpy as np
import pytest

from curate.errors import CurateError, DecodeError, DecodeLimitError, DecoderCrashError, UnexpectedError
from curate.isolation import Limits, Sandbox, end_spare

LONG_S = 60.0


@pytest.fixture(scope="module")
def shared():
    with Sandbox() as sandbox:
        yield sandbox


def is_alive(pid):
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except FileNotFoundError:
        return False


def wait_until_gone(pid):
    while is_alive(pid):
        time.sleep(0.01)


def test_results_are_those_of_the_same_task_here(shared):
    shape = (30, 40, 3)
    there = list(shared.run(kit.arrays, 5, shape, limit_s=LONG_S))
    for ours, theirs in zip(kit.arrays(5, shape), there, strict=True):
        assert np.array_equal(ours.pop("pixels"), theirs.pop("pixels"))
        assert ours == theirs


def test_arrays_are_the_receivers_own_and_outlive_the_next_ones(shared):
    kept = [found["pixels"] for found in shared.run(kit.arrays, 3, (1000, 1000), limit_s=LONG_S)]
    kept[0][:] = 7
    assert [int(pixels.max()) for pixels in kept] == [7, 1, 2]


def test_empty_and_scattered_arrays_come_over(shared):
    for array in (np.zeros((0, 4), np.float32), np.arange(12).reshape(3, 4)[:, ::2], np.array(3.5)):
        assert np.array_equal(shared.call(np.copy, array, limit_s=LONG_S), array)


def test_one_child_serves_many_tasks(shared):
    pids = {shared.call(kit.process_id, limit_s=LONG_S) for _ in range(20)}
    assert len(pids) == 1 and pids != {os.getpid()}


def test_nothing_stays_open_however_much_comes_over(shared):
    def counts():
        return kit.open_files(), shared.call(kit.open_files, limit_s=LONG_S)

    list(shared.run(kit.arrays, 3, (100, 100), limit_s=LONG_S))
    before = counts()
    for _ in range(20):
        list(shared.run(kit.arrays, 3, (100, 100), limit_s=LONG_S))
    assert counts() == before


def test_a_task_that_nobody_listens_to_any_more_ends_and_the_child_stays(shared):
    results = shared.run(kit.endless, limit_s=LONG_S)
    assert [next(results)[0] for _ in range(3)] == [0, 1, 2]
    pid = next(results)[1]
    results.close()
    assert shared.call(kit.process_id, limit_s=LONG_S) == pid


def test_the_child_computes_only_what_is_asked_for(shared):
    results = shared.run(kit.note_each, limit_s=LONG_S)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    results.close()
    assert shared.call(kit.made, limit_s=LONG_S) == [0, 1, 2]


def test_our_errors_come_as_they_are_with_the_traceback(shared):
    with pytest.raises(DecodeError) as caught:
        shared.call(kit.broken_file, limit_s=LONG_S)
    error = caught.value
    assert (error.message, error.subject, error.fix) == ("cannot be decoded", "a.mp4", "Replace it")
    assert "broken_file" in error.__notes__[0]
    assert error.peak_memory_bytes > 1 << 20


def test_other_errors_say_their_class(shared):
    with pytest.raises(UnexpectedError) as caught:
        shared.call(kit.fail_as, "builtins", "ZeroDivisionError", limit_s=LONG_S)
    assert (caught.value.subject, caught.value.message) == ("ZeroDivisionError", "bad news")


def test_an_error_of_the_system_keeps_its_number(shared):
    with pytest.raises(OSError) as caught:
        list(shared.run(kit.fail, OSError(28, "No space left on device"), limit_s=LONG_S))
    assert caught.value.errno == 28


def test_a_crash_is_an_error_of_this_task_alone(shared):
    before = shared.call(kit.process_id, limit_s=LONG_S)
    results = shared.run(kit.crash_after, 2, limit_s=LONG_S)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(DecoderCrashError, match="SIGSEGV") as caught:
        next(results)
    assert "crash_after" in caught.value.__notes__[0]
    assert shared.call(kit.process_id, limit_s=LONG_S) != before


def test_a_child_that_ends_itself_is_a_crash_with_its_last_words(shared):
    with pytest.raises(DecoderCrashError, match="exit status 3") as caught:
        list(shared.run(kit.leave, 3, limit_s=LONG_S))
    assert "this is why" in caught.value.__notes__[0]


def test_a_child_killed_from_outside_is_a_crash(shared):
    results = shared.run(kit.endless, limit_s=LONG_S)
    os.kill(next(results)[1], signal.SIGKILL)
    with pytest.raises(DecoderCrashError, match="SIGKILL"):
        next(results)
    assert shared.call(kit.process_id, limit_s=LONG_S)


def test_a_child_that_dies_between_two_tasks_is_no_fault_of_the_next(shared):
    pid = shared.call(kit.process_id, limit_s=LONG_S)
    os.kill(pid, signal.SIGKILL)
    wait_until_gone(pid)
    assert shared.call(kit.process_id, limit_s=LONG_S) != pid


def test_a_child_that_is_dying_counts_as_gone_before_it_can_be_waited_for(shared, monkeypatch):
    """Until all its threads have ended the system says that it runs."""
    pid = shared.call(kit.process_id, limit_s=LONG_S)
    os.kill(pid, signal.SIGKILL)
    wait_until_gone(pid)
    monkeypatch.setattr(shared._child._process, "poll", lambda: None)
    assert shared._child.is_gone()


def test_what_goes_on_computing_after_its_task_is_stopped_by_the_kernel():
    end_spare()
    with Sandbox() as sandbox:
        pid = sandbox.call(kit.process_id, limit_s=LONG_S)
        sandbox.call(kit.leave_a_thread_spinning, limit_s=2.0)
        ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert ended is not None
        assert ended.si_status == signal.SIGXCPU
        assert sandbox.call(kit.process_id, limit_s=LONG_S) != pid


@pytest.mark.parametrize("task", [kit.spin, kit.sleep_for_ever])
def test_a_task_that_never_ends_is_stopped(shared, task):
    pid = shared.call(kit.process_id, limit_s=LONG_S)
    with pytest.raises(DecodeLimitError, match="took more than"):
        list(shared.run(task, limit_s=0.3))
    assert not is_alive(pid)


def test_time_between_results_does_not_count(shared):
    shared.call(kit.process_id, limit_s=LONG_S)  # a child that has to start takes of its first task's time
    results = shared.run(kit.endless, limit_s=2.0)
    for number in range(4):
        assert next(results)[0] == number
        time.sleep(0.7)
    results.close()


def test_a_child_can_start_nothing_reach_nobody_and_write_nowhere_else(shared, tmp_path):
    with pytest.raises(OSError, match="not permitted"):
        shared.call(kit.fork, limit_s=LONG_S)
    with socket.create_server(("127.0.0.1", 0)) as server, pytest.raises(OSError, match="not permitted"):
        shared.call(kit.talk_to, server.getsockname()[1], limit_s=LONG_S)
    with pytest.raises(OSError, match=r"denied|not permitted"):
        shared.call(kit.write_to, str(tmp_path / "a"), limit_s=LONG_S)


def test_a_childs_own_folder_goes_with_it():
    with Sandbox() as sandbox:
        folder = Path(sandbox.call(kit.temporary_folder, limit_s=LONG_S))
        assert sandbox.call(kit.write_to, str(folder / "a"), limit_s=LONG_S) == "here"
        assert folder.exists()
    end_spare()
    assert not folder.exists()


def test_an_idle_child_serves_the_next_sandbox_with_its_limits(monkeypatch):
    end_spare()
    with Sandbox(Limits(memory_bytes=512 << 20)) as sandbox:
        first = sandbox.call(kit.process_id, limit_s=LONG_S)
    with Sandbox(Limits(memory_bytes=0)) as sandbox:
        assert sandbox.call(kit.process_id, limit_s=LONG_S) == first
        assert sandbox.call(np.ones, 600 << 20, np.uint8, limit_s=LONG_S).nbytes == 600 << 20
    monkeypatch.setenv("LANG", "another")
    with Sandbox() as sandbox:
        assert sandbox.call(kit.process_id, limit_s=LONG_S) != first


def test_an_idle_child_of_another_working_folder_serves_nobody(monkeypatch, tmp_path):
    """Its relative paths would lead elsewhere, and a folder that was removed meanwhile is none to work in."""
    end_spare()
    removed = tmp_path / "removed"
    removed.mkdir()
    monkeypatch.chdir(removed)
    with Sandbox() as sandbox:
        assert sandbox.call(os.getcwd, limit_s=LONG_S) == str(removed)
    monkeypatch.chdir(tmp_path)
    removed.rmdir()
    with Sandbox() as sandbox:
        assert sandbox.call(os.getcwd, limit_s=LONG_S) == str(tmp_path)


def test_a_child_that_is_busy_or_dead_serves_nobody_else():
    with Sandbox() as sandbox:
        results = sandbox.run(kit.endless, limit_s=LONG_S)
        first = next(results)[1]
        os.kill(first, signal.SIGKILL)
    wait_until_gone(first)
    with Sandbox() as sandbox:
        assert sandbox.call(kit.process_id, limit_s=LONG_S) != first
    results.close()


def test_memory_beyond_the_limit_is_an_error_and_the_next_task_runs():
    with Sandbox(Limits(memory_bytes=512 << 20)) as sandbox:
        with pytest.raises(DecodeLimitError, match="more memory") as caught:
            list(sandbox.run(kit.eat_memory, limit_s=LONG_S))
        assert 256 << 20 < caught.value.peak_memory_bytes < 768 << 20
        assert sandbox.call(kit.process_id, limit_s=LONG_S)


def test_the_child_sees_no_credentials(monkeypatch):
    for name in ("AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "GOOGLE_APPLICATION_CREDENTIALS", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "secret")
    end_spare()
    with Sandbox() as sandbox:
        assert "secret" not in sandbox.call(kit.environment, limit_s=LONG_S).values()


def test_a_child_that_was_taken_over_cannot_run_code_in_its_parent(shared, tmp_path):
    with pytest.raises(DecoderCrashError, match="nonsense"):
        list(shared.run(kit.attack, str(tmp_path / "pwned"), limit_s=LONG_S))
    assert not (tmp_path / "pwned").exists()


def test_a_value_that_cannot_be_sent_is_an_error_of_its_task_alone(shared):
    pid = shared.call(kit.process_id, limit_s=LONG_S)
    with pytest.raises(UnexpectedError, match="Attack cannot be sent"):
        list(shared.run(kit.strange_value, limit_s=LONG_S))
    assert shared.call(kit.process_id, limit_s=LONG_S) == pid


def test_a_child_that_writes_to_its_standard_streams_disturbs_nobody(shared):
    assert shared.call(kit.shout, 1 << 20, limit_s=LONG_S) == "done"


PARENT = """
import sys
import isolation_kit as kit
from curate.isolation import Sandbox
sandbox = Sandbox()
print(sandbox.call(kit.process_id, limit_s=60), sandbox.call(kit.leave_files, 2000, limit_s=60), flush=True)
{then}
"""


@pytest.mark.parametrize("then", ["list(sandbox.run(kit.spin, limit_s=600))", "import signal; signal.pause()"])
def test_the_child_dies_with_its_parent_and_leaves_no_file(then, tmp_path):
    """Nor a folder, but for its own and empty one where it may not remove that."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", PARENT.format(then=then)]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env)
    assert parent.stdout is not None
    child, folder = parent.stdout.readline().split()
    assert is_alive(int(child))
    assert len(list(Path(folder).iterdir())) == 2000
    parent.kill()
    parent.wait()
    wait_until_gone(int(child))
    assert [path for path in tmp_path.rglob("*") if path != Path(folder)] == []


def test_every_error_of_a_task_is_one_that_can_be_recorded(shared):
    for error in (
        KeyError("x"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
        RecursionError("deep"),
        StopIteration(),
    ):
        with pytest.raises(CurateError) as caught:
            list(shared.run(kit.fail, error, limit_s=LONG_S))
        assert type(error).__name__ in str(caught.value) or "RuntimeError" in str(caught.value)


def test_arrays_come_over_where_no_large_file_may_be_written():
    code = f"""
import resource, sys
sys.path[:0] = {[entry for entry in sys.path if entry]!r}
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
import isolation_kit as kit
from curate.isolation import Sandbox
with Sandbox() as sandbox:
    found = list(sandbox.run(kit.arrays, 3, (1000, 1000), limit_s=60))
assert [int(item["pixels"].sum()) for item in found] == [0, 10**6, 2 * 10**6]
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_child_that_is_still_starting_is_no_crash_whatever_the_size_of_its_task():
    end_spare()
    with Sandbox() as sandbox:
        assert sandbox.call(len, list(range(300_000)), limit_s=LONG_S) == 300_000
