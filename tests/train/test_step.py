"""What a step says, and how seldom ranks and devices wait for each other."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import yaml
from torch.utils._python_dispatch import TorchDispatchMode
from train_kit import seeded, small_recipe

from curate.errors import TrainingError
from curate.shards.buckets import Bucket
from curate.train.data.order import Position
from curate.train.data.worker import Batch
from curate.train.distributed import World
from curate.train.examples import Examples
from curate.train.motion import MotionCalibration
from curate.train.network import set_trainable, trainable_by_part
from curate.train.parts import start
from curate.train.recipe import parse_train_recipe
from curate.train.step import Step

BATCH = Batch(
    Position(0),
    Bucket(16, 16, 2),
    clip_ids=["a", "b", "c", "d"],
    captions=["a cat", "a dog", "", "rain"],
    fps=torch.full((4,), 6.0),
    motion=torch.tensor([1.0, 2.0, 3.0, 4.0]),
    start=torch.zeros(4),
    stride=torch.ones(4),
    video=torch.randint(0, 256, (4, 2, 16, 16, 3), generator=seeded(1), dtype=torch.uint8),
)


class Listening(World):
    """A world of one rank that notes what is added up over ranks, and hears ``others`` besides."""

    def __init__(self, others: dict[int, float] | None = None) -> None:
        super().__init__()
        object.__setattr__(self, "heard", [])
        object.__setattr__(self, "others", others or {})

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        found = values.clone()
        for at, value in self.others.items():
            found[at] += value
        self.heard.append(values)
        return found


def made(kind: str, world: World, **more: Any) -> Step:
    recipe = parse_train_recipe(yaml.safe_dump(small_recipe(kind, **more)), "test")
    parts = start(recipe)
    set_trainable(parts.unet, recipe.trainable)
    calibration = MotionCalibration.of_scores(BATCH.motion.numpy(), "motion_score")
    return Step(recipe, parts.unet.train(), Examples(recipe, parts.encoders, calibration), world)


class Reads(TorchDispatchMode):
    """Counts what a GPU would have to be waited for: numbers that Python wants of tensors."""

    n = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        names = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal")
        self.n += func.overloadpacket.__name__ in names
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", ["video", "image-to-video"])
def test_ranks_speak_once_a_step_and_no_number_is_read_before_it(kind):
    world = Listening()
    step, reads = made(kind, world), Reads()
    until_optimiser = []
    step.optimiser.register_step_pre_hook(lambda *_: until_optimiser.append(reads.n))
    with reads:
        report = step(0, BATCH)
    assert len(world.heard) == 1
    assert until_optimiser == [0]
    assert report.losses.mean().item() == pytest.approx(report.loss)
    assert not report.stops


def test_norms_are_those_of_the_gradient_before_it_is_clipped():
    step, found = made("video", World()), {}

    def note(*_: object) -> None:
        found.update(
            {
                part: torch.cat([p.grad.flatten() for _, p in own]).norm()
                for part, own in trainable_by_part(step.network).items()
            }
        )

    step.optimiser.register_step_pre_hook(note)
    report = step(0, BATCH)
    assert report.norm > 1  # so it was clipped, all parts by the same factor
    assert torch.stack(list(found.values())).norm().item() == pytest.approx(1, rel=1e-4)
    assert {part: norm.item() * report.norm for part, norm in found.items()} == pytest.approx(report.norms, rel=1e-4)


def test_a_rank_learns_that_another_was_asked_to_stop():
    assert made("video", Listening({1: 1.0}))(0, BATCH).stops
    asked = made("video", World())(0, BATCH, lambda: True)
    assert asked.stops


@pytest.mark.parametrize(
    ("at", "words"), [(0, "loss nan, .* of another rank"), (3, "norm nan, .* the gradient is not")]
)
def test_what_is_not_finite_on_another_rank_stops_this_one_before_anything_changes(at, words):
    step = made("video", Listening({at: float("nan")}))
    before = {name: value.clone() for name, value in step.network.state_dict().items()}
    with pytest.raises(TrainingError, match=words):
        step(0, BATCH)
    assert all(torch.equal(value, before[name]) for name, value in step.network.state_dict().items())


def test_three_steps_in_closed_form():
    """AdamW with the rates of warm-up and of each part, and the average with the smaller decays of its start."""
    rates = {"lr": 1e-3, "warmup_steps": 2, "lr_scale": {"temporal": 0.5, "vector": 2.0}, "weight_decay": 0.1}
    step = made("image-to-video", World(), optimiser=rates, ema=0.15)
    learning = {name: (part, p) for part, own in trainable_by_part(step.network).items() for name, p in own}
    seen: list[dict[str, torch.Tensor]] = []
    step.optimiser.register_step_pre_hook(
        lambda *_: seen.append({name: p.grad.double() for name, (_, p) in learning.items()})
    )
    start_of = {name: p.detach().double() for name, (_, p) in learning.items()}
    told = [step(number, BATCH).lr for number in range(3)]
    assert told == pytest.approx([1e-3 / 3, 2e-3 / 3, 1e-3])
    assert {part for part, _ in learning.values()} == {"spatial", "temporal", "vector"}
    assert step.average is not None
    for name, (part, parameter) in learning.items():
        scale = {"spatial": 1.0, "temporal": 0.5, "vector": 2.0}[part]
        live, average = _three_steps(start_of[name], [one[name] for one in seen], scale)
        assert torch.allclose(parameter.double() - start_of[name], live - start_of[name], rtol=1e-3, atol=2e-7)
        assert torch.allclose(step.average.tensors[name].double(), average, rtol=0, atol=1e-6)


def _three_steps(x: torch.Tensor, gradients: list[torch.Tensor], scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    """A parameter and its average after steps at a third, two thirds and all of a rate of 1e-3 times ``scale``."""
    average, first, second = x, torch.zeros_like(x), torch.zeros_like(x)
    for number, (gradient, decay) in enumerate(zip(gradients, (1 / 10, 0.15, 0.15), strict=True), start=1):
        lr = scale * 1e-3 * number / 3
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        way = (first / (1 - 0.9**number)) / ((second / (1 - 0.999**number)).sqrt() + 1e-8)
        x = x * (1 - 0.1 * lr) - lr * way
        average = decay * average + (1 - decay) * x
    return x, average


@pytest.mark.parametrize("dropout", [0.0, 1.0])
def test_what_is_withheld_reaches_the_network_as_zeros(dropout):
    step = made("image-to-video", World(), dropout=dropout, run={"micro_batch": 4})
    given: list[tuple[torch.Tensor, ...]] = []
    step.network.register_forward_pre_hook(lambda _, args: given.append(args))
    step(0, BATCH)
    ((noisy, _, context, added),) = given
    assert context.flatten(1).any(1).tolist() == [dropout == 0] * 4
    assert noisy[:, :, 4:].flatten(1).any(1).tolist() == [dropout == 0] * 4
    assert noisy[:, :, :4].flatten(1).any(1).all()
    assert added[:, 0].tolist() == [5.0] * 4
