"""`--wait-for`: what a cluster must have before a run is packed on its nodes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from curate.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Room:
    """CPUs and GPUs of all nodes of a cluster together."""

    cpus: int = 0
    gpus: int = 0

    @classmethod
    def parse(cls, text: str) -> Self:
        """From ``CPU=64,GPU=2``, or one of them. ConfigError."""
        found = [re.fullmatch(r"\s*(CPU|GPU)\s*=\s*(\d+)\s*", part, re.IGNORECASE) for part in text.split(",")]
        numbers = {part[1].lower(): int(part[2]) for part in found if part}
        if len(numbers) < len(found) or not any(numbers.values()):
            raise ConfigError(
                f"{text!r} names no CPUs and GPUs of a cluster", subject="--wait-for", fix="Say `CPU=64,GPU=2`"
            )
        return cls(numbers.get("cpu", 0), numbers.get("gpu", 0))

    def __str__(self) -> str:
        named = ((self.cpus, "CPUs"), (self.gpus, "GPUs"))
        return " and ".join(f"{number} {name}" for number, name in named if number) or "nothing"
