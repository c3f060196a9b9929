"""The state of a run as it lies in the corpus: ``runs/<run id>/status.json``, written anew every few seconds.

A run is complete when it has a manifest, whatever its status says: nothing but `curate status` reads this file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from typing import Any, Literal, Self

from curate.errors import ConfigError, CorpusError, StorageError
from curate.storage import Place
from curate.tables import STATUS, Corpus

BEAT_S = 5.0
"""How often a run says that it goes on: a request each on an object store."""
LOCAL_BEAT_S = 1.0
"""The same on a local disk."""
SILENT_S = 60.0
"""A run that said nothing for so long has died, or has lost the corpus."""

State = Literal["running", "complete", "failed", "stopped"]


@dataclass(frozen=True, slots=True)
class StageStatus:
    """Cells of a stage by outcome, and the seconds that they took.

    Of clip stages: clips scored, seconds at work and seconds without any, of all its workers together.
    """

    ok: int = 0
    failed: int = 0
    seconds: float = 0.0
    items: int = 0
    busy_s: float = 0.0
    waited_s: float = 0.0
    on_gpu: bool = False


@dataclass(frozen=True, slots=True)
class FailureStatus:
    """How many failed of one class in one stage; stage ``input`` means that the file could not even be read."""

    stage: str
    error_class: str
    n: int


@dataclass(frozen=True, slots=True)
class PassStatus:
    """The pass that goes on, or the last one. A source is in flight while it is read, and done once that is written."""

    number: int = 0
    sources: int = 0
    done: int = 0
    failed_sources: int = 0
    failed_cells: int = 0
    in_flight: int = 0
    clips: int = 0
    video_s: float = 0.0
    seconds: float = 0.0

    @property
    def waiting(self) -> int:
        """Sources that are neither done nor being read."""
        return max(0, self.sources - self.done - self.in_flight)

    @property
    def clips_per_s(self) -> float:
        """Clips scored in a second of this pass."""
        return self.clips / self.seconds if self.seconds else 0.0

    @property
    def left_s(self) -> float | None:
        """Seconds until all its sources are done, if they are like those before; None as long as none is."""
        if not self.sources:
            return 0.0
        return self.seconds * (self.sources - self.done) / self.done if self.done else None


@dataclass(frozen=True, slots=True)
class RunStatus:
    """A run as it was at ``beat_at``. Counts are of the whole run, but those of ``the_pass``.

    ``result`` is what came of it: clips by verdict, shards and their bytes. ``error_class`` and ``error`` say why a run
    failed.
    """

    run: str
    state: State = "running"
    step: str = ""
    recipe: str = ""
    engine: str = ""
    host: str = ""
    pid: int = 0
    version: str = ""
    started_at: str = ""
    beat_at: str = ""
    seconds: float = 0.0
    inputs: int = 0
    measured: bool = False
    the_pass: PassStatus = PassStatus()
    sources_ok: int = 0
    sources_failed: int = 0
    quarantined: int = 0
    passes_died: int = 0
    clips: int = 0
    video_s: float = 0.0
    read_bytes: int = 0
    written_bytes: int = 0
    stages: Mapping[str, StageStatus] = field(default_factory=dict)
    failures: tuple[FailureStatus, ...] = ()
    nodes: int = 0
    cpus: float = 0.0
    gpus: float = 0.0
    dashboard_url: str = ""
    metrics_url: str = ""
    result: Mapping[str, int] = field(default_factory=dict)
    error_class: str = ""
    error: str = ""

    @property
    def slowest(self) -> tuple[str, float] | None:
        """The stage that took most of the work so far, and its share."""
        total_s = sum(stage.seconds for stage in self.stages.values())
        if not total_s:
            return None
        name = max(self.stages, key=lambda name: self.stages[name].seconds)
        return name, self.stages[name].seconds / total_s

    @property
    def gpu_waiting_share(self) -> float | None:
        """Of the time of the workers on GPUs, the share in which they had no clips; None where there are none."""
        on_gpu = [stage for stage in self.stages.values() if stage.on_gpu]
        total_s = sum(stage.busy_s + stage.waited_s for stage in on_gpu)
        return sum(stage.waited_s for stage in on_gpu) / total_s if total_s else None

    def silent_s(self, now: datetime) -> float:
        """Seconds since the last sign of life; 0 where clocks disagree."""
        return max(0.0, (now - datetime.fromisoformat(self.beat_at)).total_seconds())

    def goes_on(self, now: datetime) -> bool:
        """Whether it runs, as far as can be known from here."""
        return self.state == "running" and self.silent_s(now) <= SILENT_S

    def to_json(self) -> str:
        """The text of the file."""
        return json.dumps(asdict(self), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """From the text of the file, less the keys that this version does not know. CorpusError where it is none."""
        try:
            found = json.loads(text)
            known = _known(cls, found)
            known["the_pass"] = PassStatus(**_known(PassStatus, found["the_pass"]))
            known["stages"] = {name: StageStatus(**_known(StageStatus, one)) for name, one in found["stages"].items()}
            known["failures"] = tuple(FailureStatus(**_known(FailureStatus, one)) for one in found["failures"])
            datetime.fromisoformat(known["beat_at"])
            return cls(**known)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CorpusError(f"is not the status of a run: {type(error).__name__}: {error}") from error


def _known(kind: type[Any], found: Mapping[str, Any]) -> dict[str, Any]:
    return {name: found[name] for name in (each.name for each in fields(kind)) if name in found}


def place_of(corpus: Corpus, run_id: str) -> Place:
    """Where the status of a run lies."""
    return corpus.runs().child(run_id, STATUS)


def statuses(corpus: Corpus) -> list[RunStatus]:
    """Runs from the newest back to the last complete one: those that go on, those that did not end well, and that one.

    Runs without a status of their own (of earlier versions, or of programs that ask for none) are told by their
    manifest, or left out.
    """
    corpus.check()
    found: list[RunStatus] = []
    for run_id in reversed(corpus.runs().folders()):
        status = _status(corpus, run_id)
        if status is not None:
            found.append(status)
            if status.measured and status.state == "complete":
                break
    return found


def status_of(corpus: Corpus, run_id: str) -> RunStatus:
    """The status of one run; ConfigError where there is none."""
    corpus.check()
    status = _status(corpus, run_id)
    if status is None:
        fix = "Leave --run out to see what there is"
        raise ConfigError(f"no run called {run_id!r} left a status", subject=corpus.uri, fix=fix)
    return status


def _status(corpus: Corpus, run_id: str) -> RunStatus | None:
    text = _text(place_of(corpus, run_id))
    if text is not None:
        with suppress(CorpusError):  # `curate verify` names it
            return RunStatus.from_json(text)
    text = _text(corpus.runs().child(run_id, "manifest.json"))
    return _from_manifest(run_id, json.loads(text)) if text is not None else None


def _text(place: Place) -> str | None:
    """The file's text, None where there is none. One request: a corpus may hold many runs."""
    try:
        return place.read_text()
    except StorageError as error:
        if isinstance(error.__cause__, FileNotFoundError | NotADirectoryError):
            return None
        raise


def _from_manifest(run_id: str, manifest: Mapping[str, Any]) -> RunStatus:
    """What a manifest tells of a complete run."""
    began, ended = manifest["started_at"], manifest["finished_at"]
    counts, use = manifest["counts"], manifest.get("stage_use", {})
    inputs, seconds = counts["inputs"], manifest.get("stage_seconds", {})
    return RunStatus(
        run_id,
        "complete",
        recipe=manifest["recipe"],
        engine=manifest["engine"],
        version=manifest["tool_version"],
        started_at=began,
        beat_at=ended,
        seconds=(datetime.fromisoformat(ended) - datetime.fromisoformat(began)).total_seconds(),
        inputs=sum(inputs.values()),
        measured=True,
        sources_ok=counts["sources_read"] - inputs.get("failed", 0),
        sources_failed=inputs.get("failed", 0),
        clips=counts["clips_scored"],
        stages={name: StageStatus(seconds=s, **_known(StageStatus, use.get(name, {}))) for name, s in seconds.items()},
    )
