"""Layers that do less than diffusers' own: what they leave out changes nothing."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from train_kit import conditions, image_unet, latents, shaken, video_unet

from curate.train.conditioning import Conditions, pictures
from curate.train.costs import forward_flops
from curate.train.inflate import inflate
from curate.train.network import UNetNetwork, build_unet, part_of, preset_config, set_trainable
from curate.train.recompute import compile_units, recompute_units

TIMES = torch.tensor([-0.4, 0.9])


def texts(frames: int, **marks: Any) -> Conditions:
    return replace(conditions(2, frames, **marks), context=latents(2, 7, 32, seed=5))


def plain_pass(unet: Any, x: Tensor, cond: Conditions) -> Tensor:
    """By diffusers' own class."""
    return unet.plain()(torch.cat([x, cond.concat], dim=2), TIMES, cond.context, cond.added).sample


def gradients(unet: Any, loss: Tensor) -> dict[str, Tensor]:
    names, parameters = zip(*((n, p) for n, p in unet.named_parameters() if p.requires_grad), strict=True)
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    return {name: gradient for name, gradient in zip(names, found, strict=True) if gradient is not None}


def as_usual(_unet: Any) -> None:
    pass


def of_diffusers(unet: Any) -> None:
    unet.enable_gradient_checkpointing()


@pytest.mark.parametrize("how", [as_usual, of_diffusers, recompute_units])
def test_pictures_are_computed_without_the_layers_over_time_to_the_last_bit(how):
    """SVD_SPEC line 4: with image_only=1 the blend is the layer over space; so are its gradients."""
    unet, x = video_unet().train(), latents(2, 1, 4, 8, 8)
    set_trainable(unet, "spatial")
    blended = texts(1, image_only=torch.tensor([True, True]))
    wanted = UNetNetwork(unet)(x, TIMES, blended)
    ours = copy.deepcopy(unet)
    how(ours)
    found = UNetNetwork(ours)(x, TIMES, replace(blended, all_pictures=True))
    assert torch.equal(found, wanted)
    theirs, own = gradients(unet, wanted.square().mean()), gradients(ours, found.square().mean())
    assert own.keys() == theirs.keys() == {name for name, _ in unet.named_parameters() if part_of(name) == "spatial"}
    assert all(torch.equal(own[name], theirs[name]) for name in own)


def test_nothing_over_time_is_computed_for_pictures():
    unet, x = video_unet(), latents(2, 1, 4, 8, 8)
    for name, parameter in unet.named_parameters():
        if part_of(name) == "temporal":
            parameter.data.fill_(float("nan"))
    known = replace(texts(1, image_only=torch.tensor([True, True])), all_pictures=True)
    assert UNetNetwork(unet)(x, TIMES, known).isfinite().all()


def test_what_is_known_of_pictures_goes_with_them():
    known = pictures(latents(2, 7, 32))
    assert known.all_pictures
    assert known.to("cpu").all_pictures and known.unconditional().followed_by(known).all_pictures
    clips = Conditions(known.context, known.added, None, torch.tensor([False, False]))
    assert not known.followed_by(clips).all_pictures


@pytest.mark.parametrize("how", [as_usual, of_diffusers, recompute_units])
def test_a_text_that_is_projected_once_gives_the_same(how):
    """To 2e-6 of outputs of about 1 and of each gradient's largest value: sums come in another order."""
    unet, x, cond = video_unet().train(), latents(2, 3, 4, 8, 8), texts(3)
    plain = unet.plain().train()
    wanted = plain(torch.cat([x, cond.concat], dim=2), TIMES, cond.context, cond.added).sample
    how(unet)
    found = UNetNetwork(unet)(x, TIMES, cond)
    assert torch.allclose(found, wanted, rtol=0, atol=2e-6)
    theirs, own = gradients(plain, wanted.square().mean()), gradients(unet, found.square().mean())
    assert own.keys() == theirs.keys() == dict(unet.named_parameters()).keys()
    for name, gradient in own.items():
        assert (gradient - theirs[name]).abs().max() <= 2e-6 * max(theirs[name].abs().max(), 1e-2), name


def test_every_clip_attends_to_its_own_text():
    network, x, cond = UNetNetwork(video_unet()), latents(2, 3, 4, 8, 8), texts(3)
    both = network(x, TIMES, cond)
    turned = Conditions(cond.context.flip(0), cond.added, cond.concat, cond.image_only)
    assert (network(x, TIMES, turned) - both).abs().amax((1, 2, 3, 4)).min() > 1e-3
    alone = Conditions(cond.context[1:], cond.added[1:], cond.concat[1:], cond.image_only[1:])
    assert torch.allclose(network(x[1:], TIMES[1:], alone)[0], both[1], atol=1e-5)


def test_an_image_gives_what_diffusers_gives_to_the_last_bit():
    unet, x, cond = video_unet(), latents(2, 3, 4, 8, 8), conditions(2, 3)
    assert torch.equal(UNetNetwork(unet)(x, TIMES, cond), plain_pass(unet, x, cond))


def test_a_processor_of_another_kind_is_asked_too():
    """As `run.attention` sets one."""
    asked = []

    class Noting:
        def __call__(self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Any = None, **kwargs: Any) -> Any:
            asked.append((attn, tuple(hidden_states.shape)))
            return usual(attn, hidden_states, encoder_hidden_states, **kwargs)

    unet, x, cond = video_unet(), latents(2, 3, 4, 8, 8), texts(3)
    wanted = UNetNetwork(unet)(x, TIMES, cond)
    usual = next(iter(unet.attn_processors.values()))
    unet.set_attn_processor(Noting())
    assert torch.equal(UNetNetwork(unet)(x, TIMES, cond), wanted)
    over_time = unet.mid_block.attentions[0].temporal_transformer_blocks[0].attn2
    assert [shape for attn, shape in asked if attn is over_time] == [(2, 2 * 2 * 3, 64)]


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # PyTorch's own, in compiling
@pytest.mark.parametrize("recomputed", [False, True])
def test_what_is_left_out_stays_out_when_compiled(recomputed):
    levels = {"down_block_types": ("CrossAttnDownBlockSpatioTemporal",), "num_attention_heads": 2}
    levels |= {"up_block_types": ("CrossAttnUpBlockSpatioTemporal",), "block_out_channels": (32,)}
    unet = shaken(build_unet("tiny", **levels)).train()
    picture = replace(texts(1, image_only=torch.tensor([True, True])), all_pictures=True)
    given = [(latents(2, 3, 4, 8, 8), TIMES, texts(3)), (latents(2, 1, 4, 8, 8), TIMES, picture)]
    wanted = [gradients(unet, UNetNetwork(unet)(*one).square().mean()) for one in given]
    compile_units(unet, "eager")
    if recomputed:
        recompute_units(unet)
    for one, theirs in zip(given, wanted, strict=True):
        own = gradients(unet, UNetNetwork(unet)(*one).square().mean())
        assert own.keys() == theirs.keys()
        assert all(torch.allclose(own[name], theirs[name], atol=1e-6) for name in own)


def test_what_is_left_of_a_picture_is_the_image_network():
    """But for the MLP of the vector, whose input is 768 numbers wide."""
    image = image_unet()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        image(latents(2, 4, 8, 8), TIMES, latents(2, 7, 32))
    width = 4 * image.config["block_out_channels"][0]
    video = inflate(image).config
    assert forward_flops(video, 1, 8, 8, 7, pictures=True, batch=2) == counter.get_total_flops() + 2 * 2 * (
        768 * width + width**2
    )


@pytest.mark.parametrize("only_pictures", [False, True])
def test_counted_flops_are_those_of_a_real_pass(only_pictures):
    unet, x = video_unet(), latents(2, 1, 4, 8, 8)
    cond = replace(texts(1, image_only=torch.tensor([True, True])), all_pictures=only_pictures)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        UNetNetwork(unet)(x, TIMES, cond)
    assert forward_flops(preset_config("tiny"), 1, 8, 8, 7, only_pictures, batch=2) == counter.get_total_flops()
