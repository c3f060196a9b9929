"""From a sample of sources to the whole bucket: ratio estimates, and how far off they may be.

What a source takes or gives (seconds, clips, bytes) goes with something that is known of every source: how many pixels
it has, how long it lasts, how large its file is, or just that it is one. The total is what is known of the bucket times
the ratio found in the sample, where each source counts for those like it that were not drawn. Which of them a quantity
goes with is measured: the one that foretells each source of the sample best from all others.

Clips of one source are alike, so it is sources that are drawn again and again for the spread (bootstrap), never clips.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

DRAWS = 1000
CONFIDENCE = 0.9
"""Share of cases in which the true value is to lie inside an interval."""
_TAIL = (1 - CONFIDENCE) / 2

Array = np.ndarray


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value that was not measured whole: about ``value``, in nine of ten cases between ``low`` and ``high``.

    Both are None where a single source says nothing of the spread.
    """

    value: float
    low: float | None = None
    high: float | None = None

    def plus(self, known: float) -> Estimate:
        """With what is known beside it."""
        if self.low is None or self.high is None:
            return Estimate(self.value + known)
        return Estimate(self.value + known, self.low + known, self.high + known)


@dataclass(frozen=True)
class Bucket:
    """What is known of every source: ``predictors`` by name, one number a source, from the most telling on. ``sample``:
    positions of the sources that were tried; ``chances``: how likely each of these was to be."""

    predictors: Mapping[str, Array]
    sample: Array
    chances: Array

    @property
    def n(self) -> int:
        """Sources of the bucket."""
        return len(next(iter(self.predictors.values())))

    @property
    def is_whole(self) -> bool:
        """Whether the sample is all there is."""
        return len(self.sample) == self.n


@dataclass(frozen=True)
class Totals:
    """Totals of the whole bucket: estimates by quantity, ``draws`` of each (DRAWS values), and what each goes with.
    ``seen``: what the sample holds of it. ``cases``: in how many equal sources it would be as surely known. ``wholes``:
    by quantity that counts a part of another, which."""

    values: Mapping[str, float]
    draws: Mapping[str, Array]
    predictors: Mapping[str, str]
    seen: Mapping[str, float]
    cases: Mapping[str, float]
    wholes: Mapping[str, str]

    def estimate(self, *names: str) -> Estimate:
        """The sum of these quantities.

        Of something rare draws show little spread, and none where the sample lacks it. So the interval of a part of
        another quantity is never narrower than that of its share in it."""
        found = self.derived(lambda get: sum((get(name) for name in names), np.zeros(1)))
        whole = self.wholes.get(names[0], "") if len(names) == 1 else ""
        if not whole or found.low is None or found.high is None:
            return found
        share, of = self.share(names[0], whole), self.values[whole]
        if share.low is None or share.high is None or not self._is_open(whole):
            return found
        low = max(share.low * of, self.seen.get(names[0], 0.0))
        return Estimate(found.value, min(low, found.low), max(share.high * of, found.high))

    def derived(self, formula: Callable[[Callable[[str], Array]], Array]) -> Estimate:
        """What a formula makes of the quantities; it is given one draw of each after the other, as arrays."""
        value = float(np.ravel(formula(lambda name: np.array([self.values.get(name, 0.0)])))[0])
        drawn = np.asarray(formula(lambda name: self.draws.get(name, np.zeros(DRAWS))), float)
        if np.isnan(drawn).any():
            return Estimate(value)
        low, high = np.quantile(np.broadcast_to(drawn, DRAWS), [_TAIL, 1 - _TAIL])
        return Estimate(value, min(float(low), value), max(float(high), value))

    def share(self, part: str, whole: str) -> Estimate:
        """One quantity's share of another that it is a part of; 0 of nothing.

        Draws of a sample in which all sources agree show no spread at all, so the interval is never narrower than if
        each source were a single case (Wilson's)."""

        def formula(get: Callable[[str], Array]) -> Array:
            of = get(whole)
            return np.clip(np.divide(get(part), of, out=np.zeros_like(of), where=of != 0), 0.0, 1.0)

        found = self.derived(formula)
        if found.low is None or found.high is None or not self._is_open(whole):
            return found
        low, high = _wilson(found.value, self.cases[whole])
        return Estimate(found.value, min(low, found.low), max(high, found.high))

    def _is_open(self, whole: str) -> bool:
        """Whether there may be more of it than the sample has shown."""
        return self.values.get(whole, 0.0) > 0 and not math.isinf(self.cases[whole])


@dataclass(frozen=True, slots=True)
class Family:
    """Quantities that go with the same predictor, so that their sums hold too: the one that is named, else that which
    foretells the first of them best. Each has one number a source of the sample, 0 or more. ``whole``: the one of them
    that all others count parts of."""

    quantities: Mapping[str, Array]
    predictor: str = ""
    whole: str = ""


def totals(bucket: Bucket, families: Sequence[Family], seed: int = 0) -> Totals:
    """Totals over the bucket of all quantities of these families."""
    counts = _resampled(len(bucket.sample), seed)
    values: dict[str, float] = {}
    draws: dict[str, Array] = {}
    chosen: dict[str, str] = {}
    all_seen: dict[str, float] = {}
    cases: dict[str, float] = {}
    wholes: dict[str, str] = {}
    for family in families:
        name = family.predictor or best_predictor(bucket, next(iter(family.quantities.values())))
        for quantity, seen in family.quantities.items():
            chosen[quantity] = name
            all_seen[quantity], cases[quantity] = float(seen.sum()), _cases(bucket, seen)
            values[quantity], draws[quantity] = _total(bucket, name, seen.astype(float), counts)
        if family.whole:
            wholes.update(dict.fromkeys(family.quantities.keys() - {family.whole}, family.whole))
    return Totals(values, draws, chosen, all_seen, cases, wholes)


def best_predictor(bucket: Bucket, seen: Array) -> str:
    """The predictor with the least squared error where each source of the sample is foretold from the others; the
    first of equals. One that is 0 all over the sample foretells nothing."""
    y, errors = seen / bucket.chances, dict[str, float]()
    for name, known in bucket.predictors.items():
        x = known[bucket.sample] / bucket.chances
        others_x, others_y = x.sum() - x, y.sum() - y
        if (others_x > 0).all():
            errors[name] = float(np.sum((y - x * others_y / others_x) ** 2))
    usable = [name for name, known in bucket.predictors.items() if known[bucket.sample].sum() > 0]
    return min(errors or usable, key=lambda name: errors.get(name, 0.0))


def _total(bucket: Bucket, predictor: str, seen: Array, counts: Array) -> tuple[float, Array]:
    """The estimate, and draws of it. A source stands for as many as its chance was small."""
    known = bucket.predictors[predictor].astype(float)
    x, y = known[bucket.sample] / bucket.chances, seen / bucket.chances
    if bucket.is_whole:
        return float(seen.sum()), np.full(DRAWS, seen.sum())
    value = float(known.sum() * y.sum() / x.sum())
    if len(seen) == 1:
        return value, np.full(DRAWS, math.nan)
    weights = counts @ x
    drawn = np.divide(known.sum() * (counts @ y), weights, out=np.full(DRAWS, value), where=weights > 0)
    # Never less than the sample itself holds.
    return value, np.maximum(value + (drawn - value) * _widening(bucket.chances), seen.sum())


def _cases(bucket: Bucket, seen: Array) -> float:
    """Sources, all alike, that would tell a share of a quantity as surely as this sample does (Kish's effective size):
    fewer where some stand for much of it, more where it is much of the bucket. Infinitely many where nothing is open.
    """
    if bucket.is_whole:
        return math.inf
    y = seen / bucket.chances
    unsure = float(np.sum(y**2 * (1 - bucket.chances)))
    return float(y.sum()) ** 2 / unsure if unsure > 0 else math.inf


def _resampled(n: int, seed: int) -> Array:
    """How often each of ``n`` sources is drawn, in DRAWS draws of ``n``."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(n, np.full(n, 1 / n), size=DRAWS).astype(float)


def _widening(chances: Array) -> float:
    """What the spread of draws is to be multiplied with: drawing again from a few sources shows too little of it, and
    what was certain to be tried leaves nothing open."""
    n = len(chances)
    few = math.sqrt(n / (n - 1)) * _t_quantile(n - 1) / NormalDist().inv_cdf(1 - _TAIL)
    return few * math.sqrt(1 - float(chances.mean()))


def _wilson(share: float, n: float) -> tuple[float, float]:
    """Interval of a share that was found in ``n`` cases."""
    z = NormalDist().inv_cdf(1 - _TAIL)
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return max(0.0, middle - half), min(1.0, middle + half)


def _t_quantile(degrees: int) -> float:
    """Student's quantile at the upper end of an interval: exact for 1 and 2 degrees of freedom, then expanded."""
    p = 1 - _TAIL
    if degrees == 1:
        return math.tan(math.pi * (p - 0.5))
    if degrees == 2:
        return (2 * p - 1) * math.sqrt(2 / (4 * p * (1 - p)))
    z = NormalDist().inv_cdf(p)
    terms = (z, (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96, (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384)
    return sum(term / degrees**power for power, term in enumerate(terms))
