"""Films to train a tiny model on, and the yardstick of what it learnt."""

from __future__ import annotations

import json

import numpy as np
import pytest
from clips_kit import make_set, usual
from train_kit import small_recipe

from curate.testing.motion_check import Moves, main
from curate.testing.train_bucket import FRAMES, RATE, SHOTS, WIDTH_PX, make_train_bucket, shot
from curate.train.flow import flow_width_s
from curate.train.folders import TRAINED
from curate.train.pipeline_folder import tiny_pipeline

SLOW_PX, FAST_PX = (0.1, 0.2), (1.4, 2.0)


def test_a_picture_does_not_tell_its_motion():
    slow, fast = (np.stack(list(shot(3, limits))) for limits in (SLOW_PX, FAST_PX))
    assert len(slow) == len(fast) == FRAMES
    assert np.abs(slow[0].astype(int) - fast[0]).max() <= 4
    speeds_px = [flow_width_s(frames, float(RATE)) * WIDTH_PX / float(RATE) for frames in (slow, fast)]
    assert 0.5 * FAST_PX[0] < speeds_px[1] < 1.3 * FAST_PX[1]
    assert speeds_px[0] < speeds_px[1] / 2  # the camera's noise moves too


def test_the_films_are_made_once(tmp_path):
    paths = make_train_bucket(tmp_path, 2)
    made = {path: path.stat().st_mtime_ns for path in paths}
    assert make_train_bucket(tmp_path, 2) == paths
    assert {path: path.stat().st_mtime_ns for path in paths} == made
    assert sorted(tmp_path.iterdir()) == paths
    assert SHOTS * FRAMES / RATE == 6


def test_the_ratio_is_that_of_the_medians():
    assert Moves((1.0, 2.0, 30.0), (3.0, 4.0, 0.0)).ratio == pytest.approx(1.5)


def test_a_model_that_learnt_nothing_fails_the_check(tmp_path, capsys):
    make_set(str(tmp_path / "set"), usual(4, frames=6), tmp_path)
    tiny_pipeline().save(tmp_path / "model")
    (tmp_path / "model" / TRAINED).write_text(json.dumps({"recipe": small_recipe()}))
    args = [str(tmp_path / "model"), str(tmp_path / "set"), "--pairs", "2", "--steps", "2"]
    assert main([*args, "--picture", str(tmp_path / "first.png")]) == 1
    assert "motion bucket 230:" in capsys.readouterr().out
    assert (tmp_path / "first.png").read_bytes().startswith(b"\x89PNG")
