"""Have training runs learnt anything? By their logs.

A network that gives zeros has a loss of 1, before training and after. So each run's training loss over its last quarter
must be below 0.5, and its held-out loss must end at no more than 0.8 times that which it began with.

    python -m curate.testing.learning_check RUN [RUN ...]

Exit status 1 when a run, or several, fail.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from curate.errors import UsageError
from curate.train.logs import LOG, read_lines

HIGHEST_LOSS = 0.5
HIGHEST_RATIO = 0.8


@dataclass(frozen=True)
class Learning:
    """``loss``: of training, over the last quarter of the log. ``first`` and ``last``: held-out losses."""

    steps: int
    loss: float
    first: float
    last: float

    @classmethod
    def of(cls, run: Path) -> Learning:
        """From the log of a run; UsageError when there is no such log, or not both losses in it."""
        rows = read_lines(run / LOG)
        losses, held_out = _values(rows, "loss"), _values(rows, "held_out/mean")
        if not losses or len(held_out) < 2:
            raise UsageError(f"has {len(losses)} training losses and {len(held_out)} held-out ones", subject=str(run))
        return cls(rows[-1]["step"], mean(losses[-max(1, len(losses) // 4) :]), held_out[0], held_out[-1])

    @property
    def faults(self) -> list[str]:
        """What is not as it must be. A loss that is no number is a fault."""
        found = []
        if not self.loss < HIGHEST_LOSS:
            found.append(f"training loss is not below {HIGHEST_LOSS:g}")
        if not self.last <= HIGHEST_RATIO * self.first:
            found.append(f"held-out loss is not below {HIGHEST_RATIO:g} times that of the start")
        return found


def _values(rows: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    return [row[name] for row in rows if name in row]


def main(args: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    found = {run.name: Learning.of(run) for run in parser.parse_args(args).runs}
    width = max(map(len, found))
    lines = [f"{'run':{width}}  steps  training loss  held-out loss, first and last"]
    for name, one in found.items():
        said = f"  FAILED: {'; '.join(one.faults)}" if one.faults else ""
        lines.append(f"{name:{width}}  {one.steps:5}  {one.loss:13.3f}  {one.first:.3f}  {one.last:.3f}{said}")
    sys.stdout.write("\n".join(lines) + "\n")
    return int(any(one.faults for one in found.values()))


if __name__ == "__main__":
    sys.exit(main())
