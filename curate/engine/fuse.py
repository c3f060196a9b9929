"""`--max-failures`: a run that is plainly misconfigured ends early, instead of failing source by source for days."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

from curate.engine.work import SourceWork, Summary
from curate.errors import ConfigError, TooManyFailuresError
from curate.redaction import redacted
from curate.units import exact

MIN_JUDGED = 50
"""Sources that must have been read before a share of failures is judged."""


@dataclass(frozen=True, slots=True)
class MaxFailures:
    """How many sources of a run may fail: at most ``count``, or at most ``share`` of those that were read so far."""

    text: str
    count: int | None = None
    share: float | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """From ``20`` or ``5%``. ConfigError."""
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", text.strip())
        if found and float(found[1]) <= 100:
            return cls(text, share=float(exact(float(found[1])) / 100))
        if re.fullmatch(r"\d+", text.strip()):
            return cls(text, count=int(text))
        raise ConfigError(f"{text!r} is neither a number nor a share", subject="--max-failures", fix="Say `20` or `5%`")

    def allows(self, failed: int, read: int) -> bool:
        """Whether a run with so many sources failed, of so many read, may go on."""
        if self.count is not None:
            return failed <= self.count
        assert self.share is not None
        return read < MIN_JUDGED or failed <= self.share * read


@dataclass
class Fuse:
    """Counts the sources of one run that failed, each once: one that is read again and well counts no more."""

    limit: MaxFailures | None
    corpus_uri: str
    _failed: dict[str, tuple[str, str]] = field(default_factory=dict)
    _read: int = 0
    _first_pass: int | None = None

    def planned(self, works: Sequence[SourceWork]) -> None:
        """A pass begins; later ones read sources again that the first one read."""
        if self._first_pass is None:
            self._first_pass = len(works)
        else:
            self._read = max(self._read, self._first_pass)

    def heard(self, summary: Summary) -> None:
        """A bundle was written. TooManyFailuresError when that makes too many."""
        if self.limit is None:
            return
        for uri, end in summary.ended.items():
            self._failed.pop(uri, None)
            if end.error_class:
                self._failed[uri] = end.error_class, end.message
        self._read += summary.sources if self._read < (self._first_pass or 0) else 0
        if not self.limit.allows(len(self._failed), self._read):
            raise self._blown(self.limit)

    def _blown(self, limit: MaxFailures) -> TooManyFailuresError:
        ((error_class, n),) = Counter(name for name, _ in self._failed.values()).most_common(1)
        message = next(text for name, text in self._failed.values() if name == error_class)
        command = f"curate failures {shlex.quote(redacted(self.corpus_uri))} --all"
        return TooManyFailuresError(
            f"{len(self._failed)} of {self._read} sources failed, more than --max-failures {limit.text} allows; "
            f"{n} x {error_class}, for example: {message}",
            fix=f"See all with `{command}`. What is finished is kept, and the same command goes on from there",
        )
