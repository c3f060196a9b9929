"""Progress of files on their way: bars on a terminal, a line now and then in a log."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import DownloadColumn, TimeRemainingColumn, TransferSpeedColumn

from curate.cli.bars import LOG_EVERY_S, Bars
from curate.cli.console import plain
from curate.units import format_bytes
from curate.weights.download import Moved


class Transfers(Bars):
    """Shows files by their names while the ``with`` block lasts."""

    def __init__(self, console: Console) -> None:
        super().__init__(console, DownloadColumn(binary_units=True), TransferSpeedColumn(), TimeRemainingColumn())

    def say(self, line: str) -> None:
        """A line that stays."""
        self._console.print(plain(line), soft_wrap=True)

    def moved(self, name: str) -> Moved:
        """What hears how many bytes of a file are here."""
        if self._bars is None:
            return self._logged(name)
        bars, task = self._bars, self._bars.add_task(plain(name), total=None)

        def show(done_bytes: int, total_bytes: int | None) -> None:
            bars.update(task, completed=done_bytes, total=total_bytes, visible=done_bytes != total_bytes)

        return show

    def _logged(self, name: str) -> Moved:
        last_s = time.monotonic()

        def log(done_bytes: int, total_bytes: int | None) -> None:
            nonlocal last_s
            if time.monotonic() - last_s >= LOG_EVERY_S:
                last_s = time.monotonic()
                of_all = f" of {format_bytes(total_bytes)}" if total_bytes else ""
                self.say(f"{name}: {format_bytes(done_bytes)}{of_all}")

        return log
