"""What goes wrong around a run, and what it says then."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from clips_kit import make_set, usual
from train_kit import small_recipe, smallest_model

from curate.errors import ConfigError
from curate.train.recipe import TrainRecipe, parse_train_recipe
from curate.train.run import Job, train


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("set")
    make_set(str(folder / "set"), usual(9, frames=6), folder)
    return folder / "set"


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """A finished text stage of two steps."""
    folder = tmp_path_factory.mktemp("stage")
    train(Job(recipe(), str(data), folder / "run", smallest_model(folder / "init"), device="cpu"))
    return folder / "run"


def recipe(kind: str = "video", **more: Any) -> TrainRecipe:
    return parse_train_recipe(yaml.safe_dump(small_recipe(kind, **more)), "test")


class Begun(Exception):
    """The run has said what it starts with: enough has been seen."""


def begins(data: Path, out: Path, **more: Any) -> Mapping[str, Any]:
    """What a run says at its start."""
    told: list[Mapping[str, Any]] = []

    def note(facts: Mapping[str, Any]) -> None:
        told.append(facts)
        raise Begun

    with pytest.raises(Begun):
        train(Job(recipe(), str(data), out, device="cpu", on_start=note, **more))
    return told[0]


def test_a_stage_goes_on_with_motion_of_the_same_unit_alone(data, stage, tmp_path):
    """Shards of another measure are refused, and clips beyond the table are told of."""
    other = shutil.copytree(data, tmp_path / "other")
    index = json.loads((other / "index.json").read_text())
    (other / "index.json").write_text(json.dumps(index | {"export": {"motion": "motion.speed_width_s"}}))
    with pytest.raises(ConfigError, match=r"the shards hold motion\.speed_width_s, .* calibrated on motion_score"):
        begins(other, tmp_path / "refused", init=str(stage))
    assert begins(data, tmp_path / "same", init=str(stage))["warnings"] == []
    table = json.loads((stage / "model" / "motion.json").read_text())
    moved = shutil.copytree(stage / "model", tmp_path / "moved")
    slow = [score / 2 for score in table["scores"]]
    (moved / "motion.json").write_text(json.dumps(table | {"scores": slow}))
    (warning,) = begins(data, tmp_path / "warned", init=str(moved))["warnings"]
    assert warning.startswith("50% of the clips move less or more")
