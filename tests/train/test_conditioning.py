"""Conditioning, against diffusers' pipeline."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image
from train_kit import conditions, latents, seeded

from curate.train.codecs import Codec
from curate.train.conditioning import (
    AUGMENTATION,
    Conditions,
    add_time_ids,
    first_frame_latent,
    image_to_video,
    pictures,
    text_to_video,
)
from curate.train.objective import EDM, NoiseDistribution
from curate.train.pipeline_folder import tiny_image_parts, tiny_pipeline, tiny_text_encoder


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """A random pipeline of ours, and the same as plain diffusers opens it."""
    from diffusers import StableVideoDiffusionPipeline

    folder = tmp_path_factory.mktemp("pipeline")
    ours = tiny_pipeline()
    ours.save(folder)
    return ours, StableVideoDiffusionPipeline.from_pretrained(folder)


def test_the_vector_is_the_pipelines(opened):
    """SVD_SPEC line 5: fps - 1, motion bucket, augmentation; the pipeline takes one off before this call."""
    _, theirs = opened
    found = add_time_ids(torch.tensor([7.0]), torch.tensor([127.0]), torch.tensor([0.02]))
    assert torch.equal(found, theirs._get_add_time_ids(7 - 1, 127, 0.02, torch.float32, 1, 1, False))
    assert found.tolist() == [[6.0, 127.0, pytest.approx(0.02)]]


def test_each_number_of_the_vector_is_a_sinusoid_cosine_first(opened):
    """SVD_SPEC line 5: 10000^(-i/half), [cos, sin], raw numbers, in the order of the vector."""
    ours, _ = opened
    width = ours.unet.config["addition_time_embed_dim"]
    numbers = [23.0, 200.0, 0.05]
    seen = []
    with ours.unet.add_embedding.register_forward_pre_hook(lambda _module, args: seen.append(args[0])):
        added = torch.tensor([numbers])
        ours.unet(torch.zeros(1, 2, 8, 8, 8), torch.tensor([0.1]), torch.zeros(1, 1, 32), added)
    half = width // 2
    frequencies = [10000 ** (-i / half) for i in range(half)]
    wanted = [f(number * w) for number in numbers for f in (math.cos, math.sin) for w in frequencies]
    assert seen[0].tolist()[0] == pytest.approx(wanted, abs=2e-5)


def test_the_conditioning_latent_is_unscaled_and_the_target_is_not(opened):
    """SVD_SPEC line 9: the conditioning latent is the encoder's, the target 0.18215 times that."""
    ours, theirs = opened
    frame, noise = latents(2, 3, 16, 24).clamp(-1, 1), latents(2, 3, 16, 24, seed=4)
    augmentation = torch.tensor([0.02, 0.1])
    found = first_frame_latent(ours.codec, frame, augmentation, noise)
    noisy = frame + augmentation[:, None, None, None] * noise
    assert torch.allclose(found, theirs._encode_vae_image(noisy, "cpu", 1, False), atol=1e-4)
    assert torch.equal(ours.codec.scaled(found), 0.18215 * found)


def test_each_clip_has_its_own_augmentation(opened):
    """SVD_SPEC line 10: sigma_c is per clip."""
    ours, _ = opened
    frame, noise = latents(4, 3, 8, 8).clamp(-1, 1), latents(4, 3, 8, 8, seed=4)
    augmentation = AUGMENTATION.sample(4, seeded(0))
    together = first_frame_latent(ours.codec, frame, augmentation, noise)
    for i in range(4):
        one = slice(i, i + 1)
        alone = first_frame_latent(ours.codec, frame[one], augmentation[one], noise[one])
        assert torch.allclose(alone, together[one], atol=1e-4)
    first_alike = first_frame_latent(ours.codec, frame, augmentation[:1].expand(4), noise)
    assert (first_alike - together).flatten(1).abs().amax(1).gt(1e-3).tolist() == [False, True, True, True]


def test_the_image_embedding_is_the_pipelines(opened):
    """Resized to 224 x 224 with antialiasing and without crop, whatever the frame's shape."""
    ours, theirs = opened
    for height, width in ((40, 96), (300, 240)):
        picture = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
        frame = torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 127.5 - 1
        found = ours.image_encoder.encode(frame)
        wanted = theirs._encode_image(Image.fromarray(picture), "cpu", 1, False)
        assert found.shape == (1, 1, 32)
        assert torch.allclose(found, wanted, atol=1e-5)


def test_unconditional_is_what_the_pipeline_takes(opened):
    """Zero token and zero latent, the same vector."""
    _, theirs = opened
    cond = conditions(2, 3)
    nothing = cond.unconditional()
    assert not nothing.context.any()
    assert not nothing.concat.any()
    assert torch.equal(nothing.added, cond.added)
    picture = Image.fromarray(np.zeros((8, 8, 3), np.uint8))
    both = theirs._encode_image(picture, "cpu", 1, True)
    assert not both[0].any()
    assert both[1].any()
    assert not theirs._encode_vae_image(torch.ones(1, 3, 8, 8), "cpu", 1, True)[0].any()


def test_token_and_latent_are_withheld_together():
    cond, dropped = conditions(3, 2), torch.tensor([True, False, True])
    found = cond.without(dropped)
    assert torch.equal(~found.context.flatten(1).any(1), dropped)
    assert torch.equal(~found.concat.flatten(1).any(1), dropped)
    assert torch.equal(found.added, cond.added)
    assert torch.equal(found.context[1], cond.context[1])
    assert torch.equal(found.concat[1], cond.concat[1])


def test_what_the_text_stages_are_told():
    encoder = tiny_text_encoder()
    context = encoder.encode(["a dog runs", "ein Hündchen " * 40, ""])
    assert context.shape == (3, 77, 32)
    alone = encoder.encode(["a dog runs"])
    assert torch.allclose(alone, context[:1], atol=1e-5)
    assert not torch.allclose(context[0], context[2], atol=1e-2)
    clips = text_to_video(context, torch.tensor([24.0, 12.5, 30.0]), torch.tensor([0.0, 255.0, 9.0]))
    assert clips.added.tolist() == [[23.0, 0.0, 0.0], [11.5, 255.0, 0.0], [29.0, 9.0, 0.0]]
    assert (clips.concat, clips.image_only.any().item()) == (None, False)
    single = pictures(context)
    assert not single.added.any()
    assert single.image_only.all()
    assert single.unconditional().concat is None


def test_the_text_encoder_reads_stable_diffusions_folders(tmp_path):
    from curate.train.conditioning import TextEncoder

    encoder = tiny_text_encoder()
    encoder.model.save_pretrained(tmp_path / "text_encoder")
    encoder.tokenizer.save_pretrained(tmp_path / "tokenizer")
    texts = ["Wet paint.", "x" * 200]
    assert torch.equal(TextEncoder.load(tmp_path).encode(texts), encoder.encode(texts))


def test_the_first_frames_latent_stands_beside_every_frame():
    latent, context = latents(2, 4, 8, 8), latents(2, 1, 32)
    fps, motion, augmentation = torch.tensor([[7.0, 25.0], [20.0, 230.0], [0.02, 0.3]])
    cond = image_to_video(context, latent, 5, fps, motion, augmentation)
    assert cond.concat.shape == (2, 5, 4, 8, 8)
    assert all(torch.equal(cond.concat[:, t], latent) for t in range(5))
    assert cond.added.tolist() == [[6.0, 20.0, pytest.approx(0.02)], [24.0, 230.0, pytest.approx(0.3)]]


def test_batches_can_follow_each_other():
    first, second = conditions(2, 3), conditions(1, 3, seed=8)
    both = first.followed_by(second)
    assert isinstance(both, Conditions)
    assert torch.equal(both.concat, torch.cat([first.concat, second.concat]))
    assert both.added.shape == (3, 3)
    assert both.to("cpu").context.shape == (3, 1, 32)


def test_a_training_step_in_one_piece():
    """All parts together: scaled target, unscaled condition, own sigma a clip; the gradient is finite everywhere."""
    from curate.train.network import UNetNetwork

    pipeline = tiny_pipeline()
    codec: Codec = pipeline.codec
    generator = seeded(0)
    frames = torch.rand(2, 3, 3, 8, 8, generator=generator) * 2 - 1
    x0 = codec.scaled(codec.encode(frames))
    augmentation = AUGMENTATION.sample(2, generator)
    latent = first_frame_latent(codec, frames[:, 0], augmentation, torch.randn(2, 3, 8, 8, generator=generator))
    token = pipeline.image_encoder.encode(frames[:, 0])
    cond = image_to_video(token, latent, 3, torch.tensor([7.0, 25.0]), torch.tensor([20.0, 230.0]), augmentation)
    objective = EDM(NoiseDistribution(1.0, 1.6))
    level, noise = objective.draw(2, generator), torch.randn(x0.shape, generator=generator)
    unet = pipeline.unet.train()
    output = UNetNetwork(unet)(
        objective.noisy(x0, noise, level), objective.time(level), cond.without(torch.tensor([True, False]))
    )
    loss = objective.loss(output, x0, noise, level).mean()
    loss.backward()
    assert 0.3 < loss.item() < 3
    assert all(parameter.grad.isfinite().all() for parameter in unet.parameters())


def test_the_tiny_parts_are_the_same_for_the_same_seed():
    before = torch.random.get_rng_state()
    first, _ = tiny_image_parts(seed=3)
    second, _ = tiny_image_parts(seed=3)
    assert torch.equal(torch.random.get_rng_state(), before)
    frame = torch.zeros(1, 3, 32, 32)
    assert torch.equal(first.encode(frame), second.encode(frame))
