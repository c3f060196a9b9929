"""Fixed overhead of `curate run` on one 5-second video: wall seconds less the stages' own (sum of `seconds` of cells).

    python tests/bench/bench_overhead.py [--repeats 3]

The video is generated (640x360, 30 fps). Every run writes a fresh corpus, after one that is not counted; engines and
runs take turns. The weights must be on this machine (`curate models fetch`). "again": the same command once more, with
nothing left to compute. Loading a model counts as overhead: it happens once a worker, however many clips follow.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

from bench_kit import CURATE, Spent, machine, markdown, middle, stage_seconds, timed

from curate.testing.footage import write_video
from curate.testing.scenes import moving_texture

LIMIT_S = {"inline": 6.0, "ray": 25.0}
CASES = (("scores and selection", ("--no-export",)), ("with shards", ()), ("again, nothing to do", ("--no-export",)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--engines", nargs="*", choices=list(LIMIT_S), default=list(LIMIT_S))
    options = parser.parse_args()
    print(machine())
    found: dict[tuple[str, str], list[tuple[Spent, float]]] = {}
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        video = folder / "five_seconds.mp4"
        write_video(video, moving_texture(150, 640, 360, (3, 1), seed=1))
        timed([*CURATE, "run", str(video), "--out", str(folder / "warm"), "--engine", "inline"])
        for repeat in range(options.repeats):
            for engine in options.engines:
                for case, more in CASES:
                    corpus = folder / f"{engine}-{repeat}-{'shards' if case == 'with shards' else 'scores'}"
                    before_s = stage_seconds(corpus)
                    command = [*CURATE, "run", str(video), "--out", str(corpus), "--engine", engine, *more]
                    spent = timed(command)
                    found.setdefault((engine, case), []).append((spent, stage_seconds(corpus) - before_s))
    rows = []
    for (engine, case), runs in found.items():
        over_s = [spent.wall_s - stages_s for spent, stages_s in runs]
        rows.append(
            [
                engine,
                case,
                middle([spent.wall_s for spent, _ in runs]),
                middle([spent.cpu_s for spent, _ in runs]),
                f"{statistics.median(stages_s for _, stages_s in runs):.1f}",
                middle(over_s),
                f"{LIMIT_S[engine]:g}",
            ]
        )
    heads = ["engine", "run", "wall s", "CPU s", "of it stages", "overhead s", "limit s"]
    print(markdown(heads, rows))


if __name__ == "__main__":
    main()
