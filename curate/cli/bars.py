"""Progress of counted work: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from curate.cli.console import plain

LOG_EVERY_S = 15.0


class Bars:
    """Bars on a terminal, which go away with the ``with`` block; ``_bars`` is None in a log."""

    def __init__(self, console: Console, *columns: ProgressColumn) -> None:
        shown = (TextColumn("{task.description}"), BarColumn(), *columns)
        self._console = console
        self._bars = Progress(*shown, console=console, transient=True) if console.is_terminal else None

    def __enter__(self) -> Self:
        if self._bars:
            self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._bars:
            self._bars.stop()


class Counted(Bars):
    """Shows how many of how many are done while the ``with`` block lasts; call it with both numbers."""

    def __init__(self, console: Console, what: str) -> None:
        super().__init__(console, MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        self._what = what
        self._task = self._bars.add_task(plain(what), total=None) if self._bars else None
        self._last_s = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        """So many of so many are done."""
        if self._bars is not None and self._task is not None:
            self._bars.update(self._task, completed=done, total=total)
        elif time.monotonic() - self._last_s >= LOG_EVERY_S:
            self._last_s = time.monotonic()
            self._console.print(plain(f"{self._what} {done}/{total}"), soft_wrap=True)
