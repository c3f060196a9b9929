"""EDM preconditioning with sigma_data = 1, as in appendices D.1 and D.2 of the paper (arXiv 2311.15127).

With a clean latent x0, noise n ~ N(0, 1) and a noise level sigma, the network F sees ``c_in * (x0 + sigma * n)`` and
the time ``c_noise``; the denoised latent is ``D = c_skip * x + c_out * F``. As c_out^2 * lambda = 1, the paper's
weighted loss ``lambda * |D - x0|^2`` is the plain ``|F - v|^2`` with ``v = (n - sigma * x0) / sqrt(1 + sigma^2)``:
that form is trained here, because it neither divides by small nor multiplies by large numbers.

Every function takes a sigma of any shape that broadcasts against the latents; `per_item` makes that shape of (B,).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from curate.errors import ConfigError

__all__ = ["NoiseDistribution", "c_in", "c_noise", "c_out", "c_skip", "denoised", "loss_weight", "per_item", "v_target"]


@dataclass(frozen=True)
class NoiseDistribution:
    """log sigma ~ N(p_mean, p_std^2). The paper's stages: (-1.2, 1.0), (0, 1.0), (0.5, 1.4), (0.7, 1.6), (1.0, 1.6)."""

    p_mean: float
    p_std: float

    def __post_init__(self) -> None:
        if self.p_std < 0:
            raise ConfigError(f"p_std is a deviation, so it cannot be {self.p_std}", subject="noise distribution")

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Noise levels, float32 (n,), on the generator's device: one a clip, shared by all its frames."""
        normal = torch.randn(n, generator=generator, device=generator.device, dtype=torch.float64)
        return torch.exp(self.p_mean + self.p_std * normal).float()

    def quantile(self, share: float) -> float:
        """The noise level below which this share (0 to 1) of the draws lies."""
        at = torch.special.ndtri(torch.tensor(share, dtype=torch.float64))
        return float(torch.exp(self.p_mean + self.p_std * at))


def per_item(level: Tensor, like: Tensor) -> Tensor:
    """(B,) as (B, 1, 1, ...), so that it multiplies each item of ``like`` (B, ...)."""
    return level.reshape(-1, *[1] * (like.ndim - 1))


def c_skip(sigma: Tensor) -> Tensor:
    """Share of the noisy latent in the denoised one."""
    return 1 / (sigma**2 + 1)


def c_out(sigma: Tensor) -> Tensor:
    """Scale of the network's output in the denoised latent."""
    return -sigma / (sigma**2 + 1) ** 0.5


def c_in(sigma: Tensor) -> Tensor:
    """Scale that brings a noisy latent of any level to unit variance."""
    return 1 / (sigma**2 + 1) ** 0.5


def c_noise(sigma: Tensor) -> Tensor:
    """The time that the network is told: a quarter of log sigma, continuous."""
    return 0.25 * sigma.log()


def loss_weight(sigma: Tensor) -> Tensor:
    """Lambda of the paper's loss on denoised latents; the loss that is computed does not need it."""
    return (1 + sigma**2) / sigma**2


def v_target(x0: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """What the network should give: it has unit variance at every level when x0 has."""
    return (noise - sigma * x0) / (sigma**2 + 1) ** 0.5


def denoised(prediction: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
    """Clean latent by the network's output and the unscaled noisy latent x = x0 + sigma * n."""
    # x times c_skip, in the form that rounds as diffusers' scheduler does.
    return prediction * c_out(sigma) + x / (sigma**2 + 1)
