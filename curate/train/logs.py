"""What a run says of itself: `log.jsonl`, one object a line, and TensorBoard's files beside it.

Training loss alone says little, because it depends on the noise level far more than on the network: so it is also given
by fifths of the noise levels that the stage draws.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from curate.memory import peak_memory_bytes
from curate.storage import Place
from curate.train.data.loader import Stall
from curate.train.distributed import World
from curate.train.step import Report

LOG = "log.jsonl"
FIFTHS = 5


class Log:
    """Writes rows of numbers by name; on other ranks than the first it does nothing."""

    def __init__(self, folder: Path, world: World, first_step: int) -> None:
        """``first_step``: rows of it and later ones, of a run that was killed after them, are taken away."""
        self._file, self._board = None, None
        if world.is_first:
            from torch.utils.tensorboard.writer import SummaryWriter

            folder.mkdir(parents=True, exist_ok=True)
            path = folder / LOG
            kept = [line for line in read_lines(path) if 0 < first_step >= line["step"]]
            place = Place(str(path))
            place.write_text("".join(json.dumps(line) + "\n" for line in kept))
            self._file = path.open("a", encoding="utf-8")
            self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=first_step + 1)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """One row, after ``step`` steps; what is not known is left out."""
        if self._file is None or self._board is None:
            return
        self._file.write(json.dumps({"step": step, "time": round(time.time(), 3), **values}) + "\n")
        self._file.flush()
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def clip(self, name: str, frames: Any, fps: float, step: int) -> None:
        """A clip, uint8 (T, H, W, 3), for TensorBoard's eyes: its frames in a row."""
        if self._board is not None:
            row = torch.from_numpy(frames).permute(1, 0, 2, 3).flatten(1, 2)
            self._board.add_image(name, row, step, dataformats="HWC")

    def close(self) -> None:
        """Write what is left."""
        if self._file is not None and self._board is not None:
            self._file.close()
            self._board.close()


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The rows of a log; a last one that a kill cut off is left out."""
    if not path.is_file():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


class Window:
    """Adds up the steps between two rows of the log."""

    def __init__(self, quantile: Any, world: World, stall: Stall) -> None:
        """``quantile``: level below which a share of the draws lies; None where levels have no such order."""
        self._world, self._stall = world, stall
        self._edges = torch.tensor([quantile(at / FIFTHS) for at in range(1, FIFTHS)]) if quantile else None
        self._begin()

    def _begin(self) -> None:
        self._sums = torch.zeros(2, FIFTHS, dtype=torch.float64)
        self._loss = self._n_steps = 0.0
        self._n_clips = 0
        self._began_s, self._aside_s = time.perf_counter(), 0.0
        self._waited_s = self._stall.wait_s

    def add(self, report: Report) -> None:
        """Take a step in."""
        self._loss += report.loss
        self._n_steps += 1
        self._n_clips += len(report.clip_ids) * self._world.size
        if self._edges is not None:
            at = torch.bucketize(report.levels, self._edges)
            losses = report.losses.double()
            self._sums += torch.stack([_summed(at, losses), _summed(at, torch.ones_like(losses))])

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Around what is no training: its time does not count."""
        began_s = time.perf_counter()
        yield
        self._aside_s += time.perf_counter() - began_s

    def row(self, report: Report) -> tuple[dict[str, float], float]:
        """The numbers since the last row, and seconds a step; all ranks must ask."""
        wall_s = time.perf_counter() - self._began_s - self._aside_s
        sums = self._world.mean(self._sums.to(self._world.device, torch.float32)).double().cpu()
        pairs = enumerate(sums.T.tolist(), start=1)
        means = {f"loss/fifth_{fifth}": total / count for fifth, (total, count) in pairs if count}
        found = {
            "loss": self._loss / self._n_steps,
            **means,
            **{f"gradient/{part}": norm for part, norm in report.norms.items()},
            "gradient": report.norm,
            "lr": report.lr,
            "clips_per_s": self._n_clips / wall_s,
            "stall_share": min(1.0, (self._stall.wait_s - self._waited_s) / wall_s),
            "memory_bytes": float(memory_bytes(self._world.device)),
        }
        step_s = wall_s / self._n_steps
        self._begin()
        return found, step_s


def _summed(at: Tensor, values: Tensor) -> Tensor:
    return torch.zeros(FIFTHS, dtype=torch.float64).index_add_(0, at, values)


def memory_bytes(device: torch.device) -> int:
    """Most memory that was in use: of the GPU, or of this process."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak_memory_bytes()
