"""Share of the picture that written text covers, on the first, middle and last view of a clip (paper App. C).

The paper used the CRAFT detector and dropped clips whose text covers more than 7 % of the frame. This is PP-OCR's
detector, several times cheaper on a CPU. Overlapping boxes count once: the area is that of their union.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import cv2
import numpy as np
import pyarrow as pa
from pydantic import Field

from curate.config import Config
from curate.errors import StageError
from curate.stage import ClipItem, ClipStage, Column, Resources, ViewSpec
from curate.weights.cards import load_card
from curate.weights.store import path_of

_CARD = "pp-ocr-det"
_FILE = "ch_PP-OCRv4_det_infer.onnx"
_STRIDE_PX = 32
_MEAN = np.array((0.485, 0.456, 0.406), np.float32)
_DEVIATION = np.array((0.229, 0.224, 0.225), np.float32)
"""In the order B, G, R, as PP-OCR trains."""


class TextConfig(Config):
    """How text is looked for.

    ``short_side_px`` is the size at which the network sees a frame; 320 finds lines from 2 % of the frame's height
    on. A line counts when its pixels are text with a mean probability of ``min_probability``; ``core_probability``
    parts its core from the background, and ``unclip_ratio`` grows the core to the box around the line.
    """

    short_side_px: Annotated[int, Field(ge=64, le=540)] = 320
    min_probability: Annotated[float, Field(gt=0, lt=1)] = 0.6
    core_probability: Annotated[float, Field(gt=0, lt=1)] = 0.3
    unclip_ratio: Annotated[float, Field(gt=0)] = 1.6


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

    def views(self) -> Mapping[str, ViewSpec]:
        """First, middle and last frame."""
        return {"ends": ViewSpec(points=(0.0, 0.5, 1.0), short_side_px=self.config.short_side_px)}

    def model_digests(self) -> Mapping[str, str]:
        """The detector's weights."""
        return load_card(_CARD).digests()

    def setup(self) -> None:
        """Load the detector, one thread."""
        import onnxruntime
        from rapidocr.ch_ppocr_det.utils import DBPostProcess

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        # Frames of many aspects come by; an arena would keep the largest buffers of each.
        options.enable_cpu_mem_arena = False
        self._network = onnxruntime.InferenceSession(path_of(_CARD, _FILE), options, providers=["CPUExecutionProvider"])
        self._boxes = DBPostProcess(
            thresh=self.config.core_probability,
            box_thresh=self.config.min_probability,
            unclip_ratio=self.config.unclip_ratio,
            use_dilation=True,
        )

    def score(self, item: ClipItem) -> Mapping[str, Any]:
        """Area and number of text boxes over the three frames; StageError when the view is empty."""
        view = item.views["ends"]
        if not len(view.frames):
            raise StageError("the clip gave no frame", subject=item.clip.clip_id)
        found = {pts: self.detect(frame) for pts, frame in zip(view.pts.tolist(), view.frames, strict=True)}
        shape = view.frames.shape[1:3]
        areas = [covered_share(found[pts], *shape) for pts in view.pts.tolist()]
        return {
            "area_max": max(areas),
            "area_mean": sum(areas) / len(areas),
            "areas": areas,
            "n_boxes_max": max(len(boxes) for boxes in found.values()),
        }

    def detect(self, frame: np.ndarray) -> np.ndarray:
        """Text boxes of one RGB frame, uint8 (height, width, 3): float32 (n, 4, 2), corners as x, y in pixels."""
        height, width = frame.shape[:2]
        # Small frames are not enlarged: on a 240-line film that turned a wooden wall into 9 % of text.
        scale = min(1.0, self.config.short_side_px / min(height, width))
        size = (_to_stride(width * scale), _to_stride(height * scale))
        bgr = cv2.resize(frame, size, interpolation=cv2.INTER_LINEAR)[..., ::-1]
        x_hw3 = (bgr.astype(np.float32) / 255 - _MEAN) / _DEVIATION
        x_13hw = np.ascontiguousarray(x_hw3.transpose(2, 0, 1)[None])
        (probability_11hw,) = self._network.run(None, {self._network.get_inputs()[0].name: x_13hw})
        boxes, _ = self._boxes(np.asarray(probability_11hw), (height, width))
        return np.asarray(boxes, np.float32).reshape(-1, 4, 2)


def covered_share(boxes: np.ndarray, height: int, width: int) -> float:
    """Share of a (height, width) frame inside at least one of the polygons ``boxes`` (n, corners, 2) of x, y."""
    mask = np.zeros((height, width), np.uint8)
    for box in boxes:
        cv2.fillPoly(mask, [np.rint(box).astype(np.int32)], 1)
    return float(mask.mean())


def _to_stride(size_px: float) -> int:
    return max(_STRIDE_PX, round(size_px / _STRIDE_PX) * _STRIDE_PX)
