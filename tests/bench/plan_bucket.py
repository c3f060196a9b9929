"""A bucket to plan for: generated and real videos of many lengths, sizes and codecs, with all that a recipe drops.

    python tests/bench/plan_bucket.py FOLDER [--footage FOLDER] [--videos 104]

Lengths are drawn so that twice as long is half as frequent (2 to 25 s). Two in five are reels of real footage with cuts
and dissolves, one in four an excerpt of it, the rest generated: pans, zooms, stills, slideshows, cards of text, black
frames. One in 26 cannot be read. The same seed gives the same bucket; what is there is not made again.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from itertools import chain
from pathlib import Path

import av
import numpy as np

from curate.testing.footage import (
    Track,
    fade,
    letterbox,
    moving_texture,
    slideshow,
    static_texture,
    text_card,
    write_tracks,
    write_video,
    zoom_texture,
)
from curate.testing.reel_footage import Shot, gather_material
from curate.testing.reels import ENCODINGS, make_reel, write_reel
from curate.testing.scenes import Frame

SIZES_PX = ((320, 180), (480, 270), (640, 360), (360, 640), (854, 480))
CODECS = ("libx264", "libx264", "libx264", "libx265", "libvpx-vp9", "libsvtav1", "mpeg4")
SUFFIXES = {"libvpx-vp9": ".webm"}
LENGTHS_S = (2.0, 25.0)
RATE = Fraction(25)
VIDEO = {".mp4", ".mov", ".mkv", ".webm"}

Maker = Callable[[Path], object]


def make_bucket(folder: Path, footage: Path | None, n: int, seed: int = 0) -> list[Path]:
    """Make what is missing of ``n`` videos; gives all of their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    material: list[Shot] = []
    paths = []
    for number in range(n):
        rng = np.random.default_rng([seed, number])
        name, maker = _plan(number, rng, material, footage)
        path = folder / name
        if not path.exists():
            if not material:
                material += gather_material(footage)
            unfinished = path.with_name(f".unfinished-{path.name}")
            maker(unfinished)
            unfinished.with_suffix(".json").unlink(missing_ok=True)  # the truth of a reel
            unfinished.replace(path)
        paths.append(path)
    return paths


def _plan(number: int, rng: np.random.Generator, material: Sequence[Shot], footage: Path | None) -> tuple[str, Maker]:
    length_s = math.exp(rng.uniform(*map(math.log, LENGTHS_S)))
    size_px = SIZES_PX[rng.integers(len(SIZES_PX))]
    codec = CODECS[rng.integers(len(CODECS))]
    films = sorted(path for path in footage.iterdir() if path.suffix in VIDEO) if footage else []
    kind = number % 26
    if kind == 25:
        return f"{number:03d}_broken.mp4", lambda path: _write_broken(path, number)
    if kind % 5 < 2 or (kind % 4 == 2 and not films):
        encoding = list(ENCODINGS.values())[rng.integers(len(ENCODINGS))]
        counts = _counts(length_s, rng)
        size_px = size_px if size_px[0] > size_px[1] else (480, 270)

        def reel(path: Path) -> None:
            write_reel(path, make_reel(material, counts, seed=number, rate=encoding.rate, size_px=size_px), encoding)

        return f"{number:03d}_reel{encoding.suffix}", reel
    n_frames = max(round(length_s * RATE), 50)
    if kind % 4 == 2:
        film = films[rng.integers(len(films))]
        start_s = float(rng.uniform(0, 12))
        frames: Callable[[], Iterator[Frame]] = lambda: _excerpt(film, start_s, n_frames, size_px)  # noqa: E731
        return _video(number, "excerpt", frames, codec)
    name, frames = _scene(number, n_frames, size_px, rng)
    return _video(number, name, frames, codec)


def _video(number: int, name: str, frames: Callable[[], Iterator[Frame]], codec: str) -> tuple[str, Maker]:
    suffix = SUFFIXES.get(codec, ".mp4")
    return f"{number:03d}_{name}{suffix}", lambda path: write_video(path, frames(), RATE, codec)


def _counts(length_s: float, rng: np.random.Generator) -> dict[str, int]:
    """Joints for about this length: a shot of a reel lasts about two seconds."""
    n = max(1, round(length_s / 2))
    soft = int(rng.binomial(n, 0.3))
    return {"hard": n - soft, "dissolve": soft, "static": int(rng.binomial(n, 0.1)), "flash": int(rng.binomial(n, 0.1))}


def _scene(
    number: int, n: int, size_px: tuple[int, int], rng: np.random.Generator
) -> tuple[str, Callable[[], Iterator[Frame]]]:
    width, height = size_px
    speed_px = float(rng.uniform(0.5, 4))
    lines = "\n".join(["SPECIAL OFFER THIS WEEK ONLY", f"NUMBER {number} OF MANY", "CALL NOW AND SAVE", "TERMS APPLY"])
    scenes: list[tuple[str, Callable[[], Iterator[Frame]]]] = [
        ("pan", lambda: moving_texture(n, width, height, (speed_px, 0.2), seed=number)),
        ("zoom", lambda: zoom_texture(n, width, height, 0.4 / n, seed=number)),
        ("pan", lambda: moving_texture(n, width, height, (0.1, -speed_px), seed=number)),
        ("letterbox", lambda: letterbox(moving_texture(n, width, height, (speed_px, 0), seed=number), height // 8)),
        ("still", lambda: static_texture(n, width, height, seed=number)),
        ("slides", lambda: slideshow(n, width, height, 50, seed=1000 * number)),
        ("text", lambda: text_card(n, width, height, lines)),
        ("black", lambda: chain(fade(moving_texture(n, width, height, (speed_px, 0), seed=number), 0, n // 2))),
    ]
    return scenes[rng.integers(len(scenes))]


def _excerpt(film: Path, start_s: float, n: int, size_px: tuple[int, int]) -> Iterator[Frame]:
    """So many frames of a film from a moment on, and from its start again where it ends, in another size."""
    given = 0
    while given < n:
        with av.open(str(film)) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            for frame in container.decode(stream):
                if given == n or (not given and (frame.time or 0.0) < start_s):
                    continue
                given += 1
                yield frame.reformat(*size_px, "rgb24", interpolation="AREA").to_ndarray()


def _write_broken(path: Path, number: int) -> None:
    """60 % of a file, or a text: one cannot be decoded to its end, the other not be opened."""
    if number % 2:
        path.write_text("This is a letter, whatever its name says.\n" * 40)
        return
    track = Track(moving_texture(100, 320, 180, (2.0, 0.0), seed=number), RATE, gop=25)
    write_tracks(path, [track], container_options={"movflags": "faststart"})
    path.write_bytes(path.read_bytes()[: math.floor(0.6 * path.stat().st_size)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--footage", type=Path, help="real videos; default: those that package-index wheels carry")
    parser.add_argument("--videos", type=int, default=104)
    options = parser.parse_args()
    made = make_bucket(options.folder, options.footage, options.videos)
    print(f"{len(made)} videos, {sum(path.stat().st_size for path in made) / 1e6:.1f} MB, in {options.folder}")


if __name__ == "__main__":
    main()
