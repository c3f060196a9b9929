"""Checkpoints: everything that a run needs to go on as if it had not stopped, and the model as others open it.

    checkpoints/step-00001000/
        state/          parameters, moments and average, in shards (torch.distributed.checkpoint)
        trainer.json    step, place in the data, what the run is
        model/          diffusers' format, with averaged weights

A checkpoint has its name only when it is whole; the oldest are removed. There is no generator to store: whatever is
random is drawn from the seed and the position (`curate.train.examples`).
"""

from __future__ import annotations

import json
import re
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from curate.errors import CorpusError
from curate.storage import storage_error
from curate.train.distributed import World, plain, whole
from curate.train.folders import atomic_folder, remove_folder, unfinished_of
from curate.train.step import Step

__all__ = ["Checkpoints", "averaged_state"]

_NAME = re.compile(r"step-(\d{8})")
_FACTS = "trainer.json"
_FIX = "Remove this checkpoint; the one before is used"

Export = Callable[[Path, Mapping[str, Tensor] | None], None]
"""Writes the model into a folder, from a state that is whole (None on ranks that do not write)."""


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of a run, in a folder that all ranks see."""

    folder: Path
    keep: int
    world: World

    def steps(self) -> list[int]:
        """Steps of the checkpoints that are whole, rising."""
        names = (_NAME.fullmatch(path.name) for path in self.folder.glob("step-*"))
        return sorted(int(name[1]) for name in names if name)

    def path(self, step: int) -> Path:
        """The folder of one."""
        return self.folder / f"step-{step:08d}"

    def save(self, step: Step, facts: Mapping[str, Any], export: Export) -> None:
        """Write the checkpoint of ``facts["step"]`` steps taken; all ranks must. StorageError when it cannot be."""
        state = averaged_state(step, first=self.world.is_first)
        with _together(self.path(facts["step"]), self.world) as unfinished:
            with _alone_is_fine(), _told(unfinished / "state", writing=True):
                save(_state(step), checkpoint_id=unfinished / "state", no_dist=self.world.size == 1)
            if self.world.is_first:
                export(unfinished / "model", state)
                (unfinished / _FACTS).write_text(json.dumps(dict(facts), indent=1) + "\n")
        if self.world.is_first:
            for old in self.steps()[: -self.keep]:
                remove_folder(self.path(old))

    def clean(self) -> None:
        """Remove what a killed process left half written, or half removed."""
        for left in self.folder.glob(".step-*"):
            shutil.rmtree(left)

    def facts(self) -> dict[str, Any] | None:
        """What the last checkpoint says of the run; None where there is none."""
        steps = self.steps()
        if not steps:
            return None
        path = self.path(steps[-1]) / _FACTS
        try:
            return json.loads(path.read_text())
        except (OSError, ValueError) as error:
            text = f"cannot be read: {error}"
            raise CorpusError(text, subject=str(path), fix=_FIX) from error

    def load(self, step: Step, number: int) -> None:
        """Put the state of a checkpoint into a step that was built as the one that saved it; CorpusError when it is
        damaged."""
        state = _state(step)
        with _alone_is_fine(), _told(self.path(number) / "state"):
            load(state, checkpoint_id=self.path(number) / "state", no_dist=self.world.size == 1)
        set_state_dict(
            plain(step.network), step.optimiser, model_state_dict=state["network"], optim_state_dict=state["optimiser"]
        )
        if step.average is not None:
            for name, tensor in state["average"].items():
                step.average.tensors[name].copy_(tensor)


@contextmanager
def _alone_is_fine() -> Iterator[None]:
    """PyTorch warns of a single process, also where it is told that there is one."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)
        yield


@contextmanager
def _told(state: Path, *, writing: bool = False) -> Iterator[None]:
    """PyTorch's own exception, which is no `Exception`, as an error of ours: the first rank's cause is said."""
    try:
        yield
    except CheckpointException as error:
        cause = next((one for one, _ in error.failures.values()), error)
        if writing and isinstance(cause, OSError):
            raise storage_error(cause, str(state), writing=True) from error
        text = f"cannot be {'written' if writing else 'read'}: {type(cause).__name__}: {' '.join(str(cause).split())}"
        raise CorpusError(text, subject=str(state), fix="" if writing else _FIX) from error


@contextmanager
def _together(path: Path, world: World) -> Iterator[Path]:
    """`atomic_folder` for all ranks: the first makes it and puts it in place, when all have written."""
    with ExitStack() as stack:
        unfinished = stack.enter_context(atomic_folder(path)) if world.is_first else unfinished_of(path)
        world.wait()
        yield unfinished
        world.wait()
    world.wait()


def _state(step: Step) -> dict[str, Any]:
    network, optimiser = get_state_dict(plain(step.network), step.optimiser)
    average = dict(step.average.tensors) if step.average is not None else {}
    return {"network": network, "optimiser": optimiser, "average": average}


def averaged_state(step: Step, *, first: bool) -> dict[str, Tensor] | None:
    """The network's whole state with the average in place of what learns, on the CPU of the first rank; all ask."""
    network: nn.Module = plain(step.network)
    average = step.average.tensors if step.average is not None else {}
    found: dict[str, Tensor] = {}
    for name, tensor in {**network.state_dict(), **average}.items():
        full = whole(tensor.detach())
        if first:
            found[name] = full.cpu()
    return found if first else None
