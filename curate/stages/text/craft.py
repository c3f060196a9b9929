"""CRAFT, the detector of the paper (App. C), through EasyOCR: its network, its search for boxes, its lines.

Boxes are those of ``easyocr.Reader.detect`` on the same frame. What is added is that frames go through the network
together, always as many at once, so that no frame's boxes depend on its neighbours, and that a GPU may be used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import Field

from curate.packages import needed, of_extra
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


@dataclass
class Craft:
    """Lines of text, upright where they are level. ``cpu_frames`` go through the network at once on a CPU: there one
    is quickest."""

    config: CraftConfig
    cpu_frames: int = 1

    def setup(self) -> None:
        """Load the network; MissingModelError without the package or the weights."""
        import torch

        needed(_EASYOCR)
        from easyocr.craft import CRAFT
        from easyocr.detection import copyStateDict

        self._device, self._dtype = place(self.config)
        self._size = _FRAMES_A_CLIP * self.config.batch_size if self._device.type == "cuda" else self.cpu_frames
        with torch.device("meta"):  # its constructor would fill 138 million numbers that nobody reads
            self._network = CRAFT()
        self._network.load_state_dict(copyStateDict(load_state(path_of(CARD, _FILE))), assign=True)
        self._network.to(self._device, self._dtype).eval()

    def detect(self, frames: np.ndarray) -> list[np.ndarray]:
        """Text boxes of each RGB frame, uint8 (n, height, width, 3): float32 (k, 4, 2), corners as x, y in pixels."""
        import torch

        try:
            return self._detect(frames, self._size)
        except torch.OutOfMemoryError:
            if self._size == 1:
                raise
        torch.cuda.empty_cache()
        self._size = max(1, self._size // 2)
        return self.detect(frames)

    def _detect(self, frames: np.ndarray, size: int) -> list[np.ndarray]:
        found: list[np.ndarray] = []
        for start in range(0, len(frames), size):
            batch = frames[start : start + size]
            filled = np.concatenate([batch, np.repeat(batch[-1:], size - len(batch), axis=0)])
            found += [_lines(words) for words in self._words(filled)[: len(batch)]]
        return found

    def _words(self, frames: np.ndarray) -> list[list[np.ndarray]]:
        """Boxes of words, each int32 (8,): x, y of four corners."""
        from easyocr.detection import get_textbox

        config = self.config
        thresholds = (config.text_threshold, config.link_threshold, config.low_text)
        return get_textbox(self._maps, frames, config.canvas_px, 1.0, *thresholds, False, self._device)

    def _maps(self, frames_n3hw: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What the network says, in the numbers that EasyOCR's search for boxes takes."""
        scores_nhw2, features = self._network(frames_n3hw.to(self._dtype))
        return scores_nhw2.float(), features


def _lines(words: list[np.ndarray]) -> np.ndarray:
    """Words joined to lines as EasyOCR does: boxes float32 (k, 4, 2)."""
    from easyocr.utils import group_text_box

    level, tilted = group_text_box(words, *_LINES) if words else ([], [])
    boxes = [[(x0, y0), (x1, y0), (x1, y1), (x0, y1)] for x0, x1, y0, y1 in level if max(x1 - x0, y1 - y0) > _LEAST_PX]
    boxes += [box for box in tilted if np.ptp(np.asarray(box), axis=0).max() > _LEAST_PX]
    return np.asarray(boxes, np.float32).reshape(-1, 4, 2)
