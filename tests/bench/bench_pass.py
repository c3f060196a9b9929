"""CPU of the analysis pass against bare decoding: `python tests/bench/bench_pass.py [--cache DIR] [--sizes 480 ...]`.

Makes files of every codec at several sizes out of the truth reels' footage (cuts every few seconds, film grain), and
prints for each, in one run on one core: the share of frames that can be skipped, CPU of a full decode and of one that
skips non-reference frames (PyAV, one thread), of the whole pass without model inference (probe, cuts, motion, quality
and all views that the recipe `embedded` asks for), and if asked of PySceneDetect's AdaptiveDetector and TransNetV2.
Each figure is the least of --turns turns.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from bench_kit import machine, markdown

from curate.engine.detect import Detection
from curate.engine.score import ViewKeys
from curate.media.facts import read_facts
from curate.media.views import ViewSampler
from curate.recipe import build, load_recipe
from curate.records import Clip
from curate.stage import ClipItem
from curate.testing.footage import write_video
from curate.testing.scenes import Frame

RATE = Fraction(30)
SIZES = {480: (854, 480), 720: (1280, 720), 1080: (1920, 1080), 2160: (3840, 2160)}
FRAMES = {480: 900, 720: 600, 1080: 450, 2160: 150}
CODECS: dict[str, dict[str, Any]] = {
    "h264-b": {"codec": "libx264", "options": {"preset": "fast", "crf": "23", "bf": "3"}},
    "h264-bf16": {
        "codec": "libx264",
        "options": {"preset": "fast", "crf": "23", "x264-params": "bframes=5:b-adapt=0:b-pyramid=none"},
    },
    "h264": {"codec": "libx264", "options": {"preset": "fast", "crf": "23", "bf": "0"}},
    "hevc": {"codec": "libx265", "options": {"preset": "superfast", "crf": "26", "x265-params": "log-level=error"}},
    "vp9": {"codec": "libvpx-vp9", "options": {"deadline": "realtime", "cpu-used": "7", "b": "0", "crf": "32"}},
    "av1": {"codec": "libsvtav1", "options": {"preset": "10", "crf": "35"}},
    "mpeg4": {"codec": "mpeg4", "options": {"bf": "2", "qscale": "4"}},
}
GRAIN_LEVELS = 2.0
KEPT_STAGES = ("motion", "quality")


@dataclass
class Row:
    """CPU seconds of one file."""

    name: str
    size: int
    frames: int
    skippable: float
    full_s: float
    nonref_s: float
    pass_s: float
    clips: int
    adaptive_s: float | None = None
    transnet_s: float | None = None


def footage(size_px: tuple[int, int], n: int) -> Iterator[Frame]:
    """Shots of 2 to 5 s of the default footage, cut together, at the size asked for, with grain."""
    from curate.testing.reel_footage import gather_material

    rng = np.random.default_rng(7)
    shots = gather_material(None)
    given = 0
    while given < n:
        shot = shots[int(rng.integers(len(shots)))]
        length = min(int(rng.integers(60, 150)), n - given)
        for i in range(length):
            turn, at = divmod(i, len(shot.frames))
            frame = shot.frames[at if turn % 2 == 0 else -1 - at]  # forwards and backwards: no cut inside a shot
            picture = cv2.resize(frame, size_px, interpolation=cv2.INTER_CUBIC)
            grain = rng.standard_normal((size_px[1] // 2, size_px[0] // 2), np.float32) * GRAIN_LEVELS
            noisy = picture + cv2.resize(grain, size_px)[..., None]
            yield np.clip(noisy, 0, 255).astype(np.uint8)
        given += length


def bare_s(path: Path, skip: str | None = None) -> float:
    """CPU seconds of decoding with PyAV, one thread."""
    began = time.process_time()
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        if skip:
            stream.codec_context.skip_frame = skip
        for packet in container.demux(stream):
            packet.decode()
    return time.process_time() - began


def whole_pass(path: Path) -> tuple[float, int]:
    """CPU seconds and clips of the pass as the engine makes it; stages with models only get their views."""
    pipeline = build(load_recipe("embedded"))
    keys = ViewKeys(pipeline.steps)
    specs = keys.wanted_by(pipeline.requested)
    stages = [step.stage for step in pipeline.steps if step.stage.name in KEPT_STAGES]
    for stage in stages:
        stage.setup()
    began = time.process_time()
    facts = read_facts(str(path))
    sampler = ViewSampler(facts, specs)
    clips = 0
    for spans in Detection(str(path), facts, pipeline.cut, sampler).spans():
        for span in spans:
            clip = Clip.of_span("0" * 64, facts.stream, facts.time_base_fraction, span)
            pixels = sampler.take(clip)
            for stage in stages:
                stage.score(ClipItem(clip, facts, keys.views_of(stage, pixels)))
            clips += 1
    return time.process_time() - began, clips


def adaptive_s(path: Path) -> float:
    """CPU seconds of PySceneDetect's AdaptiveDetector at its defaults, decoding included."""
    from cut_peers import adaptive

    began = time.process_time()
    adaptive(path)
    return time.process_time() - began


def transnet_s(path: Path) -> float:
    """CPU seconds of TransNetV2 at its defaults, decoding included."""
    from cut_peers import cpu_s, transnet

    began = cpu_s()
    transnet(path)
    return cpu_s() - began


def least(measure: Callable[[], float], turns: int) -> float:
    """Least of several turns."""
    return min(measure() for _ in range(turns))


def measured(path: Path, name: str, size: int, turns: int, peers: bool) -> Row:
    """All figures of one file."""
    facts = read_facts(str(path))
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        stream.codec_context.skip_frame = "NONREF"
        kept = sum(len(packet.decode()) for packet in container.demux(stream))
    passes = [whole_pass(path) for _ in range(turns)]
    row = Row(
        name,
        size,
        facts.n_frames,
        1 - kept / facts.n_frames,
        least(lambda: bare_s(path), turns),
        least(lambda: bare_s(path, "NONREF"), turns),
        min(seconds for seconds, _ in passes),
        passes[0][1],
    )
    if peers:
        row.adaptive_s = adaptive_s(path)
    return row


def scaling(path: Path, turns: int) -> float:
    """How many times the throughput of one worker two have, by wall time; best of several turns."""
    return max(2 * _wall_s([path]) / _wall_s([path, path]) for _ in range(turns))


def _wall_s(paths: list[Path]) -> float:
    with multiprocessing.get_context("spawn").Pool(len(paths)) as pool:
        pool.map(whole_pass, paths)  # imports and warm caches do not count
        began = time.perf_counter()
        pool.map(whole_pass, paths, chunksize=1)
        return time.perf_counter() - began


def cells(row: Row) -> list[str]:
    """A row of the table."""
    limit = row.nonref_s / row.full_s + 0.15
    peers = ["" if s is None else f"{s / row.pass_s:.1f}x" for s in (row.adaptive_s, row.transnet_s)]
    return [
        row.name,
        f"{row.size}p",
        f"{row.skippable:.0%}",
        f"{1000 * row.full_s / row.frames:.2f}",
        f"{row.nonref_s / row.full_s:.2f}",
        f"{row.pass_s / row.full_s:.2f}",
        f"{limit:.2f}",
        *peers,
    ]


def main() -> None:
    """Run the bench."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "curate-bench-pass")
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--codecs", nargs="+", default=list(CODECS), choices=list(CODECS))
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--peers", action="store_true", help="PySceneDetect's AdaptiveDetector too")
    parser.add_argument("--transnet", action="store_true", help="TransNetV2 too (slow; see cut_peers.py)")
    parser.add_argument("--scaling", action="store_true", help="wall time of one worker against two, on one file each")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    args.cache.mkdir(parents=True, exist_ok=True)
    rows = []
    for size in args.sizes:
        for name in args.codecs:
            path = args.cache / f"{name}-{size}.mp4"
            if not path.exists():
                part = path.with_suffix(".part.mp4")
                write_video(part, footage(SIZES[size], FRAMES[size]), fps=RATE, **CODECS[name])
                part.rename(path)
            if args.scaling:
                print(f"{name} {size}p: two workers do {scaling(path, args.turns):.2f}x of one", flush=True)
                continue
            rows.append(measured(path, name, size, args.turns, args.peers))
            if args.transnet:
                rows[-1].transnet_s = transnet_s(path)
            print(" ".join(f"{cell:>10}" for cell in cells(rows[-1])), flush=True)
    print(f"\n{machine()}\n")
    if args.scaling:
        return
    head = ("file", "size", "skippable", "ms a frame", "non-ref", "pass", "limit", "Adaptive", "TransNetV2")
    print(markdown(head, [cells(row) for row in rows]))
    if args.json:
        args.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))


if __name__ == "__main__":
    main()
