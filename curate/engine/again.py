"""Failed cells that a retry counts as missing although their reason is lasting."""

from __future__ import annotations

from dataclasses import dataclass

from curate.query import literal


@dataclass(frozen=True, slots=True)
class Again:
    """Which failures are tried again: those of one ``stage`` and one ``error_class``, empty ones standing for all."""

    stage: str = ""
    error_class: str = ""

    def takes(self, stage: str, error_class: str) -> bool:
        """Whether a failure of this stage and class is to be tried again."""
        return self.stage in {"", stage} and self.error_class in {"", error_class}


@dataclass(frozen=True)
class Redo:
    """What a run does again of what failed: all that failed for a passing reason (``transient`` names such classes),
    and what ``again`` takes of what failed in *other* runs.

    So nothing is tried twice in one run for a lasting reason, and no list of what was tried needs to be kept.
    """

    transient: frozenset[str]
    again: Again | None = None
    run_id: str = ""

    def takes(self, stage: str, error_class: str | None, run_id: str | None) -> bool:
        """Whether a failure counts as missing."""
        name = error_class or ""
        return name in self.transient or (
            self.again is not None and run_id != self.run_id and self.again.takes(stage, name)
        )

    def sql(self, stage: str) -> str:
        """The same as boolean SQL over the columns of failed cells of a stage."""
        names = ", ".join(literal(name) for name in sorted(self.transient)) or "''"
        found = f"coalesce(error_class, '') IN ({names})"
        if self.again is None or self.again.stage not in {"", stage}:
            return found
        taken = f"run_id IS DISTINCT FROM {literal(self.run_id)}"
        if self.again.error_class:
            taken += f" AND coalesce(error_class, '') = {literal(self.again.error_class)}"
        return f"({found} OR ({taken}))"
