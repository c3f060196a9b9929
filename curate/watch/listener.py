"""Who hears of a job, and how one job tells several."""

from __future__ import annotations

from collections.abc import Sequence

from curate.engine.run import Listener, RunBegan, RunResult
from curate.engine.work import SourceWork, Summary
from curate.errors import EngineError
from curate.export import ExportReport
from curate.select import Funnel


class JobListener(Listener):
    """Hears of the steps of a job besides the progress of its run."""

    def step(self, text: str) -> None:
        """A step begins."""

    def selected(self, funnel: Funnel) -> None:
        """The selection is made."""

    def exported(self, report: ExportReport) -> None:
        """The shards are written."""


class Everyone(JobListener):
    """Passes on what it hears, in order: who comes later may ask those before."""

    def __init__(self, listeners: Sequence[JobListener]) -> None:
        self._listeners = listeners

    def began(self, run: RunBegan) -> None:
        """To everyone."""
        for listener in self._listeners:
            listener.began(run)

    def planned(self, pass_number: int, works: Sequence[SourceWork]) -> None:
        """To everyone."""
        for listener in self._listeners:
            listener.planned(pass_number, works)

    def wrote(self, summary: Summary) -> None:
        """To everyone."""
        for listener in self._listeners:
            listener.wrote(summary)

    def died(self, error: EngineError) -> None:
        """To everyone."""
        for listener in self._listeners:
            listener.died(error)

    def quarantined(self, works: Sequence[SourceWork], summary: Summary) -> None:
        """To everyone."""
        for listener in self._listeners:
            listener.quarantined(works, summary)

    def complete(self, result: RunResult) -> None:
        """To everyone."""
        for listener in self._listeners:
            listener.complete(result)

    def step(self, text: str) -> None:
        """To everyone."""
        for listener in self._listeners:
            listener.step(text)

    def selected(self, funnel: Funnel) -> None:
        """To everyone."""
        for listener in self._listeners:
            listener.selected(funnel)

    def exported(self, report: ExportReport) -> None:
        """To everyone."""
        for listener in self._listeners:
            listener.exported(report)
