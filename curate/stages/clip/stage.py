"""CLIP embeddings of a clip's first, middle and last frame (paper App. C)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa

from curate.errors import ModelFileError, StageError
from curate.stage import ClipItem, Column
from curate.stages.clip.card import FRAMES, POINTS, clip_settings
from curate.stages.nets import NetConfig, NetStage, net_resources
from curate.stages.openclip import PACKAGES
from curate.view import ViewSpec
from curate.weights.cards import load_card
from curate.weights.store import folder_of

if TYPE_CHECKING:
    import torch


class ClipConfig(NetConfig):
    """``model``: the card of an OpenCLIP model."""

    model: str = "openclip-vit-l-14"


class Clip(NetStage[ClipConfig]):
    """The image half of an OpenCLIP model. Its frames come at the size it sees, so its transform only crops them."""

    name = "clip"
    version = 1
    config_type = ClipConfig
    packages = PACKAGES
    columns: ClassVar[tuple[Column, ...]] = tuple(
        Column(frame, pa.list_(pa.float16()), "", f"embedding of the {frame} frame, of length 1") for frame in FRAMES
    )

    def __init__(self, config: ClipConfig) -> None:
        super().__init__(config)
        self.resources = net_resources(config, [config.model])

    def views(self) -> Mapping[str, ViewSpec]:
        """First, middle and last frame, the short side as the card says."""
        return {"ends": ViewSpec(points=POINTS, short_side_px=clip_settings(self.config.model).image_px)}

    def model_digests(self) -> Mapping[str, str]:
        """All files of the model."""
        return load_card(self.config.model).digests()

    def load(self, device: torch.device, dtype: torch.dtype) -> None:
        """Load the image network; ModelFileError when it is not what its card says."""
        from curate.stages.clip.towers import ImageTower

        said = clip_settings(self.config.model)
        self._tower = ImageTower(folder_of(self.config.model), device, dtype)
        length = self.embed([np.zeros((said.image_px, said.image_px, 3), np.uint8)]).shape[1]
        if (self._tower.image_px, length) != (said.image_px, said.embedding):
            raise ModelFileError(
                f"sees {self._tower.image_px} px and gives {length} numbers; its card says {said.image_px} px "
                f"and {said.embedding}",
                subject=self.config.model,
            )

    def prepare(self, item: ClipItem) -> torch.Tensor:
        """(3, 3, image_px, image_px); StageError when a view lacks frames."""
        frames = item.views["ends"].frames
        if len(frames) != len(FRAMES):
            raise StageError(f"needs {len(FRAMES)} frames, got {len(frames)}", subject=item.clip.clip_id)
        return self._tower.pixels(list(frames))

    def infer(self, items: Sequence[ClipItem], prepared: torch.Tensor) -> list[Mapping[str, Any]]:
        """The three embeddings of each clip, from (3 x clips, 3, image_px, image_px)."""
        vectors_b3d = self._tower.embed(prepared).astype(np.float16).reshape(len(items), len(FRAMES), -1)
        return [dict(zip(FRAMES, vectors_3d, strict=True)) for vectors_3d in vectors_b3d]

    def embed(self, frames: Sequence[np.ndarray]) -> np.ndarray:
        """float32 (n, length), of length 1 each, of n RGB frames, uint8 (height, width, 3)."""
        return self._tower.embed(self._tower.pixels(frames))
