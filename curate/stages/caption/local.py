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
from curate.weights.cards import load_card

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
    rows = 1
    """Clips that the network sees at a time, once it is set up: one on a CPU, where more gain little."""

    def __init__(self, config: LocalT) -> None:
        super().__init__(config)
        self.resources = net_resources(config, [config.model])

    def model_digests(self) -> Mapping[str, str]:
        """Every file of the model."""
        return load_card(self.config.model).digests()

    def setup(self) -> None:
        """Load the network, once per worker."""
        import torch

        torch.set_num_threads(1)
        device, dtype = place(self.config)
        self.rows = 1 if device.type == "cpu" else self.config.batch_size
        self._n_frames = len(self.views()[self.view].points)
        self.load(device, dtype)

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
        return [
            {"caption": _some(tidy(text), item), "frames": frames_digest(view)}
            for item, view, text in zip(items, views, self._texts([view.frames for view in views]), strict=True)
        ]

    def _texts(self, clips: list[np.ndarray]) -> list[str]:
        """The network always sees ``rows`` clips, the last of a short batch repeated: products of other sizes round
        otherwise, and where two words score alike the rounding would choose."""
        texts: list[str] = []
        for start in range(0, len(clips), self.rows):
            part = clips[start : start + self.rows]
            texts += self.write([*part, *part[-1:] * (self.rows - len(part))])[: len(part)]
        return texts

    def _view(self, item: ClipItem) -> View:
        view = item.views[self.view]
        if view.frames.ndim != 4 or view.frames.shape[0] != self._n_frames or view.frames.shape[3] != 3:
            raise StageError(f"needs {self._n_frames} RGB frames, got {view.frames.shape}", subject=item.clip.clip_id)
        return view


def _some(text: str, item: ClipItem) -> str:
    if not text:
        raise StageError("the captioner said nothing", subject=item.clip.clip_id)
    return text


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
