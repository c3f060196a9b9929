"""What a run is expected to take and give. Plain records; `to_json` and `from_json` keep them in a file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import pydantic

from curate.errors import ConfigError
from curate.estimate.cluster import Cluster
from curate.estimate.ratios import Estimate

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Tried:
    """The bucket and the sample of it. ``video_s`` is None where files were not read through; ``read_through`` says
    whether they were. ``skipped`` and ``failed``: inputs that no run would decode, by cause."""

    n_inputs: int
    n_sources: int
    size_bytes: float
    video_s: float | None
    skipped: Mapping[str, int]
    failed: Mapping[str, int]
    n_sample: int
    sample_bytes: float
    sample_clips: int
    seed: int
    engine: str
    wall_s: float

    @property
    def is_whole(self) -> bool:
        """Whether all of it was tried."""
        return self.n_sample == self.n_sources


@dataclass(frozen=True, slots=True)
class LaneForecast:
    """Workers that do the same: ``busy`` seconds of all of them; ``wall_s`` from their start to their end.

    ``known`` is False where a stage of theirs was not measured on what they are to run on.
    """

    name: str
    workers: int
    stages: tuple[str, ...]
    cpus: float
    gpus: float
    busy_s: Estimate
    wall_s: float
    known: bool = True


@dataclass(frozen=True, slots=True)
class StageForecast:
    """A stage: cells, seconds of all of its workers, seconds and table bytes of a cell in the sample, and which
    predictor its time goes with."""

    name: str
    lane: str
    cells: Estimate
    busy_s: Estimate
    s_per_cell: float
    bytes_per_cell: float
    goes_with: str
    known: bool = True


@dataclass(frozen=True, slots=True)
class Hours:
    """Seconds on the clock: all of a run, and its steps. ``start_s`` until the first worker begins, ``end_s`` from the
    last table to the end, apart from selecting and writing shards.

    ``work``: CPU seconds of the workers, and seconds of GPUs that they are busy; ``held``: all of the cluster over the
    whole time. Those of GPUs are None where the cluster has none, or it was not measured.
    """

    wall: Estimate
    scoring: Estimate
    writing: Estimate
    start_s: float
    end_s: float
    cpu_work: Estimate
    cpu_held: Estimate
    gpu_work: Estimate | None
    gpu_held: Estimate | None


@dataclass(frozen=True, slots=True)
class Storage:
    """Bytes of the corpus: its tables as a run leaves them, after `curate compact`, and its shards. ``scratch_bytes``
    are copied at once by the workers of one node, for sources that do not lie on this machine."""

    tables: Estimate
    compacted: Estimate
    shards: Estimate
    scratch_bytes: float


@dataclass(frozen=True, slots=True)
class PassRate:
    """A gate or condition: the share of all clips found that fulfils it."""

    name: str
    text: str
    share: Estimate


@dataclass(frozen=True, slots=True)
class Forecast:
    """All of it. ``inputs``, ``clips`` and ``video_s`` (seconds) are by how they end, ``reasons`` clips by the reason
    that they are not kept for; ``retention`` is the share of clips kept. ``cautions``: what it cannot know."""

    made_at: str
    tool_version: str
    recipe: str
    tried: Tried
    cluster: Cluster
    hours: Hours
    lanes: tuple[LaneForecast, ...]
    holds_up: str
    stages: tuple[StageForecast, ...]
    inputs: Mapping[str, Estimate]
    clips: Mapping[str, Estimate]
    video_s: Mapping[str, Estimate]
    retention: Estimate | None
    reasons: Mapping[str, Estimate]
    passes: tuple[PassRate, ...]
    storage: Storage
    cautions: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"format": FORMAT, **asdict(self)}

    def to_json(self) -> str:
        """The text of a file."""
        return json.dumps(self.to_dict(), indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str, where: str) -> Self:
        """A forecast from its text; ConfigError when it is none."""
        try:
            data = json.loads(text)
            if data.pop("format") != FORMAT:
                raise ConfigError(f"is a forecast of another format than {FORMAT}", subject=where)
            return pydantic.TypeAdapter(cls).validate_python(data)
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            fix = "Name a file that `curate plan --save` wrote"
            raise ConfigError("is not a forecast", subject=where, fix=fix) from error
