"""From a plan of a batch to the batch: what a worker process does. It knows nothing but the plan it is given."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple, Self

import numpy as np
import torch

from curate.errors import CorpusError, CurateError, DecodeError, StorageError
from curate.shards.buckets import Bucket
from curate.storage import Place
from curate.train.data.catalogue import Catalogue, ClipRef, strides_of
from curate.train.data.clip import Window, decode_window, read_clip, read_facts
from curate.train.data.config import DataConfig
from curate.train.data.order import Draws, Position
from curate.train.data.store import Store

START_METHOD = "forkserver"
"""Workers inherit no threads, locks or devices. ``memory://`` places exist in one process: they want 0 workers."""


@dataclass(frozen=True, slots=True)
class Ahead:
    """How work is done ahead: by how many processes (0: in this one, when it is asked for), how many pieces each, and
    whether tensors are put in pinned memory on the way."""

    workers: int = 0
    prefetch: int = 2
    pin: bool = False


_ARRAYS = ("video", "latents", "first", "image", "text")


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
    None; ``first``: then the first frames, uint8 (B, H, W, 3), where they were asked for. ``image``: (B, ...)
    embeddings of the first frames, ``text``: (B, L, D) of the captions, where they were computed beforehand.

    ``fps``: float32 (B,) frames a second of the frames given. ``motion``: float32 (B,) raw scores, NaN where there is
    none. ``start`` and ``stride``: int64 (B,) frame numbers in the clips. ``lost``: clips that others were taken for.
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
    image: torch.Tensor | None = None
    text: torch.Tensor | None = None
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

    def __len__(self) -> int:
        return len(self.clip_ids)

    def part(self, first: int, last: int) -> Self:
        """The clips first ... last - 1."""
        cut = self._each(lambda tensor: tensor[first:last])
        return replace(cut, clip_ids=self.clip_ids[first:last], captions=self.captions[first:last])

    def _each(self, change: Any) -> Self:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: change(v) for name, v in values.items() if isinstance(v, torch.Tensor)})


@dataclass(frozen=True, slots=True)
class Sources:
    """Folders of what was encoded beforehand (`curate.train.latents`), empty for none.

    ``latents`` stand for the video, ``images`` embed the first frame, ``texts`` the caption that is drawn. ``first``:
    decode the first frame all the same, for what is done to its pixels at random.
    """

    latents: str = ""
    images: str = ""
    texts: str = ""
    first: bool = False

    @property
    def found(self) -> list[str]:
        """What was encoded beforehand, in words."""
        told = {"latents": self.latents, "embedded images": self.images, "embedded texts": self.texts}
        return [name for name, folder in told.items() if folder]


class Task(NamedTuple):
    """What one rank needs to know of one batch: its items by number, each with its candidates, first choice first."""

    position: Position
    bucket: Bucket
    items: list[tuple[int, list[ClipRef]]]


class Tasks(torch.utils.data.Dataset[Batch | CurateError]):
    """Turns tasks into batches, in whatever process. Picklable.

    An error is given back in place of the batch: on its way out of a worker process PyTorch would make it another one.
    """

    def __init__(self, catalogue: Catalogue, config: DataConfig, sources: Sources) -> None:
        self._uris = [catalogue.shards.place(entry.path).uri for entry in catalogue.entries]
        self._tars = [entry.sha256 for entry in catalogue.entries]
        self._config = config
        self._sources = sources
        self._stores = {name: Store(getattr(sources, name)) for name in ("latents", "images", "texts")}

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
        tensors = {name: torch.from_numpy(np.stack(of[name])) for name in _ARRAYS if name in of}
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
                lost.append(lost_clip(ref, self._uris, error))
        tried = ", ".join(loss.clip_id for loss in lost[-len(candidates) :])
        raise CorpusError(f"none of the clips {tried} can be read ({lost[-1].reason})", subject=lost[-1].shard)

    def _sample(self, ref: ClipRef, bucket: Bucket, draws: Draws) -> dict[str, Any]:
        window = draw_window(ref, bucket.frames, self._config.fps, draws)
        place, sources = Place(self._uris[ref.shard]), self._sources
        video = b""
        if not sources.latents or sources.first:
            video, facts = read_clip(place, ref)
        else:
            facts = read_facts(place, ref) if self._config.captions else {}
        column, caption = draw_caption(facts, self._config.captions, draws)
        found: dict[str, Any] = {
            "clip_id": ref.clip_id,
            "caption": caption,
            "fps": ref.fps / window.stride,
            "motion": ref.motion,
            "start": window.start,
            "stride": window.stride,
        }
        return {**found, **self._pictures(ref, video, window, bucket), **self._embeddings(ref, column, window, bucket)}

    def _pictures(self, ref: ClipRef, video: bytes, window: Window, bucket: Bucket) -> dict[str, np.ndarray]:
        """The video, or what stands for it."""
        if not self._sources.latents:
            return {"video": decode_window(video, window, bucket, closed=ref.closed)}
        found = {"latents": self._stores["latents"].frames(self._tars[ref.shard], ref.clip_id, bucket, window)}
        if self._sources.first:
            only = Window(window.start, 1, 1)
            found["first"] = decode_window(video, only, bucket, closed=ref.closed)[0]
        return found

    def _embeddings(self, ref: ClipRef, column: str, window: Window, bucket: Bucket) -> dict[str, np.ndarray]:
        found: dict[str, np.ndarray] = {}
        tar = self._tars[ref.shard]
        if self._sources.images:
            only = Window(window.start, 1, 1)
            found["image"] = self._stores["images"].frames(tar, ref.clip_id, bucket, only)[0]
        if self._sources.texts:
            found["text"] = self._stores["texts"].whole(tar, ref.clip_id, column)
        return found


def lost_clip(ref: ClipRef, uris: Sequence[str], error: CurateError) -> Lost:
    """The record of a clip that could not be read."""
    where = f" ({error.subject})" if error.subject and error.subject != uris[ref.shard] else ""
    return Lost(ref.clip_id, uris[ref.shard], f"{type(error).__name__}: {error.message}{where}")


def in_workers(dataset: torch.utils.data.Dataset[Any], tasks: Iterable[Any], ahead: Ahead) -> Iterator[Any]:
    """``dataset[task]`` for every task, in order."""
    context = None
    if ahead.workers:
        context = torch.multiprocessing.get_context(START_METHOD)
        context.set_forkserver_preload([__name__])
    loader = torch.utils.data.DataLoader(
        dataset,
        sampler=tasks,
        batch_size=None,
        num_workers=ahead.workers,
        prefetch_factor=ahead.prefetch if ahead.workers else None,
        multiprocessing_context=context,
        worker_init_fn=_in_worker,
        collate_fn=_as_it_is,
        pin_memory=ahead.pin,
    )
    return iter(loader)


def _as_it_is(value: Any) -> Any:
    return value


def _in_worker(_: int) -> None:
    """One thread a process. Signals to a whole group are for the process that trains: it finishes its step, for which
    it may want a batch. When that process is gone, so is this one."""
    import cv2

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    cv2.setNumThreads(1)
    threading.Thread(target=_end_with_trainer, daemon=True).start()


def _end_with_trainer() -> None:
    """PyTorch's own watch looks at the process that forked this one: the fork server, which ends after its workers."""
    trainer = multiprocessing.parent_process()
    if trainer is not None:
        trainer.join()
        os._exit(1)


def draw_window(ref: ClipRef, frames: int, limits_fps: tuple[float, float], draws: Draws) -> Window:
    """A stride among those that fit the clip, then a start among those that fit the stride, each as likely."""
    strides = strides_of(ref.fps, ref.n_frames, frames, limits_fps) if frames > 1 else [1]
    stride = strides[draws.below(len(strides), "stride")]
    start = draws.below(ref.n_frames - (frames - 1) * stride, "start")
    return Window(start, stride, frames)


def draw_caption(facts: Mapping[str, Any], weights: Mapping[str, float], draws: Draws) -> tuple[str, str]:
    """(column, text): one of the texts that the clip has, with the chance of its column's weight; empty when none is
    wanted."""
    names = [name for name in weights if facts.get(name)]
    if not names:
        return "", ""
    name = names[draws.weighted([weights[name] for name in names], "caption")]
    return name, str(facts[name])
