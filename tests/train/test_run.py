"""The loop: what is killed goes on as if nothing had happened, and many processes do what one does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from clips_kit import make_set, usual
from train_kit import small_recipe

STEPS, KILLED_AT, EVERY = 4, 3, 2


def changed(**keys: Any) -> str:
    """A recipe with keys of ``run`` changed, as YAML."""
    return yaml.safe_dump(small_recipe(steps=STEPS, run={"checkpoint": {"every_steps": EVERY, "keep": 2}, **keys}))


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """What the ranks of every scenario saw."""
    folder = tmp_path_factory.mktemp("runs")
    data = str(make_set(str(folder / "set"), usual(11, frames=6), folder).place("").uri).rstrip("/")
    usual_run, sharded = changed(), changed(sharding="fsdp")
    scenarios = {
        "alone": {"recipe": usual_run, "world": 1},
        "killed": {"recipe": usual_run, "world": 1, "kill_at": KILLED_AT, "folder": "again"},
        "resumed": {"recipe": usual_run, "world": 1, "folder": "again"},
        "whole batch": {"recipe": changed(micro_batch=4), "world": 1},
        "two": {"recipe": usual_run, "world": 2},
        "two killed": {"recipe": usual_run, "world": 2, "kill_at": KILLED_AT, "folder": "two again"},
        "two resumed": {"recipe": usual_run, "world": 2, "folder": "two again"},
        "sharded": {"recipe": sharded, "world": 2},
        "sharded killed": {"recipe": sharded, "world": 2, "kill_at": KILLED_AT, "folder": "sharded again"},
        "sharded resumed": {"recipe": sharded, "world": 2, "folder": "sharded again"},
    }
    listed = [
        {**scenario, "data": data, "out": str(folder / scenario.get("folder", name))}
        for name, scenario in scenarios.items()
    ]
    asked, found = folder / "asked.json", folder / "found.json"
    asked.write_text(json.dumps(listed))
    script = Path(__file__).with_name("forked_runs.py")
    subprocess.run([sys.executable, str(script), str(asked), str(found)], check=True)
    return dict(zip(scenarios, json.loads(found.read_text()), strict=True))


@pytest.mark.parametrize(
    ("undisturbed", "resumed"), [("alone", "resumed"), ("two", "two resumed"), ("sharded", "sharded resumed")]
)
def test_a_killed_run_ends_as_the_undisturbed_one_to_the_last_bit(results, undisturbed, resumed):
    for straight, again in zip(results[undisturbed], results[resumed], strict=True):
        kept = KILLED_AT - KILLED_AT % EVERY
        assert again["clips"] == straight["clips"][kept:]
        assert again["losses"] == straight["losses"][kept:]
        assert again["digests"] == straight["digests"]


def test_killed_ranks_had_no_time_to_say_anything(results):
    assert results["killed"] == [None]
    assert results["two killed"] == [None, None]


@pytest.mark.parametrize("other", ["two", "sharded", "whole batch"])
def test_gradients_do_not_depend_on_how_a_batch_is_divided(results, other):
    alone, many = results["alone"][0], results[other][0]
    assert np.allclose(alone["first_moments"], many["first_moments"], rtol=1e-3, atol=1e-7)
    assert np.ptp(alone["first_moments"]) > 1e-4
    for part, norm in alone["gradients"][0].items():
        assert many["gradients"][0][part] == pytest.approx(norm, rel=1e-4)


def test_ranks_share_a_batch_and_agree_on_its_loss(results):
    first, second = results["two"]
    together = [{*mine, *others} for mine, others in zip(first["clips"], second["clips"], strict=True)]
    assert together == [set(clips) for clips in results["alone"][0]["clips"]]
    assert first["losses"] == second["losses"]
    assert first["digests"] == second["digests"]


@pytest.mark.parametrize("other", ["two", "sharded", "whole batch"])
def test_training_goes_the_same_way_however_a_batch_is_divided(results, other):
    """Also after validation, which computes with averaged weights: a sharded network must not go on with those."""
    assert results[other][0]["losses"] == pytest.approx(results["alone"][0]["losses"], rel=1e-3)
    held_out = [
        [row["held_out/mean"] for row in one["log"] if "held_out/mean" in row]
        for one in (results["alone"][0], results[other][0])
    ]
    assert len(held_out[0]) == 3
    assert held_out[0] == pytest.approx(held_out[1], rel=1e-3)


def test_the_average_is_not_the_network(results):
    digests = results["alone"][0]["digests"]
    assert len(set(digests.values())) == 3
