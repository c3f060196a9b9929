"""A log for machines: one JSON object a line, each with the run's id, and those of source and clip where there is one.

The events and their keys are listed in docs/watch.md.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal, Self

from curate.engine.run import RunBegan, RunResult
from curate.engine.work import SourceWork, Summary
from curate.errors import EngineError, UsageError
from curate.export import ExportReport
from curate.redaction import redacted
from curate.select import Funnel
from curate.storage import is_remote, storage_error
from curate.watch.listener import JobListener
from curate.watch.state import message_of
from curate.watch.status import RunStatus

STANDARD_ERROR = "-"

Level = Literal["info", "warning", "error"]


class JsonLog(JobListener):
    """Adds lines to a file, or to standard error for ``-``. UsageError when the file cannot be opened.

    A disk that is full ends the log, not the run: ``lost`` hears why.
    """

    def __init__(self, path: str, lost: Callable[[str], None]) -> None:
        self._lost = lost
        self._run = ""
        self._owns = path != STANDARD_ERROR
        self._file: IO[str] | None = _opened(path) if self._owns else sys.stderr

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._owns and self._file is not None:
            self._file.close()

    def began(self, run: RunBegan) -> None:
        """What runs, and where."""
        self._run = run.run_id
        request = run.request
        about: dict[str, Any] = {"recipe": request.recipe_name, "engine": run.engine.name, "inputs": len(request.refs)}
        self._say("run.began", corpus=request.corpus.uri, **about)

    def planned(self, pass_number: int, works: Sequence[SourceWork]) -> None:
        """How much there is to do."""
        known = sum(len(work.clips or ()) for work in works)
        about: dict[str, Any] = {"pass": pass_number, "sources": len(works), "known_clips": known}
        self._say("pass.planned", **about)

    def wrote(self, summary: Summary) -> None:
        """What ended in the bundle, then the bundle."""
        for uri, end in summary.ended.items():
            error = {"error_class": end.error_class, "message": end.message} if end.error_class else {}
            about = {"seconds": round(end.seconds, 3), "read_bytes": end.read_bytes, "clips": end.clips}
            ids = {"source": end.digest, "uri": uri, "outcome": "failed" if error else "ok"}
            self._say("source.done", "warning" if error else "info", **ids, **about, **error)
        for cell in summary.failed:
            ids = {"source": cell.digest, "clip": cell.clip} if cell.clip else {"source": cell.digest}
            error = {"error_class": cell.error_class, "message": cell.message}
            self._say("cell.failed", "warning", **ids, stage=cell.stage, **error)
        self._say(
            "bundle.written",
            sources=summary.sources,
            clips=summary.clips,
            cells=summary.cells.total(),
            failed=len(summary.failed),
            written_bytes=summary.written_bytes,
        )

    def died(self, error: EngineError) -> None:
        """A pass."""
        self._say("pass.died", "error", error_class=type(error).__name__, message=message_of(error))

    def quarantined(self, works: Sequence[SourceWork], summary: Summary) -> None:
        """Each source, then its rows."""
        for work in works:
            self._say("source.quarantined", "error", source=work.digest or "", uri=work.ref.uri)
        self.wrote(summary)

    def complete(self, result: RunResult) -> None:
        """All is measured."""
        told: dict[str, Any] = {f"inputs_{outcome}": n for outcome, n in result.counts["inputs"].items()}
        self._say("run.measured", seconds=round(result.seconds, 3), cells_failed=result.counts["cells_failed"], **told)

    def step(self, text: str) -> None:
        """A step of the job."""
        self._say("step.began", step=text)

    def selected(self, funnel: Funnel) -> None:
        """Clips by verdict."""
        counts: dict[str, Any] = {name: getattr(funnel.clips, name) for name in ("found", "kept", "dropped", "failed")}
        self._say("selection.made", selection=funnel.name, **counts)

    def exported(self, report: ExportReport) -> None:
        """Shards."""
        counts: dict[str, Any] = {"clips": report.n_clips, "shards": report.n_shards, "holes": len(report.holes)}
        self._say("export.written", selection=report.name, **counts, written_bytes=report.size_bytes)

    def ended(self, status: RunStatus) -> None:
        """The last line of a run, or of a job that was refused before it was one."""
        level: Level = "info" if status.state == "complete" else "warning" if status.state == "stopped" else "error"
        error = {"error_class": status.error_class, "message": status.error} if status.error_class else {}
        counts: dict[str, Any] = {name: getattr(status, name) for name in ("sources_ok", "sources_failed", "clips")}
        self._say("run.ended", level, state=status.state, seconds=round(status.seconds, 3), **counts, **error)

    def _say(self, event: str, level: Level = "info", **more: Any) -> None:
        if self._file is None:
            return
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        told = {name: redacted(value) if isinstance(value, str) else value for name, value in more.items()}
        line = json.dumps({"time": at, "level": level, "event": event, "run": self._run, **told})
        try:
            self._file.write(line + "\n")
            self._file.flush()
        except OSError as error:
            self._file = None
            self._lost(f"The log ends here, the run goes on: {error}")


def _opened(path: str) -> IO[str]:
    if is_remote(path):
        fix = "Name a local file, or `-` for standard error"
        raise UsageError("a log cannot grow on an object store", subject="--log-json", fix=fix)
    try:
        return Path(path).open("a", encoding="utf-8")
    except OSError as error:
        found = storage_error(error, path, writing=True)
        raise UsageError(found.message, subject=f"--log-json {found.subject}", fix="Name another file") from error
