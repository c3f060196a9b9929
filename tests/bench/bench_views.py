"""CPU of views, `motion` and `quality`: `python tests/bench/bench_views.py [--sizes 480 720 1080] [--runs 5]`.

Encodes moving texture with grain (H.264, 30 frames/s, without B-frames, so that every frame counts), cuts it into clips
of 4 and of 20 s, and takes the views that the recipe `embedded` asks for, as a run does. Prints milliseconds of process
time, the least of several runs: a thumbnail; a second of video for holding frames (`push`), for views and for each
stage; a clip for views and for each stage. Without decoding, cut detection and model inference.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from bench_kit import machine, markdown

from curate.engine.score import ViewKeys
from curate.media.decode import Frame, iter_frames
from curate.media.facts import read_facts
from curate.media.pixels import Scaler
from curate.media.views import ViewSampler
from curate.recipe import build, load_recipe
from curate.records import Clip, SourceFacts, Span
from curate.stage import ClipItem
from curate.testing.footage import moving_texture, write_video
from curate.view import THUMB_WIDTH_PX

SIZES = {480: (854, 480), 720: (1280, 720), 1080: (1920, 1080), 2160: (3840, 2160)}
RATE = 30
LENGTHS_S = (4, 20)


def main() -> None:
    """Make the files and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[480, 720, 1080], choices=SIZES)
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    print(machine())
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for lines in args.sizes:
            path = str(Path(folder, f"{lines}.mp4"))
            write(path, *SIZES[lines])
            for length_s in LENGTHS_S:
                rows.append([f"{lines}p", str(length_s), *measured(path, length_s, args.runs)])
    heads = ["size", "clip s", "luma thumb us", "thumb us", "push ms/s", "views ms/s", "motion ms/s", "quality ms/s"]
    print(markdown([*heads, "views ms/clip", "motion ms/clip", "quality ms/clip"], rows))


def write(path: str, width: int, height: int) -> None:
    """The longest clip of texture that moves, speeds up and carries grain."""
    rng = np.random.default_rng(0)
    grain = rng.normal(0, 2, (height + 64, width + 64, 1)).astype(np.float32)

    def frames() -> Any:
        scale = width / 854
        for frame in moving_texture(LENGTHS_S[-1] * RATE, width, height, (2.5 * scale, 0.7 * scale)):
            y, x = rng.integers(0, 64, 2)
            yield np.clip(frame + grain[y : y + height, x : x + width], 0, 255).astype(np.uint8)

    options = {"preset": "ultrafast", "crf": "26", "bf": "0"}
    write_video(path, frames(), Fraction(RATE), options=options)


def measured(path: str, length_s: int, runs: int) -> list[str]:
    """One row: thumbs, then everything per second of video and per clip."""
    facts = read_facts(path)
    pipeline = build(load_recipe("embedded"))
    keys = ViewKeys(pipeline.steps)
    stages = [step.stage for step in pipeline.steps if step.stage.name in ("motion", "quality")]
    clip = Clip.of_span(
        "0" * 64, facts.stream, facts.time_base_fraction, Span(0, round(length_s / facts.time_base_fraction))
    )
    pushing_s, sampler, thumb_s = pushed(path, facts, clip, keys.specs)
    views_s, pixels = least_s(lambda: sampler.take(clip), runs)
    spent_s = [views_s]
    for stage in stages:
        stage.setup()
        item = ClipItem(clip, facts, keys.views_of(stage, pixels))
        spent_s.append(least_s(lambda stage=stage, item=item: stage.process([item]), runs)[0])
    per_s = [pushing_s / length_s, *(value / length_s for value in spent_s)]
    return [
        *(f"{value * 1e6:.0f}" for value in thumb_s),
        *(f"{value * 1e3:.2f}" for value in [*per_s, *spent_s]),
    ]


def pushed(path: str, facts: SourceFacts, clip: Clip, specs: Any) -> tuple[float, ViewSampler, Sequence[float]]:
    """Seconds of holding a clip's frames, what holds them, and seconds of a luma and of a whole thumbnail."""
    sampler, scaler, spent_s = ViewSampler(facts, specs), Scaler(), 0.0
    thumbs_s: list[tuple[float, float]] = []
    for frame in iter_frames(path, facts, end_pts=clip.end_pts):
        began = time.process_time()
        sampler.push(frame)
        spent_s += time.process_time() - began
        if len(thumbs_s) < 40:
            thumbs_s.append(thumb_seconds(frame, scaler))
    return spent_s, sampler, [min(column) for column in zip(*thumbs_s, strict=True)]


def thumb_seconds(frame: Frame, scaler: Scaler) -> tuple[float, float]:
    """Seconds of a luma thumbnail and of a whole one."""
    makers: tuple[Callable[..., np.ndarray], ...] = (scaler.luma_thumb, scaler.thumb)
    first, second = (least_s(lambda make=make: make(frame.av_frame, THUMB_WIDTH_PX), 10)[0] for make in makers)
    return first, second


def least_s(work: Callable[[], Any], runs: int) -> tuple[float, Any]:
    """The least process time of several runs, and what the last one gave."""
    least, result = float("inf"), None
    for _ in range(runs):
        began = time.process_time()
        result = work()
        least = min(least, time.process_time() - began)
    return least, result


if __name__ == "__main__":
    main()
