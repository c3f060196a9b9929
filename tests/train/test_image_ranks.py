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


def image(sharding: str) -> str:
    return yaml.safe_dump(small_recipe("image", run={"sharding": sharding, "gradient_checkpointing": True}))


def test_parameters_that_are_not_computed_are_in_no_rank_s_way(tmp_path):
    data = str(make_set(str(tmp_path / "set"), usual(9, frames=6), tmp_path).place("").uri).rstrip("/")
    worlds = {"alone": (1, "auto"), "copied": (2, "ddp"), "sharded": (2, "fsdp")}
    chains = {
        name: {
            "out": str(tmp_path / name),
            "links": [{"recipe": image(sharding), "data": data, "init": "", "world": world}],
        }
        for name, (world, sharding) in worlds.items()
    }
    asked, found = tmp_path / "asked.json", tmp_path / "found.json"
    asked.write_text(json.dumps(chains))
    script = Path(__file__).with_name("forked_runs.py")
    subprocess.run([sys.executable, str(script), str(asked), str(found)], check=True)
    results = json.loads(found.read_text())
    alone, *others = (results[name][0]["ranks"] for name in worlds)
    assert len(alone[0]["steps"]) == 2
    for ranks in others:
        for rank in ranks:
            for step, one in zip(rank["steps"], alone[0]["steps"], strict=True):
                assert step["loss"] == pytest.approx(one["loss"], rel=1e-3)
            assert rank["steps"][0]["norms"] == pytest.approx(alone[0]["steps"][0]["norms"], rel=1e-3)
