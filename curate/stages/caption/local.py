"""What captioners with a network of their own share: the card, the frames, batches, one cell a clip."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, TypeVar

from curate.errors import StageError
from curate.stage import ClipItem, Column, Scored
from curate.stages.caption.base import CaptionStage, frames_digest, tidy
from curate.stages.nets import NetConfig, NetStage, net_resources
from curate.view import View
from curate.weights.cards import load_card

if TYPE_CHECKING:
    import numpy as np
    import torch


class LocalConfig(NetConfig):
    """``model``: name of the card."""

    model: str


LocalT = TypeVar("LocalT", bound=LocalConfig)


class LocalCaptioner(NetStage[LocalT]):
    """Captions from a network that this worker holds. Authors write ``load``, ``pixels`` and ``write``.

    Where two words score alike rounding would choose between them, so the shape at which the network runs must be
    one (see `NetStage`).
    """

    columns: ClassVar[tuple[Column, ...]] = CaptionStage.columns
    view = "frames"

    def __init__(self, config: LocalT) -> None:
        super().__init__(config)
        self.resources = net_resources(config, [config.model])

    def model_digests(self) -> Mapping[str, str]:
        """Every file of the model."""
        return load_card(self.config.model).digests()

    def setup(self) -> None:
        """Load the network, once per worker."""
        self._n_frames = len(self.views()[self.view].points)
        super().setup()

    @abstractmethod
    def pixels(self, clips: Sequence[np.ndarray]) -> torch.Tensor:
        """What the network is shown of each clip: frames uint8 (n_frames, height, width, 3) each; sizes may differ."""

    @abstractmethod
    def write(self, pixels: torch.Tensor) -> list[str]:
        """One text per clip."""

    def prepare(self, item: ClipItem) -> tuple[torch.Tensor, str]:
        """Pixels of the clip, and the digest of its frames; StageError where they are wanting."""
        view = self._view(item)
        return self.pixels([view.frames]), frames_digest(view)

    def join(self, parts: Sequence[tuple[torch.Tensor, str]]) -> tuple[torch.Tensor, list[str]]:
        """Pixels of all clips, and the digest of each one's frames."""
        return super().join([pixels for pixels, _ in parts]), [digest for _, digest in parts]

    def infer(self, items: Sequence[ClipItem], prepared: tuple[torch.Tensor, list[str]]) -> list[Scored]:
        """A caption per clip, or the error of a clip of which nothing was said."""
        pixels, digests = prepared
        return [
            _said(tidy(text), digest, item)
            for item, text, digest in zip(items, self.write(pixels), digests, strict=True)
        ]

    def _view(self, item: ClipItem) -> View:
        view = item.views[self.view]
        if view.frames.ndim != 4 or view.frames.shape[0] != self._n_frames or view.frames.shape[3] != 3:
            raise StageError(f"needs {self._n_frames} RGB frames, got {view.frames.shape}", subject=item.clip.clip_id)
        return view


def _said(text: str, frames: str, item: ClipItem) -> Scored:
    if not text:
        return StageError("the captioner said nothing", subject=item.clip.clip_id)
    return {"caption": text, "frames": frames}
