"""Progress of downloads: a bar on a terminal, quiet lines in a log."""

from __future__ import annotations

import io

from rich.console import Console

from curate.cli import transfers
from curate.cli.transfers import Transfers


def shown(*, terminal: bool, steps: int = 40) -> str:
    """What a console shows of a file of 40 MiB on its way."""
    text = io.StringIO()
    console = Console(file=text, force_terminal=terminal, width=100, highlight=False, emoji=False)
    with Transfers(console) as transfer:
        transfer.say("m/w.bin: from https://me:hidden@host/models")
        moved = transfer.moved("m/w[red].bin")
        for step in range(1, steps + 1):
            moved(step << 20, 40 << 20)
        if transfer._bars is not None:
            transfer._bars.refresh()
    return text.getvalue()


def test_a_terminal_shows_a_bar_with_bytes_and_name():
    text = shown(terminal=True, steps=20)
    assert "20.0/40.0 MiB" in text
    assert "m/w[red].bin" in text
    assert "m/w.bin: from https://***@host/models" in text


def test_a_log_gets_a_line_now_and_then(monkeypatch):
    assert shown(terminal=False) == "m/w.bin: from https://***@host/models\n"
    monkeypatch.setattr(transfers, "LOG_EVERY_S", 0.0)
    lines = shown(terminal=False).splitlines()
    assert lines[1] == "m/w[red].bin: 1.0 MiB of 40.0 MiB"
    assert len(lines) == 41
