"""Where a network runs, in which numbers and in what batches: the same for every stage that has one."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeVar

import numpy as np
from pydantic import Field

from curate.config import Config
from curate.records import Cell, Clip, SourceFacts, Span
from curate.stage import ClipItem, ClipStage, Resources, Scored, Values, only
from curate.stages.batches import Batched
from curate.view import View, ViewSpec
from curate.weights.cards import load_card

if TYPE_CHECKING:
    import torch


GPU_WORKER_CPUS = 0.5
"""What a worker on a GPU takes of a core: it prepares pictures and starts kernels, and waits for both the GPU and the
stages above it. A whole core for each of six networks would leave small machines none to decode with."""


class NetConfig(Config):
    """How a stage runs its network.

    ``device``: ``auto`` takes a GPU where the worker has one. ``dtype``: ``auto`` is bfloat16 on a GPU and float32 on
    a CPU. ``gpus``: share of a GPU, and of its memory, that one worker takes where there are GPUs, so that several
    models fit on one. ``batch_size``: clips in one batch on a GPU at most, as far as that memory holds them; on a CPU
    it is one clip, which costs nothing there. Of these ``dtype`` alone decides values beyond rounding, and ``device``
    where it chooses that.
    """

    placement: ClassVar[frozenset[str]] = frozenset({"device", "gpus", "batch_size"})

    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    gpus: Annotated[float, Field(gt=0, le=1)] = 0.25
    batch_size: Annotated[int, Field(ge=1, le=4096)] = 32

    def deciding(self) -> dict[str, Any]:
        """As for any configuration, with ``device`` where that decides the number format."""
        return {**super().deciding(), **({"device": self.device} if self.dtype == "auto" else {})}


NetConfigT = TypeVar("NetConfigT", bound=NetConfig)


def net_resources(config: NetConfig, cards: Sequence[str]) -> Resources:
    """What a worker of such a stage needs: a pool of its own on GPUs, a place beside the decoder without."""
    memory_bytes = sum(load_card(name).memory_bytes for name in cards)
    found = Resources(memory_bytes=memory_bytes, batch_size=config.batch_size)
    if config.device == "cpu":
        return found
    return replace(found, cpus=GPU_WORKER_CPUS, gpus=config.gpus, gpu_optional=config.device == "auto")


def place(config: NetConfig) -> tuple[torch.device, torch.dtype]:
    """Device and number format of a worker, as its configuration and its machine have it."""
    import torch

    gpu = config.device == "cuda" or (config.device == "auto" and torch.cuda.is_available())
    device = torch.device("cuda" if gpu else "cpu")
    if not gpu:
        torch.set_num_threads(1)  # one worker per core is cheaper than threads inside a worker
    if config.dtype == "auto":
        return device, torch.bfloat16 if gpu else torch.float32
    return device, getattr(torch, config.dtype)


class NetStage(Batched[ClipItem, Values], ClipStage[NetConfigT]):
    """A clip stage whose work is a network's: see `Batched` for how it is fed. Authors write ``load`` as well."""

    def setup(self) -> None:
        """Load the network, once per worker, and find out how many clips fit beside it."""
        config = self.config
        self.bring(self.load, place(config), share=config.gpus, most=config.batch_size)

    @abstractmethod
    def load(self, device: torch.device, dtype: torch.dtype) -> None:
        """Make the network on the CPU and bring it to the device; so it takes no more there than it must."""

    def sample(self) -> ClipItem | None:
        """A clip with black frames, 16:9, in its views; None where a view's frames cannot be counted beforehand."""
        return black_clip(self.views())

    def score(self, item: ClipItem) -> Values:
        """Values for one clip."""
        return only(self.score_batch([item]))

    def score_batch(self, items: Sequence[ClipItem]) -> Sequence[Scored]:
        """Values for several clips, in batches that the device takes."""
        return self.results(items)

    def process_batches(self, batches: Iterable[Sequence[ClipItem]]) -> Iterator[list[Cell]]:
        """As for any stage; the next batch is prepared meanwhile."""
        for items, scored in self.ahead(batches, list):
            yield self.cells_of(items, scored)


_FACTS: Mapping[str, Any] = {
    "stream": 0, "container": "", "codec": "", "pix_fmt": "yuv420p", "bit_depth": 8,
    "coded_width_px": 1280, "coded_height_px": 720, "width_px": 1280, "height_px": 720, "rotation_deg": 0, "sar": "1/1",
    "rate": "25/1", "rate_fps": 25.0, "vfr": False, "has_pts": True, "time_base": "1/1000", "start_pts": 0,
    "end_pts": 1000, "duration_s": 1.0, "n_frames": 25, "key_frames_pts": [], "key_frames_closed": [],
    "bit_rate_bps": 0, "streams_json": "[]",
}  # fmt: skip
"""Of a second that was never filmed."""


def black_clip(views: Mapping[str, ViewSpec]) -> ClipItem | None:
    """A clip with these views; None where one of them is not of points."""
    if any(spec.sampling != "points" for spec in views.values()):
        return None
    clip = Clip.of_span("0" * 64, 0, Fraction(1, 1000), Span(0, 1000))
    return ClipItem(clip, SourceFacts.from_cell(_FACTS), {name: _black(spec) for name, spec in views.items()})


def _black(spec: ViewSpec) -> View:
    n, (width_px, height_px) = len(spec.points), spec.size_px or (spec.short_side_px * 16 // 9, spec.short_side_px)
    channels = (3,) if spec.pixels == "rgb" else ()
    frames = np.zeros((n, height_px, width_px, *channels), np.uint8)
    return View(frames, np.arange(n), Fraction(1, 1000), np.zeros(n, np.int64))
