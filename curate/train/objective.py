"""What a network is trained to predict, behind one small interface: the loop knows no noise level's meaning."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from curate.train import edm
from curate.train.distributed import sent
from curate.train.edm import NoiseDistribution, per_item

__all__ = ["EDM", "DiscreteV", "Objective"]


class Objective(Protocol):
    """One way of noising latents and of judging what the network makes of them.

    Latents, noise and predictions are (B, T, C, h, w); a level is (B,), and only the objective knows its unit.
    """

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """Levels for ``n`` clips, on the generator's device."""
        ...

    def at(self, sigma: Tensor) -> Tensor:
        """The level that is nearest to a noise of deviation ``sigma`` (B,) on latents of unit variance."""
        ...

    def noisy(self, x0: Tensor, noise: Tensor, level: Tensor) -> Tensor:
        """What the network sees."""
        ...

    def time(self, level: Tensor) -> Tensor:
        """What the network is told about the level, float32 (B,)."""
        ...

    def loss(self, prediction: Tensor, x0: Tensor, noise: Tensor, level: Tensor) -> Tensor:
        """Loss of each clip, float32 (B,)."""
        ...

    def denoised(self, prediction: Tensor, seen: Tensor, level: Tensor) -> Tensor:
        """The clean latent that a prediction stands for; ``seen`` is what `noisy` gave."""
        ...


@dataclass(frozen=True)
class EDM:
    """The paper's objective; a level is sigma. Loss of a network that gives zeros: 1 for latents of unit variance."""

    noise: NoiseDistribution

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """Sigma of each clip."""
        return self.noise.sample(n, generator)

    def at(self, sigma: Tensor) -> Tensor:
        """Itself."""
        return sigma

    def noisy(self, x0: Tensor, noise: Tensor, level: Tensor) -> Tensor:
        """c_in * (x0 + sigma * n), float32."""
        sigma = per_item(level.float(), x0)
        return (x0.float() + sigma * noise.float()) * edm.c_in(sigma)

    def time(self, level: Tensor) -> Tensor:
        """A quarter of log sigma."""
        return edm.c_noise(level.float())

    def loss(self, prediction: Tensor, x0: Tensor, noise: Tensor, level: Tensor) -> Tensor:
        """Mean square of F - v in float32, whatever the network computed in."""
        target = edm.v_target(x0.float(), noise.float(), per_item(level.float(), x0))
        return (prediction.float() - target).square().flatten(1).mean(1)

    def denoised(self, prediction: Tensor, seen: Tensor, level: Tensor) -> Tensor:
        """D, from the scaled input."""
        sigma = per_item(level.float(), seen)
        return edm.denoised(prediction.float(), seen.float() / edm.c_in(sigma), sigma)


@dataclass(frozen=True)
class DiscreteV:
    """The form that Stable Diffusion 2.1 (768-v) was trained in; a level is the index of one of its noise levels.

    A network taken over from it speaks this form until stage I has taught its time embedding the continuous one
    (App. D.1). The paper's ablations of the curation also train in it.
    """

    num_levels: int = 1000
    beta_start: float = 0.00085
    beta_end: float = 0.012
    sigmas: Tensor = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        roots = torch.linspace(self.beta_start**0.5, self.beta_end**0.5, self.num_levels, dtype=torch.float64)
        alphas = torch.cumprod(1 - roots**2, dim=0)
        object.__setattr__(self, "sigmas", ((1 - alphas) / alphas).sqrt().float())

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """Indices of levels, int64, all equally likely."""
        return torch.randint(self.num_levels, (n,), generator=generator, device=generator.device)

    def at(self, sigma: Tensor) -> Tensor:
        """The index whose log sigma is nearest."""
        return (sigma.log()[:, None] - self.sigmas.to(sigma).log()).abs().argmin(1)

    def sigma(self, level: Tensor) -> Tensor:
        """The sigma of an index."""
        return sent(self.sigmas, level.device)[level]

    def noisy(self, x0: Tensor, noise: Tensor, level: Tensor) -> Tensor:
        """The variance-preserving mixture of latent and noise."""
        return _PLAIN.noisy(x0, noise, self.sigma(level))

    def time(self, level: Tensor) -> Tensor:
        """The index itself."""
        return level.float()

    def loss(self, prediction: Tensor, x0: Tensor, noise: Tensor, level: Tensor) -> Tensor:
        """Mean square of F - v, which both forms share."""
        return _PLAIN.loss(prediction, x0, noise, self.sigma(level))

    def denoised(self, prediction: Tensor, seen: Tensor, level: Tensor) -> Tensor:
        """The clean latent of a v-prediction."""
        return _PLAIN.denoised(prediction, seen, self.sigma(level))


_PLAIN = EDM(NoiseDistribution(0.0, 1.0))
"""For the formulas that a sigma decides alone."""
