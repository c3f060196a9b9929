"""Runs training jobs in processes that are killed; `main` reads what is asked and writes what was found.

Libraries are imported once; every rank is a fork. A chain is one run in one folder: link after link, the same command
is started again. A chain has ``out`` and ``links``; a link has ``recipe`` (YAML text), ``data``, ``init``, ``world``,
and may have a ``fault``, after which the next one goes on:

    {"ranks": [0], "step": 3}       they kill themselves after that step
    {"ranks": [0], "in": "save", "at": 0.4, "like": "two"}
                                    ... before a change of files in that part of the run: at 0.4 of the number of
                                    changes that it took in the chain "two"

The result of a link has, for each rank, its steps (clips, loss, gradient norms, and of the last one digests of all that
steps change), and what it said when it ended; and which files and processes were left.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import re
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.utils.tensorboard.writer
from torch.distributed.checkpoint.state_dict import get_state_dict

from curate.errors import CurateError
from curate.shards.reader import ShardSet
from curate.storage import Place
from curate.train.data.catalogue import Catalogue
from curate.train.distributed import plain, whole
from curate.train.logs import LOG, read_lines
from curate.train.parts import start
from curate.train.recipe import parse_train_recipe
from curate.train.run import Job, train
from curate.train.step import Report, Step

FORK = multiprocessing.get_context("fork")
PATIENCE_S = 300
PARTS = {
    "save": re.compile(r"/\.step-\d+\.unfinished"),
    "rotation": re.compile(r"/\.step-\d+\.going"),
    "finish": re.compile(r"/\.model\.unfinished"),
}
"""Parts of a run by the folder that they work on."""
CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link"}


class Watch:
    """Sees every change of files before it is made, and may end the process there."""

    def __init__(self, part: str = "", last: int = -1) -> None:
        self.counts: dict[str, list[int]] = {name: [] for name in PARTS}
        self._part, self._last = part, last
        self._now, self._folders = "", dict.fromkeys(PARTS, "")

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if event not in CHANGES and event != "open":
            return
        said = " ".join(str(arg) for arg in args[:2])
        if said.startswith("/"):  # what goes with its folder is named relative to that
            self._now = self._found(said)
        if self._now:
            self.counts[self._now][-1] += 1
            if self._now == self._part and sum(self.counts[self._part]) > self._last:
                os.kill(os.getpid(), signal.SIGKILL)

    def _found(self, said: str) -> str:
        for name, pattern in PARTS.items():
            if folder := pattern.search(said):
                if self._folders[name] != folder[0]:
                    self._folders[name] = folder[0]
                    self.counts[name].append(0)
                return name
        return ""


class Witness:
    """Sees every step of a rank, and writes it down at once."""

    def __init__(self, notes: Path, last: int, dies_at: int | None) -> None:
        self._notes, self._last, self._dies_at = notes, last, dies_at

    def __call__(self, number: int, report: Report, step: Step) -> None:
        found = {"step": number, "clips": report.clip_ids, "loss": report.loss, "norms": report.norms}
        if number == 1:
            found["first_moments"] = moments(step)
        if number == self._last:
            found["digests"] = digests(step)
        with self._notes.open("a") as file:
            file.write(json.dumps(found | {"children": descendants(os.getpid())}) + "\n")
        if number == self._dies_at:
            os.kill(os.getpid(), signal.SIGKILL)


def descendants(pid: int) -> list[int]:
    """Processes that were started by this one, by those, and so on."""
    own = [int(word) for task in Path(f"/proc/{pid}/task").glob("*/children") for word in task.read_text().split()]
    return [*own, *(one for child in own for one in descendants(child))]


def lives(pid: int) -> bool:
    """Whether there is such a process that has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


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


def content(folder: Path) -> str:
    """A digest of all files of a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    parts = (f"{path.relative_to(folder)} {hashlib.sha256(path.read_bytes()).hexdigest()}" for path in files)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def run_rank(chain: dict[str, Any], link: dict[str, Any], rank: int, folder: Path, port: int) -> None:
    """One rank, to its end or death."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(link["world"]), "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    fault = link.get("fault", {})
    mine = fault if rank in fault.get("ranks", ()) else {}
    watch = Watch(mine.get("in", ""), mine.get("last", -1))
    sys.addaudithook(watch)
    recipe = parse_train_recipe(link["recipe"], "recipe")
    witness = Witness(folder / f"{rank}.steps", recipe.steps, mine.get("step"))
    try:
        train(Job(recipe, link["data"], Path(chain["out"]), link["init"], on_step=witness, device="cpu"))
    except CurateError as error:
        (folder / f"{rank}.end").write_text(json.dumps({"error": f"{type(error).__name__}: {error}"}))
        raise SystemExit(1) from error
    log = read_lines(Path(chain["out"], LOG))
    (folder / f"{rank}.end").write_text(json.dumps({"log": log, "counts": watch.counts}))


def run_link(chain: dict[str, Any], link: dict[str, Any], folder: Path) -> dict[str, Any]:
    """All ranks of a link; those that a fault does not name must end by themselves."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = [FORK.Process(target=run_rank, args=(chain, link, rank, folder, port)) for rank in range(link["world"])]
    for child in children:
        child.start()
    fault, until_s = link.get("fault"), time.monotonic() + PATIENCE_S
    for child in children:
        child.join(max(0, until_s - time.monotonic()))
        child.kill()
        child.join()
    ranks = []
    for rank, child in enumerate(children):
        wanted = 0 if fault is None else -signal.SIGKILL if rank in fault["ranks"] else 1
        if child.exitcode != wanted:
            raise SystemExit(f"{chain['out']}: rank {rank} ended with {child.exitcode}, not {wanted}: {link}")
        ended = folder / f"{rank}.end"
        found = json.loads(ended.read_text()) if ended.is_file() else {}
        ranks.append({"steps": read_lines(folder / f"{rank}.steps"), **found})
    children = {pid for rank in ranks for one in rank["steps"] for pid in one.pop("children")}
    while any(map(lives, children)) and time.monotonic() < until_s:
        time.sleep(0.02)
    out = Path(chain["out"])
    files = sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file() and "board" not in str(path))
    whole_model = content(out / "model") if (out / "model").is_dir() else ""
    left = sorted(filter(lives, children))
    return {"ranks": ranks, "files": files, "model": whole_model, "children": len(children), "left": left}


def run(chain: dict[str, Any], found: dict[str, Any]) -> list[Any]:
    """Every link of a chain; ``found``: of the chains before."""
    results = []
    for link in chain["links"]:
        fault = link.get("fault", {})
        if "in" in fault:
            # The first time that this part of the run was come to, in the last link, which ended.
            count = found[fault["like"]][-1]["ranks"][fault["ranks"][0]]["counts"][fault["in"]][0]
            fault["last"] = int(fault["at"] * count)
        with tempfile.TemporaryDirectory() as folder:
            results.append({"fault": fault, **run_link(chain, link, Path(folder))})
    return results


def import_all(link: dict[str, Any]) -> None:
    """Do what imports libraries on the way: once here instead of in every fork. (No backward pass: PyTorch refuses
    those of forks after one.)"""
    torch.set_num_threads(1)
    recipe = parse_train_recipe(link["recipe"], "recipe")
    Catalogue.read(ShardSet.open(Place(link["data"])), recipe.data)
    with tempfile.TemporaryDirectory() as folder:
        start(recipe, link["init"]).save(Path(folder), recipe.kind, None, {})


def main(asked: str, results: str) -> None:
    """Run the chains of one JSON file, in their order; write the results into another."""
    chains, found = json.loads(Path(asked).read_text()), {}
    import_all(next(iter(chains.values()))["links"][0])
    for name, chain in chains.items():
        found[name] = run(chain, found)
    Path(results).write_text(json.dumps(found))
