"""Live progress of a run: one line that renews itself on a terminal, a line now and then in a log."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.console import Console
from rich.live import Live
from rich.text import Text

from curate.engine.work import SourceWork, Summary
from curate.errors import EngineError
from curate.units import format_duration

LOG_EVERY_S = 15.0


class Progress:
    """Shows sources, clips, rates, time left, failures so far and the stage that holds the rest up."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, refresh_per_second=4, transient=True) if console.is_terminal else None
        self._total = 0
        self._sum = Summary()
        self._began = time.monotonic()
        self._last_log = 0.0

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
        name = "" if pass_number == 1 else f"Pass {pass_number}: "
        self._console.print(f"{name}{self._total} sources to read{clips}", highlight=False)

    def wrote(self, summary: Summary) -> None:
        """A bundle is on disk."""
        self._sum.add(summary)
        line = self.line()
        if self._live:
            self._live.update(Text(line))
        elif time.monotonic() - self._last_log >= LOG_EVERY_S or self._sum.sources == self._total:
            self._last_log = time.monotonic()
            self._console.print(line, highlight=False)

    def step(self, text: str) -> None:
        """A step of the job begins."""
        self._console.print(f"{text} ...", highlight=False)

    def died(self, error: EngineError) -> None:
        """A pass died; the next one plans anew."""
        self._console.print(f"[yellow]{error.message}[/]; planning again what is missing")

    def line(self) -> str:
        """The state in one line."""
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
        return " | ".join(parts)
