"""`curate sample`: the film it writes, and one clear line for each thing that can be wrong."""

from __future__ import annotations

import json
import re
import shutil
import sys
from fractions import Fraction

import av
import numpy as np
import pytest
from cli_kit import curate
from diffusers import StableVideoDiffusionPipeline
from PIL import Image
from train_kit import seeded, shaken

from curate.train import movie
from curate.train.motion import MotionCalibration
from curate.train.pipeline_folder import tiny_pipeline


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A checkpoint that was trained in 32x16, 4 frames."""
    pipeline = tiny_pipeline()
    shaken(pipeline.unet)
    folder = tmp_path_factory.mktemp("sample") / "run" / "model"
    pipeline.save(folder)
    (folder / "train.json").write_text(json.dumps({"width_px": 32, "height_px": 16, "frames": 4}))
    calibration = MotionCalibration.of_scores(np.linspace(2.0, 12.0, 50), "motion_score")
    (folder / "motion.json").write_text(calibration.to_json())
    return folder


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    path = tmp_path_factory.mktemp("images") / "a.png"
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (16, 32, 3), np.uint8)).save(path)
    return path


@pytest.fixture
def frames(monkeypatch):
    """What is written, before it is encoded."""
    seen, real = [], movie.write_movie

    def write(path, clip, fps):
        seen.append(clip)
        real(path, clip, fps)

    monkeypatch.setattr(movie, "write_movie", write)
    return seen


def by_diffusers(model, image, seed, **options):
    theirs = StableVideoDiffusionPipeline.from_pretrained(model)
    theirs.set_progress_bar_config(disable=True)
    shape = {"height": 16, "width": 32, "num_frames": 4, "num_inference_steps": 2}
    clip = theirs(Image.open(image), **shape, generator=seeded(seed), **options).frames[0]
    return np.stack([np.asarray(frame) for frame in clip])


def test_a_clip_is_drawn_as_plain_diffusers_draws_it(model, image, frames, tmp_path):
    path = tmp_path / "clip.mp4"
    ended = curate("sample", model.parent, "--image", image, "--out", path, "--steps", 2, "--device", "cpu")
    assert (ended.status, ended.err) == (0, "")
    wanted = "clip.mp4: 4 frames of 32x16 at 7 frames/s (0.6s), motion bucket 127, seed 0, in "
    assert wanted in ended.out.splitlines()[-1]
    assert np.array_equal(frames[0], by_diffusers(model, image, 0, fps=7, motion_bucket_id=127))
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        found = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        assert (stream.average_rate, stream.codec_context.pix_fmt) == (7, "yuv420p")
    assert np.stack(found).shape == (4, 16, 32, 3)
    assert list(tmp_path.iterdir()) == [path]


def test_all_that_can_be_said_is_heard(model, image, frames, tmp_path):
    options = ["--steps", 2, "--seed", 5, "--guidance", "1.5:4", "--augmentation", 0.1, "--decode-chunk", 3]
    told = {"fps": 6.5, "motion_bucket_id": 127.5, "noise_aug_strength": 0.1, "decode_chunk_size": 3}
    ended = curate(
        "sample", model, "--image", image, "--out", tmp_path / "a.mp4", "--fps", 6.5, "--motion-score", 7, *options
    )
    assert ended.status == 0
    assert "motion bucket 127.5, seed 5" in ended.out
    wanted = by_diffusers(model, image, 5, min_guidance_scale=1.5, max_guidance_scale=4.0, **told)
    assert np.array_equal(frames[0], wanted)
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert container.streams.video[0].average_rate == Fraction(13, 2)
    smaller = ["--width", 16, "--height", 8, "--frames", 3, "--chain", 2, "--motion", 255, "--steps", 1]
    assert curate("sample", model, "--image", image, "--out", tmp_path / "b.mp4", *smaller).status == 0
    assert frames[1].shape == (5, 8, 16, 3)


def test_the_same_seed_gives_the_same_file(model, image, tmp_path):
    for name, seed in (("a", 7), ("b", 7), ("c", 8)):
        args = ["--image", image, "--out", tmp_path / f"{name}.mp4", "--seed", seed, "--steps", 1, "--chain", 2]
        assert curate("sample", model, *args).status == 0
    files = [(tmp_path / f"{name}.mp4").read_bytes() for name in "abc"]
    assert files[0] == files[1] != files[2]


WRONG = {
    "no picture": (["--image", "{text}"], "notes.txt: is no picture that can be read: it is of no known format"),
    "missing picture": (["--image", "{empty}/a.png"], "a.png: there is no such picture"),
    "size": (["--width", 33], r"size 33x16: sides must be multiples of 4 pixels. The nearest size is 32x16"),
    "motion": (["--motion", 300], r"sample.motion: Input should be less than or equal to 255 \(got 300.0\)"),
    "motion twice": (["--motion", 1, "--motion-score", 1], "say the same thing twice"),
    "rate": (["--fps", 0], "fps: 0.0 frames/s cannot be written"),
    "steps": (["--steps", 0], "sample.steps: Input should be greater than or equal to 1"),
    "guidance": (["--guidance", "much"], "--guidance: must be a number, or two such as 1:3, not 'much'"),
    "endless guidance": (["--guidance", "1:inf"], "--guidance: must be finite"),
    "decode chunk": (["--decode-chunk", 0], "sample.decode_chunk: Input should be greater than or equal to 1"),
    "chain": (["--frames", 1, "--chain", 2], "chain: clips of one frame cannot follow one another"),
    "out": (["--out", "clip.gif"], "--out clip.gif: is to be an MP4 file"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_said_in_one_line(model, image, tmp_path, case):
    (tmp_path / "notes.txt").write_text("no picture")
    names = {"text": tmp_path / "notes.txt", "empty": tmp_path}
    args, message = WRONG[case]
    usual = {"--image": image, "--out": tmp_path / "a.mp4"}
    given = dict(zip(args[::2], args[1::2], strict=True))
    ended = curate("sample", model, *(str(x).format(**names) for item in (usual | given).items() for x in item))
    assert ended.status == 2
    assert re.fullmatch(rf"Error .*{message}.*\n", ended.err)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.txt"]


@pytest.mark.parametrize("case", ["nothing", "empty", "text stage", "no calibration", "lacks a part"])
def test_what_is_no_checkpoint_is_said_in_one_line(model, image, tmp_path, case):
    folder, more = tmp_path / "run", []
    if case != "nothing":
        folder.mkdir()
    if case == "text stage":
        shutil.copytree(model / "unet", folder / "model")
    if case in {"no calibration", "lacks a part"}:
        shutil.copytree(model, folder / "model")
    if case == "no calibration":
        (folder / "model" / "motion.json").unlink()
        more = ["--motion-score", 3]
    if case == "lacks a part":
        shutil.rmtree(folder / "model" / "feature_extractor")
    ended = curate("sample", folder, "--image", image, "--out", tmp_path / "a.mp4", *more)
    words = {"nothing": "no such folder", "no calibration": "has no motion.json", "lacks a part": "feature_extractor"}
    assert ended.status == 2
    assert re.fullmatch(rf"Error .*{words.get(case, 'holds no such model: no model_index.json')}.*\n", ended.err)
    assert not (tmp_path / "a.mp4").exists()


def test_a_film_that_cannot_be_put_there_is_said(model, image, tmp_path):
    (tmp_path / "file").write_text("")
    ended = curate("sample", model, "--image", image, "--out", tmp_path / "file" / "a.mp4", "--steps", 1)
    assert ended.status == 1
    assert re.fullmatch(r"Error .*file/a.mp4.*\n", ended.err)


def test_libraries_that_are_not_installed_are_said(model, image, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    ended = curate("sample", model, "--image", image, "--out", tmp_path / "a.mp4")
    assert ended.status == 2
    assert "diffusers not installed" in ended.err
    assert "pip install 'curate-video[train]'" in ended.err
