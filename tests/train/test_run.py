"""The loop: what is killed goes on as if nothing had happened, and many processes do what one does."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from clips_kit import make_set, usual
from train_kit import small_recipe, smallest_model

STEPS, EVERY = 4, 2
SEED = 20
"""Of what is drawn: after which step, and where inside the writing of files, processes are killed."""


def recipe(**run: Any) -> str:
    """The recipe as YAML; ``run`` changes keys of that name."""
    validation = {"every_steps": 3, "sigmas": [1.0], "clips": 2, "samples": 0}
    usual = {"checkpoint": {"every_steps": EVERY, "keep": 1}, "validation": validation}
    return yaml.safe_dump(small_recipe(steps=STEPS, run={**usual, **run}))


def pictures(sharding: str) -> str:
    """An image stage, whose layers over time are neither computed nor learning."""
    return yaml.safe_dump(small_recipe("image", run={"sharding": sharding, "gradient_checkpointing": True}))


class Plan:
    """What is asked of `forked_runs.py`."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._rng = folder, random.Random(SEED)
        make_set(str(folder / "set"), usual(11, frames=6), folder)
        self._same = {"data": str(folder / "set"), "init": smallest_model(folder / "init")}
        self.chains: dict[str, Any] = {}

    def chain(self, name: str, *links: dict[str, Any]) -> None:
        filled = [{"recipe": recipe(), "world": 1, **link, **self._same} for link in links]
        self.chains[name] = {"out": str(self._folder / name), "links": filled}

    def at_step(self, *ranks: int, low: int = 1) -> dict[str, Any]:
        return {"ranks": list(ranks), "step": self._rng.randrange(low, STEPS)}

    def inside(self, part: str, rank: int, like: str) -> dict[str, Any]:
        """Not before its first change of a file, so that there is something half made."""
        return {"ranks": [rank], "in": part, "at": self._rng.uniform(0.2, 1), "like": like}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """What the links of every chain of runs left."""
    folder = tmp_path_factory.mktemp("runs")
    plan = Plan(folder)
    # Two clips for each rank, one after the other: gradients are added up before ranks share them.
    two, sharded = ({"world": 2, "recipe": recipe(micro_batch=1, sharding=how)} for how in ("ddp", "fsdp"))
    plan.chain("alone", {})
    parts = ("save", "save", "rotation", "finish")
    faults = [plan.at_step(0), *(plan.inside(part, 0, "alone") for part in parts)]
    plan.chain("alone again", *({"fault": fault} for fault in faults), {})
    plan.chain("whole batch", {"recipe": recipe(micro_batch=4)})
    plan.chain("workers", {"recipe": recipe(workers=2), "fault": plan.at_step(0, low=3)}, {})
    plan.chain("two", two)
    faults = [plan.at_step(0, 1), plan.inside("save", 0, "two"), plan.at_step(1), plan.inside("finish", 0, "two")]
    plan.chain("two again", *({**two, "fault": fault} for fault in faults), two)
    plan.chain("sharded", sharded)
    plan.chain("sharded again", {**sharded, "fault": plan.inside("save", 1, "sharded")}, sharded)
    often = {"every_steps": 1, "keep": 1}
    first = {"world": 2, "recipe": recipe(sharding="fsdp", checkpoint=often), "fault": {"ranks": [0, 1], "step": 2}}
    second = {"recipe": recipe(checkpoint=often), "fault": {"ranks": [0], "step": 3}}
    plan.chain("2, 1, 2", first, second, two)
    for name, how, world in (("pictures", "auto", 1), ("copied pictures", "ddp", 2), ("sharded pictures", "fsdp", 2)):
        plan.chain(name, {"world": world, "recipe": pictures(how)})
    asked, found = folder / "asked.json", folder / "found.json"
    asked.write_text(json.dumps(plan.chains))
    # Not as a script: whatever decodes would run the script again, and import all that trains with it.
    code = "import sys; sys.path.append(sys.argv.pop(1)); import forked_runs; forked_runs.main(*sys.argv[1:])"
    subprocess.run([sys.executable, "-c", code, *map(str, (Path(__file__).parent, asked, found))], check=True)
    return json.loads(found.read_text())


def kept(link: dict[str, Any]) -> int:
    """Steps of the newest checkpoint that is whole."""
    names = (re.fullmatch(r"checkpoints/step-(\d+)/trainer\.json", name) for name in link["files"])
    return max((int(name[1]) for name in names if name), default=0)


def taken(chain: list[Any]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rank and step, of every step of all links."""
    return ((rank, step) for link in chain for rank, one in enumerate(link["ranks"]) for step in one["steps"])


KILLED = [("alone", "alone again"), ("two", "two again"), ("sharded", "sharded again"), ("alone", "workers")]


@pytest.mark.parametrize(("undisturbed", "killed"), KILLED)
def test_every_step_of_a_killed_run_is_that_of_the_undisturbed_one_to_the_last_bit(results, undisturbed, killed):
    """Clips, loss and gradients of each, with decoding processes too; parameters, moments and averages at the end."""
    straight = {(rank, step["step"]): step for rank, step in taken(results[undisturbed])}
    assert all("digests" in step for (_, number), step in straight.items() if number == STEPS)
    seen = set()
    for rank, step in taken(results[killed]):
        assert step == straight[rank, step["step"]]
        seen.add((rank, step["step"]))
    assert seen == set(straight)


@pytest.mark.parametrize(("undisturbed", "killed"), KILLED)
def test_a_killed_run_ends_with_the_same_files(results, undisturbed, killed):
    straight, again = results[undisturbed][-1], results[killed][-1]
    assert again["files"] == straight["files"]
    assert again["model"] == straight["model"] != ""
    assert _told(again) == _told(straight)


def _told(link: dict[str, Any]) -> list[dict[str, Any]]:
    """The log, without what depends on the machine."""
    measured = {"time", "clips_per_s", "stall_share", "memory_bytes"}
    return [{key: value for key, value in row.items() if key not in measured} for row in link["ranks"][0]["log"]]


@pytest.mark.parametrize("killed", ["alone again", "two again", "sharded again", "2, 1, 2"])
def test_a_run_goes_on_from_its_newest_whole_checkpoint(results, killed):
    before = 0
    for link in results[killed]:
        first = {rank["steps"][0]["step"] for rank in link["ranks"] if rank["steps"]}
        assert first == ({before + 1} if before < STEPS else set())
        before = kept(link)


def test_kills_come_where_they_are_meant_to(results):
    """Something is half made, or half gone, where files are written or removed; but a first rank that is left tidies up
    after another one."""
    half = {"save": ".unfinished/", "rotation": ".going/", "finish": ".model.unfinished/"}
    faults = [(link["fault"], link["files"]) for chain in results.values() for link in chain if "in" in link["fault"]]
    assert sorted(fault["in"] for fault, _ in faults) == ["finish"] * 2 + ["rotation"] + ["save"] * 4
    for fault, files in faults:
        assert any(half[fault["in"]] in name for name in files) == (fault["ranks"] == [0])


def test_ranks_that_are_left_say_so_and_end(results):
    said = [rank["error"] for chain in results.values() for link in chain for rank in link["ranks"] if "error" in rank]
    assert len(said) == 4
    assert all(re.match(r"TrainingError: rank [01]: another of the 2 processes ended", error) for error in said)


def test_nothing_that_decodes_outlives_the_training(results):
    killed, after = results["workers"]
    assert killed["children"] >= 3  # two workers and the server that forks them
    assert after["children"] == 0
    assert not [pid for chain in results.values() for link in chain for pid in link["left"]]


def test_another_number_of_ranks_goes_on_with_the_same_clips(results):
    """From two with shards to one to two with copies: the same to rounding."""
    first, second, third = results["2, 1, 2"]
    assert [len(link["ranks"][0]["steps"]) for link in (first, second, third)] == [2, 2, 2]
    for link in (first, second, third):
        for steps in zip(*(rank["steps"] for rank in link["ranks"]), strict=True):
            (straight,) = [step for _, step in taken(results["alone"]) if step["step"] == steps[0]["step"]]
            assert {clip for step in steps for clip in step["clips"]} == set(straight["clips"])
            assert [step["loss"] for step in steps] == pytest.approx([straight["loss"]] * len(steps), rel=1e-3)
    assert _held_out(third) == pytest.approx(_held_out(results["alone"][0]), rel=1e-3)


def _held_out(link: dict[str, Any]) -> list[float]:
    return [row["held_out/mean"] for row in link["ranks"][0]["log"] if "held_out/mean" in row]


def ranks(chain: list[Any]) -> list[list[dict[str, Any]]]:
    """Steps of every rank of a run that was not disturbed."""
    (link,) = chain
    return [rank["steps"] for rank in link["ranks"]]


@pytest.mark.parametrize("other", ["two", "sharded", "whole batch"])
def test_gradients_do_not_depend_on_how_a_batch_is_divided(results, other):
    alone, many = ranks(results["alone"])[0][0], ranks(results[other])[0][0]
    assert np.allclose(alone["first_moments"], many["first_moments"], rtol=1e-3, atol=1e-7)
    assert np.ptp(alone["first_moments"]) > 1e-4
    for part, norm in alone["norms"].items():
        assert many["norms"][part] == pytest.approx(norm, rel=1e-4)


def test_ranks_share_a_batch_and_agree_on_its_loss(results):
    alone, (first, second) = ranks(results["alone"])[0], ranks(results["two"])
    for one, mine, others in zip(alone, first, second, strict=True):
        assert set(one["clips"]) == {*mine["clips"], *others["clips"]}
        assert mine["loss"] == others["loss"]
    assert first[-1]["digests"] == second[-1]["digests"]


@pytest.mark.parametrize("other", ["two", "sharded", "whole batch"])
def test_training_goes_the_same_way_however_a_batch_is_divided(results, other):
    """Also after validation, which computes with averaged weights: a sharded network must not go on with those."""
    losses = [[step["loss"] for step in ranks(results[name])[0]] for name in ("alone", other)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    held_out = [_held_out(results[name][0]) for name in ("alone", other)]
    assert len(held_out[0]) == 3
    assert held_out[0] == pytest.approx(held_out[1], rel=1e-3)


def test_the_average_is_not_the_network(results):
    assert len(set(ranks(results["alone"])[0][-1]["digests"].values())) == 3


@pytest.mark.parametrize("other", ["copied pictures", "sharded pictures"])
def test_parameters_that_are_not_computed_are_in_no_rank_s_way(results, other):
    """The layers over time of an image stage are there, and neither computed nor learning."""
    (alone,) = ranks(results["pictures"])
    assert len(alone) == 2
    for steps in ranks(results[other]):
        for step, one in zip(steps, alone, strict=True):
            assert step["loss"] == pytest.approx(one["loss"], rel=1e-3)
        assert steps[0]["norms"] == pytest.approx(alone[0]["norms"], rel=1e-3)
