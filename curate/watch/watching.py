"""Everything that listens to a job: the terminal, the status in the corpus, and where asked for a log and metrics."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType

from curate.errors import is_stop
from curate.watch.beat import Beat
from curate.watch.listener import Everyone, JobListener
from curate.watch.log import JsonLog
from curate.watch.metrics import serving
from curate.watch.state import RunState


@dataclass(frozen=True, slots=True)
class WatchOptions:
    """``log``: a file for JSON lines, ``-`` for standard error, empty for none. ``port``: where to serve metrics, 0 for
    any free one, None for nowhere."""

    log: str = ""
    port: int | None = None
    host: str = "127.0.0.1"


class Watching:
    """A ``with`` block around a job gives the listener to hand to it. How the block ends is how the job ended.

    ``shown`` listens too, after ``state`` has counted; ``say`` hears what concerns watching itself.
    """

    def __init__(
        self, state: RunState, shown: JobListener, options: WatchOptions, say: Callable[[str], None] = lambda _: None
    ) -> None:
        self._state, self._shown, self._options, self._say = state, shown, options, say
        self._stack = ExitStack()
        self._log: JsonLog | None = None

    def __enter__(self) -> JobListener:
        state, options = self._state, self._options
        with ExitStack() as stack:
            if options.log:
                self._log = stack.enter_context(JsonLog(options.log, self._say))
            if options.port is not None:
                url = stack.enter_context(serving(state.status, options.host, options.port))
                state.metrics_url = url
                self._say(f"Metrics are at {url}")
            beat = stack.enter_context(Beat(state))
            self._stack = stack.pop_all()
        return Everyone([state, *([self._log] if self._log else []), beat, self._shown])

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._state.ended("complete" if error is None else "stopped" if is_stop(error) else "failed", error)
        if self._log is not None:
            self._log.ended(self._state.status())
        self._stack.__exit__(kind, error, at)
