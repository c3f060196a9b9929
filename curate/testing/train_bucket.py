"""Footage to train a tiny model on: what a first frame shows does not tell how fast the camera will move.

    python -m curate.testing.train_bucket FOLDER [--films 32]

Every film has three shots of two seconds over soft textures. Each texture is there twice: once the camera hardly moves,
once it pans quickly. A network that is to draw such clips has to heed what it is told of their motion.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import chain, cycle
from pathlib import Path

import cv2
import numpy as np

from curate.testing.footage import moving_texture, write_video
from curate.testing.scenes import Frame

WIDTH_PX, HEIGHT_PX = 192, 144
SHOTS, FRAMES, RATE = 3, 50, Fraction(25)
_COARSE = 12
"""The textures are enlarged by this, so that a picture of 16 pixels still shows them."""
_SLOW_PX, _FAST_PX = (0.1, 0.2), (1.4, 2.0)
"""A frame, of the film's pixels."""
_MEAN, _CONTRAST = 128.0, 45.0


def shot(seed: int, limits_px: tuple[float, float]) -> Iterator[Frame]:
    """The frames of one shot over the texture ``seed``, at a speed within these limits."""
    rng = np.random.default_rng(seed)
    speed_px = rng.uniform(*limits_px)
    camera_noise = rng.integers(-2, 3, (4, HEIGHT_PX, WIDTH_PX, 3), np.int16)
    smalls = moving_texture(FRAMES, WIDTH_PX // _COARSE, HEIGHT_PX // _COARSE, (speed_px / _COARSE, 0.0), seed)
    for noise, small in zip(cycle(camera_noise), smalls, strict=False):
        large = cv2.resize(_exposed(small), (WIDTH_PX, HEIGHT_PX), interpolation=cv2.INTER_CUBIC)
        yield np.clip(large + noise, 0, 255).astype(np.uint8)


def _exposed(frame: Frame) -> np.ndarray:
    """Each colour with the same mean and contrast: few channels a group, as tiny networks have in their normalisations,
    make it hard to say how bright a picture is."""
    centred = frame - frame.mean((0, 1))
    return _MEAN + _CONTRAST * centred / centred.std((0, 1))


def _shot(at: int, n_shots: int) -> Iterator[Frame]:
    n_textures = -(-n_shots // 2)
    return shot(at % n_textures, _SLOW_PX if at < n_textures else _FAST_PX)


def make_train_bucket(folder: Path, films: int) -> list[Path]:
    """Make what is missing of the bucket; gives the paths of all its films."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"pans_{number:03d}.mp4" for number in range(films)]
    for number, path in enumerate(paths):
        if not path.exists():
            unfinished = path.with_name(f".unfinished-{path.name}")
            shots = (_shot(at, SHOTS * films) for at in range(SHOTS * number, SHOTS * (number + 1)))
            write_video(unfinished, chain.from_iterable(shots), RATE)
            unfinished.replace(path)
    return paths


def main(args: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--films", type=int, default=32)
    given = parser.parse_args(args)
    make_train_bucket(given.folder, given.films)


if __name__ == "__main__":
    main()
