"""Does a trained image-to-video model heed its motion bucket?

Clips are drawn in pairs, from the same first frame and the same noise, once with little motion and once with much, and
their optical flow is compared.

    python -m curate.testing.motion_check RUN SHARDS [--pairs 16] [--steps 12] [--picture first.png]

Exit status 1 when the median flow of the moving ones is not at least 1.5 times that of the still ones.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch

from curate.shards.reader import ShardSet
from curate.storage import Place
from curate.train.data.catalogue import Catalogue
from curate.train.data.loader import Loader
from curate.train.examples import first_frame, generator_of
from curate.train.flow import flow_width_s
from curate.train.folders import TRAINED, resolve_model
from curate.train.movie import to_uint8
from curate.train.pipeline_folder import Pipeline, sample_clip
from curate.train.quiet import quiet_libraries
from curate.train.recipe import TrainRecipe
from curate.train.sampler import Sampling

STILL, MOVING = 20.0, 230.0
WANTED = 1.5


@dataclass(frozen=True)
class Moves:
    """Flow of every pair, in widths of the picture a second."""

    still: tuple[float, ...]
    moving: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """Of the medians."""
        return median(self.moving) / median(self.still)


def measure(model: Path, shards: str, pairs: int, steps: int) -> tuple[Moves, np.ndarray]:
    """Draw all pairs; with the first of the first frames, uint8 (H, W, 3)."""
    about = json.loads((model / TRAINED).read_text(encoding="utf-8"))
    recipe = TrainRecipe.model_validate(about["recipe"])
    data = recipe.data.model_copy(update={"batch": 1, "hold_out_sources": 0})
    loader = Loader(Catalogue.read(ShardSet.open(Place(shards)), data), data)
    batches = [next(loader) for _ in range(pairs)]
    frames, fps = torch.cat([first_frame(batch) for batch in batches]), float(batches[0].fps[0])
    pipeline = Pipeline.load(model)

    def flows(motion: float) -> tuple[float, ...]:
        told = {"steps": steps, "fps": fps, "motion": motion, "guidance_first": 1.0, "guidance_last": 1.0}
        generator = generator_of("motion check", recipe.seed)
        clips = sample_clip(pipeline, frames, batches[0].bucket.frames, Sampling.model_validate(told), generator)
        return tuple(flow_width_s(clip, fps) for clip in to_uint8(clips))

    return Moves(flows(STILL), flows(MOVING)), to_uint8(frames)[0]


def main(args: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("shards")
    parser.add_argument("--pairs", type=int, default=16)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--picture", type=Path, help="write the first of the first frames here")
    given = parser.parse_args(args)
    with quiet_libraries():
        found, picture = measure(resolve_model(given.run), given.shards, given.pairs, given.steps)
    if given.picture:
        from PIL import Image

        Image.fromarray(picture).save(given.picture)
    lines = [
        f"Median optical flow of {given.pairs} clips from the same first frames and noise:",
        f"  motion bucket {STILL:g}: {median(found.still):.4f} widths/s",
        f"  motion bucket {MOVING:g}: {median(found.moving):.4f} widths/s, {found.ratio:.1f} times as much",
    ]
    sys.stdout.write("\n".join(lines) + "\n")
    return 0 if found.ratio >= WANTED else 1  # nor may it be no number


if __name__ == "__main__":
    sys.exit(main())
