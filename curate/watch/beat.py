"""Writes the status of a run into its corpus: at every step, and every few seconds as a sign of life."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self

from curate.engine.run import RunBegan, RunResult
from curate.engine.work import SourceWork
from curate.errors import EngineError, StorageError
from curate.storage import Place
from curate.watch.listener import JobListener
from curate.watch.state import RunState
from curate.watch.status import BEAT_S, LOCAL_BEAT_S, place_of

_LAST_WAIT_S = 30.0
"""For the last status to be written; a place that takes longer is given up."""


class Beat(JobListener):
    """A thread that writes what ``state`` knows, while the ``with`` block lasts, and once more at its end. It alone
    writes: an older status never comes after the last.

    A corpus that takes no status does not stop the run: it will not take tables either, and those are what counts.
    """

    def __init__(self, state: RunState) -> None:
        self._state = state
        self._every_s = BEAT_S
        self._place: Place | None = None
        self._due, self._over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._loop, name="status", daemon=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._place is None:
            return
        self._over.set()
        self._due.set()
        self._thread.join(_LAST_WAIT_S)

    def began(self, run: RunBegan) -> None:
        """There is a place to write to."""
        self._place = place_of(run.request.corpus, run.run_id)
        self._every_s = LOCAL_BEAT_S if self._place.is_local else BEAT_S
        self._due.set()
        self._thread.start()

    def planned(self, pass_number: int, works: Sequence[SourceWork]) -> None:
        """At once."""
        self._due.set()

    def died(self, error: EngineError) -> None:
        """At once."""
        self._due.set()

    def complete(self, result: RunResult) -> None:
        """At once."""
        self._due.set()

    def step(self, text: str) -> None:
        """At once."""
        self._due.set()

    def _loop(self) -> None:
        while not self._over.is_set():
            self._due.wait(self._every_s)
            self._due.clear()
            if not self._over.is_set():
                self._write(ask=True)
        self._write()

    def _write(self, *, ask: bool = False) -> None:
        assert self._place is not None
        with suppress(StorageError):
            self._place.write_text(self._state.status(ask=ask).to_json())
