"""`curate train` as a user meets it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from cli_kit import curate
from clips_kit import make_set, usual
from train_kit import small_recipe, smallest_model

SMALL = ["tiny-video", *("--set", "data.batch=2"), *("--set", "data.buckets.frames=[2]")]
SMALL += ["--set", "data.captions={caption.coca.caption: 1}"]
"""What fits the set."""
LARGE = ["video-320x576", "--set", "precision=float32"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("set")
    smallest_model(folder / "init")
    make_set(str(folder / "set"), usual(9, frames=6), folder)
    return folder / "set"


@pytest.fixture
def stage(tmp_path: Path) -> Path:
    path = tmp_path / "stage.yaml"
    path.write_text(yaml.safe_dump(small_recipe("video")))
    return path


def test_a_stage_says_what_it_does_and_where_its_model_is(stage, data, tmp_path):
    given = [stage, "--data", data, "--init", data.with_name("init"), "--out", tmp_path / "run", "--device", "cpu"]
    ended = curate("train", *given)
    assert ended.status == 0, ended.err
    lines = ended.out.splitlines()
    assert lines[0] == "8 clips to train on, in 1 buckets: 16x16x2 (8)"
    assert re.fullmatch(r"Parameters: ([\d,]+) of \1 learn \(spatial .*\); 1 x cpu", lines[2])
    assert re.match(r"step 0/2  held-out loss \d\.\d+ \(by sigma 1: \d\.\d+\)", lines[3])
    assert re.match(r"step 1/2  loss \d\.\d+  gradient \d\.\d+  \d+\.\d+ clips/s  waited \d+%", lines[4])
    assert lines[-1] == f"Model {tmp_path / 'run' / 'model'}"
    assert ended.err == ""
    again = curate("train", *given, "--set", "steps=3")
    assert "Going on after step 2" in again.out
    assert "step 3/3" in again.out


def test_a_plan_says_what_a_stage_costs_and_starts_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ended = curate("train", "tiny-image-to-video", "--plan", "--world", 2, "--device", "cpu")
    assert ended.status == 0, ended.err
    for word in ("parameters", "trainable", "memory of a device", "a step", "steps", "2 x CPU"):
        assert word in ended.out
    assert not list(tmp_path.iterdir())


def test_a_plan_for_devices_that_are_not_here():
    asked = ["tiny-image-to-video", "--plan", "--world", 2, "--device-kind", "h100"]
    ended = curate("train", *asked, "--set", "precision=bfloat16")
    assert ended.status == 0, ended.err
    for words in ("2 x H100", "1/2 of all", "of 74.5 GiB", "at 30% of 989 TFLOP/s"):
        assert words in ended.out


@pytest.mark.parametrize(
    ("args", "status", "message"),
    [
        (["tiny-video", "--device-kind", "H100"], 2, "--device-kind: a run takes the devices that there are"),
        (["tiny-video", "--plan", "--device-kind", "H10"], 2, r"unknown kind 'H10', did you mean 'H100'\?"),
        (["tiny-vidio"], 2, r"no recipe is called 'tiny-vidio', did you mean 'tiny-video'\?"),
        (["tiny-video"], 2, "--data: no shards are named"),
        (["tiny-video", "--data", "{here}/none"], 1, "none"),
        (["tiny-video", "--data", "{data}"], 2, r"no column 'caption.template.caption'"),
        (["tiny-video", "--data", "{data}", "--init", "{here}/none"], 2, "none: there is no such folder"),
        ([*SMALL, "--data", "{data}", "--latents", "{here}"], 2, "holds nothing of this run's encoders"),
        (["tiny-video", "--set", "data.batches=3"], 2, "unknown key 'recipe.data.batches', did you mean 'batch'"),
        (["tiny-video", "--device", "cuda", "--data", "{data}"], 2, "PyTorch sees 0 GPUs"),
        (["video-320x576", "--data", "{data}"], 2, "precision: .* Use --set precision=float32"),
        (
            ["video-320x576", "--set", "precision=float32", "--data", "{data}"],
            2,
            "--encoders: a network that starts at random needs encoders",
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_line(data, tmp_path, args, status, message):
    given = [arg.replace("{data}", str(data)).replace("{here}", str(tmp_path)) for arg in args]
    ended = curate("train", *given, "--out", tmp_path / "run")
    assert ended.status == status, ended.err
    assert re.fullmatch(rf"Error .*{message}.*\n", ended.err)
