"""Live progress of a run: one line that renews itself on a terminal, a line now and then in a log."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from curate.cli.console import plain
from curate.engine.work import SourceWork, Summary
from curate.errors import EngineError
from curate.units import format_duration
from curate.watch.listener import Everyone, JobListener
from curate.watch.state import READING, RunState
from curate.watch.status import RunStatus
from curate.watch.watching import Watching, WatchOptions

LOG_EVERY_S = 15.0
_BAR = " | "


@contextmanager
def watched(console: Console, options: WatchOptions | None = None) -> Iterator[JobListener]:
    """Gives the listener for a job: it shows progress here, and keeps a status in the corpus and what was asked for."""
    state = RunState()
    with (
        Progress(console, state) as progress,
        Watching(state, progress, options or WatchOptions(), progress.say) as listener,
    ):
        yield listener


@contextmanager
def shown(console: Console) -> Iterator[JobListener]:
    """The same for a job whose corpus is thrown away: only here."""
    state = RunState()
    with Progress(console, state) as progress:
        yield Everyone([state, progress])


class Progress(JobListener):
    """Shows sources, clips, rates, time left, failures so far and the stage that holds the rest up.

    ``state`` counts; it must hear of everything first.
    """

    def __init__(self, console: Console, state: RunState) -> None:
        self._console = console
        self._state = state
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
        known = sum(len(work.clips) for work in works if work.clips is not None)
        clips = f", {known} clips known already" if known else ""
        pass_name, again = ("", "") if pass_number == 1 else (f"Pass {pass_number}: ", " again")
        self.say(f"{pass_name}{len(works)} sources to read{again}{clips}")

    def wrote(self, summary: Summary) -> None:
        """A bundle is on disk."""
        status = self._state.status()
        is_last = status.the_pass.done == status.the_pass.sources
        if self._live:
            if is_last:
                self._live.refresh()  # what follows may come before the line renews itself
        elif is_last or time.monotonic() - self._last_log >= LOG_EVERY_S:
            self._last_log = time.monotonic()
            self.say(_BAR.join(parts(status)))

    def step(self, text: str) -> None:
        """A step of the job begins."""
        if self._live:
            self._live.refresh()
        self.say(f"{text} ...")

    def died(self, error: EngineError) -> None:
        """A pass died; the next one plans anew."""
        self.say(f"{error.message}; planning again what is missing", style="yellow")

    def say(self, text: str, style: str = "") -> None:
        """A line that stays; never broken, since logs are searched by line."""
        self._console.print(plain(text), style=style, soft_wrap=True)

    def _open_live(self) -> Live:
        return Live(get_renderable=self._picture, console=self._console, refresh_per_second=4, transient=True)

    def _picture(self) -> Group:
        status = self._state.status()
        told = parts(status) if status.step == READING else []
        return Group(*(Text(line, no_wrap=True, overflow="ellipsis") for line in packed(told, self._console.width)))


def parts(status: RunStatus) -> list[str]:
    """The pass that goes on, in a few words each."""
    done = status.the_pass
    left = "?" if done.left_s is None else format_duration(done.left_s)
    told = [
        f"sources {done.done}/{done.sources}",
        f"clips {done.clips}",
        f"{done.clips_per_s:.1f} clips/s",
        f"{done.video_s / max(done.seconds, 1e-3):.2f} video-hours/hour",
        f"ETA {left}",
        f"failed {done.failed_sources} sources, {done.failed_cells} cells",
    ]
    if status.slowest:
        name, share = status.slowest
        told.append(f"slowest {name} ({share:.0%} of the work)")
    return told


def packed(parts: Sequence[str], width: int) -> list[str]:
    """As many parts in a line as fit: nothing is cut off on a narrow terminal."""
    lines: list[str] = []
    for part in parts:
        if lines and len(lines[-1]) + len(_BAR) + len(part) <= width:
            lines[-1] += _BAR + part
        else:
            lines.append(part)
    return lines
