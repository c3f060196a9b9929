"""EDM's formulas: against each other, against diffusers, and by their laws."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers import DDPMScheduler
from hypothesis import given
from hypothesis import strategies as st
from train_kit import latents, seeded

from curate.errors import ConfigError
from curate.train import edm
from curate.train.edm import NoiseDistribution, per_item
from curate.train.objective import EDM, DiscreteV, Objective

SIGMA = st.floats(math.log(0.002), math.log(700)).map(math.exp)
PAPER = EDM(NoiseDistribution(1.0, 1.6))
OBJECTIVES: list[Objective] = [PAPER, DiscreteV()]


@given(sigma=SIGMA, seed=st.integers(0, 1000))
def test_the_weighted_loss_on_denoised_latents_is_the_plain_loss_on_v(sigma, seed):
    """SVD_SPEC line 2: lambda |D - x0|^2 == |F - v|^2, in float64."""
    x0, noise, output = torch.randn(3, 2, 4, 3, 3, generator=seeded(seed), dtype=torch.float64)
    level = torch.tensor(sigma, dtype=torch.float64)
    clean = edm.denoised(output, x0 + level * noise, level)
    weighted = edm.loss_weight(level) * (clean - x0).square().mean()
    plain = (output - edm.v_target(x0, noise, level)).square().mean()
    assert weighted.item() == pytest.approx(plain.item(), rel=1e-9)


@given(sigma=SIGMA)
def test_preconditioning_keeps_unit_variance(sigma):
    level = torch.tensor(sigma, dtype=torch.float64)
    assert (edm.loss_weight(level) * edm.c_out(level) ** 2).item() == pytest.approx(1, rel=1e-12)
    assert (edm.c_in(level) ** 2 * (1 + level**2)).item() == pytest.approx(1, rel=1e-12)
    assert edm.c_skip(level).item() == pytest.approx(edm.c_in(level).item() ** 2, rel=1e-12)
    assert edm.c_noise(level).item() == pytest.approx(math.log(sigma) / 4)


@given(sigma=SIGMA, seed=st.integers(0, 100))
def test_the_right_prediction_gives_back_the_clean_latent_and_no_loss(sigma, seed):
    x0, noise = torch.randn(2, 2, 3, 4, 5, 5, generator=seeded(seed))
    level = torch.full((2,), sigma)
    target = edm.v_target(x0, noise, per_item(level, x0))
    assert PAPER.loss(target, x0, noise, level).tolist() == [0, 0]
    clean = PAPER.denoised(target, PAPER.noisy(x0, noise, level), level)
    # The clean latent is a difference of numbers as large as sigma, which float32 knows to 1e-7 of that.
    assert (clean - x0).abs().max().item() < 2e-6 * (1 + sigma)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_network_that_gives_zeros_has_a_loss_of_one(objective):
    """SVD_SPEC line 3, for latents of unit variance."""
    x0, noise = latents(512, 2, 4, 6, 6), latents(512, 2, 4, 6, 6, seed=5)
    loss = objective.loss(torch.zeros_like(x0), x0, noise, objective.draw(512, seeded(0)))
    assert loss.shape == (512,)
    assert loss.mean().item() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_each_clip_has_its_own_level(objective):
    """SVD_SPEC line 10: what a clip gets does not depend on the clips beside it."""
    x0, noise, output = torch.randn(3, 5, 2, 4, 6, 6, generator=seeded(3))
    level = objective.draw(5, seeded(1))
    assert len(set(level.tolist())) == 5
    seen = objective.noisy(x0, noise, level)
    loss = objective.loss(output, x0, noise, level)
    clean = objective.denoised(output, seen, level)
    for i in range(5):
        one = slice(i, i + 1)
        assert torch.equal(objective.noisy(x0[one], noise[one], level[one]), seen[one])
        assert torch.equal(objective.loss(output[one], x0[one], noise[one], level[one]), loss[one])
        assert torch.equal(objective.denoised(output[one], seen[one], level[one]), clean[one])
        assert torch.equal(objective.time(level[one]), objective.time(level)[one])


@pytest.mark.parametrize(
    ("p_mean", "p_std", "quantiles", "above_one"),
    [
        (-1.2, 1.0, (0.058, 0.30, 1.56), 0.12),
        (0.0, 1.0, (0.19, 1.0, 5.2), 0.50),
        (0.5, 1.4, (0.17, 1.65, 16.5), 0.64),
        (0.7, 1.6, (0.15, 2.0, 28), 0.67),
        (1.0, 1.6, (0.20, 2.7, 38), 0.73),
        (-3.0, 0.5, (0.022, 0.050, 0.11), 0.0),
    ],
)
def test_noise_distributions_of_the_stages(p_mean, p_std, quantiles, above_one):
    noise = NoiseDistribution(p_mean, p_std)
    assert [noise.quantile(share) for share in (0.05, 0.5, 0.95)] == pytest.approx(quantiles, rel=0.035)
    drawn = noise.sample(50_000, seeded(0))
    assert drawn.dtype == torch.float32
    assert (drawn > 1).float().mean().item() == pytest.approx(above_one, abs=0.01)
    logs = drawn.log()
    assert (logs.mean().item(), logs.std().item()) == pytest.approx((p_mean, p_std), abs=0.02)
    assert torch.equal(noise.sample(7, seeded(4)), noise.sample(7, seeded(4)))


def test_a_negative_deviation_is_refused():
    with pytest.raises(ConfigError, match="cannot be"):
        NoiseDistribution(0.0, -0.1)


def test_the_discrete_form_is_that_of_stable_diffusion():
    """Noising, target and clean latent of all 1000 levels as diffusers' DDPMScheduler has them."""
    theirs = DDPMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type="v_prediction"
    )
    ours = DiscreteV()
    level = torch.arange(1000)
    x0, noise = latents(1000, 1, 4, 2, 2), latents(1000, 1, 4, 2, 2, seed=9)
    assert torch.allclose(ours.noisy(x0, noise, level), theirs.add_noise(x0, noise, level), atol=2e-5)
    velocity = theirs.get_velocity(x0, noise, level)
    assert ours.loss(velocity, x0, noise, level).max().item() < 1e-8
    assert torch.equal(ours.time(level), level.float())
    assert (ours.denoised(velocity, ours.noisy(x0, noise, level), level) - x0).abs().max().item() < 5e-4
    drawn = ours.draw(20_000, seeded(0))
    assert (drawn.min().item(), drawn.max().item()) == (0, 999)


def test_loss_is_float32_whatever_the_network_computes_in():
    x0, noise = latents(2, 1, 4, 4, 4), latents(2, 1, 4, 4, 4, seed=8)
    level = torch.tensor([0.1, 50.0])
    loss = PAPER.loss(torch.zeros_like(x0, dtype=torch.bfloat16), x0, noise, level)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, PAPER.loss(torch.zeros_like(x0), x0, noise, level))
