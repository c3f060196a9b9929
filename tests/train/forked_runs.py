"""Runs training jobs in processes that may be killed: `python forked_runs.py SCENARIOS.json RESULTS.json`.

Libraries are imported once; every rank of every scenario is a fork. A scenario has ``recipe`` (YAML text), ``data``,
``out``, ``world``, and may have ``kill_at``: the step after which every rank kills itself. Its result has one entry a
rank: clips and losses of each step, and digests of parameters, moments and averages after the last one; None of killed
ranks.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.state_dict import get_state_dict

from curate.train.distributed import plain, whole
from curate.train.logs import LOG, read_lines
from curate.train.recipe import parse_train_recipe
from curate.train.run import Job, train
from curate.train.step import Report, Step

FORK = multiprocessing.get_context("fork")


class Witness:
    """Sees every step of a rank."""

    def __init__(self, last: int, kill_at: int | None) -> None:
        self.seen: dict[str, Any] = {"clips": [], "losses": [], "gradients": []}
        self._last, self._kill_at = last, kill_at

    def __call__(self, number: int, report: Report, step: Step) -> None:
        self.seen["clips"].append(report.clip_ids)
        self.seen["losses"].append(report.loss)
        self.seen["gradients"].append(report.norms)
        self.seen["first_moments"] = moments(step) if number == 1 else self.seen.get("first_moments")
        if number == self._last:
            self.seen["digests"] = digests(step)
        if number == self._kill_at:
            os.kill(os.getpid(), signal.SIGKILL)


def moments(step: Step) -> list[float]:
    """A few numbers of every first moment: after the first step, the gradient but for a factor."""
    _, state = get_state_dict(plain(step.network), step.optimiser)
    moments = (whole(one["exp_avg"]).flatten() for one in state["state"].values())
    return [value for moment in moments for value in moment[:: max(1, len(moment) // 3)].tolist()]


def digests(step: Step) -> dict[str, str]:
    """Of everything that a step changes."""
    network, optimiser = get_state_dict(plain(step.network), step.optimiser)
    moments = {f"{name}.{key}": value for name, state in optimiser["state"].items() for key, value in state.items()}
    average = step.average.tensors if step.average else {}
    return {kind: _digest(of) for kind, of in (("network", network), ("moments", moments), ("average", average))}


def _digest(tensors: dict[str, Any]) -> str:
    found = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        found.update(name.encode() + whole(tensor).detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def run_rank(scenario: dict[str, Any], rank: int, result: Path, port: int) -> None:
    """One rank, to its end or death."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(scenario["world"]), "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    recipe = parse_train_recipe(scenario["recipe"], "recipe")
    witness = Witness(recipe.steps, scenario.get("kill_at"))
    train(Job(recipe, scenario["data"], Path(scenario["out"]), scenario.get("init", ""), on_step=witness, device="cpu"))
    result.write_text(json.dumps({**witness.seen, "log": read_lines(Path(scenario["out"], LOG))}))


def run(scenario: dict[str, Any]) -> list[Any]:
    """All ranks of a scenario."""
    with socket.socket() as free, tempfile.TemporaryDirectory() as folder:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        results = [Path(folder, str(rank)) for rank in range(scenario["world"])]
        children = [FORK.Process(target=run_rank, args=(scenario, *one, port)) for one in enumerate(results)]
        for child in children:
            child.start()
        for child in children:
            child.join()
        wanted = -signal.SIGKILL if "kill_at" in scenario else 0
        if any(child.exitcode != wanted for child in children):
            raise SystemExit(f"{scenario['out']}: ranks ended with {[child.exitcode for child in children]}")
        return [json.loads(result.read_text()) if result.is_file() else None for result in results]


if __name__ == "__main__":
    scenarios = json.loads(Path(sys.argv[1]).read_text())
    Path(sys.argv[2]).write_text(json.dumps([run(scenario) for scenario in scenarios]))
