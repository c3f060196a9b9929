"""The network: its size, its path for pictures, and that it stays diffusers' own."""

from __future__ import annotations

import copy

import pytest
import torch
from diffusers import UNetSpatioTemporalConditionModel
from torch import nn
from train_kit import conditions, latents, named, video_unet

from curate.errors import ConfigError
from curate.train.network import (
    Parameters,
    SpatioTemporalUNet,
    UNetNetwork,
    build_unet,
    part_of,
    preset_config,
    set_trainable,
    trainable_by_part,
)

TIMES = torch.tensor([-0.4, 0.9])


def test_parameters_of_the_papers_network():
    """SVD_SPEC line 1: 656.08 M over time; 1521.99 M without vector and conditioning latent; 1524.62 M with both."""
    with torch.device("meta"):
        found = Parameters.of(build_unet("svd"))
        text = Parameters.of(build_unet("svd", concat=False))
    assert (found.temporal, found.vector, found.total) == (656_076_838, 2_624_000, 1_524_623_082)
    assert found.spatial - text.spatial == 4 * 9 * 320
    assert text.spatial == 865_910_724  # Stable Diffusion 2.1
    assert text.spatial + text.temporal == 1_521_987_562
    assert text.trainable == text.total


def test_presets_are_networks_that_diffusers_takes():
    assert preset_config("tiny")["block_out_channels"] == (32, 64, 64)
    with torch.device("meta"):
        assert isinstance(build_unet("tiny", num_frames=3), UNetSpatioTemporalConditionModel)
    with pytest.raises(ConfigError, match="did you mean 'tiny'"):
        build_unet("tinny")


def test_without_pictures_it_gives_what_diffusers_gives(tmp_path):
    unet, x, cond = video_unet(), latents(2, 3, 4, 8, 8), conditions(2, 3)
    ours = UNetNetwork(unet)(x, TIMES, cond)
    wide = torch.cat([x, cond.concat], dim=2)
    for theirs in (unet.plain(), saved(unet, tmp_path)):
        assert type(theirs) is UNetSpatioTemporalConditionModel
        assert theirs.state_dict().keys() == unet.state_dict().keys()
        assert torch.equal(theirs(wide, TIMES, cond.context, cond.added).sample, ours)
    again = SpatioTemporalUNet.from_pretrained(tmp_path)
    assert type(again) is SpatioTemporalUNet
    assert torch.equal(UNetNetwork(again)(x, TIMES, cond), ours)


def saved(unet, folder):
    unet.save_pretrained(folder)
    return UNetSpatioTemporalConditionModel.from_pretrained(folder)


def test_the_plain_network_shares_its_parameters():
    unet = video_unet()
    plain = unet.plain()
    unet.conv_in.weight.data[0, 0] = 7
    assert plain.conv_in.weight.data_ptr() == unet.conv_in.weight.data_ptr()
    assert (plain.conv_in.weight[0, 0] == 7).all()
    average = {name: value + 1 for name, value in unet.state_dict().items()}
    assert all(torch.equal(value, average[name]) for name, value in unet.plain(average).state_dict().items())


def test_pictures_do_not_see_the_layers_over_time():
    """SVD_SPEC line 4, second half: frames marked as pictures come out as if each were alone."""
    unet, x = video_unet(), latents(2, 3, 4, 8, 8)
    cond = conditions(2, 3, image_only=torch.tensor([True, True]))
    found = UNetNetwork(unet)(x, TIMES, cond)
    for name, parameter in unet.named_parameters():
        if part_of(name) == "temporal":
            parameter.data.normal_(0, 5, generator=torch.Generator().manual_seed(1))
    assert torch.equal(UNetNetwork(unet)(x, TIMES, cond), found)
    turned = UNetNetwork(unet)(x.flip(1), TIMES, flipped(cond))
    assert torch.allclose(turned, found.flip(1), atol=1e-5)


def flipped(cond):
    return type(cond)(cond.context, cond.added, cond.concat.flip(1), cond.image_only)


def test_a_batch_may_mix_pictures_and_videos():
    """SVD_SPEC line 10: each clip has its own time, vector, context, latent and mark, whoever is beside it."""
    network, x = UNetNetwork(video_unet()), latents(3, 2, 4, 8, 8)
    times, marks = torch.tensor([-1.0, 0.2, 1.1]), torch.tensor([True, False, True])
    cond = conditions(3, 2, image_only=marks)
    together = network(x, times, cond)
    for i in range(3):
        one = slice(i, i + 1)
        alone = type(cond)(cond.context[one], cond.added[one], cond.concat[one], cond.image_only[one])
        assert torch.allclose(network(x[one], times[one], alone), together[one], atol=2e-5)
    videos = network(x, times, conditions(3, 2))
    assert (videos - together).flatten(1).abs().amax(1).gt(1e-2).tolist() == [True, False, True]


def test_pictures_give_no_gradient_to_the_layers_over_time():
    unet = video_unet().train()
    UNetNetwork(unet)(
        latents(1, 1, 4, 8, 8), TIMES[:1], conditions(1, 1, image_only=torch.tensor([True]))
    ).sum().backward()
    silent = {name for name, parameter in unet.named_parameters() if not parameter.grad.abs().any()}
    assert silent == {name for name, _ in unet.named_parameters() if part_of(name) == "temporal"}


@pytest.mark.parametrize("image_only", [True, False])
def test_gradient_checkpointing_changes_no_gradient(image_only):
    x, cond = latents(2, 2, 4, 8, 8), conditions(2, 2, image_only=torch.tensor([image_only, False]))
    gradients = []
    for checkpointing in (False, True):
        unet = video_unet().train()
        if checkpointing:
            unet.enable_gradient_checkpointing()
        # Between forward and backward, another forward of other marks: what is repeated must not see those.
        loss = UNetNetwork(unet)(x, TIMES, cond).square().mean()
        with torch.no_grad():
            UNetNetwork(unet)(x, TIMES, conditions(2, 2, image_only=torch.tensor([False, True])))
        loss.backward()
        gradients.append({name: parameter.grad for name, parameter in unet.named_parameters()})
    assert all(torch.allclose(gradients[0][name], gradients[1][name], atol=1e-6) for name in gradients[0])


def test_a_copy_has_marks_of_its_own():
    """An average of the weights begins as a copy."""
    unet, x = video_unet(), latents(1, 2, 4, 8, 8)
    other = copy.deepcopy(unet)
    cond = conditions(1, 2, image_only=torch.tensor([True]))
    found = UNetNetwork(unet)(x, TIMES[:1], cond)
    unet.forward = None
    assert torch.equal(UNetNetwork(other)(x, TIMES[:1], cond), found)


def test_a_network_that_failed_forgets_its_marks():
    unet, x, cond = video_unet(), latents(1, 2, 4, 8, 8), conditions(1, 2)
    found = UNetNetwork(unet)(x, TIMES[:1], cond)
    with pytest.raises(RuntimeError):
        unet(x, TIMES[:1], cond.context, cond.added, image_only=torch.tensor([True]))  # 4 channels, not 8
    wide = torch.cat([x, cond.concat], dim=2)
    assert torch.equal(unet(wide, TIMES[:1], cond.context, cond.added).sample, found)


def test_it_compiles_whole():
    levels = {"down_block_types": ("CrossAttnDownBlockSpatioTemporal",), "num_attention_heads": 2}
    levels |= {"up_block_types": ("CrossAttnUpBlockSpatioTemporal",), "block_out_channels": (32,)}
    unet, x = build_unet("tiny", **levels).eval(), latents(2, 2, 4, 8, 8)
    compiled = torch.compile(unet, backend="eager")
    for marks in (torch.tensor([True, False]), torch.tensor([False, True])):
        cond = conditions(2, 2, image_only=marks)
        assert torch.allclose(UNetNetwork(compiled)(x, TIMES, cond), UNetNetwork(unet)(x, TIMES, cond), atol=1e-5)


@pytest.mark.parametrize(
    ("what", "parts"),
    [
        ("all", {"spatial", "temporal", "vector"}),
        ("spatial", {"spatial"}),
        ("temporal", {"temporal", "vector"}),
        ("time_embedding", {"spatial"}),
    ],
)
def test_what_learns(what, parts):
    unet = build_unet("tiny").train()
    report = set_trainable(unet, what)
    groups = trainable_by_part(unet)
    assert set(groups) == parts
    assert report.trainable == sum(p.numel() for group in groups.values() for _, p in group)
    before = named(unet)
    optimizer = torch.optim.SGD([{"params": [p for _, p in group]} for group in groups.values()], lr=1.0)
    UNetNetwork(unet)(latents(2, 2, 4, 8, 8), TIMES, conditions(2, 2)).square().mean().backward()
    optimizer.step()
    moved = {name for name, value in named(unet).items() if not torch.equal(value, before[name])}
    allowed = {name for group in groups.values() for name, _ in group}
    assert moved <= allowed
    assert {part_of(name) for name in moved} == parts
    if what == "time_embedding":
        assert moved == {name for name in before if name.startswith("time_embedding.")}


def test_an_unknown_choice_of_what_learns_is_refused():
    with pytest.raises(ConfigError, match="did you mean 'temporal'"):
        set_trainable(nn.Linear(1, 1), "temporall")
