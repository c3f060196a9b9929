"""The state of a run as it lies in the corpus: ``runs/<run id>/status.json``, written anew every few seconds.

A run is complete when it has a manifest, whatever its status says: nothing but `curate status` reads this file.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Literal, Self, get_args

from curate.errors import ConfigError, CorpusError, StorageError
from curate.storage import Place
from curate.tables import STATUS, Corpus

BEAT_S = 5.0
"""How often a run says that it goes on: a request each on an object store."""
LOCAL_BEAT_S = 1.0
"""The same on a local disk."""
SILENT_S = 60.0
"""A run that said nothing for so long has died, or has lost the corpus."""

MOST_OLDER = 50
"""Runs from before the last that ended well that are asked whether they still go on: a request each."""

State = Literal["running", "complete", "failed", "stopped", "damaged"]


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
        return self.seconds * max(0, self.sources - self.done) / self.done if self.done else None


@dataclass(frozen=True, slots=True)
class RunStatus:
    """A run as it was at ``beat_at``. Counts are of the whole run, but those of ``the_pass``.

    ``result`` is what came of it: clips by verdict, shards and their bytes. ``error_class`` and ``error`` say why a run
    failed. Of a ``damaged`` one nothing is known but its id and, as ``error``, why.
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
        """Seconds since the last sign of life; 0 where clocks disagree, or none is known."""
        if not self.beat_at:
            return 0.0
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
            known["result"] = {name: _checked("int", n) for name, n in found.get("result", {}).items()}
            if known.get("state", "running") not in get_args(State):
                raise ValueError("no such state")
            if datetime.fromisoformat(known["beat_at"]).tzinfo is None:
                raise ValueError("a time without its zone")
            datetime.fromisoformat(known["beat_at"]).astimezone(UTC)
            return cls(**known)
        except _NONSENSE as error:
            raise CorpusError(f"is not the status of a run: {type(error).__name__}: {error}") from error


_NONSENSE = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)
"""What comes of a text that is not what it should be."""

_KINDS: Mapping[str, tuple[type[Any], ...]] = {"str": (str,), "bool": (bool,), "int": (int,), "float": (int, float)}


def _known(kind: type[Any], found: Mapping[str, Any]) -> dict[str, Any]:
    return {each.name: _checked(each.type, found[each.name]) for each in fields(kind) if each.name in found}


def _checked(kind: Any, value: Any) -> Any:
    """The value of a field; fields of other than the plain kinds are not looked into."""
    wanted = _KINDS.get(kind)
    if wanted is not None and not isinstance(value, wanted):
        raise TypeError(f"{value!r} is no {kind}")
    if isinstance(value, int | float) and not math.isfinite(value):
        raise ValueError(f"{value!r} is no number")
    return value


def place_of(corpus: Corpus, run_id: str) -> Place:
    """Where the status of a run lies."""
    return corpus.runs().child(run_id, STATUS)


def statuses(corpus: Corpus) -> list[RunStatus]:
    """Runs from the newest back to the last complete one: those that go on, those that did not end well, and that one;
    of the ``MOST_OLDER`` before it, those that still go on.

    Runs without a status of their own (of earlier versions, or of programs that ask for none) are told by their
    manifest, or left out.
    """
    corpus.check()
    found: list[RunStatus] = []
    run_ids, now = reversed(corpus.runs().folders()), datetime.now(UTC)
    for run_id in run_ids:
        status = _status(corpus, run_id, now)
        if status is not None:
            found.append(status)
            if status.measured and status.state == "complete":
                break
    for run_id in islice(run_ids, MOST_OLDER):
        with suppress(CorpusError):
            status = _own(corpus, run_id)
            if status is not None and status.goes_on(now):
                found.append(status)
    return found


def status_of(corpus: Corpus, run_id: str) -> RunStatus:
    """The status of one run; ConfigError where there is none."""
    corpus.check()
    status = _status(corpus, run_id, datetime.now(UTC))
    if status is None:
        fix = "Leave --run out to see what there is"
        raise ConfigError(f"no run called {run_id!r} left a status", subject=corpus.uri, fix=fix)
    return status


def _status(corpus: Corpus, run_id: str, now: datetime) -> RunStatus | None:
    """What is known of a run, None where it left nothing."""
    manifest = corpus.runs().child(run_id, "manifest.json")
    try:
        status = _own(corpus, run_id)
    except CorpusError as error:
        return _from_manifest(run_id, _text(manifest)) or _damaged(run_id, f"{STATUS} {error.message}")
    if status is None:
        text = _text(manifest)
        if text is None:
            return None
        return _from_manifest(run_id, text) or _damaged(run_id, "manifest.json is not that of a run")
    if status.state == "running" and not status.goes_on(now) and not status.measured:
        return replace(status, measured=_from_manifest(run_id, _text(manifest)) is not None)
    return status


def _damaged(run_id: str, why: str) -> RunStatus:
    return RunStatus(run_id, "damaged", error=why)


def _own(corpus: Corpus, run_id: str) -> RunStatus | None:
    """The status that a run left, None where there is none; CorpusError where it is damaged."""
    text = _text(place_of(corpus, run_id))
    return RunStatus.from_json(text) if text is not None else None


def _text(place: Place) -> str | None:
    """The file's text, None where there is none. One request: a corpus may hold many runs."""
    try:
        return place.read_bytes().decode(errors="replace")  # what is damaged is for the reader of the text to tell
    except StorageError as error:
        if isinstance(error.__cause__, FileNotFoundError | NotADirectoryError):
            return None
        raise


def _from_manifest(run_id: str, text: str | None) -> RunStatus | None:
    """What its manifest tells of a complete run, None where there is none or it is damaged."""
    with suppress(CorpusError, *_NONSENSE):
        found = _of_manifest(run_id, json.loads(text or ""))
        return RunStatus.from_json(found.to_json())  # as strictly as a status
    return None


def inputs_done(counts: Mapping[str, Any]) -> dict[str, int]:
    """Sources by outcome from the counts of a manifest: of all inputs, those that an earlier run did among them."""
    inputs = counts["inputs"]
    return {"sources_ok": inputs.get("ok", 0), "sources_failed": inputs.get("failed", 0)}


def _of_manifest(run_id: str, manifest: Mapping[str, Any]) -> RunStatus:
    began, ended = manifest["started_at"], manifest["finished_at"]
    counts, use = manifest["counts"], manifest.get("stage_use", {})
    inputs, seconds = counts["inputs"], manifest.get("stage_seconds", {})
    done = inputs_done(counts)
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
        sources_ok=done["sources_ok"],
        sources_failed=done["sources_failed"],
        clips=counts["clips_scored"],
        stages={name: StageStatus(seconds=s, **_known(StageStatus, use.get(name, {}))) for name, s in seconds.items()},
    )
