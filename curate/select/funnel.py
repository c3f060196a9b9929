"""What a selection did, in numbers that add up."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from curate.config import nearest
from curate.errors import ConfigError, CorpusError
from curate.tables import Corpus


@dataclass(frozen=True, slots=True)
class Counts:
    """How many ended how: found = kept + dropped + failed + skipped (clips are never skipped)."""

    found: int = 0
    kept: int = 0
    dropped: int = 0
    failed: int = 0
    skipped: int = 0


@dataclass(frozen=True, slots=True)
class Reason:
    """How many inputs or clips ended this way for this reason; of several, the first failing condition counts."""

    verdict: str
    reason: str
    n: int
    hours: float = 0.0


@dataclass(frozen=True, slots=True)
class Threshold:
    """An absolute limit that a percentile came to. ``n`` values were ranked; ``value`` is None when there were none.

    ``like`` names the earlier selection it was taken from, if any; ``aggregate`` what was made of a list.
    """

    condition: str
    column: str
    kind: str
    share: float
    n: int
    value: float | None
    like: str = ""
    aggregate: str = ""


@dataclass(frozen=True, slots=True)
class ConditionCount:
    """One gate or condition: clips it decided (``first``), that do not fulfil it at all, whose cell failed."""

    name: str
    kind: str
    text: str
    first: int
    first_hours: float
    failing: int
    cell_failed: int


@dataclass(frozen=True, slots=True)
class Retention:
    """Do the conditions go together? Among clips judged by all, the share that passes all of them against the product
    of the shares that pass each axis alone (conditions on one column are one axis); a ratio above 1 means that good
    clips are good in several ways (SVD 3.3)."""

    judged: int
    joint: float
    product: float

    @property
    def ratio(self) -> float | None:
        """joint / product; None where the product is 0."""
        return self.joint / self.product if self.product else None


@dataclass(frozen=True, slots=True)
class Funnel:
    """funnel.json. ``digest`` is the sha256 of the selection.parquet it belongs to; ``hours`` is by verdict.

    ``bucket_config`` is the rule that ``buckets`` were counted by (keys of ``export.buckets``), None where none was.
    """

    name: str
    run_id: str
    digest: str
    created_at: str
    config: dict[str, Any]
    inputs: Counts
    input_reasons: list[Reason]
    clips: Counts
    clip_reasons: list[Reason]
    hours: dict[str, float]
    conditions: list[ConditionCount]
    thresholds: list[Threshold]
    near_duplicates: int
    retention: Retention | None
    like: str = ""
    buckets: dict[str, int] = field(default_factory=dict)
    bucket_config: dict[str, Any] | None = None

    def to_json(self) -> str:
        """The text of funnel.json."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """A funnel from its text."""
        data = json.loads(text)
        for key, kind in (("inputs", Counts), ("clips", Counts)):
            data[key] = kind(**data[key])
        lists = {"input_reasons": Reason, "clip_reasons": Reason, "conditions": ConditionCount, "thresholds": Threshold}
        for key, kind in lists.items():
            data[key] = [kind(**entry) for entry in data[key]]
        data["retention"] = Retention(**data["retention"]) if data["retention"] else None
        return cls(**data)


def load_funnel(corpus: Corpus, name: str) -> Funnel:
    """The funnel of an earlier selection; ConfigError names the nearest when there is none of this name.

    CorpusError where it is no funnel.
    """
    place = corpus.selections().child(name, "funnel.json")
    if not place.exists():
        known = corpus.selections().folders()
        hint = nearest(name, known) if known else "none was made yet"
        raise ConfigError(f"no selection is called {name!r}, {hint}", subject=corpus.uri)
    text = place.read_text()
    try:
        return Funnel.from_json(text)
    except (ValueError, KeyError, TypeError) as error:
        raise CorpusError(
            f"cannot be read as a selection: {type(error).__name__}",
            subject=place.uri,
            fix=f"Make it again: `curate select` with `--name {name}`, or remove the folder",
        ) from error
