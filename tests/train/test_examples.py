"""From films to what a step learns from and validation judges: every number of it by its definition."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from clips_kit import clip_id, make_set, usual
from train_kit import small_recipe

from curate.shards.buckets import Bucket
from curate.shards.reader import ShardSet
from curate.train.data.catalogue import Catalogue
from curate.train.data.loader import Loader
from curate.train.data.order import Position
from curate.train.data.worker import Batch, Sources
from curate.train.distributed import World
from curate.train.encoders import Encoders
from curate.train.examples import Examples
from curate.train.motion import MotionCalibration
from curate.train.network import set_trainable
from curate.train.parts import start
from curate.train.recipe import TrainRecipe, parse_train_recipe
from curate.train.step import Step
from curate.train.validation import Validation

CPU = torch.device("cpu")
CALIBRATION = MotionCalibration.of_scores(np.linspace(0, 0.8, 9), "motion_score")
"""Of scores that lie evenly: a score of 0.8 has bucket 255, half of it half of that."""


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    """Clips of 24 frames a second, the motion of clip n being n / 10."""
    folder = tmp_path_factory.mktemp("set")
    return make_set(str(folder / "set"), usual(9, frames=12, width_px=48, height_px=36), folder)


@pytest.fixture(scope="module")
def encoders() -> Encoders:
    return Encoders.tiny()


def recipe(kind: str, **more: Any) -> TrainRecipe:
    """Clips of two frames, at 6 or 8 frames a second: every fourth or third frame of the films here."""
    usual = small_recipe(kind, **more)
    usual["data"] |= {"fps": [5, 8.5], "hold_out_sources": 2}
    return parse_train_recipe(yaml.safe_dump(usual), "test")


def first_batch(shards: ShardSet, stage: TrainRecipe) -> tuple[Batch, torch.Tensor, torch.Tensor]:
    """With the true frame rates and motion buckets of its clips."""
    batch = next(Loader(Catalogue.read(shards, stage.data), stage.data))
    assert set(batch.stride.tolist()) == {3, 4}
    numbers = [next(n for n in range(9) if clip_id(n) == one) for one in batch.clip_ids]
    return batch, 24 / batch.stride, torch.tensor([255 * n / 8 for n in numbers])


def test_an_image_to_video_stage_is_told_rate_motion_and_a_noisy_first_frame(shards, encoders):
    stage = recipe("image-to-video")
    batch, fps, motion = first_batch(shards, stage)
    example = Examples(stage, encoders, CALIBRATION).of(batch, range(4), CPU)
    pixels, cond = batch.pixels(), example.cond
    assert torch.equal(example.x0, 0.18215 * encoders.codec.encode(pixels))
    assert torch.equal(cond.context, encoders.image.encode(pixels[:, 0]))
    assert torch.allclose(cond.added[:, 0], fps - 1)
    assert torch.allclose(cond.added[:, 1], motion, atol=1e-3)
    assert torch.equal(cond.concat[:, 0], cond.concat[:, 1])
    # The exact codec gives back what was encoded: the frame, and noise of the deviation that is told.
    sigma = cond.added[:, 2].reshape(-1, 1, 1, 1)
    noise = (encoders.codec.decode(cond.concat[:, :1])[:, 0] - pixels[:, 0]) / sigma
    assert noise.flatten(1).mean(1).tolist() == pytest.approx([0] * 4, abs=0.1)
    assert noise.flatten(1).std(1).tolist() == pytest.approx([1] * 4, abs=0.1)
    assert (noise.flatten(1).corrcoef() - torch.eye(4)).abs().max().item() < 0.15


def test_text_stages_are_told_rate_and_motion_or_nothing_but_the_text(shards, encoders):
    for kind in ("video", "image"):
        stage = recipe(kind)
        batch = next(Loader(Catalogue.read(shards, stage.data), stage.data))
        example = Examples(stage, encoders, CALIBRATION if kind == "video" else None).of(batch, range(4), CPU)
        assert torch.equal(example.x0, 0.18215 * encoders.codec.encode(batch.pixels()))
        assert torch.equal(example.cond.context, encoders.text.encode(batch.captions))
        assert all(batch.captions)
        assert example.cond.concat is None
        wanted = torch.zeros(4, 3)
        if kind == "video":
            _, fps, motion = first_batch(shards, stage)
            wanted = torch.stack([fps - 1, motion, torch.zeros(4)], dim=1)
        assert torch.allclose(example.cond.added, wanted, atol=1e-3)


def test_what_is_drawn_has_the_recipes_distributions(encoders):
    """Noise levels, strength of the first frame's noise, and how often conditions are withheld."""
    n = 500
    batch = Batch(
        Position(0),
        Bucket(4, 4, 2),
        clip_ids=[str(at) for at in range(n)],
        captions=[""] * n,
        fps=torch.full((n,), 6.0),
        motion=torch.full((n,), 0.4),
        start=torch.zeros(n),
        stride=torch.ones(n),
        latents=torch.zeros(n, 2, 4, 4, 4),
        first=torch.zeros(n, 4, 4, 3, dtype=torch.uint8),
        image=torch.ones(n, 1, 32),
    )
    stage = recipe("image-to-video", dropout=0.2, augmentation={"p_mean": -2.0, "p_std": 0.25})
    found = Examples(stage, encoders, CALIBRATION).of(batch, range(n), CPU)
    levels, strengths = found.level.log(), found.cond.added[:, 2].log()
    assert (levels.mean().item(), levels.std().item()) == pytest.approx((0.7, 1.6), abs=0.15)
    assert (strengths.mean().item(), strengths.std().item()) == pytest.approx((-2.0, 0.25), abs=0.03)
    assert found.noise.std().item() == pytest.approx(1, abs=0.03)
    assert found.keep.float().mean().item() == pytest.approx(0.8, abs=0.05)


def test_the_held_out_loss_is_that_of_the_averages(shards):
    """By hand, with a network of the averages alone; nothing is withheld from it."""
    held = {"every_steps": 1, "sigmas": [0.3, 4.0], "clips": 2, "samples": 0}
    stage = recipe(
        "image-to-video", dropout=0.9, ema=0.9, optimiser={"lr": 0.01, "warmup_steps": 0}, run={"validation": held}
    )
    parts = start(stage)
    set_trainable(parts.unet, "all")
    examples = Examples(stage, parts.encoders, CALIBRATION)
    step = Step(stage, parts.unet.train(), examples, World())
    one = stage.data.model_copy(update={"batch": 1, "on_empty": "report"})
    catalogue = Catalogue.read(shards, one, held_out=True)
    found = Validation(stage, catalogue, parts, examples, World(), Sources())
    loader = Loader(Catalogue.read(shards, stage.data), stage.data)
    step(0, next(loader))
    assert step.average is not None
    averaged = copy.deepcopy(parts.unet).eval()
    averaged.load_state_dict(step.average.tensors, strict=False)
    batches, losses = Loader(catalogue, one), {0.3: 0.0, 4.0: 0.0}
    for number in range(2):
        example = examples.of(next(batches), [number], CPU)
        for sigma in losses:
            losses[sigma] += _loss(averaged, example, sigma) / 2
    assert found.losses(step) == pytest.approx(
        {"held_out/sigma_0.3": losses[0.3], "held_out/sigma_4": losses[4.0], "held_out/mean": sum(losses.values()) / 2},
        rel=1e-4,
    )


@torch.no_grad()
def _loss(unet: Any, example: Any, sigma: float) -> float:
    """Mean square error of the prediction of v, from SVD_SPEC 2.1."""
    x0, noise, cond = example.x0, example.noise, example.cond
    seen = torch.cat([(x0 + sigma * noise) / (1 + sigma**2) ** 0.5, cond.concat], dim=2)
    time = torch.full((1,), 0.25 * float(np.log(sigma)))
    output = unet(seen, time, cond.context, cond.added, return_dict=False, image_only=cond.image_only)[0]
    return (output - (noise - sigma * x0) / (1 + sigma**2) ** 0.5).square().mean().item()
