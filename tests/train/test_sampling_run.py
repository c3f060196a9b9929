"""From a checkpoint's folder to the frames of a clip, the same that diffusers draws."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from diffusers import StableVideoDiffusionPipeline
from PIL import Image
from train_kit import seeded, shaken

from curate.errors import ConfigError, ModelFileError, UsageError
from curate.train.distributed import torch_device
from curate.train.folders import resolve_model
from curate.train.motion import MotionCalibration
from curate.train.movie import read_picture
from curate.train.pipeline_folder import tiny_pipeline
from curate.train.sampler import Sampling
from curate.train.sampling_run import Checkpoint, Shape, draw

CALIBRATION = MotionCalibration.of_scores(np.linspace(2.0, 12.0, 50), "motion_score")
SETTINGS = Sampling(steps=2, fps=6.5, motion=200.0)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    pipeline = tiny_pipeline()
    shaken(pipeline.unet)
    folder = tmp_path_factory.mktemp("sampling") / "model"
    pipeline.save(folder)
    return folder


@pytest.fixture(scope="module")
def pipeline(model):
    return Checkpoint.read(model).load(torch_device("cpu"))


@pytest.fixture
def picture(tmp_path):
    """(file, tensor): 24x16."""
    pixels = np.random.default_rng(1).integers(0, 256, (16, 24, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    return tmp_path / "a.png", read_picture(tmp_path / "a.png", 24, 16)


@pytest.fixture
def run(model, tmp_path):
    """A training run's folder: two checkpoints, and one that has no model."""
    folder = tmp_path / "run"
    for step in ("step-900", "step-1000"):
        shutil.copytree(model, folder / "checkpoints" / step / "model")
    (folder / "checkpoints" / "step-1100").mkdir()
    (folder / "checkpoints" / "step-1200" / "model").mkdir(parents=True)
    return folder


def test_a_run_means_its_model_or_else_its_newest_checkpoint(run, model):
    newest = run / "checkpoints" / "step-1000"
    assert resolve_model(model, "model_index.json") == model
    assert resolve_model(run, "model_index.json") == newest / "model"  # 1000 is later than 900
    assert resolve_model(newest, "model_index.json") == newest / "model"
    shutil.copytree(model, run / "model")
    assert resolve_model(run, "model_index.json") == run / "model"


def test_what_holds_no_model_is_said(tmp_path):
    with pytest.raises(UsageError, match="no such folder"):
        resolve_model(tmp_path / "nothing", "model_index.json")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")  # as a text stage has it
    with pytest.raises(UsageError, match=r"no model_index\.json in it"):
        resolve_model(tmp_path, "model_index.json")


def test_shape_and_motion_are_those_of_training(run):
    found = Checkpoint.read(run)
    assert (found.shape, found.multiple_px, found.calibration) == (Shape(1024, 576, 8), 4, None)
    (found.folder / "train.json").write_text(json.dumps({"width_px": 48, "height_px": 32, "frames": 6, "step": 9}))
    (found.folder / "motion.json").write_text(CALIBRATION.to_json())
    found = Checkpoint.read(run)
    assert found.fitting() == Shape(48, 32, 6)
    assert found.fitting(16, None, 3) == Shape(16, 32, 3)
    assert found.motion_of(7.0) == pytest.approx(127.5)
    assert [found.motion_of(score) for score in (-1.0, 99.0)] == [0.0, 255.0]


def test_motion_scores_need_a_calibration(model):
    with pytest.raises(UsageError, match=r"has no motion\.json"):
        Checkpoint.read(model).motion_of(3.0)


def test_a_size_that_does_not_fit_gets_the_nearest(model, tmp_path):
    from diffusers import AutoencoderKLTemporalDecoder

    levels = {"block_out_channels": (32, 32, 32, 32), "down_block_types": ("DownEncoderBlock2D",) * 4}
    folder = shutil.copytree(model, tmp_path / "model")
    shutil.rmtree(folder / "vae")
    AutoencoderKLTemporalDecoder(**levels).save_pretrained(folder / "vae")
    found = Checkpoint.read(folder)
    assert found.multiple_px == 32  # eightfold by the codec, fourfold by the network
    assert found.fitting(64, 32) == Shape(64, 32, 8)
    with pytest.raises(ConfigError, match=r"size 1000x5: sides must be multiples of 32 .* nearest size is 992x32"):
        found.fitting(1000, 5)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("train.json", "{}", "train.json: does not say"),
        ("train.json", "[1]", "train.json: does not say"),
        ("motion.json", "{}", "motion.json: has format None"),
        ("model_index.json", '{"_class_name": "StableDiffusionPipeline"}', "holds a StableDiffusionPipeline; clips"),
        ("model_index.json", "{}", "does not say which pipeline"),
        ("unet/config.json", "{", "'unet' cannot be read"),
        ("unet/config.json", "{}", "'unet' cannot be read: it lacks 'block_out_channels'"),
        ("vae/config.json", "{}", "vae"),
    ],
)
def test_a_folder_that_says_nonsense_is_named(model, tmp_path, file, text, message):
    folder = shutil.copytree(model, tmp_path / "model")
    (folder / file).write_text(text)
    with pytest.raises(UsageError, match=message) as caught:
        Checkpoint.read(folder)
    assert str(folder) in str(caught.value)


def test_a_folder_without_a_part_is_named(model, tmp_path):
    folder = shutil.copytree(model, tmp_path / "model")
    shutil.rmtree(folder / "image_encoder")
    with pytest.raises(ModelFileError, match="no folder 'image_encoder'"):
        Checkpoint.read(folder).load(torch_device("cpu"))


def test_plain_diffusers_draws_the_same_frames(model, pipeline, picture):
    found = draw(pipeline, picture[1], 5, SETTINGS, seed=3)
    theirs = StableVideoDiffusionPipeline.from_pretrained(model)
    theirs.set_progress_bar_config(disable=True)
    clip = theirs(
        Image.open(picture[0]),
        height=16,
        width=24,
        num_frames=5,
        num_inference_steps=2,
        fps=6.5,
        motion_bucket_id=200.0,
        generator=seeded(3),
    ).frames[0]
    assert np.array_equal(found, np.stack([np.asarray(frame) for frame in clip]))
    assert found.std() > 10


def test_a_chain_goes_on_from_the_last_frame(pipeline, picture):
    told = []
    found = draw(
        pipeline, picture[1], 4, SETTINGS, seed=3, chain=3, on_progress=lambda done, of: told.append((done, of))
    )
    assert (found.shape, found.dtype) == ((10, 16, 24, 3), np.uint8)
    assert told == [(i, 6) for i in range(1, 7)]
    first = draw(pipeline, picture[1], 4, SETTINGS, seed=3)
    assert np.array_equal(found[:4], first)
    # The second begins with the frame that the first ended with, to the last bit: not with its rounded picture.
    from curate.train.pipeline_folder import sample_clip

    clip = sample_clip(pipeline, picture[1], 4, SETTINGS, seeded(3))
    second = draw(pipeline, clip[:, -1], 4, SETTINGS, seed=4)
    assert np.array_equal(found[4:7], second[1:])
    third = draw(pipeline, sample_clip(pipeline, clip[:, -1], 4, SETTINGS, seeded(4))[:, -1], 4, SETTINGS, seed=5)
    assert np.array_equal(found[7:], third[1:])
    assert not np.array_equal(found[4:7], found[1:4])


def test_single_frames_make_no_chain(pipeline, picture):
    assert draw(pipeline, picture[1], 1, SETTINGS, seed=0).shape == (1, 16, 24, 3)
    with pytest.raises(ConfigError, match="chain"):
        draw(pipeline, picture[1], 1, SETTINGS, seed=0, chain=2)


def test_too_little_memory_is_said(pipeline, picture, monkeypatch):
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 80 GiB")

    monkeypatch.setattr(pipeline.codec.vae, "decode", full)
    with pytest.raises(UsageError, match="does not fit into the device's memory"):
        draw(pipeline, picture[1], 2, SETTINGS, seed=0)


def test_devices(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert [torch_device(name).type for name in ("auto", "cpu")] == ["cpu", "cpu"]
    with pytest.raises(UsageError, match="sees 0 GPUs"):
        torch_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)
    assert [torch_device(name).type for name in ("auto", "cpu", "cuda")] == ["cuda", "cpu", "cuda"]
    assert torch_device("auto", 1).index == 1
    with pytest.raises(UsageError, match="sees 2 GPUs"):
        torch_device("auto", 2)
