"""Learned decisions: linear rules over a few named measures.

The numbers come from the tuning half of the bench's reels and from reels made in the same way of other real footage,
with more fast pans than usual; the measures are described where they are taken. `tests/bench/fit_cuts.py` fits them
anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Rule:
    """A weighted sum of measures and of the squares of some; yes from 0 on."""

    weights: Mapping[str, float]
    bias: float
    squares: Mapping[str, float] = field(default_factory=dict)

    def score(self, measures: Mapping[str, float]) -> float:
        """The sum for measures of these names."""
        plain = sum(weight * measures[name] for name, weight in self.weights.items())
        return self.bias + plain + sum(weight * measures[name] ** 2 for name, weight in self.squares.items())


ASK_RULE = Rule(
    {"ratio": 2.04, "size": 1.2, "same": 18.08, "spread": 4.9, "lift": -1.06}, -9.3, {"same": -24.11, "ratio": -0.28}
)
"""May a cut lie between two looks? Logistic regression over 11,700 steps between looks that are larger than usual, 885
of them with a cut; the bias is moved so that one in a hundred cuts is passed over."""

CUT_RULE = Rule(
    {
        "before": 0.35, "after": 0.77, "size": 0.92, "returns": 9.36, "back": 13.43, "later": 4.7, "peak": -8.28,
        "spread": 2.41, "same": 7.09, "lift": -2.05,
    },
    -16.44,
    {"same": -14.18, "returns": -5.01, "back": -5.43},
)  # fmt: skip
"""Is a jump a cut? Logistic regression over 9,300 jumps, 908 of them cuts."""

WIPE_RULE = Rule({"step_smooth": 4.61, "share_smooth": 6.86, "even": 2.42, "same": -2.26, "length": 1.04}, -8.0)
"""Logistic regression over 731 stretches that pass the other tests of `wipe`, 263 of them around wipes; short ones are
fast pans more often."""
