"""From a plan of a batch to the batch: what a worker process does. It knows nothing but the plan it is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
import torch

from curate.errors import CorpusError, CurateError, DecodeError, StorageError
from curate.shards.buckets import Bucket
from curate.storage import Place
from curate.train.data.catalogue import ClipRef, strides_of
from curate.train.data.clip import StoredClip, Window, decode_window, read_clip
from curate.train.data.config import DataConfig
from curate.train.data.order import Draws, Position

if TYPE_CHECKING:
    from curate.train.latents import LatentReader


@dataclass(frozen=True, slots=True)
class Lost:
    """A clip that could not be read where it was wanted, and why: the error names its shard and itself."""

    clip_id: str
    shard: str
    reason: str


@dataclass(frozen=True, slots=True)
class Batch:
    """Clips of one bucket.

    ``video``: uint8 (B, T, H, W, 3) RGB; None where latents stand for it. ``latents``: (B, T, C, h, w) unscaled, or
    None; ``first``: then the first frames, uint8 (B, H, W, 3), where they were asked for. ``fps``: float32 (B,) frames
    a second of the frames given. ``motion``: float32 (B,) raw scores, NaN where there is none. ``start`` and
    ``stride``: int64 (B,) frame numbers in the clips. ``lost``: clips that others were taken for.
    """

    position: Position
    bucket: Bucket
    clip_ids: list[str]
    captions: list[str]
    fps: torch.Tensor
    motion: torch.Tensor
    start: torch.Tensor
    stride: torch.Tensor
    video: torch.Tensor | None = None
    latents: torch.Tensor | None = None
    first: torch.Tensor | None = None
    lost: tuple[Lost, ...] = ()

    def pixels(self) -> torch.Tensor:
        """The video as float32 (B, T, 3, H, W) in [-1, 1]."""
        assert self.video is not None
        return self.video.permute(0, 1, 4, 2, 3).float().div_(127.5).sub_(1)

    def pin_memory(self) -> Self:
        """The same with its tensors in pinned memory."""
        return self._each(lambda tensor: tensor.pin_memory())

    def to(self, device: torch.device | str) -> Self:
        """The same with its tensors on a device."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def _each(self, change: Any) -> Self:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: change(v) for name, v in values.items() if isinstance(v, torch.Tensor)})


class Task(NamedTuple):
    """What one rank needs to know of one batch: its items by number, each with its candidates, first choice first."""

    position: Position
    bucket: Bucket
    items: list[tuple[int, list[ClipRef]]]


class Tasks(torch.utils.data.Dataset[Batch | CurateError]):
    """Turns tasks into batches, in whatever process. Picklable.

    An error is given back in place of the batch: on its way out of a worker process PyTorch would make it another one.
    """

    def __init__(self, shard_uris: list[str], config: DataConfig, latents: LatentReader | None = None) -> None:
        self._shards = shard_uris
        self._config = config
        self._latents = latents

    def __getitem__(self, task: Task) -> Batch | CurateError:
        """The batch of a task, or a CorpusError when an item and all that might replace it are lost."""
        try:
            return self._batch(task)
        except CorpusError as error:
            return error

    def _batch(self, task: Task) -> Batch:
        lost: list[Lost] = []
        items = [self._item(task, item, candidates, lost) for item, candidates in task.items]
        of = {name: [item[name] for item in items] for name in items[0]}
        tensors = {name: torch.from_numpy(np.stack(of[name])) for name in ("video", "latents", "first") if name in of}
        return Batch(
            position=task.position,
            bucket=task.bucket,
            clip_ids=of["clip_id"],
            captions=of["caption"],
            fps=torch.tensor(of["fps"], dtype=torch.float32),
            motion=torch.tensor(of["motion"], dtype=torch.float32),
            start=torch.tensor(of["start"]),
            stride=torch.tensor(of["stride"]),
            lost=tuple(lost),
            **tensors,
        )

    def _item(self, task: Task, item: int, candidates: list[ClipRef], lost: list[Lost]) -> dict[str, Any]:
        draws = Draws(task.position.seed, task.position.epoch, item)
        for ref in candidates:
            try:
                return self._sample(ref, task.bucket, draws)
            except (CorpusError, StorageError, DecodeError) as error:
                lost.append(Lost(ref.clip_id, self._shards[ref.shard], _reason(error)))
        tried = ", ".join(loss.clip_id for loss in lost[-len(candidates) :])
        raise CorpusError(f"none of the clips {tried} can be read ({lost[-1].reason})", subject=lost[-1].shard)

    def _sample(self, ref: ClipRef, bucket: Bucket, draws: Draws) -> dict[str, Any]:
        window = draw_window(ref, bucket.frames, self._config.fps, draws)
        clip = read_clip(Place(self._shards[ref.shard]), ref)
        found: dict[str, Any] = {
            "clip_id": ref.clip_id,
            "caption": draw_caption(clip.facts, self._config.captions, draws),
            "fps": ref.fps / window.stride,
            "motion": ref.motion,
            "start": window.start,
            "stride": window.stride,
        }
        return {**found, **self._pictures(ref, clip, window, bucket)}

    def _pictures(self, ref: ClipRef, clip: StoredClip, window: Window, bucket: Bucket) -> dict[str, np.ndarray]:
        return {"video": decode_window(clip.video, window, bucket, closed=ref.closed)}


def _reason(error: CurateError) -> str:
    return f"{type(error).__name__}: {error.message}"


def draw_window(ref: ClipRef, frames: int, limits_fps: tuple[float, float], draws: Draws) -> Window:
    """A stride among those that fit the clip, then a start among those that fit the stride, each as likely."""
    strides = strides_of(ref.fps, ref.n_frames, frames, limits_fps) if frames > 1 else [1]
    stride = strides[draws.below(len(strides), "stride")]
    start = draws.below(ref.n_frames - (frames - 1) * stride, "start")
    return Window(start, stride, frames)


def draw_caption(facts: Mapping[str, Any], weights: Mapping[str, float], draws: Draws) -> str:
    """One of the texts that the clip has, with the chance of its column's weight; empty when none is wanted."""
    names = [name for name in weights if facts.get(name)]
    return str(facts[names[draws.weighted([weights[name] for name in names], "caption")]]) if names else ""
