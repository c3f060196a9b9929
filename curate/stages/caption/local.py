"""What captioners with a network of their own share: the card, the frames, batches, one cell a clip."""

from __future__ import annotations

import importlib
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from curate.errors import ConfigError, StageError
from curate.stage import ClipItem, View
from curate.stages.caption.base import CaptionStage, frames_digest, tidy
from curate.stages.nets import NetConfig, net_resources, place
from curate.weights.cards import Card, load_card

if TYPE_CHECKING:
    import numpy as np
    import torch


class LocalConfig(NetConfig):
    """``model``: name of the card."""

    model: str


LocalT = TypeVar("LocalT", bound=LocalConfig)


class LocalCaptioner(CaptionStage[LocalT]):
    """Captions from a network that this worker holds. Authors write ``load`` and ``write``."""

    view = "frames"

    def __init__(self, config: LocalT) -> None:
        super().__init__(config)
        self.resources = net_resources(config, [config.model])

    @property
    def card(self) -> Card:
        """The model's card; ConfigError when there is none of that name."""
        return load_card(self.config.model)

    def model_digests(self) -> Mapping[str, str]:
        """Every file of the model."""
        return self.card.digests()

    def setup(self) -> None:
        """Load the network, once per worker."""
        import torch

        torch.set_num_threads(1)
        self._device, self._dtype = place(self.config)
        self.load(self._device, self._dtype)

    @abstractmethod
    def load(self, device: torch.device, dtype: torch.dtype) -> None:
        """Bring the network to the device."""

    @abstractmethod
    def write(self, clips: Sequence[np.ndarray]) -> list[str]:
        """One text per clip from its frames, uint8 (n_frames, height, width, 3) each; sizes may differ."""

    def score(self, item: ClipItem) -> Mapping[str, Any]:
        """As in a batch of one."""
        return self.score_batch([item])[0]

    def score_batch(self, items: Sequence[ClipItem]) -> list[Mapping[str, Any]]:
        """A caption per clip, in the order of the clips; StageError names the clip whose frames or text are wanting."""
        views = [self._view(item) for item in items]
        texts = self.write([view.frames for view in self._filled(views)])
        return [
            {"caption": _some(tidy(text), item), "frames": frames_digest(view)}
            for item, view, text in zip(items, views, texts[: len(items)], strict=True)
        ]

    def _view(self, item: ClipItem) -> View:
        view = item.views[self.view]
        n_frames = len(self.views()[self.view].points)
        if view.frames.ndim != 4 or view.frames.shape[0] != n_frames or view.frames.shape[3] != 3:
            raise StageError(f"needs {n_frames} RGB frames, got {view.frames.shape}", subject=item.clip.clip_id)
        return view

    def _filled(self, views: list[View]) -> list[View]:
        """Sixteen-bit numbers have few digits: two words often score alike, and which wins depends on the shape of the
        batch. There every batch has the configured size, its last clip repeated."""
        import torch

        missing = 0 if self._dtype is torch.float32 else max(0, self.config.batch_size - len(views))
        return [*views, *views[-1:] * missing]


def _some(text: str, item: ClipItem) -> str:
    if not text:
        raise StageError("the captioner said nothing", subject=item.clip.clip_id)
    return text


def whole_setting(card: Card, name: str, default: int | None = None) -> int:
    """A setting of a card that is a whole number; ConfigError when the card lacks it."""
    value = card.settings.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ConfigError(f"its card lacks the whole number {name!r} among its settings", subject=card.name)
    return value


def extra_module(module: str, stage: str) -> Any:
    """A package of the extra ``captions``; ConfigError with the command that installs it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"the package {module!r} cannot be imported: {error}",
            subject=f"stages.{stage}",
            fix="Run `pip install 'curate-video[captions]'`",
        ) from error
