"""From image network to video network: at the start they are the same function."""

from __future__ import annotations

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import nn
from train_kit import image_unet, latents, shaken

from curate.errors import ModelFileError
from curate.train.conditioning import Conditions
from curate.train.inflate import inflate, video_epsilons, widen
from curate.train.network import Parameters, UNetNetwork, part_of, preset_config

X = latents(2, 3, 4, 8, 8)
TIMES = torch.tensor([-0.7, 0.4])


def text_conditions(image_only: bool = False) -> Conditions:
    added = torch.tensor([[5.0, 127.0, 0.0], [23.0, 3.0, 0.0]])
    return Conditions(latents(2, 7, 32, seed=3), added, None, torch.full((2,), image_only))


def frame_by_frame(image, cond: Conditions, x: torch.Tensor = X) -> torch.Tensor:
    """What the image network gives for each frame. Its time embedding is computed once a clip, as the video class does:
    a matrix product of six rows rounds otherwise than one of two."""
    n = x.shape[1]
    once = image.time_embedding.register_forward_pre_hook(lambda _module, args: (args[0][::n],))
    again = image.time_embedding.register_forward_hook(lambda _module, _args, found: found.repeat_interleave(n, 0))
    with once, again:
        found = image(x.flatten(0, 1), TIMES.repeat_interleave(n), cond.context.repeat_interleave(n, 0)).sample
    return found.reshape(x.shape)


@pytest.mark.parametrize("frames", [1, 3])
@pytest.mark.parametrize("image_only", [False, True])
@torch.no_grad()
def test_the_inflated_network_is_the_image_network(image_only, frames):
    """SVD_SPEC line 4: no difference at all in float32, as videos and as pictures."""
    image = video_epsilons(shaken(image_unet()))
    cond = text_conditions(image_only)
    x = X[:, :frames]
    found = UNetNetwork(inflate(image).eval())(x, TIMES, cond)
    assert (found - frame_by_frame(image, cond, x)).abs().max().item() == 0
    assert found.std().item() > 0.1


@torch.no_grad()
def test_the_epsilons_of_the_video_class_are_all_that_differs():
    image, cond = shaken(image_unet()), text_conditions()
    found = UNetNetwork(inflate(image).eval())(X, TIMES, cond)
    difference = (found - frame_by_frame(image, cond)).abs().max().item()
    assert 0 < difference < 1e-4
    epsilons = {module.eps for module in image.modules() if isinstance(module, nn.GroupNorm)}
    assert epsilons == {1e-5, 1e-6}


def test_every_layer_over_time_can_learn():
    """A branch that is zero at its end lets gradients into that end; after one step they reach all of it."""
    video = inflate(shaken(image_unet())).train()
    optimizer = torch.optim.SGD(video.parameters(), lr=0.05)
    for _ in range(2):
        optimizer.zero_grad()
        UNetNetwork(video)(X, TIMES, text_conditions()).square().mean().backward()
        optimizer.step()
    still = [name for name, parameter in video.named_parameters() if not parameter.grad.abs().any()]
    # Attention to one token of context has nothing to choose, and a blend of equals no preference; these have seven.
    assert [name for name in still if part_of(name) != "spatial"] == []


@torch.no_grad()
def test_projections_by_convolution_become_linear():
    """Stable Diffusion 1's form of the same network."""
    image = video_epsilons(shaken(image_unet(use_linear_projection=False)))
    cond = text_conditions()
    found = UNetNetwork(inflate(image).eval())(X, TIMES, cond)
    assert torch.allclose(found, frame_by_frame(image, cond), atol=1e-5)


def test_stable_diffusion_inflates_to_the_papers_network():
    """In its real size, without memory: every parameter of the image network has its place in the video network."""
    with torch.device("meta"):
        image = UNet2DConditionModel(
            sample_size=96,
            attention_head_dim=(5, 10, 20, 20),
            cross_attention_dim=1024,
            use_linear_projection=True,
            upcast_attention=True,
        )
        video = inflate(image, num_frames=25)
    preset = preset_config("svd") | {"in_channels": 4}
    assert {key: video.config[key] for key in preset} == preset
    found = Parameters.of(video)
    assert found.spatial == sum(parameter.numel() for parameter in image.parameters()) == 865_910_724
    assert found.total == 1_521_987_562 + found.vector


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"norm_num_groups": 16}, "norm_num_groups is 16"),
        ({"class_embed_type": "timestep"}, "class_embed_type"),
        ({"down_block_types": ("AttnDownBlock2D", "DownBlock2D")}, "AttnDownBlock2D"),
        ({"dual_cross_attention": True}, "dual_cross_attention"),
    ],
)
def test_what_has_no_video_form_is_refused(options, words):
    with pytest.raises(ModelFileError, match=words):
        inflate(image_unet(**options))


@torch.no_grad()
def test_widening_for_the_conditioning_latent_changes_nothing_at_first():
    text = shaken(inflate(image_unet())).eval()
    video = widen(text).eval()
    cond = text_conditions()
    beside = Conditions(cond.context, cond.added, 5 * latents(2, 3, 4, 8, 8, seed=7), cond.image_only)
    wide, narrow = UNetNetwork(video)(X, TIMES, beside), UNetNetwork(text)(X, TIMES, cond)
    assert torch.allclose(wide, narrow, atol=1e-5)
    video.conv_in.weight[:, 4:] = 0.1
    assert not torch.allclose(UNetNetwork(video)(X, TIMES, beside), narrow, atol=1e-2)
    assert video.config["in_channels"] == 8
    with pytest.raises(ModelFileError, match="cannot narrow"):
        widen(video, 4)
