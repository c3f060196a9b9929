"""Share of the picture that written text covers, on the first, middle and last view of a clip (paper App. C).

The paper used the CRAFT detector and dropped clips whose text covers more than 7 % of the frame. `craft` is that one;
`ppocr`, the default, is several times cheaper on a CPU. Overlapping boxes count once: the area is that of their union.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, Protocol

import cv2
import numpy as np
import pyarrow as pa
from pydantic import Field

from curate.config import Config
from curate.errors import StageError
from curate.records import Cell
from curate.stage import ClipItem, ClipStage, Column, Resources, Scored, only
from curate.stages.nets import net_resources
from curate.stages.text import craft, ppocr
from curate.stages.text.craft import Craft, CraftConfig
from curate.stages.text.ppocr import PpOcr
from curate.view import ViewSpec
from curate.weights.cards import load_card

_ENDS = (0.0, 0.5, 1.0)
_PPOCR_KEYS = {"min_probability", "core_probability", "unclip_ratio"}
_CARDS = {"ppocr": ppocr.CARD, "craft": craft.CARD}


class TextConfig(Config):
    """How text is looked for.

    ``short_side_px`` is the size at which frames are looked at; 320 finds lines from 2 % of the frame's height on.
    The next three are PP-OCR's: a line counts when its pixels are text with a mean probability of
    ``min_probability``; ``core_probability`` parts its core from the background, and ``unclip_ratio`` grows the core
    to the box around the line. ``craft`` has the parameters of the other detector.
    """

    detector: Literal["ppocr", "craft"] = "ppocr"
    short_side_px: Annotated[int, Field(ge=64, le=540)] = 320
    min_probability: Annotated[float, Field(gt=0, lt=1)] = 0.6
    core_probability: Annotated[float, Field(gt=0, lt=1)] = 0.3
    unclip_ratio: Annotated[float, Field(gt=0)] = 1.6
    craft: CraftConfig = CraftConfig()

    def deciding(self) -> dict[str, Any]:
        """The keys of the detector that is used; of PP-OCR's results, which were there first, its name is no part."""
        unused = _PPOCR_KEYS if self.detector == "craft" else {"detector", "craft"}
        return {key: value for key, value in super().deciding().items() if key not in unused}


class Detector(Protocol):
    """Finds text in frames."""

    def setup(self) -> None:
        """Load weights, once per worker; MissingModelError."""
        ...

    def detect(self, frames: Sequence[np.ndarray]) -> list[np.ndarray | Exception]:
        """Polygons around text in each RGB frame, uint8 (height, width, 3): float32 (k, corners, 2) of x, y."""
        ...


class Text(ClipStage[TextConfig]):
    """Area of detected text boxes. Boxes are about as high as the line from ascender to descender."""

    name = "text"
    version = 1
    config_type = TextConfig
    resources = Resources(memory_bytes=300_000_000)
    columns: ClassVar[tuple[Column, ...]] = (
        Column("area_max", pa.float64(), "share", "largest share of a frame inside text boxes, 0 to 1"),
        Column("area_mean", pa.float64(), "share", "mean over the frames of the share inside text boxes"),
        Column("areas", pa.list_(pa.float64()), "share", "share inside text boxes of the first, middle and last view"),
        Column("n_boxes_max", pa.int32(), "boxes", "largest number of text boxes in a frame"),
    )

    def __init__(self, config: TextConfig) -> None:
        super().__init__(config)
        if config.detector == "craft":
            self.packages = craft.PACKAGES
            self.resources = net_resources(config.craft, [craft.CARD])

    def views(self) -> Mapping[str, ViewSpec]:
        """First, middle and last frame."""
        return {"ends": ViewSpec(points=_ENDS, short_side_px=self.config.short_side_px)}

    def model_digests(self) -> Mapping[str, str]:
        """The detector's weights."""
        return load_card(_CARDS[self.config.detector]).digests()

    def setup(self) -> None:
        """Load the detector, one thread."""
        self._detector = _detector(self.config)
        self._detector.setup()

    def score(self, item: ClipItem) -> Mapping[str, Any]:
        """Area and number of text boxes over the three frames; StageError when the view is empty."""
        return only(self.score_batch([item]))

    def score_batch(self, items: Sequence[ClipItem]) -> list[Scored]:
        """As `score`, for several clips."""
        return _values_of(items, self._detector.detect(_frames(items)))

    def process_batches(self, batches: Iterable[Sequence[ClipItem]]) -> Iterator[list[Cell]]:
        """As for any stage; frames for CRAFT are prepared meanwhile."""
        if not isinstance(self._detector, Craft):
            yield from super().process_batches(batches)
            return
        for items, found in self._detector.ahead(batches, _frames):
            cells = self.cells_of(items, lambda items=items, found=found: _values_of(items, found()))
            self.waited_s = self._detector.waited_s
            yield cells


def _detector(config: TextConfig) -> Detector:
    if config.detector == "craft":
        return Craft(config.craft, config.short_side_px)
    return PpOcr(config.short_side_px, config.min_probability, config.core_probability, config.unclip_ratio)


def _frames(items: Sequence[ClipItem]) -> list[np.ndarray]:
    """Every frame of these clips once: a short clip may show one at several places."""
    return [frame for item in items for frame in _by_pts(item).values()]


def _by_pts(item: ClipItem) -> dict[int, np.ndarray]:
    view = item.views["ends"]
    return dict(zip(view.pts.tolist(), view.frames, strict=True))


def _values_of(items: Sequence[ClipItem], boxes: Sequence[np.ndarray | Exception]) -> list[Scored]:
    """The columns of each clip, given the boxes of `_frames` in their order, or why it has none."""
    remaining = iter(boxes)
    found: list[Scored] = []
    for item in items:
        by_pts = {pts: next(remaining) for pts in _by_pts(item)}
        found.append(_values(item, [by_pts[pts] for pts in item.views["ends"].pts.tolist()]))
    return found


def _values(item: ClipItem, boxes: Sequence[np.ndarray | Exception]) -> Scored:
    """The columns of a clip, given the boxes of each frame of its view."""
    if not boxes:
        return StageError("the clip gave no frame", subject=item.clip.clip_id)
    good: list[np.ndarray] = []
    for each in boxes:
        if isinstance(each, Exception):
            return each
        good.append(each)
    areas = [covered_share(each, *item.views["ends"].frames.shape[1:3]) for each in good]
    return {
        "area_max": max(areas),
        "area_mean": sum(areas) / len(areas),
        "areas": areas,
        "n_boxes_max": max(len(each) for each in good),
    }


def covered_share(boxes: np.ndarray, height: int, width: int) -> float:
    """Share of a (height, width) frame inside at least one of the polygons ``boxes`` (n, corners, 2) of x, y."""
    mask = np.zeros((height, width), np.uint8)
    for box in boxes:
        cv2.fillPoly(mask, [np.rint(box).astype(np.int32)], 1)
    return float(mask.mean())
