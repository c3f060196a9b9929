"""What is known of the run in this process: counted once, for the terminal, the corpus, metrics and the log alike."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from curate import __version__
from curate.engine.run import RunBegan, RunResult
from curate.engine.work import Machines, SourceWork, Summary, Use
from curate.errors import CurateError, EngineError
from curate.export import ExportReport
from curate.failures import INPUT
from curate.redaction import redacted
from curate.select import Funnel
from curate.stage import boundary
from curate.watch.listener import JobListener
from curate.watch.status import FailureStatus, PassStatus, RunStatus, StageStatus, State, inputs_done

READING = "Reading sources"
MOST_CLASSES = 200
"""Pairs of stage and error class that are counted apart; what comes later is counted as OTHER."""
OTHER = "other"


class RunState(JobListener):
    """Counts what it hears. `status` may be asked for by any thread at any time."""

    def __init__(self) -> None:
        self.metrics_url = ""
        self._lock = threading.Lock()
        self._run: RunBegan | None = None
        self._state: State = "running"
        self._step = ""
        self._total, self._in_pass = Summary(), Summary()
        self._failures = Counter[tuple[str, str]]()
        self._facts: dict[str, Any] = {"quarantined": 0, "passes_died": 0}
        self._unread_failed = 0
        self._done: dict[str, int] = {}
        self._result: dict[str, int] = {}
        self._began = self._pass_began = time.monotonic()
        self._pass_number = self._sources = self._in_flight = 0
        self._pass_s: float | None = None
        self._gpu_stages: frozenset[str] = frozenset()

    @property
    def run(self) -> RunBegan | None:
        """The run, once it has begun."""
        return self._run

    def began(self, run: RunBegan) -> None:
        """From now on there is something to tell."""
        steps = run.request.pipeline.asked()
        with self._lock:
            self._run = run
            self._began = time.monotonic()
            self._gpu_stages = frozenset(step.stage.name for step in steps if step.stage.resources.gpus)
            self._step = "Planning"

    def planned(self, pass_number: int, works: Sequence[SourceWork]) -> None:
        """A pass begins: its sources and rates are counted anew."""
        with self._lock:
            self._step, self._pass_number, self._sources = READING, pass_number, len(works)
            self._in_pass, self._pass_began, self._pass_s = Summary(), time.monotonic(), None

    def wrote(self, summary: Summary) -> None:
        """A bundle is on disk."""
        with self._lock:
            self._add(summary)

    def died(self, error: EngineError) -> None:
        """A pass died."""
        with self._lock:
            self._facts["passes_died"] += 1

    def quarantined(self, works: Sequence[SourceWork], summary: Summary) -> None:
        """Sources count as failed without having been read."""
        with self._lock:
            self._add(summary)
            self._facts["quarantined"] += len(works)
            self._unread_failed += sum(work.ref.uri not in summary.ended for work in works)

    def complete(self, result: RunResult) -> None:
        """All is measured: sources count as in the manifest, whatever was read in how many passes."""
        with self._lock:
            self._facts["measured"] = True
            self._done = inputs_done(result.counts)
            # One whose clips were known before has failed cells, and is no failed input.
            self._done["sources_failed"] = max(self._done["sources_failed"], self._facts["quarantined"])
            self._pass_ended()

    def step(self, text: str) -> None:
        """A step of the job."""
        with self._lock:
            self._step = redacted(text)

    def selected(self, funnel: Funnel) -> None:
        """Clips have their verdicts."""
        clips = funnel.clips
        with self._lock:
            self._result |= {"kept": clips.kept, "dropped": clips.dropped, "failed": clips.failed}

    def exported(self, report: ExportReport) -> None:
        """Shards are there."""
        with self._lock:
            self._result |= {"shards": report.n_shards, "shard_bytes": report.size_bytes}

    def ended(self, state: State, error: BaseException | None = None) -> None:
        """The job is over, one way or the other."""
        with self._lock:
            self._state = state
            self._pass_ended()
            if error is not None and state == "failed":
                self._facts |= {"error_class": type(error).__name__, "error": redacted(message_of(error))}

    def status(self, *, ask: bool = False) -> RunStatus:
        """Everything as it is now. ``ask``: the engine too, for what is in flight; that may take a moment."""
        engine = self._run.engine if self._run is not None else None
        if ask and engine is not None:
            with boundary():  # it may be gone by now, and then this is no news
                self._in_flight = len(engine.in_flight())
        machines = engine.machines() if engine is not None else Machines()
        with self._lock:
            return self._status(machines)

    def _status(self, machines: Machines) -> RunStatus:
        run, total, now = self._run, self._total, datetime.now(UTC)
        failed = total.failed_sources + self._unread_failed
        known = {"sources_ok": total.sources - total.failed_sources, "sources_failed": failed} | self._done
        if run is not None:
            known |= {
                "recipe": run.request.recipe_name,
                "engine": run.engine.name,
                "started_at": run.at.isoformat(),
                "seconds": time.monotonic() - self._began,
                "inputs": len(run.request.refs),
            }
        return RunStatus(
            run.run_id if run is not None else "",
            self._state,
            self._step,
            **known,
            host=socket.gethostname(),
            pid=os.getpid(),
            version=__version__,
            beat_at=now.isoformat(),
            the_pass=self._pass(),
            clips=total.clips,
            video_s=total.video_s,
            read_bytes=total.read_bytes,
            written_bytes=total.written_bytes,
            stages=self._stages(on_gpus=machines.gpus > 0),
            failures=tuple(FailureStatus(*key, n) for key, n in self._failures.most_common()),
            nodes=machines.nodes,
            cpus=machines.cpus,
            gpus=machines.gpus,
            dashboard_url=machines.dashboard_url,
            metrics_url=self.metrics_url,
            result=dict(self._result),
            **self._facts,
        )

    def _pass(self) -> PassStatus:
        done = self._in_pass
        return PassStatus(
            self._pass_number,
            self._sources,
            done.sources,
            done.failed_sources,
            done.failed_cells,
            min(self._in_flight, max(0, self._sources - done.sources)),
            done.clips,
            done.video_s,
            self._pass_s if self._pass_s is not None else time.monotonic() - self._pass_began,
        )

    def _stages(self, *, on_gpus: bool) -> dict[str, StageStatus]:
        total = self._total
        found: dict[str, StageStatus] = {}
        for name, seconds in total.stage_seconds.items():
            use = total.stage_use.get(name, Use())
            cells = (total.cells[name, "ok"], total.cells[name, "failed"])
            on_gpu = on_gpus and name in self._gpu_stages
            found[name] = StageStatus(*cells, seconds, use.items, use.busy_s, use.waited_s, on_gpu)
        return found

    def _pass_ended(self) -> None:
        if self._pass_s is None:
            self._pass_s = time.monotonic() - self._pass_began

    def _add(self, summary: Summary) -> None:
        self._total.add(summary)
        self._in_pass.add(summary)
        for stage, error_class in failures_of(summary):
            key = (stage, error_class)
            if key not in self._failures and len(self._failures) >= MOST_CLASSES:
                key = (OTHER, OTHER)
            self._failures[key] += 1


def failures_of(summary: Summary) -> list[tuple[str, str]]:
    """(stage, error class) of all that failed in a bundle, each thing once: sources that no failed cell explains, as
    those of the stage `input`, and cells."""
    told = {cell.digest for cell in summary.failed}
    unexplained = [end for end in summary.ended.values() if end.error_class and end.digest not in told]
    return [(INPUT, end.error_class) for end in unexplained] + [(c.stage, c.error_class) for c in summary.failed]


def message_of(error: BaseException) -> str:
    """What an error says, in one line."""
    return " ".join((str(error) if isinstance(error, CurateError) else repr(error)).split())
