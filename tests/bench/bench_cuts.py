"""Cut detection against known truth: `python tests/bench/bench_cuts.py [--seed N] [--minutes M] [FILES...]`.

Edits reels out of moving crops of pictures (generated textures, or stills of the given video files) with hard cuts,
dissolves, fades through black or white, and camera flashes; prints recall per kind, precision, F1, flashes taken for
cuts and CPU seconds of the cascade and of PySceneDetect's detectors, all fed the same frames.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import av
import cv2
import numpy as np

from curate.records import CutKind, SourceFacts
from curate.stage import Thumb
from curate.stages.cut import Cut, CutConfig
from curate.testing import scenes

WIDTH_PX, HEIGHT_PX, RATE = 320, 180, 30
TO_YUV = np.array(
    [
        [0.25679, 0.50413, 0.09791, 16.0],
        [-0.14822, -0.29099, 0.43922, 128.0],
        [0.43922, -0.36779, -0.07143, 128.0],
    ]
)
METHODS = ("cascade", "pyscenedetect-content", "pyscenedetect-adaptive")


@dataclass(frozen=True)
class Truth:
    """A transition: first affected frame, first clean frame (equal for a hard cut), kind."""

    first: int
    clean: int
    kind: str


def pictures(files: list[str]) -> list[np.ndarray]:
    """Stills to film: two a second of the files, or generated ones."""
    if not files:
        return [_tinted(scenes.texture(seed, 512), seed) for seed in range(40)]
    found = []
    for path in files:
        with av.open(path) as container:
            stream = max(container.streams.video, key=lambda s: s.width)
            every = max(1, round(float(stream.average_rate or 30) / 2))
            frames = (f.to_ndarray(format="rgb24") for i, f in enumerate(container.decode(stream)) if i % every == 0)
            found += [cv2.resize(frame, (640, 360)) for frame in frames if frame.std() > 12]
    return found


def _tinted(picture: np.ndarray, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    gain, offset = rng.uniform(0.4, 1.2, 3), rng.uniform(-40, 40, 3)
    return np.clip(picture * gain + offset, 0, 255).astype(np.uint8)


def shot(picture: np.ndarray, n: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """A camera move over a picture, with hand shake and sensor noise: smooth pans and zooms of up to 0.6 widths/s."""
    height, width = picture.shape[:2]
    scale = rng.uniform(0.35, 0.6)
    zoom = rng.uniform(-0.15, 0.15) / RATE
    speed = rng.choice([0.0, 0.05, 0.15, 0.6], p=[0.3, 0.3, 0.3, 0.1]) * width * scale / RATE
    angle = rng.uniform(0, 2 * np.pi)
    start = rng.uniform(0, (1 - scale)) * width, rng.uniform(0, (1 - scale)) * height
    shake = rng.choice([0.0, 0.5])
    for i in range(n):
        size = scale * (1 + zoom * i)
        x = start[0] + np.cos(angle) * speed * i + rng.normal(0, 1) * shake
        y = start[1] + np.sin(angle) * speed * i + rng.normal(0, 1) * shake
        place = np.array([[WIDTH_PX / (width * size), 0, 0], [0, HEIGHT_PX / (height * size), 0]])
        place[:, 2] = -place[0, 0] * x, -place[1, 1] * y
        frame = cv2.warpAffine(picture, place, (WIDTH_PX, HEIGHT_PX), borderMode=cv2.BORDER_REFLECT)
        noise = rng.normal(0, 2, frame.shape[:2])[..., None]
        yield np.clip(frame + noise, 0, 255).astype(np.uint8)


def reel(stills: list[np.ndarray], minutes: float, seed: int) -> tuple[list[np.ndarray], list[Truth], list[int]]:
    """Frames (RGB), transitions in order, and the frames at which flashes begin."""
    rng = np.random.default_rng(seed)
    frames: list[np.ndarray] = []
    truths: list[Truth] = []
    flashes: list[int] = []
    while len(frames) < minutes * 60 * RATE:
        taken = list(shot(stills[rng.integers(len(stills))], int(rng.integers(45, 150)), rng))
        if rng.random() < 0.25:
            at, long = int(rng.integers(15, len(taken) - 15)), int(rng.integers(1, 4))
            for i in range(at, at + long):
                taken[i] = np.clip(taken[i] * 1.2 + 110.0, 0, 255).astype(np.uint8)
            flashes.append(len(frames) + at)
        if frames:
            kind = rng.choice(["hard", "dissolve", "fade"], p=[0.6, 0.22, 0.18])
            truths.append(_join(frames, taken, str(kind), rng))
            flashes = [f if f < truths[-1].first else f + len(frames) - truths[-1].clean for f in flashes]
        frames += taken
    return frames, truths, flashes


def _join(frames: list[np.ndarray], taken: list[np.ndarray], kind: str, rng: np.random.Generator) -> Truth:
    """Append a shot by a transition; takes the frames that it uses up from ``taken``."""
    if kind == "dissolve":
        n = int(rng.integers(6, 41))
        n = min(n, len(taken) - 20)
        for i in range(n):
            share = (i + 1) / (n + 1)
            frames[i - n] = cv2.addWeighted(frames[i - n], 1 - share, taken[i], share, 0)
        del taken[:n]
        return Truth(len(frames) - n, len(frames), kind)
    if kind == "fade":
        out, held, back = (int(v) for v in rng.integers((8, 1, 8), (31, 15, 31)))
        end = np.full_like(frames[-1], rng.choice([0, 0, 0, 255]))
        for i in range(out):
            frames[i - out] = cv2.addWeighted(frames[i - out], 1 - (i + 1) / (out + 1), end, (i + 1) / (out + 1), 0)
        first = len(frames) - out
        frames += [end] * held
        for i in range(back):
            share = (i + 1) / (back + 1)
            frames.append(cv2.addWeighted(end, 1 - share, taken[i], share, 0))
        del taken[:back]
        return Truth(first, len(frames), kind)
    return Truth(len(frames), len(frames), kind)


def thumbs(frames: list[np.ndarray], width_px: int) -> list[Thumb]:
    """The frames as the decoder would show them to a cut stage."""
    size = (width_px, round(width_px * HEIGHT_PX / WIDTH_PX))
    return [
        Thumb(i, cv2.resize(cv2.transform(frame, TO_YUV), size, interpolation=cv2.INTER_AREA))
        for i, frame in enumerate(frames)
    ]


def facts(n_frames: int) -> SourceFacts:
    """Facts of a reel: one tick a frame."""
    return SourceFacts(
        0, "reel", "", "yuv420p", 8, WIDTH_PX, HEIGHT_PX, WIDTH_PX, HEIGHT_PX, 0, "1/1", str(RATE), float(RATE), False,
        True, f"1/{RATE}", 0, n_frames, n_frames / RATE, n_frames, [], [], 0, "[]",
    )  # fmt: skip


def found_by(method: str, frames: list[np.ndarray]) -> tuple[list[Truth], float]:
    """Gaps between the spans that a method leaves, and its CPU seconds (thumbs not counted)."""
    stage = Cut(CutConfig.model_validate({"method": method, "min_len_s": 0, "max_len_s": 0}))
    given = thumbs(frames, stage.thumb_width_px)
    began = time.process_time()
    detector = stage.detector(facts(len(frames)))
    spans = [span for thumb in given for span in detector.push(thumb)] + detector.finish(len(frames))
    seconds = time.process_time() - began
    pairs = itertools.pairwise(spans)
    gaps = [Truth(a.end_pts, b.start_pts, str(a.end_kind)) for a, b in pairs if a.end_kind is not CutKind.MAX_LEN]
    return gaps, seconds


def overlaps(a: Truth, b: Truth, slack: int = 1) -> bool:
    """Whether two transitions share a frame, with this much slack."""
    return a.first <= b.clean + slack and b.first <= a.clean + slack


@dataclass(frozen=True)
class Score:
    """What a method reached on a reel. ``exact``: share of the found transitions whose kept frames are all clean."""

    recall: dict[str, float]
    precision: float
    f1: float
    flashes: int
    exact: float
    cpu_s: float


def score(truths: list[Truth], flashes: list[int], found: list[Truth], cpu_s: float) -> Score:
    """Compare found transitions with the truth."""
    hit = [truth for truth in truths if any(overlaps(truth, each) for each in found)]
    right = [each for each in found if any(overlaps(truth, each) for truth in truths)]
    clean = [t for t in hit if any(each.first <= t.first and each.clean >= t.clean for each in found)]
    kinds = sorted({truth.kind for truth in truths})
    share: Callable[[str], float] = lambda kind: (  # noqa: E731
        sum(t.kind == kind for t in hit) / max(1, sum(t.kind == kind for t in truths))
    )
    recall = len(hit) / max(1, len(truths))
    precision = len(right) / max(1, len(found))
    wrong = [each for each in found if each not in right]
    return Score(
        {kind: share(kind) for kind in kinds},
        precision,
        2 * precision * recall / max(1e-9, precision + recall),
        sum(any(flash - 1 <= each.first <= flash + 5 for each in wrong) for flash in flashes),
        len(clean) / max(1, len(hit)),
        cpu_s,
    )


def main() -> None:
    """Run the bench."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="*")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--show", action="store_true", help="list what the cascade missed and invented")
    args = parser.parse_args()
    frames, truths, flashes = reel(pictures(args.files), args.minutes, args.seed)
    counts = {kind: sum(t.kind == kind for t in truths) for kind in ("hard", "dissolve", "fade")}
    print(f"{len(frames)} frames, {counts}, {len(flashes)} flashes; seed {args.seed}")
    print(f"{'method':24}   hard  dissolve   fade  prec.     F1  flash  clean ms/frame")
    for method in METHODS:
        found, cpu_s = found_by(method, frames)
        s = score(truths, flashes, found, cpu_s)
        cells = [f"{s.recall.get(kind, 0):{width}.2f}" for kind, width in (("hard", 6), ("dissolve", 9), ("fade", 6))]
        tail = f"{s.precision:6.2f} {s.f1:6.3f} {s.flashes:6d} {s.exact:6.2f} {1000 * s.cpu_s / len(frames):8.3f}"
        print(f"{method:24} {' '.join(cells)} {tail}")
        if args.show and method == "cascade":
            print("  missed  ", [(t.kind, t.first, t.clean) for t in truths if not any(overlaps(t, f) for f in found)])
            print("  invented", [(f.kind, f.first, f.clean) for f in found if not any(overlaps(t, f) for t in truths)])


if __name__ == "__main__":
    main()
