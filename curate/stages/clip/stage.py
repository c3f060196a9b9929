"""CLIP embeddings of a clip's first, middle and last frame (paper App. C)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from curate.errors import ModelFileError, StageError
from curate.stage import ClipItem, ClipStage, Column, ViewSpec
from curate.stages.clip.card import FRAMES, POINTS, clip_settings
from curate.stages.nets import NetConfig, net_resources
from curate.weights.cards import load_card
from curate.weights.store import folder_of


class ClipConfig(NetConfig):
    """``model``: the card of an OpenCLIP model."""

    model: str = "openclip-vit-l-14"


class Clip(ClipStage[ClipConfig]):
    """The image half of an OpenCLIP model. Its frames come at the size it sees, so its transform only crops them."""

    name = "clip"
    version = 1
    config_type = ClipConfig
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

    def setup(self) -> None:
        """Load the image network; ModelFileError when it is not what its card says."""
        from curate.stages.clip.towers import ImageTower

        said = clip_settings(self.config.model)
        rows = len(FRAMES) * self.config.batch_size
        self._tower = ImageTower(folder_of(self.config.model), self.config, rows)
        length = self.embed([np.zeros((said.image_px, said.image_px, 3), np.uint8)]).shape[1]
        if (self._tower.image_px, length) != (said.image_px, said.embedding):
            raise ModelFileError(
                f"sees {self._tower.image_px} px and gives {length} numbers; its card says {said.image_px} px "
                f"and {said.embedding}",
                subject=self.config.model,
            )

    def score(self, item: ClipItem) -> Mapping[str, Any]:
        """The three embeddings of one clip; StageError when the view lacks frames."""
        return self.score_batch([item])[0]

    def score_batch(self, items: Sequence[ClipItem]) -> list[Mapping[str, Any]]:
        """As `score`; of a short clip whose three frames are the same one, that one is looked at once."""
        frames: list[np.ndarray] = []
        places = [self._places(item, frames) for item in items]
        vectors = self.embed(frames).astype(np.float16)
        return [dict(zip(FRAMES, vectors[place], strict=True)) for place in places]

    @staticmethod
    def _places(item: ClipItem, frames: list[np.ndarray]) -> list[int]:
        """Adds a clip's different frames to those to look at; gives the places of its three."""
        view = item.views["ends"]
        if len(view.frames) != len(FRAMES):
            raise StageError(f"needs {len(FRAMES)} frames, got {len(view.frames)}", subject=item.clip.clip_id)
        place_of: dict[int, int] = {}
        for pts, frame in zip(view.pts.tolist(), view.frames, strict=True):
            if pts not in place_of:
                place_of[pts] = len(frames)
                frames.append(frame)
        return [place_of[pts] for pts in view.pts.tolist()]

    def embed(self, frames: Sequence[np.ndarray]) -> np.ndarray:
        """float32 (n, length), of length 1 each, of n RGB frames, uint8 (height, width, 3)."""
        return self._tower.embed(frames)
