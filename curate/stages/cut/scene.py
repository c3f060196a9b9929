"""Do two pictures show the same scene?"""

from __future__ import annotations

import cv2
import numpy as np

from curate.stages.cut.features import GREY_PX

SAME_PLACE = 0.9
"""Correlation of the best-shifted middle above which two pictures show the same scene."""

MIN_SPREAD = 0.3
"""Evenness of the change over the picture below which something moved before an unchanged scene."""


def same_scene(first: np.ndarray, second: np.ndarray) -> float:
    """Correlation, -1 to 1, of the middle of one luma picture with its best place in another, both ways round: near 1
    under pans and changes of light, however fast, as long as half of the picture stays in sight."""
    return max(_found_in(first, second), _found_in(second, first))


def _found_in(first: np.ndarray, second: np.ndarray) -> float:
    width, height = GREY_PX
    middle = first[height // 4 : height - height // 4, width // 4 : width - width // 4]
    if middle.std() < 2:
        return 0.0
    return float(cv2.matchTemplate(second, middle, cv2.TM_CCOEFF_NORMED).max())
