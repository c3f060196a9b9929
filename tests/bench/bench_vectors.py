"""CPU of the codec's motion vectors: `python tests/bench/bench_vectors.py [--sizes 480 1080] [--runs 5]`.

Encodes six seconds of moving texture with grain (H.264, 30 frames/s, without and with B-frames) and decodes them as a
run does: what other frames need, without and with the decoder being asked for vectors, and with those of the grid
frames made into squares. Then the stages `motion.vectors` and `motion.farneback` on one clip of all of it. Prints
milliseconds of process time per second of video (the least seen), the ratio to decoding alone in the same turn (median
and range over the turns), and the bytes that the views of the clip take.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from bench_kit import machine, markdown, middle

from curate.media.decode import iter_frames
from curate.media.facts import read_facts
from curate.media.packets import Depth
from curate.media.vectors import vector_cells
from curate.media.views import ViewSampler
from curate.records import Clip, SourceFacts, Span
from curate.stage import ClipItem, ClipStage
from curate.stages.registry import stage_class
from curate.testing.footage import moving_texture, write_video

SIZES = {480: (854, 480), 720: (1280, 720), 1080: (1920, 1080), 2160: (3840, 2160)}
RATE, LENGTH_S = 30, 6
STAGES = ("motion.vectors", "motion.farneback", "motion")


def main() -> None:
    """Make the files and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[480, 1080], choices=SIZES)
    parser.add_argument("--runs", type=int, default=7)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    print(machine())
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for lines in args.sizes:
            for b_frames in (0, 3):
                path = str(Path(folder, f"{lines}-{b_frames}.mp4"))
                write(path, *SIZES[lines], b_frames)
                rows.append([f"{lines}p", str(b_frames), *measured(path, args.runs)])
    heads = ["size", "B-frames", "decode ms/s", "asked", "and squares", *(f"`{name}` ms/s" for name in STAGES)]
    print(markdown([*heads, "vectors of the clip, KB"], rows))


def write(path: str, width: int, height: int, b_frames: int) -> None:
    """Texture that moves and carries grain."""
    rng = np.random.default_rng(0)
    grain = rng.normal(0, 2, (height + 64, width + 64, 1)).astype(np.float32)

    def frames() -> Any:
        scale = width / 854
        for frame in moving_texture(LENGTH_S * RATE, width, height, (2.5 * scale, 0.7 * scale)):
            y, x = rng.integers(0, 64, 2)
            yield np.clip(frame + grain[y : y + height, x : x + width], 0, 255).astype(np.uint8)

    write_video(path, frames(), Fraction(RATE), options={"preset": "superfast", "crf": "24", "bf": str(b_frames)})


def measured(path: str, runs: int) -> list[str]:
    """One row."""
    facts = read_facts(path)
    ways = [
        lambda: decode(path, facts),
        lambda: decode(path, facts, asked=True),
        lambda: decode(path, facts, "squares"),
    ]
    turns = [[seconds(way) for way in ways] for _ in range(runs)]
    clip = Clip.of_span("0" * 64, facts.stream, facts.time_base_fraction, Span(facts.start_pts, facts.end_pts))
    stages: list[ClipStage[Any]] = [stage_class(name)(stage_class(name).config_type()) for name in STAGES]  # pyright: ignore[reportAssignmentType]
    ratios = [middle([turn[at] / turn[0] for turn in turns], 2) for at in (1, 2)]
    scored = [scored_s(path, facts, clip, stage) for stage in stages]
    size_bytes = items_of(path, facts, clip, stages[0]).views["vectors"].frames.nbytes
    times = [f"{value * 1e3 / LENGTH_S:.2f}" for value in (min(turn[0] for turn in turns), *scored)]
    return [times[0], *ratios, *times[1:], f"{size_bytes / 1e3:.0f}"]


def decode(path: str, facts: SourceFacts, squares: str = "", *, asked: bool = False) -> int:
    """Frames that others need, and squares of two a second."""
    size_px, step, n = (facts.coded_width_px, facts.coded_height_px), -1, 0
    for frame in iter_frames(path, facts, depth=Depth.REFERENCE, vectors=asked or bool(squares)):
        at = int(2 * frame.pts * facts.time_base_fraction)
        if squares and at > step:
            step, n = at, n + int(vector_cells(frame.av_frame, size_px)[0, 0, 0])
    return n


def items_of(path: str, facts: SourceFacts, clip: Clip, stage: ClipStage[Any]) -> ClipItem:
    """The clip with the views of a stage."""
    sampler = ViewSampler(facts, stage.views())
    for frame in iter_frames(path, facts, depth=Depth.REFERENCE, vectors=sampler.wants_vectors):
        sampler.push(frame)
    return ClipItem(clip, facts, sampler.take(clip))


def scored_s(path: str, facts: SourceFacts, clip: Clip, stage: ClipStage[Any]) -> float:
    """Seconds of a stage on the clip, the least of three."""
    item = items_of(path, facts, clip, stage)
    stage.setup()
    return min(seconds(lambda: stage.score(item)) for _ in range(3))


def seconds(work: Callable[[], Any]) -> float:
    """Process time of a call."""
    began = time.process_time()
    work()
    return time.process_time() - began


if __name__ == "__main__":
    main()
