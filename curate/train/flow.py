"""How much a drawn clip moves: the yardstick of whether a network heeds its motion bucket."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np

_HEIGHT_PX = 128
"""Pictures are enlarged to it where they are smaller: the flow's patches have 8 pixels."""


def flow_width_s(frames: np.ndarray, fps: float) -> float:
    """Mean length of the optical flow (DIS) of a clip, uint8 (T, H, W, 3), in widths of the picture a second."""
    height_px, width_px = frames.shape[1:3]
    scale = max(1.0, _HEIGHT_PX / height_px)
    size = round(width_px * scale), round(height_px * scale)
    large = (cv2.resize(frame, size, interpolation=cv2.INTER_CUBIC) for frame in frames)
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in large]
    method = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    lengths = [np.linalg.norm(method.calc(a, b, None), axis=2).mean() for a, b in pairwise(grey)]  # pyright: ignore
    return float(np.mean(lengths)) / size[0] * fps
