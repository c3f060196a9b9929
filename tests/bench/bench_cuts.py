"""Cut detection against known truth: `python tests/bench/bench_cuts.py [--half report] [--size full] [--transnet]`.

Makes reels out of real footage (`curate.testing.reels`) in twelve encodings and finds their changes of shot with the
analysis pass of the default recipe, with PySceneDetect and, where it is installed, TransNetV2, in the same run.

A found change of shot stands for at most one true one. A cut (hard, jump, short) is found when what was found begins
and ends within one frame of it; a gradual one when the two stretches overlap, with one frame of slack. What stands for
none is a false alarm; one within 4 frames of a distractor is that distractor's. Precision of a kind: of what was found
and stands for none, ours counts against the kind it was called; the others call everything a cut, so they have an
overall precision alone. Boundary error of a cut: frames beside the truth; of a gradual one: frames by which either end
is off. Jump cuts are outside the overall figures: many show next to nothing.
"""

from __future__ import annotations

import argparse
import bisect
import itertools
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import av
import cv2
import numpy as np
from bench_kit import machine, markdown
from cut_peers import PEERS, cpu_s

from curate.engine.detect import Detection
from curate.media.facts import read_facts
from curate.media.views import ViewSampler
from curate.records import CutKind
from curate.stages.cut import Cut, CutConfig
from curate.testing.reel_footage import gather_material
from curate.testing.reels import DISTRACTORS, ENCODINGS, JOINTS, Event, make_reel, read_truth, write_reel

CUTS = ("hard", "jump", "short")
JUDGED = tuple(kind for kind in JOINTS if kind != "jump")
"""Kinds that count in the overall figures. A jump cut may be found or not: many cannot be seen."""
FULL = {
    "hard": 9, "jump": 9, "short": 5, "dissolve": 9, "fade": 9, "wipe": 9,
    "flash": 13, "strobe": 4, "pan": 13, "static": 5,
}  # fmt: skip
"""Of each kind in each of the twelve reels."""
SMALL = {"hard": 2, "jump": 1, "short": 1, "dissolve": 2, "fade": 2, "wipe": 2, "flash": 3, "strobe": 1, "pan": 3}
NEAR_FRAMES = 4
OURS = "curate"


@dataclass
class Tally:
    """What one detector found on some reels. ``errors`` in frames, by kind of event."""

    found: dict[str, int] = field(default_factory=dict)
    total: dict[str, int] = field(default_factory=dict)
    errors: dict[str, list[int]] = field(default_factory=dict)
    clean: dict[str, int] = field(default_factory=dict)
    false_by_call: dict[str, int] = field(default_factory=dict)
    fooled: dict[str, int] = field(default_factory=dict)
    cases: dict[str, int] = field(default_factory=dict)
    false: int = 0
    cpu_s: float = 0.0

    def add(self, other: Tally) -> None:
        for name in ("found", "total", "clean", "false_by_call", "fooled", "cases"):
            mine = getattr(self, name)
            for kind, n in getattr(other, name).items():
                mine[kind] = mine.get(kind, 0) + n
        for kind, values in other.errors.items():
            self.errors.setdefault(kind, []).extend(values)
        self.false += other.false
        self.cpu_s += other.cpu_s

    def recall(self, kinds: Sequence[str]) -> float:
        return sum(self.found.get(k, 0) for k in kinds) / max(1, sum(self.total.get(k, 0) for k in kinds))

    def precision(self, kinds: Sequence[str] | None = None, calls: Sequence[str] = ()) -> float:
        right = sum(n for k, n in self.found.items() if k in (kinds or JUDGED))
        wrong = self.false if kinds is None else sum(self.false_by_call.get(c, 0) for c in calls)
        return right / max(1, right + wrong)

    def f1(self) -> float:
        recall, precision = self.recall(JUDGED), self.precision()
        return 2 * recall * precision / max(1e-9, recall + precision)


@dataclass(frozen=True)
class Found:
    """A change of shot in frame numbers, and what the detector calls it."""

    first: int
    clean: int
    call: str = "cut"


def ours(path: Path, method: str) -> list[Found]:
    """The gaps between the clips that a method of `cut` leaves when every shot may be a clip."""
    facts = read_facts(str(path))
    stage = Cut(CutConfig.model_validate({"method": method, "min_len_s": 0, "max_len_s": 0}))
    pieces = Detection(str(path), facts, stage, ViewSampler(facts, {})).spans()
    spans = [span for some in pieces for span in some]
    pts = frame_times(path)
    return [
        Found(bisect.bisect_left(pts, a.end_pts), bisect.bisect_left(pts, b.start_pts), _call(a.end_kind, b.start_kind))
        for a, b in itertools.pairwise(spans)
    ]


def _call(end: CutKind, start: CutKind) -> str:
    return str(end if end is not CutKind.HARD else start)


def frame_times(path: Path) -> list[int]:
    """pts of all frames, ascending."""
    with av.open(str(path)) as container:
        packets = container.demux(container.streams.video[0])
        return sorted({packet.pts for packet in packets if packet.size and packet.pts is not None})


def judge(events: Sequence[Event], distractors: Sequence, found: Sequence[Found], show: Callable[[str], None]) -> Tally:
    """Compare what was found with the truth."""
    tally = Tally()
    left = list(found)
    for event in sorted(events, key=lambda e: (e.kind not in CUTS, e.first)):
        tally.total[event.kind] = tally.total.get(event.kind, 0) + 1
        hit = min((f for f in left if _stands_for(event, f)), key=lambda f: _error(event, f), default=None)
        if hit is None:
            show(f"missed {event}")
            continue
        left.remove(hit)
        tally.found[event.kind] = tally.found.get(event.kind, 0) + 1
        tally.errors.setdefault(event.kind, []).append(_error(event, hit))
        covers = hit.first <= event.first and hit.clean >= event.clean
        tally.clean[event.kind] = tally.clean.get(event.kind, 0) + covers
    tally.false = len(left)
    fooled = set()
    for each in left:
        tally.false_by_call[each.call] = tally.false_by_call.get(each.call, 0) + 1
        near = [d for d in distractors if d.first - NEAR_FRAMES <= each.clean and each.first <= d.end + NEAR_FRAMES]
        fooled |= {(d.kind, d.first) for d in near}
        show(f"false {each} {near[:1]}")
    for each in distractors:
        tally.cases[each.kind] = tally.cases.get(each.kind, 0) + 1
    for kind, _ in fooled:
        tally.fooled[kind] = tally.fooled.get(kind, 0) + 1
    return tally


def _stands_for(event: Event, found: Found) -> bool:
    if event.kind in CUTS:
        return max(abs(found.first - event.first), abs(found.clean - event.first)) <= 1
    return found.first <= event.clean + 1 and event.first - 1 <= found.clean


def _error(event: Event, found: Found) -> int:
    if event.kind in CUTS:
        return min(abs(found.first - event.first), abs(found.clean - event.first))
    return max(abs(found.first - event.first), abs(found.clean - event.clean))


def reels(folder: Path, half: str | None, counts: dict[str, int], footage: Path | None, seed: int) -> list[Path]:
    """One reel an encoding; those already in the folder are taken as they are."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}{encoding.suffix}" for name, encoding in ENCODINGS.items()]
    if all(path.with_suffix(".json").exists() for path in paths):
        return paths
    material = gather_material(footage, half=half)
    for number, (path, encoding) in enumerate(zip(paths, ENCODINGS.values(), strict=True)):
        reel = make_reel(material, counts, seed=seed + number, rate=encoding.rate, vfr=encoding.vfr)
        write_reel(path, reel, encoding)
    return paths


def report(tallies: dict[str, Tally]) -> None:
    """The tables."""
    kinds = [k for k in JOINTS if k in tallies[OURS].total]
    rows = []
    for kind in kinds:
        errors = tallies[OURS].errors.get(kind, [0])
        spread = f"{np.median(errors):.0f} / {np.quantile(errors, 0.9):.0f}"
        clean = tallies[OURS].clean.get(kind, 0) / max(1, tallies[OURS].found.get(kind, 0))
        recalls = (f"{t.recall([kind]):.3f}" for t in tallies.values())
        rows.append([kind, str(tallies[OURS].total[kind]), *recalls, spread, f"{clean:.2f}"])
    for name, group, calls in (
        ("cuts: precision", CUTS, ("hard",)),
        ("dissolves, fades: precision", ("dissolve", "fade"), ("dissolve", "fade")),
        ("wipes: precision", ("wipe",), ("wipe",)),
    ):
        rows.append([name, "", f"{tallies[OURS].precision(group, calls):.3f}", *[""] * (len(tallies) + 1)])
    rows.append(["all: recall", "", *(f"{t.recall(JUDGED):.3f}" for t in tallies.values()), "", ""])
    rows.append(["all: precision", "", *(f"{t.precision():.3f}" for t in tallies.values()), "", ""])
    rows.append(["all: F1", "", *(f"{t.f1():.3f}" for t in tallies.values()), "", ""])
    for kind in (k for k in DISTRACTORS if k in tallies[OURS].cases):
        cases = tallies[OURS].cases[kind]
        fooled = (f"{t.fooled.get(kind, 0) / cases:.1%}" for t in tallies.values())
        rows.append([f"{kind}: false cuts", str(cases), *fooled, "", ""])
    rows.append(["CPU s", "", *(f"{t.cpu_s:.1f}" for t in tallies.values()), "", ""])
    rows.append(["CPU / ours", "", *(f"{t.cpu_s / tallies[OURS].cpu_s:.1f}" for t in tallies.values()), "", ""])
    print(markdown(["recall", "cases", *tallies, "our error, frames (median / 9 in 10)", "clean"], rows))


def main() -> None:
    """Run the bench."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--half", choices=["tune", "report"], help="files that thresholds are tuned on, or the others")
    parser.add_argument("--size", choices=["full", "small"], default="full")
    parser.add_argument("--footage", type=Path, help="a folder of video files instead of the default footage")
    parser.add_argument("--cache", type=Path, help="keeps the reels for the next run")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--ours-only", action="store_true")
    parser.add_argument("--transnet", action="store_true", help="TransNetV2 too (slow; see cut_peers.py)")
    parser.add_argument("--method", default="cascade", help="our method, of those that `cut` knows")
    parser.add_argument("--show", action="store_true", help="list what was missed and invented")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    names = [] if args.ours_only else [n for n in PEERS if n != "TransNetV2" or args.transnet]
    with tempfile.TemporaryDirectory() as scratch:
        counts = FULL if args.size == "full" else SMALL
        paths = reels(args.cache or Path(scratch), args.half, counts, args.footage, args.seed)
        tallies = {name: Tally() for name in (OURS, *names)}
        for path in paths:
            events, distractors = read_truth(path)
            line = [f"{path.name:24}"]
            for name, tally in tallies.items():
                began = cpu_s()
                found = ours(path, args.method) if name == OURS else [Found(*each) for each in PEERS[name](path)]
                show = (lambda text, p=path.name: print(f"    {p} {text}")) if args.show and name == OURS else _silent
                one = judge(events, distractors, found, show)
                one.cpu_s = cpu_s() - began
                tally.add(one)
                line.append(f"{name} F1 {one.f1():.3f} {one.cpu_s:.1f} s")
            print("  ".join(line), flush=True)
    print(f"\n{machine()}; half {args.half}, seed {args.seed}\n")
    report(tallies)
    if args.json:
        args.json.write_text(json.dumps({name: asdict(tally) for name, tally in tallies.items()}, indent=1))


def _silent(_text: str) -> None:
    pass


if __name__ == "__main__":
    main()
