"""The codec: what scales, what is remembered by its digest, and the weight-free one."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderKLTemporalDecoder
from hypothesis import given, settings
from hypothesis import strategies as st
from train_kit import latents, shaken

from curate.errors import ConfigError, ModelFileError
from curate.testing.scenes import moving_texture, noise, text_card
from curate.train.codecs import Codec, identity_vae

EXACT = 1e-4


@pytest.fixture(scope="module")
def exact() -> Codec:
    return Codec(identity_vae())


def small_vae(kind: type, seed: int = 0):
    torch.manual_seed(seed)
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "block_out_channels": (32, 32)}
    if kind is AutoencoderKL:
        blocks["up_block_types"] = ("UpDecoderBlock2D",) * 2
    return shaken(kind(**blocks, latent_channels=4, scaling_factor=0.18215))


def video(frames) -> torch.Tensor:
    """RGB pictures of 8 bits as one clip (1, T, 3, H, W) in [-1, 1]."""
    pixels = torch.from_numpy(np.stack(list(frames)))
    return pixels.permute(0, 3, 1, 2)[None].float() / 127.5 - 1


NATURAL = {
    "texture": video(moving_texture(5, 48, 32)),
    "noise": video(noise(3, 48, 32)),
    "text": video(text_card(2, 64, 40, "curate")),
    "one frame": video(itertools.islice(moving_texture(1, 96, 64), 1)),
    "white": torch.ones(1, 2, 3, 16, 24),
    "black": -torch.ones(2, 1, 3, 16, 24),
    "pure red": torch.tensor([1.0, -1.0, -1.0])[:, None, None].expand(1, 3, 3, 16, 24),
    "one white pixel": torch.eye(16)[None, None, None, :1].expand(1, 2, 3, 16, 16) * 2 - 1,
}


@pytest.mark.parametrize("name", NATURAL)
def test_the_weight_free_codec_is_exact(exact, name):
    frames = NATURAL[name]
    found = exact.decode(exact.encode(frames))
    assert found.shape == frames.shape
    assert (found - frames).abs().max().item() < EXACT
    bytes_ = [((part + 1) * 127.5).round().clamp(0, 255) for part in (found, frames)]
    assert torch.equal(*bytes_)


@settings(max_examples=20)
@given(seed=st.integers(0, 10_000), spread=st.floats(0, 1), mean=st.floats(-1, 1), frames=st.integers(1, 3))
def test_the_weight_free_codec_is_exact_for_any_frames(exact, seed, spread, mean, frames):
    generator = torch.Generator().manual_seed(seed)
    clip = (mean + spread * torch.randn(1, frames, 3, 8, 12, generator=generator)).clamp(-1, 1)
    assert (exact.decode(exact.encode(clip)) - clip).abs().max().item() < EXACT


@pytest.mark.parametrize("channels", [3, 4])
def test_scaled_latents_of_the_weight_free_codec_have_about_unit_variance(channels):
    codec = Codec(identity_vae(channels))
    frames = NATURAL["texture"]
    latents = codec.encode(frames)
    assert (codec.channels, codec.factor) == (channels, 1)
    assert latents.shape == (1, 5, channels, 32, 48)
    assert 0.5 < codec.scaled(latents - latents.mean()).std().item() < 2
    assert (codec.decode(latents) - frames).abs().max().item() < EXACT


def test_the_weight_free_codec_beyond_the_frames(exact):
    """First frames have noise upon them, and what a half-trained network gives is anywhere."""
    beyond = 2 * NATURAL["noise"]
    assert (exact.decode(exact.encode(beyond)) - beyond).abs().max().item() < 1e-3
    anywhere = 8 * NATURAL["noise"]
    found = exact.decode(exact.encode(anywhere))
    assert (found.clamp(-1, 1) - anywhere.clamp(-1, 1)).abs().max().item() < 1e-2


def test_other_numbers_of_channels_are_refused():
    with pytest.raises(ConfigError, match="3 or 4"):
        identity_vae(5)


def test_plain_diffusers_opens_the_weight_free_codec(exact, tmp_path):
    exact.vae.save_pretrained(tmp_path)
    theirs = AutoencoderKLTemporalDecoder.from_pretrained(tmp_path)
    frames = NATURAL["texture"]
    assert torch.equal(theirs.encode(frames[0]).latent_dist.mode(), exact.encode(frames)[0])
    found = theirs(frames[0], num_frames=5).sample
    assert torch.equal(found, exact.decode(exact.encode(frames))[0])
    # A draw from the distribution is its mode.
    drawn = theirs(frames[0], sample_posterior=True, num_frames=5).sample
    assert (drawn - frames[0]).abs().max().item() < EXACT
    assert Codec.load(tmp_path).digest == exact.digest


@pytest.mark.parametrize("kind", [AutoencoderKL, AutoencoderKLTemporalDecoder])
def test_latents_are_the_encoders_mode_and_unscaled(kind):
    """SVD_SPEC line 9, first half: 0.18215 comes in by `scaled` alone, and goes by `unscaled`."""
    codec = Codec(small_vae(kind))
    frames = NATURAL["texture"]
    found = codec.encode(frames)
    assert torch.equal(found[0], codec.vae.encode(frames[0]).latent_dist.mode())
    assert torch.equal(codec.scaled(found), 0.18215 * found)
    assert torch.allclose(codec.unscaled(codec.scaled(found)), found, rtol=1e-6)
    assert codec.factor == 2


@pytest.mark.parametrize("kind", [AutoencoderKL, AutoencoderKLTemporalDecoder])
def test_clips_of_a_batch_are_coded_alone(kind):
    codec = Codec(small_vae(kind))
    both = latents(2, 3, 4, 8, 8)
    apart = torch.cat([codec.decode(both[:1]), codec.decode(both[1:])])
    assert torch.equal(codec.decode(both), apart)
    frames = codec.decode(both).clamp(-1, 1)
    assert torch.allclose(codec.encode(frames, chunk=2), codec.encode(frames), atol=1e-5)


def test_a_temporal_decoder_sees_its_chunk_and_an_image_decoder_one_frame():
    clip = latents(1, 4, 4, 8, 8)
    temporal, image = (Codec(small_vae(kind)) for kind in (AutoencoderKLTemporalDecoder, AutoencoderKL))
    theirs = [temporal.vae.decode(part, num_frames=len(part)).sample for part in (clip[0, :3], clip[0, 3:])]
    assert torch.equal(temporal.decode(clip, chunk=3)[0], torch.cat(theirs))
    assert (temporal.decode(clip, chunk=3) - temporal.decode(clip)).abs().max().item() > 1e-3
    assert torch.allclose(image.decode(clip, chunk=3), image.decode(clip), atol=1e-5)


def test_autocast_around_a_codec_changes_nothing(exact):
    frames = NATURAL["text"]
    alone = exact.encode(frames)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(exact.encode(frames), alone)
        assert exact.decode(alone).dtype == torch.float32


def test_the_digest_is_of_weights_and_configuration(tmp_path):
    codec = Codec(small_vae(AutoencoderKL))
    assert codec.digest == Codec(small_vae(AutoencoderKL)).digest
    codec.vae.save_pretrained(tmp_path)
    assert Codec.load(tmp_path).digest == codec.digest
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "scaling_factor": 0.2}))
    assert Codec.load(tmp_path).digest != codec.digest
    assert Codec(small_vae(AutoencoderKL, seed=1)).digest != codec.digest
    bias = codec.vae.decoder.conv_out.bias
    bias.data[0] += 1e-6
    assert Codec.load(tmp_path).digest != codec.digest


def test_what_is_no_autoencoder_is_said(tmp_path):
    with pytest.raises(ModelFileError, match="no autoencoder"):
        Codec.load(tmp_path)
    (tmp_path / "config.json").write_text('{"_class_name": "VQModel"}')
    with pytest.raises(ModelFileError, match="VQModel"):
        Codec.load(tmp_path)


def test_frames_of_the_wrong_size_are_refused():
    with pytest.raises(ConfigError, match="multiples of 2"):
        Codec(small_vae(AutoencoderKL)).encode(torch.zeros(1, 1, 3, 9, 8))
