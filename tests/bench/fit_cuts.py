"""Fit the cut detector's learned rules anew: `python tests/bench/fit_cuts.py [--cache DIR]`.

Runs the detector over the reels of the tuning half, keeps every set of measures that a rule was asked about, labels it
by the truth (a cut within the step, a cut at the jump, a wipe under the stretch), and prints each rule's numbers beside
those of a logistic regression on the same terms. The rules in `curate/stages/cut/rules.py` were fitted so on these
reels and on some of other footage with more fast pans, and the bias of the first was moved towards asking: the numbers
come out alike, not equal.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import bench_cuts
import cv2
import numpy as np

from curate.media.facts import read_facts
from curate.stages.cut import hard, rules, wipe
from curate.testing.reels import Event, read_truth

RIDGE = 1e-2
STEPS = 50
SLACK_S = 0.03


@dataclass
class Asked:
    """What a rule was asked: measures and the time, in s, from and to which they reach; by rule."""

    span_s: tuple[float, float] = (0.0, 0.0)
    rows: dict[str, list[tuple[dict[str, float], float, float]]] = field(default_factory=dict)

    def note(self, name: str, measures: dict[str, float]) -> None:
        self.rows.setdefault(name, []).append((dict(measures), *self.span_s))


class Listening:
    """A rule that notes what it is asked."""

    def __init__(self, name: str, rule: rules.Rule, asked: Asked) -> None:
        self._name, self._rule, self._asked = name, rule, asked

    def score(self, measures: dict[str, float]) -> float:
        if measures["same"] != hard.LIKELY_SAME:  # else asked whether the likeness is worth measuring
            self._asked.note(self._name, measures)
        return self._rule.score(measures)


def listen(asked: Asked) -> None:
    """Let the detector's rules note what they are asked, and for which stretch of time."""
    hard.ASK_RULE, hard.CUT_RULE = Listening("ask", rules.ASK_RULE, asked), Listening("cut", rules.CUT_RULE, asked)
    wipe.WIPE_RULE = Listening("wipe", rules.WIPE_RULE, asked)
    wants, judge, sweep = hard.JumpFinder.wants_between, hard.judge, wipe._sweep

    def wants_between(self: Any, window: Any, new: int) -> bool:
        asked.span_s = (window.time_s(new - 1), window.time_s(new)) if new else (0.0, 0.0)
        return wants(self, window, new)

    def judged(window: Any, frame: int) -> Any:
        asked.span_s = (window.time_s(frame - 1), window.time_s(frame))
        return judge(window, frame)

    def swept(window: Any, frames: np.ndarray) -> Any:
        asked.span_s = (window.time_s(int(frames[0])), window.time_s(int(frames[-1])))
        return sweep(window, frames)

    hard.JumpFinder.wants_between, hard.judge, wipe._sweep = wants_between, judged, swept


def labels(name: str, rows: list[Any], events: list[Event], times_s: list[float]) -> list[bool]:
    """Whether each stretch holds what its rule asks for."""
    cuts = np.array([times_s[e.first] for e in events if e.kind in ("hard", "short")])
    wipes = [(times_s[e.first], times_s[min(e.clean, len(times_s) - 1)]) for e in events if e.kind == "wipe"]
    if name == "wipe":
        return [any(a < end and begin < b for a, b in wipes) for _, begin, end in rows]
    return [bool(np.any((cuts > begin + SLACK_S / 9) & (cuts < end + SLACK_S))) for _, begin, end in rows]


def fitted(rule: rules.Rule, measures: list[dict[str, float]], wanted: list[bool]) -> rules.Rule:
    """Logistic regression on the terms of a rule, by Newton steps with a little ridge."""
    names, squares = list(rule.weights), list(rule.squares)
    columns = [[m[n] for n in names] + [m[n] ** 2 for n in squares] + [1.0] for m in measures]
    x, y = np.array(columns), np.array(wanted, float)
    weights = np.zeros(x.shape[1])
    for _ in range(STEPS):
        share = 1 / (1 + np.exp(-np.clip(x @ weights, -30, 30)))
        slope = x.T @ (share - y) + RIDGE * weights
        curve = (x * (share * (1 - share))[:, None]).T @ x + RIDGE * np.eye(x.shape[1])
        weights = weights - np.linalg.solve(curve, slope)
    found = [round(float(w), 2) for w in weights]
    plain, squared = found[: len(names)], found[len(names) : -1]
    return rules.Rule(dict(zip(names, plain, strict=True)), found[-1], dict(zip(squares, squared, strict=True)))


def judged_yes(rule: rules.Rule, measures: list[dict[str, float]], wanted: list[bool]) -> tuple[float, float]:
    """Shares of the cases with a yes and of those with a no to which a rule says yes."""
    says, truth = np.array([rule.score(m) >= 0 for m in measures]), np.array(wanted)
    return float(says[truth].mean()), float(says[~truth].mean())


def main() -> None:
    """Run the detector, fit, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, help="keeps the reels for the next run")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    asked, cases = Asked(), {name: ([], []) for name in ("ask", "cut", "wipe")}
    listen(asked)
    with tempfile.TemporaryDirectory() as scratch:
        for path in bench_cuts.reels(args.cache or Path(scratch), "tune", bench_cuts.FULL, None, 1):
            asked.rows.clear()
            bench_cuts.ours(path)
            base = float(read_facts(str(path)).time_base_fraction)
            times_s = [pts * base for pts in bench_cuts.frame_times(path)]
            for name, rows in asked.rows.items():
                cases[name][0].extend(row[0] for row in rows)
                cases[name][1].extend(labels(name, rows, read_truth(path)[0], times_s))
    for name, rule in (("ask", rules.ASK_RULE), ("cut", rules.CUT_RULE), ("wipe", rules.WIPE_RULE)):
        measures, wanted = cases[name]
        new = fitted(rule, measures, wanted)
        print(f"{name}: {len(wanted)} cases, {sum(wanted)} of them yes")
        for title, each in (("  as it is", rule), ("  fitted  ", new)):
            yes, no = judged_yes(each, measures, wanted)
            print(f"{title} yes to {yes:.3f} of these and to {no:.3f} of the others")
            print(f"      {dict(each.weights)}, bias {each.bias}, {dict(each.squares)}")


if __name__ == "__main__":
    main()
