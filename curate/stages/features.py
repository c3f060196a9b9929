"""What a clip shows: an embedding and ImageNet classes of its middle frame, perceptual hashes of three frames."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

import cv2
import numpy as np
import pyarrow as pa
from pydantic import Field

from curate.config import Config
from curate.errors import StageError
from curate.stage import ClipItem, ClipStage, Column, Resources
from curate.view import ViewSpec
from curate.weights.cards import load_card
from curate.weights.store import path_of

_CARD = "efficientnet-lite0"
_WEIGHTS = "efficientnet-lite0-57934424.pth"
_NAMES = "imagenet1k_label_to_names.json"
_INPUT_PX = 224
_HASH_INPUT_PX = 32
_HASH_SIDE = 8


class FeaturesConfig(Config):
    """``min_probability``: classes above it are named. ``flat_levels``: a frame whose coarse structure deviates from
    its mean by less (root mean square, of 255 levels) carries no hash."""

    min_probability: Annotated[float, Field(ge=0, lt=1)] = 0.3
    flat_levels: Annotated[float, Field(ge=0)] = 2.0


class Features(ClipStage[FeaturesConfig]):
    """EfficientNet-Lite0 over the whole middle frame (squeezed to a square, nothing cropped), and DCT hashes."""

    name = "features"
    version = 1
    config_type = FeaturesConfig
    resources = Resources(memory_bytes=600_000_000)
    columns: ClassVar[tuple[Column, ...]] = (
        Column("embedding", pa.list_(pa.float16()), "", "1280 pooled features of the middle frame, not normalised"),
        Column("classes", pa.list_(pa.string()), "", "ImageNet classes above min_probability, most probable first"),
        Column("class_probs", pa.list_(pa.float64()), "share", "their probabilities"),
        Column("phash_first", pa.uint64(), "", "perceptual hash of the first frame, 0 where it is flat"),
        Column("phash_middle", pa.uint64(), "", "perceptual hash of the middle frame, 0 where it is flat"),
        Column("phash_last", pa.uint64(), "", "perceptual hash of the last frame, 0 where it is flat"),
        Column("phash_flat", pa.bool_(), "", "all three frames are flat (black, one colour): the hashes say nothing"),
    )

    def views(self) -> Mapping[str, ViewSpec]:
        """The middle frame for the network, three small luma frames for the hashes."""
        return {
            "middle": ViewSpec(points=(0.5,), size_px=(_INPUT_PX, _INPUT_PX)),
            "ends": ViewSpec(points=(0.0, 0.5, 1.0), size_px=(_HASH_INPUT_PX, _HASH_INPUT_PX), pixels="luma"),
        }

    def model_digests(self) -> Mapping[str, str]:
        """The network's weights and the class names."""
        return load_card(_CARD).digests()

    def setup(self) -> None:
        """Load the network and the class names, one thread."""
        import torch
        from efficientnet_lite_pytorch import EfficientNet

        torch.set_num_threads(1)
        weights = torch.load(path_of(_CARD, _WEIGHTS), map_location="cpu", weights_only=True)
        self._network = EfficientNet.from_name("efficientnet-lite0")
        self._network.load_state_dict(weights)
        self._network.eval()
        listed = json.loads(Path(path_of(_CARD, _NAMES)).read_text(encoding="utf-8"))
        self._class_names = [listed[str(index)].split(",")[0] for index in range(len(listed))]

    def score(self, item: ClipItem) -> Mapping[str, Any]:
        """Embedding, classes and hashes of one clip; StageError when a view lacks frames."""
        middle, ends = item.views["middle"].frames, item.views["ends"].frames
        if len(middle) != 1 or len(ends) != 3:
            raise StageError(f"needs 1 and 3 frames, got {len(middle)} and {len(ends)}", subject=item.clip.clip_id)
        embedding, probabilities = self.look(middle[0])
        named = self._named(probabilities)
        hashes = [phash(luma, self.config.flat_levels) for luma in ends]
        first, mid, last = (value or 0 for value in hashes)
        return {
            "embedding": embedding.astype(np.float16),
            "classes": [name for name, _ in named],
            "class_probs": [probability for _, probability in named],
            "phash_first": first,
            "phash_middle": mid,
            "phash_last": last,
            "phash_flat": all(value is None for value in hashes),
        }

    def look(self, frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Features float32 (1280,) and class probabilities float32 (1000,) of an RGB frame, uint8 (224, 224, 3)."""
        import torch

        x_hw3 = (frame.astype(np.float32) - 127) / 128
        x_13hw = torch.from_numpy(np.ascontiguousarray(x_hw3.transpose(2, 0, 1)[None]))
        with torch.inference_mode():
            pooled_1d = self._network.extract_features(x_13hw).mean(dim=(2, 3))
            probability_1c = torch.softmax(self._network._fc(pooled_1d), dim=1)
        return pooled_1d[0].numpy(), probability_1c[0].numpy()

    def _named(self, probabilities: np.ndarray) -> list[tuple[str, float]]:
        # Two pairs of ImageNet classes share a name (crane, maillot): what is named is their sum.
        totals: dict[str, float] = {}
        for name, probability in zip(self._class_names, probabilities.tolist(), strict=True):
            totals[name] = totals.get(name, 0.0) + probability
        named = [(name, total) for name, total in totals.items() if total > self.config.min_probability]
        return sorted(named, key=lambda pair: (-pair[1], pair[0]))


def phash(luma: np.ndarray, flat_levels: float = 2.0) -> int | None:
    """64-bit perceptual hash of a luma picture, uint8 (32, 32); None when the picture is flat.

    The common DCT hash: bit i (most significant first, row by row) says whether coefficient i of the 8x8 lowest
    frequencies lies above their median. The mean of the picture, coefficient 0, has no part in the flatness test.
    """
    low = cv2.dct(luma.astype(np.float32))[:_HASH_SIDE, :_HASH_SIDE].astype(np.float64).ravel()
    structure_levels = float(np.sqrt((low[1:] ** 2).sum() / luma.size))
    if structure_levels < flat_levels:
        return None
    return int.from_bytes(np.packbits(low > np.median(low)).tobytes(), "big")
