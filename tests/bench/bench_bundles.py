"""How full the batches of a GPU stage are: clips of many sources on their way to a worker of its own.

    python tests/bench/bench_bundles.py [--engines inline ray] [--sources 256] [--rounds 2]

The stage takes the views of `svd` (4.8 MB a clip from 569x320) in batches of 32 and, in place of a network, sleeps as
long for a batch as for a full one, as padded batches do. `films` have 1, 2 and 7 clips of a second by turns, `shorts`
one. It uses nothing that earlier versions lack, so PYTHONPATH chooses which one is measured.
"""

from __future__ import annotations

import argparse
import os
import struct
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from bench_kit import machine, markdown

sys.path.insert(0, str(Path(__file__).parents[1]))

from engine_kit import Listening, pipeline, run

from curate.config import Config
from curate.engine.inline import InlineEngine
from curate.stage import ClipItem, ClipStage, Column, Resources
from curate.testing.footage import moving_texture, write_video
from curate.view import ViewSpec

TESTS = Path(__file__).parents[1]
BATCH = 32
BATCH_S = 0.25
CLIPS = {"films": (1, 2, 7), "shorts": (1,)}


class TraceConfig(Config):
    """Where the sizes of batches are written down."""

    folder: str


class Network(ClipStage[TraceConfig]):
    """Sleeps as a padded batch of a network would compute."""

    name = "network"
    version = 1
    config_type = TraceConfig
    resources = Resources(cpus=0.5, pool=True, batch_size=BATCH)
    columns = (Column("n", pa.int32(), "", ""),)

    def views(self) -> Mapping[str, ViewSpec]:
        """Those of `text`, `clip`, `caption.coca` and `caption.vblip`."""
        ends = (0.0, 0.5, 1.0)
        return {
            "text": ViewSpec(points=ends, short_side_px=320),
            "clip": ViewSpec(points=ends, short_side_px=224),
            "coca": ViewSpec(points=(0.5,), short_side_px=224),
            "vblip": ViewSpec(points=tuple(i / 7 for i in range(8)), short_side_px=224),
        }

    def score(self, item: ClipItem) -> Mapping[str, Any]:
        """Nothing is measured."""
        return {"n": 0}

    def score_batch(self, items: Sequence[ClipItem]) -> list[Mapping[str, Any]]:
        """A batch, and its size for the table."""
        time.sleep(BATCH_S)
        with (Path(self.config.folder) / f"{os.getpid()}.txt").open("a") as file:
            file.write(f"{len(items)}\n")
        return [self.score(item) for item in items]


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", nargs="+", choices=("inline", "ray"), default=("inline", "ray"))
    parser.add_argument("--sources", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=2)
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for name, counts in CLIPS.items():
            bucket(Path(scratch) / name, counts, args.sources)
        for number in range(args.rounds):
            for engine in args.engines:
                rows += [row(Path(scratch), name, engine, number) for name in CLIPS]
    print(machine())
    print(markdown(["engine", "sources", "clips", "batches", "full", "padding", "waited", "s"], rows))


def bucket(folder: Path, counts: Sequence[int], n: int) -> None:
    """Sources by turns of so many clips; a counter in a box that no player reads tells them apart."""
    folder.mkdir()
    base = []
    for index, clips in enumerate(counts):
        path = folder / f"base{index}.mp4"
        write_video(path, moving_texture(25 * clips, 569 // 2 * 2, 320, (1, 0), seed=index))
        base.append(path.read_bytes())
        path.unlink()
    for number in range(n):
        (folder / f"{number:04}.mp4").write_bytes(base[number % len(base)] + struct.pack(">I4sI", 12, b"free", number))


def row(scratch: Path, name: str, engine: str, number: int) -> list[str]:
    """A run and what its batches were like."""
    out = scratch / f"{engine}-{name}-{number}"
    (out / "trace").mkdir(parents=True)
    pipe = pipeline(Network(TraceConfig(folder=str(out / "trace"))))
    began = time.perf_counter()
    _, heard = run(out / "corpus", scratch / name, pipe, made(engine, out))
    seconds = time.perf_counter() - began
    sizes = [int(line) for path in (out / "trace").iterdir() for line in path.read_text().splitlines()]
    full = sum(size == BATCH for size in sizes) / len(sizes)
    padding = 1 - sum(sizes) / (len(sizes) * BATCH)
    return [
        engine,
        name,
        str(sum(sizes)),
        str(len(sizes)),
        f"{full:.0%}",
        f"{padding:.0%}",
        waited(heard),
        f"{seconds:.0f}",
    ]


def made(engine: str, out: Path) -> Any:
    if engine == "inline":
        return InlineEngine(out)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(TESTS), str(TESTS / "bench"), os.environ.get("PYTHONPATH", "")])
    from curate.engine.ray_engine import RayEngine
    from curate.engine.ray_start import RayOptions

    return RayEngine(RayOptions(num_cpus=2))


def waited(heard: Listening) -> str:
    use = heard.total.stage_use["network"]
    return f"{use.waited_s / (use.waited_s + use.busy_s):.0%}"


if __name__ == "__main__":
    main()
