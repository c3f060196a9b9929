"""Live progress of a run: one line that renews itself on a terminal, a line now and then in a log."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from curate.cli.console import plain
from curate.engine.work import SourceWork, Summary
from curate.errors import EngineError
from curate.units import format_duration

LOG_EVERY_S = 15.0
_BAR = " | "


class Progress:
    """Shows sources, clips, rates, time left, failures so far and the stage that holds the rest up."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._total = 0
        self._sum = Summary()
        self._began = time.monotonic()
        self._last_log = 0.0
        self._live = self._open_live() if console.is_terminal else None

    def __enter__(self) -> Progress:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def planned(self, pass_number: int, works: Sequence[SourceWork]) -> None:
        """A pass begins."""
        self._total = len(works)
        self._sum = Summary()
        self._began = time.monotonic()
        known = sum(len(work.clips) for work in works if work.clips is not None)
        clips = f", {known} clips known already" if known else ""
        pass_name, again = ("", "") if pass_number == 1 else (f"Pass {pass_number}: ", " again")
        self._say(f"{pass_name}{self._total} sources to read{again}{clips}")

    def wrote(self, summary: Summary) -> None:
        """A bundle is on disk."""
        self._sum.add(summary)
        is_due = time.monotonic() - self._last_log >= LOG_EVERY_S or self._sum.sources == self._total
        if not self._live and is_due:
            self._last_log = time.monotonic()
            self._say(_BAR.join(self.parts()))

    def step(self, text: str) -> None:
        """A step of the job begins."""
        if self._live:
            self._live.refresh()
        self._total = 0
        self._say(f"{text} ...")

    def died(self, error: EngineError) -> None:
        """A pass died; the next one plans anew."""
        self._say(f"{error.message}; planning again what is missing", style="yellow")

    def parts(self) -> list[str]:
        """The state in a few words each."""
        done, elapsed_s = self._sum, max(time.monotonic() - self._began, 1e-3)
        share = done.sources / self._total if self._total else 1.0
        left = format_duration(elapsed_s / share - elapsed_s) if share else "?"
        parts = [
            f"sources {done.sources}/{self._total}",
            f"clips {done.clips}",
            f"{done.clips / elapsed_s:.1f} clips/s",
            f"{done.video_s / elapsed_s:.2f} video-hours/hour",
            f"ETA {left}",
            f"failed {done.failed_sources} sources, {done.failed_cells} cells",
        ]
        if done.stage_seconds:
            name, seconds = max(done.stage_seconds.items(), key=lambda item: item[1])
            parts.append(f"slowest {name} ({seconds / max(sum(done.stage_seconds.values()), 1e-9):.0%} of the work)")
        return parts

    def _say(self, text: str, style: str = "") -> None:
        """A line that stays; never broken, since logs are searched by line."""
        self._console.print(plain(text), style=style, soft_wrap=True)

    def _open_live(self) -> Live:
        return Live(get_renderable=self._picture, console=self._console, refresh_per_second=4, transient=True)

    def _picture(self) -> Group:
        parts = self.parts() if self._total else []
        return Group(*(Text(line, no_wrap=True, overflow="ellipsis") for line in packed(parts, self._console.width)))


def packed(parts: Sequence[str], width: int) -> list[str]:
    """As many parts in a line as fit: nothing is cut off on a narrow terminal."""
    lines: list[str] = []
    for part in parts:
        if lines and len(lines[-1]) + len(_BAR) + len(part) <= width:
            lines[-1] += _BAR + part
        else:
            lines.append(part)
    return lines
