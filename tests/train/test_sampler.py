"""Sampling, against diffusers' scheduler and pipeline."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from train_kit import conditions, diffusers_folder, drawn_by_diffusers, drawn_here, latents, seeded, shaken

from curate.errors import ModelFileError
from curate.train import edm
from curate.train.network import SpatioTemporalUNet
from curate.train.pipeline_folder import Pipeline, sample_clip, scheduler, tiny_pipeline
from curate.train.sampler import Sampling, euler_step, first_noise, guidance, sample, sigmas


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    pipeline = tiny_pipeline()
    shaken(pipeline.unet)
    where = tmp_path_factory.mktemp("pipeline")
    pipeline.save(where)
    return where


def test_noise_levels_of_25_steps():
    """SVD_SPEC line 7."""
    found = sigmas(25).tolist()
    assert found[:3] == pytest.approx([700, 545.7, 421.6], rel=2e-4)
    assert found[-3:] == pytest.approx([0.008, 0.002, 0], abs=6e-4)
    assert len(found) == 26


@pytest.mark.parametrize("steps", [2, 7, 25, 30, 50])
def test_noise_levels_and_times_are_the_schedulers(steps):
    theirs = scheduler()
    theirs.set_timesteps(steps)
    levels = sigmas(steps)
    assert torch.equal(levels, theirs.sigmas)
    assert torch.equal(edm.c_noise(levels[:-1]), theirs.timesteps)
    assert torch.equal(first_noise(torch.ones(()), levels), theirs.init_noise_sigma)


@given(steps=st.integers(2, 60), rho=st.floats(1, 10), low=st.floats(1e-3, 0.1), high=st.floats(1, 1000))
def test_noise_levels_fall_from_first_to_last(steps, rho, low, high):
    found = sigmas(steps, low, high, rho)
    assert (found[0].item(), found[-2].item(), found[-1].item()) == pytest.approx((high, low, 0), rel=1e-5)
    assert (found.diff() < 0).all()


def test_a_step_is_the_schedulers():
    theirs = scheduler()
    theirs.set_timesteps(25)
    x, output = 100 * latents(2, 3, 4, 8, 8), latents(2, 3, 4, 8, 8, seed=2)
    ours = x
    levels = sigmas(25)
    for i, time in enumerate(theirs.timesteps):
        theirs.scale_model_input(x, time)
        x = theirs.step(output, time, x).prev_sample
        ours = euler_step(ours, edm.denoised(output, ours, levels[i]), levels[i], levels[i + 1])
        assert torch.equal(ours, x)


class Guided:
    """A network that gives 1 where there is a condition, and 0 where there is none."""

    def __call__(self, x, time, cond):
        return cond.context.flatten(1).any(1).to(x)[:, None, None, None, None].expand_as(x)


def test_guidance_is_linear_over_frames():
    """SVD_SPEC line 8: frame t gets w_t times the difference, w from first to last in equal steps."""
    assert guidance(5, 1.0, 3.0).tolist() == [1.0, 1.5, 2.0, 2.5, 3.0]
    settings = Sampling(steps=1, guidance_first=1.0, guidance_last=2.5)
    normal = torch.zeros(1, 4, 4, 8, 8)
    cond = conditions(1, 4)
    found = sample(Guided(), cond, normal, settings)
    # One step from sigma 700 to 0 gives the denoised latent: c_out times the guided output.
    wanted = edm.c_out(torch.tensor(700.0)) * torch.tensor([1.0, 1.5, 2.0, 2.5])
    assert torch.allclose(found[0, :, 0, 0, 0], wanted, rtol=1e-5)
    plain = sample(Guided(), cond, normal, Sampling(steps=1, guidance_first=1.0, guidance_last=1.0))
    assert torch.allclose(plain, edm.c_out(torch.tensor(700.0)).expand_as(plain))


@pytest.mark.parametrize(
    "settings",
    [
        Sampling(steps=3, fps=7, motion=127),
        Sampling(steps=2, fps=25, motion=230, guidance_first=1.5, guidance_last=4.0, augmentation=0.1, decode_chunk=2),
        Sampling(steps=2, guidance_first=1.0, guidance_last=1.0),
    ],
    ids=["usual", "own", "unguided"],
)
def test_plain_diffusers_gives_the_same_frames(folder, settings):
    """SVD_SPEC line 6: the folder runs in diffusers' pipeline; the same seed gives the same clip, exactly."""
    wanted = drawn_by_diffusers(folder, settings, 11)
    found = drawn_here(folder, settings, 11)
    assert found.shape == (1, 5, 3, 16, 24)
    assert torch.equal(found, wanted)
    assert wanted.std().item() > 0.05
    assert (drawn_here(folder, settings, 12) - found).abs().max().item() > 0.01


def test_a_folder_of_plain_diffusers_is_sampled_alike(tmp_path):
    diffusers_folder(tmp_path)
    settings = Sampling(steps=2, decode_chunk=3)
    found, wanted = drawn_here(tmp_path, settings, 1), drawn_by_diffusers(tmp_path, settings, 1)
    assert torch.equal(found, wanted)
    assert wanted.std().item() > 0.01


def test_steps_are_told_as_they_end(folder):
    seen = []
    pipeline = Pipeline.load(folder)
    assert type(pipeline.unet) is SpatioTemporalUNet
    clip = sample_clip(
        pipeline, torch.zeros(1, 3, 8, 8), 2, Sampling(steps=3), seeded(0), lambda i, x: seen.append((i, x.shape))
    )
    assert seen == [(i, (1, 2, 4, 8, 8)) for i in range(3)]
    assert clip.isfinite().all()


def test_clips_of_a_batch_are_sampled_alone(folder):
    """SVD_SPEC line 10, in sampling."""
    from curate.train.network import UNetNetwork

    network, cond, normal = UNetNetwork(Pipeline.load(folder).unet), conditions(2, 3), latents(2, 3, 4, 8, 8)
    settings = Sampling(steps=2)
    both = sample(network, cond, normal, settings)
    first = type(cond)(cond.context[:1], cond.added[:1], cond.concat[:1], cond.image_only[:1])
    assert torch.allclose(sample(network, first, normal[:1], settings), both[:1], rtol=1e-4, atol=1e-3)


def test_a_folder_that_lacks_a_part_is_said(tmp_path):
    with pytest.raises(ModelFileError, match="no folder 'unet'"):
        Pipeline.load(tmp_path)


def test_an_image_autoencoder_makes_no_such_pipeline(tmp_path):
    from diffusers import AutoencoderKL

    from curate.train.codecs import Codec

    pipeline = tiny_pipeline()
    wrong = dataclasses.replace(pipeline, codec=Codec(AutoencoderKL(block_out_channels=(32,))))
    with pytest.raises(ModelFileError, match="temporal decoder"):
        wrong.save(tmp_path)
