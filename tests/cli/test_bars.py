"""Progress of counted work, on a terminal and in a log."""

from __future__ import annotations

import io
import time

from rich.console import Console

from curate.cli.bars import LOG_EVERY_S, Counted


def test_a_log_gets_a_line_now_and_then(monkeypatch):
    written, now_s = io.StringIO(), [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now_s[0])
    with Counted(Console(file=written), "steps") as bar:
        for done in range(1, 31):
            now_s[0] += LOG_EVERY_S / 10
            bar(done, 30)
    assert written.getvalue().splitlines() == ["steps 10/30", "steps 20/30", "steps 30/30"]


def test_a_terminal_gets_a_bar_that_goes_away():
    written = io.StringIO()
    with Counted(Console(file=written, force_terminal=True, width=80), "steps [bold]") as bar:
        bar(1, 2)
        bar(2, 2)
    assert "steps [bold]" in written.getvalue()
    assert "2/2" in written.getvalue()
    assert written.getvalue().endswith("\x1b[2K")
