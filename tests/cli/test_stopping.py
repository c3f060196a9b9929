"""Ctrl-C: status 4, nothing lost, nothing doubled. And what a terminal shows meanwhile."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from itertools import chain
from pathlib import Path

import duckdb
import pytest
import typer
from cli_kit import curate, good_video, run_args, start, tables, verdicts

from curate.cli.console import EXIT_STOPPED, ending
from curate.testing.footage import moving_texture, write_video


@pytest.fixture(scope="module")
def long_bucket(tmp_path_factory) -> Path:
    """A short film, then one of many shots that takes seconds, then a short one again."""
    folder = tmp_path_factory.mktemp("long")
    good_video(folder / "a.mp4", 1)
    shots = list(chain(*(moving_texture(25, 160, 90, (0.5, 0.0), seed) for seed in range(4))))
    write_video(folder / "b.mp4", chain(*[shots] * 12), codec="mpeg4")
    good_video(folder / "c.mp4", 2)
    return folder


@pytest.fixture(scope="module")
def undisturbed(long_bucket, recipe, tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed") / "corpus"
    assert curate("run", long_bucket, *run_args(recipe, out)).status == 0
    return out


def wait_for_a_source(process: subprocess.Popen, out: Path) -> None:
    """Until the tables hold all of one source: its row in `sources` is written last."""
    while process.poll() is None and not list(out.glob("tables/sources/part-*.parquet")):
        time.sleep(0.005)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_goes_on_and_ends_like_an_undisturbed_one(long_bucket, recipe, undisturbed, tmp_path, how):
    out = tmp_path / "corpus"
    process = start("run", long_bucket, *run_args(recipe, out))
    wait_for_a_source(process, out)
    process.send_signal(how)
    _, err = process.communicate()
    assert process.returncode == 4
    assert err == "Stopped. What is finished is kept; the same command goes on from here.\n"
    assert not list(out.rglob("*.tmp"))
    stopped = tables(out)
    assert 0 < len(stopped["quality"]) < len(tables(undisturbed)["quality"])
    ended = curate("run", long_bucket, *run_args(recipe, out))
    assert ended.status == 0
    assert "2 sources to read" in ended.out
    assert tables(out) == tables(undisturbed)
    assert verdicts(out) == verdicts(undisturbed)
    assert curate("verify", out, "--deep").status == 0


def test_a_query_that_is_interrupted_is_a_stop_too():
    """Regression: DuckDB turns Ctrl-C into a RuntimeError, which was shown with its traceback."""
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    before = signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
    try:
        with pytest.raises(typer.Exit) as stopped, ending(), duckdb.connect() as con:
            con.sql("SELECT count(*) FROM range(100_000_000) a, range(1_000) b WHERE a.range % 7 = b.range").fetchall()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert stopped.value.exit_code == EXIT_STOPPED


def test_another_runtime_error_is_not_hidden():
    with pytest.raises(RuntimeError, match="a bug of ours"), ending():
        raise RuntimeError("a bug of ours")


def test_a_terminal_shows_a_live_line_that_fits(bucket, recipe, tmp_path):
    """Regression: on a terminal, and only there, the progress line could not be made."""
    columns = 60
    shown, status = on_terminal(columns, "run", bucket, *run_args(recipe, tmp_path / "c"))
    assert status == 0
    live = [line for line in re.split(r"\r|\n|\x1b\[2K", shown) if line.startswith(("sources ", "ETA "))]
    assert any("sources 4/4 | clips 4" in line for line in live)
    assert all(len(line) <= columns for line in live)
    assert "is complete after" in shown


def on_terminal(columns: int, *args: object) -> tuple[str, int]:
    """What a terminal of this width gets to see, and the exit status."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    env = {key: value for key, value in os.environ.items() if key not in {"COLUMNS", "LINES", "NO_COLOR"}}
    process = subprocess.Popen(
        [sys.executable, "-m", "curate.cli.main", *map(str, args)],
        stdin=theirs, stdout=theirs, stderr=theirs, env={**env, "TERM": "xterm-256color"},
    )  # fmt: skip
    os.close(theirs)
    seen = []
    try:
        while data := os.read(ours, 1 << 16):
            seen.append(data)
    except OSError:  # how Linux says that the other end is closed
        pass
    os.close(ours)
    return b"".join(seen).decode(), process.wait()
