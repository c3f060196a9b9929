"""PP-OCR's text detector: a DBNet through onnxruntime, with the post-processing of the rapidocr package."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from curate.weights.store import path_of

CARD = "pp-ocr-det"
_FILE = "ch_PP-OCRv4_det_infer.onnx"
_STRIDE_PX = 32
_MEAN = np.array((0.485, 0.456, 0.406), np.float32)
_DEVIATION = np.array((0.229, 0.224, 0.225), np.float32)
"""In the order B, G, R, as PP-OCR trains."""


@dataclass
class PpOcr:
    """Lines of text, each box about as high as the line from ascender to descender."""

    short_side_px: int
    min_probability: float
    core_probability: float
    unclip_ratio: float

    def setup(self) -> None:
        """Load the network, one thread."""
        import onnxruntime
        from rapidocr.ch_ppocr_det.utils import DBPostProcess

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        # Frames of many aspects come by; an arena would keep the largest buffers of each.
        options.enable_cpu_mem_arena = False
        self._network = onnxruntime.InferenceSession(path_of(CARD, _FILE), options, providers=["CPUExecutionProvider"])
        self._boxes = DBPostProcess(
            thresh=self.core_probability,
            box_thresh=self.min_probability,
            unclip_ratio=self.unclip_ratio,
            use_dilation=True,
        )

    def detect(self, frames: Sequence[np.ndarray]) -> list[np.ndarray | Exception]:
        """Text boxes of each RGB frame, uint8 (height, width, 3): float32 (k, 4, 2), corners as x, y in pixels."""
        return [self._detect(frame) for frame in frames]

    def _detect(self, frame: np.ndarray) -> np.ndarray:
        height, width = frame.shape[:2]
        # Small frames are not enlarged: on a 240-line film that turned a wooden wall into 9 % of text.
        scale = min(1.0, self.short_side_px / min(height, width))
        size = (_to_stride(width * scale), _to_stride(height * scale))
        bgr = cv2.resize(frame, size, interpolation=cv2.INTER_LINEAR)[..., ::-1]
        x_hw3 = (bgr.astype(np.float32) / 255 - _MEAN) / _DEVIATION
        x_13hw = np.ascontiguousarray(x_hw3.transpose(2, 0, 1)[None])
        (probability_11hw,) = self._network.run(None, {self._network.get_inputs()[0].name: x_13hw})
        boxes, _ = self._boxes(np.asarray(probability_11hw), (height, width))
        return np.asarray(boxes, np.float32).reshape(-1, 4, 2)


def _to_stride(size_px: float) -> int:
    return max(_STRIDE_PX, round(size_px / _STRIDE_PX) * _STRIDE_PX)
