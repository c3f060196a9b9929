"""One training step: forward and backward over a batch in micro-batches, clipping, AdamW, the average.

Nothing is changed by a step whose loss or gradient is not finite.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from curate.errors import TrainingError
from curate.train.conditioning import Conditions
from curate.train.data.worker import Batch
from curate.train.distributed import World, local, plain, summing
from curate.train.ema import Average
from curate.train.examples import Example, Examples
from curate.train.network import Network, Part, UNetNetwork, trainable_by_part
from curate.train.recipe import OptimiserConfig, TrainRecipe

__all__ = ["Report", "Step", "make_optimiser"]


@dataclass(frozen=True)
class Report:
    """What a step found. ``levels`` and ``losses`` (B,) are of this rank's clips, on the CPU, ``loss`` is the mean over
    all ranks.

    ``norms``: of the gradient by part, before clipping. ``stops``: a rank was asked to stop.
    """

    loss: float
    norms: dict[Part, float]
    lr: float
    levels: Tensor
    losses: Tensor
    clip_ids: list[str]
    stops: bool = False

    @property
    def norm(self) -> float:
        """Of the whole gradient."""
        return math.hypot(*self.norms.values())


def make_optimiser(network: nn.Module, config: OptimiserConfig, device: torch.device) -> torch.optim.AdamW:
    """AdamW over what learns, one group a part; ``scale`` is the group's factor on the rate."""
    groups = [
        {"params": [p for _, p in own], "part": part, "scale": config.lr_scale.get(part, 1.0)}
        for part, own in trainable_by_part(network).items()
    ]
    return torch.optim.AdamW(
        groups,
        lr=config.lr,
        betas=config.betas,
        eps=config.eps,
        weight_decay=config.weight_decay,
        fused=device.type == "cuda",
    )


class Step:
    """The network with all that changes it. ``network`` is what `distributed.spread` gave."""

    def __init__(self, recipe: TrainRecipe, network: nn.Module, examples: Examples, world: World) -> None:
        self.network = network
        self.optimiser = make_optimiser(plain(network), recipe.optimiser, world.device)
        self._parts = trainable_by_part(plain(network))
        divided = any(isinstance(parameter, DTensor) for parameter in plain(network).parameters())
        self._share = 1.0 if divided else 1 / world.size  # of a gradient's square, in the sum over ranks
        self.average = Average(plain(network), recipe.ema) if recipe.ema is not None else None
        self._examples = examples
        self._recipe = recipe
        self._world = world

    def __call__(self, number: int, batch: Batch, is_asked: Callable[[], bool] = lambda: False) -> Report:
        """Take step ``number`` (the first is 0); TrainingError, and nothing changed, when it is not finite.

        ``is_asked``: whether this rank was asked to stop; all ranks learn it by the report.
        """
        self.optimiser.zero_grad(set_to_none=True)
        levels, losses = self._gradients(batch)
        summed = self._world.sum(self._told(losses, is_asked))
        (loss, asked, *squares), levels, losses = _looked_at(summed, levels, losses)
        norms: dict[Part, float] = {part: math.sqrt(square) for part, square in zip(self._parts, squares, strict=True)}
        lr = self._recipe.optimiser.lr_at(number)
        report = Report(loss, norms, lr, levels, losses, batch.clip_ids, asked > 0)
        if not (math.isfinite(loss) and math.isfinite(report.norm)):
            raise _not_finite(number, report)
        parameters = [p for group in self.optimiser.param_groups for p in group["params"]]
        clip_grads_with_norm_(parameters, self._recipe.optimiser.clip_norm, summed[2:].sum().sqrt().float())
        for group in self.optimiser.param_groups:
            group["lr"] = lr * group["scale"]
        self.optimiser.step()
        if self.average is not None:
            self.average.update(number)
        return report

    def items(self, batch: Batch) -> range:
        """Numbers in the epoch of this rank's clips."""
        size = self._recipe.data.batch
        first = batch.position.index * size
        return range(first + self._world.rank, first + size, self._world.size)

    def _gradients(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Levels and losses of the clips; their gradients lie on the parameters, meaned over clips and ranks."""
        micro, items = self._recipe.run.micro_batch, self.items(batch)
        starts = range(0, len(batch), micro)
        levels, losses = [], []
        for start in starts:
            part = batch.part(start, start + micro)
            example = self._examples.of(part, items[start : start + micro], self._world.device)
            with summing(self.network, last=start == starts[-1]):
                loss = self._loss(example)
                (loss.sum() / len(batch)).backward()
            levels.append(example.level)
            losses.append(loss.detach())
        return torch.cat(levels), torch.cat(losses)

    def _loss(self, example: Example) -> Tensor:
        objective, level = self._examples.objective, example.level
        seen = objective.noisy(example.x0, example.noise, level)
        with computing(self._recipe.precision, self._world.device):
            cond = example.cond.without(~example.keep)
            output = UNetNetwork(self.network)(seen, objective.time(level), cond)
        return objective.loss(output, example.x0, example.noise, level)

    def _told(self, losses: Tensor, is_asked: Callable[[], bool]) -> Tensor:
        """What ranks add up, float64: mean loss, whether one is asked to stop, square of each part's gradient."""
        squares = [self._share * self._norm(part).square() for part in self._parts]
        asked = torch.full_like(squares[0], float(is_asked()))
        return torch.stack([losses.double().mean() / self._world.size, asked, *squares])

    def _norm(self, part: Part) -> Tensor:
        """Of the gradient of a part, or of this rank's share of it."""
        gradients = [local(p.grad) for _, p in self._parts[part] if p.grad is not None]
        return get_total_norm(gradients).to(self._world.device, torch.float64)


def _looked_at(summed: Tensor, levels: Tensor, losses: Tensor) -> tuple[list[float], Tensor, Tensor]:
    """All of them on the CPU: the one time in a step that the device is waited for."""
    found = torch.cat([summed, levels.double(), losses.double()]).cpu()
    numbers, levels_there, losses_there = found.split([len(summed), len(levels), len(losses)])
    return numbers.tolist(), levels_there.to(levels.dtype), losses_there.to(losses.dtype)


def computing(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """The context in which a network computes."""
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def in_precision(network: Network, precision: str, device: torch.device) -> Network:
    """The network in its precision; what is done with its output stays in float32."""

    def run(x: Tensor, time: Tensor, cond: Conditions) -> Tensor:
        with computing(precision, device):
            return network(x, time, cond).float()

    return run


def _not_finite(number: int, report: Report) -> TrainingError:
    wrong: Sequence[str] = [
        f"{clip} (level {level:.3g})"
        for clip, level, loss in zip(report.clip_ids, report.levels.tolist(), report.losses.tolist(), strict=True)
        if not math.isfinite(loss)
    ]
    where = f"; clips: {', '.join(wrong)}" if wrong else "; the clips are those of another rank"
    if math.isfinite(report.loss):
        where = ", though every clip's loss is finite: the gradient is not"
    return TrainingError(
        f"step {number}: loss {report.loss:g}, gradient norm {report.norm:g}{where}",
        fix="The step was not taken, and what was before it is kept. Go on with a lower rate in a run of its own: "
        "--init OUT --out NEW --set optimiser.lr=...",
    )
