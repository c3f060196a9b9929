"""CRAFT, the detector of the paper (App. C), through EasyOCR: its network, its search for boxes, its lines.

Boxes are those of ``easyocr.Reader.detect`` on the same frame. What is added is that frames go through the network
together, always as many of one size at once, so that no frame's boxes depend on its neighbours, that they are prepared
while those before are looked at, and that a GPU may be used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import Field

from curate.packages import needed, of_extra
from curate.stages.batches import Batched
from curate.stages.nets import NetConfig, place
from curate.weights.loading import load_state
from curate.weights.store import path_of

if TYPE_CHECKING:
    import torch

CARD = "craft"
PACKAGES = of_extra("craft", "easyocr")
(_EASYOCR,) = PACKAGES
_FILE = "craft_mlt_25k.pth"
_LINES = (0.1, 0.5, 0.5, 0.5, 0.1)
"""How words are joined to lines (slope, differences in middle and height, gap, margin): the defaults of
``easyocr.Reader.detect``."""

_LEAST_PX = 20
"""Lines whose longer side is no longer than this are left out, as ``easyocr.Reader.detect`` does."""

_FRAMES_A_CLIP = 3

_Share = Annotated[float, Field(gt=0, lt=1)]


class CraftConfig(NetConfig):
    """CRAFT's parameters, and where it runs. The thresholds and sizes are the defaults of ``easyocr.Reader.detect``.

    Pixels are text above ``low_text``, and joined above ``link_threshold``; a word counts when its best pixel reaches
    ``text_threshold``. ``canvas_px`` is the longest side that the network sees.
    """

    text_threshold: _Share = 0.7
    link_threshold: _Share = 0.4
    low_text: _Share = 0.4
    canvas_px: Annotated[int, Field(ge=64, le=2560)] = 2560
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "float32"
    batch_size: Annotated[int, Field(ge=1, le=4096)] = 8


class Craft(Batched[np.ndarray, np.ndarray]):
    """Lines of text, upright where they are level. Frames go through the network one by one on a CPU, which is quickest
    there, on a GPU those of ``batch_size`` clips at once."""

    def __init__(self, config: CraftConfig, short_side_px: int = 320) -> None:
        """``short_side_px``: of the frames that come, to find out how many fit on a GPU."""
        self.config, self._short_side_px = config, short_side_px

    def setup(self) -> None:
        """Load the network; MissingModelError without the package or the weights, DeviceMemoryError."""
        config = self.config
        self.bring(self._load, place(config), share=config.gpus, most=_FRAMES_A_CLIP * config.batch_size)

    def _load(self, device: torch.device, dtype: torch.dtype) -> None:
        import torch

        needed(_EASYOCR)
        from easyocr.craft import CRAFT
        from easyocr.detection import copyStateDict

        self._device, self._dtype = device, dtype
        with torch.device("meta"):  # its constructor would fill 138 million numbers that nobody reads
            self._network = CRAFT()
        self._network.load_state_dict(copyStateDict(load_state(path_of(CARD, _FILE))), assign=True)
        self._network.to(device, dtype).eval()

    def detect(self, frames: Sequence[np.ndarray]) -> list[np.ndarray | Exception]:
        """Text boxes of each RGB frame, uint8 (height, width, 3): float32 (k, 4, 2), corners as x, y in pixels."""
        return self.results(frames)

    def sample(self) -> np.ndarray:
        """A black frame, 16:9."""
        return np.zeros((self._short_side_px, self._short_side_px * 16 // 9, 3), np.uint8)

    def prepare(self, item: np.ndarray) -> tuple[torch.Tensor, float]:
        """(1, 3, height, width) at the size that the network sees, and how much larger that is than the frame."""
        import cv2
        import torch
        from easyocr.imgproc import normalizeMeanVariance, resize_aspect_ratio

        resized, ratio, _ = resize_aspect_ratio(item, self.config.canvas_px, cv2.INTER_LINEAR, 1)
        return torch.from_numpy(normalizeMeanVariance(resized).transpose(2, 0, 1)[None].copy()), ratio

    def shape(self, part: tuple[torch.Tensor, float]) -> tuple[int, ...]:
        """Of the tensor."""
        return tuple(part[0].shape)

    def join(self, parts: Sequence[tuple[torch.Tensor, float]]) -> tuple[torch.Tensor, list[float]]:
        """(frames, 3, height, width), and the ratio of each."""
        return super().join([pixels for pixels, _ in parts]), [ratio for _, ratio in parts]

    def infer(self, items: Sequence[np.ndarray], prepared: tuple[torch.Tensor, list[float]]) -> list[np.ndarray]:
        """Boxes of lines, float32 (k, 4, 2), of each frame."""
        import torch

        pixels_n3hw, ratios = prepared
        with torch.inference_mode():
            scores_nhw2, _ = self._network(pixels_n3hw.to(self._device, self._dtype, non_blocking=True))
        maps = scores_nhw2.float().cpu().numpy()
        return [_lines(self._words(scores_hw2, ratio)) for scores_hw2, ratio in zip(maps, ratios, strict=True)]

    def _words(self, scores_hw2: np.ndarray, ratio: float) -> list[np.ndarray]:
        """Boxes of words, each int32 (8,): x, y of four corners, as ``easyocr.detection.get_textbox`` has them."""
        from easyocr.craft_utils import adjustResultCoordinates, getDetBoxes

        config = self.config
        thresholds = (config.text_threshold, config.link_threshold, config.low_text)
        boxes, _, _ = getDetBoxes(scores_hw2[:, :, 0], scores_hw2[:, :, 1], *thresholds, False)
        placed = adjustResultCoordinates(boxes, 1 / ratio, 1 / ratio)
        return [np.array(box).astype(np.int32).reshape(-1) for box in placed]


def _lines(words: list[np.ndarray]) -> np.ndarray:
    """Words joined to lines as EasyOCR does: boxes float32 (k, 4, 2)."""
    from easyocr.utils import group_text_box

    level, tilted = group_text_box(words, *_LINES) if words else ([], [])
    boxes = [[(x0, y0), (x1, y0), (x1, y1), (x0, y1)] for x0, x1, y0, y1 in level if max(x1 - x0, y1 - y0) > _LEAST_PX]
    boxes += [box for box in tilted if np.ptp(np.asarray(box), axis=0).max() > _LEAST_PX]
    return np.asarray(boxes, np.float32).reshape(-1, 4, 2)
