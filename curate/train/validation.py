"""How a stage is judged: loss on a fixed grid of noise levels over held-out clips, and clips drawn from first frames.

Both with the averaged weights. The same clips and the same noise every time, so that the numbers of two steps, and of
two runs on the same data, can be compared. A training loss cannot: it depends on the levels that were drawn.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch

from curate.train.data.catalogue import Catalogue
from curate.train.data.loader import Loader
from curate.train.data.order import Position
from curate.train.data.worker import Batch, Sources
from curate.train.distributed import World, forget_gathered, plain
from curate.train.examples import Examples, first_frame, generator_of
from curate.train.flow import flow_width_s
from curate.train.movie import beside, to_uint8, write_movie
from curate.train.network import UNetNetwork
from curate.train.parts import Parts
from curate.train.pipeline_folder import Pipeline, sample_clip
from curate.train.recipe import TrainRecipe, ValidationConfig
from curate.train.sampler import Sampling
from curate.train.step import Step, computing, in_precision

__all__ = ["DECODE_CHUNK", "Validation", "loss_name"]


DECODE_CHUNK = 4
"""Frames of a drawn clip that are decoded at once: all 25 of 576x1024 would need 56 GB beside what training holds."""


def loss_name(sigma: float) -> str:
    """The name in the log of the held-out loss at a noise level."""
    return f"held_out/sigma_{sigma:g}"


class Validation:
    """The held-out clips of a stage, one a batch, of which every rank has a share."""

    def __init__(
        self,
        recipe: TrainRecipe,
        catalogue: Catalogue,
        parts: Parts,
        examples: Examples,
        world: World,
        sources: Sources,
    ) -> None:
        self._recipe, self._parts, self._examples, self._world = recipe, parts, examples, world
        wanted = min(self.config.clips, catalogue.n_clips)
        share = max(1, wanted // world.size)
        self._first = first = world.rank * share if wanted >= world.size else 0
        one = recipe.data.model_copy(update={"batch": 1, "on_empty": "report"})
        loader = Loader(catalogue, one, sources=sources)
        loader.seek(Position(recipe.data.seed, 0, first))
        self._batches = [next(loader) for _ in range(share)]
        loader.close()

    @property
    def config(self) -> ValidationConfig:
        """How it is done."""
        return self._recipe.run.validation

    def losses(self, step: Step) -> dict[str, float]:
        """Held-out loss at every noise level, and their mean; all ranks must ask."""
        sums = torch.zeros(len(self.config.sigmas), device=self._world.device)
        with _judged(step):
            for number, batch in enumerate(self._batches, self._first):
                sums += self._one(step, number, batch)
        means = self._world.mean(sums / len(self._batches)).tolist()
        found = {loss_name(sigma): value for sigma, value in zip(self.config.sigmas, means, strict=True)}
        return {**found, "held_out/mean": sum(means) / len(means)}

    @torch.no_grad()
    def _one(self, step: Step, number: int, batch: Batch) -> torch.Tensor:
        """Losses (levels,) of one clip, one level after the other: memory stays what training needs."""
        example = self._examples.of(batch, [number], self._world.device)
        objective, found = self._examples.objective, []
        for sigma in self.config.sigmas:
            level = objective.at(torch.tensor([sigma], device=self._world.device))
            seen = objective.noisy(example.x0, example.noise, level)
            with computing(self._recipe.precision, self._world.device):
                output = UNetNetwork(step.network)(seen, objective.time(level), example.cond)
            found.append(objective.loss(output, example.x0, example.noise, level))
        return torch.cat(found)

    def samples(self, step: Step, folder: Path) -> Iterator[tuple[str, float, np.ndarray, float]]:
        """Draw clips from held-out first frames at every motion bucket and write them beside their first frame; gives
        (name, flow in widths a second, frames, fps) of each. All ranks must draw; the first writes."""
        for number, batch in enumerate(self._batches[: self.config.samples]):
            for motion in self.config.motions:
                frames, given, fps = self._drawn(step, batch, motion)
                name = f"{number}-motion-{motion:g}"
                if self._world.is_first:
                    write_movie(folder / f"{name}.mp4", beside(given, frames), fps)
                yield name, flow_width_s(frames, fps), frames, fps

    def _drawn(self, step: Step, batch: Batch, motion: float) -> tuple[np.ndarray, np.ndarray, float]:
        encoders, device = self._parts.encoders, self._world.device
        assert encoders.image is not None
        unet: Any = plain(step.network)
        pipeline = Pipeline(unet, encoders.codec, encoders.image, encoders.feature_extractor)
        frame, fps = first_frame(batch).to(device), float(batch.fps[0])
        told = {"steps": self.config.sampling_steps, "fps": fps, "motion": motion, "decode_chunk": DECODE_CHUNK}
        settings = Sampling.model_validate(told)
        generator = generator_of("sample", self._recipe.seed, batch.clip_ids[0])
        network = in_precision(UNetNetwork(unet), self._recipe.precision, device)
        with _judged(step):
            clip = sample_clip(pipeline, frame, batch.bucket.frames, settings, generator, network=network)
        return to_uint8(clip[0]), to_uint8(frame)[0], fps


@contextmanager
def _judged(step: Step) -> Iterator[None]:
    """Within, a step's network computes as it would be exported: averaged, without its training's dropout."""
    with step.average.in_use() if step.average is not None else nullcontext():
        step.network.eval()
        try:
            yield
        finally:
            step.network.train()
            forget_gathered(step.network)  # the averages of what FSDP gathered: training would go on with them
