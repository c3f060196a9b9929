"""An image stage on two ranks: the layers over time are there, and neither computed nor learning."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from clips_kit import make_set, usual
from train_kit import small_recipe


def test_parameters_that_are_not_computed_are_in_no_rank_s_way(tmp_path):
    data = str(make_set(str(tmp_path / "set"), usual(9, frames=6), tmp_path).place("").uri).rstrip("/")
    worlds = {"alone": (1, "auto"), "copied": (2, "ddp"), "sharded": (2, "fsdp")}
    scenarios = [
        {
            "recipe": yaml.safe_dump(small_recipe("image", run={"sharding": sharding, "gradient_checkpointing": True})),
            "data": data,
            "out": str(tmp_path / name),
            "world": world,
        }
        for name, (world, sharding) in worlds.items()
    ]
    asked, found = tmp_path / "asked.json", tmp_path / "found.json"
    asked.write_text(json.dumps(scenarios))
    script = Path(__file__).with_name("forked_runs.py")
    subprocess.run([sys.executable, str(script), str(asked), str(found)], check=True)
    alone, *others = json.loads(found.read_text())
    assert len(alone[0]["losses"]) == 2
    for ranks in others:
        for rank in ranks:
            assert rank["losses"] == pytest.approx(alone[0]["losses"], rel=1e-3)
            assert rank["gradients"][0] == pytest.approx(alone[0]["gradients"][0], rel=1e-3)
