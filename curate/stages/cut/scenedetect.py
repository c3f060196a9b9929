"""PySceneDetect's detectors behind the same interface, at their own defaults unless a recipe says otherwise."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from curate.stage import Thumb
from curate.stages.cut.model import Edge, hard_cut

if TYPE_CHECKING:
    from scenedetect.common import FrameTimecode
    from scenedetect.detector import SceneDetector

LONGEST_FADE_S = 10.0
"""The threshold detector puts its cut in the middle of the dark, which it knows only at its end. In a dark stretch
longer than this, the cut is put no earlier than this long before the end, so that spans do not wait for ever."""


_LUMA, _CHROMA = 255 / 219, 255 / 224
_Y_U_V = np.array([[1, 1.772, 0], [1, -0.344136, -0.714136], [1, 0, 1.402]])
_SCALED = _Y_U_V * [_LUMA, _CHROMA, _CHROMA]
_TO_BGR = np.hstack([_SCALED, -_SCALED @ np.array([[16.0], [128.0], [128.0]])])


def yuv_to_bgr(yuv: np.ndarray) -> np.ndarray:
    """uint8 (h, w, 3) Y U V of limited range, BT.601 -> uint8 (h, w, 3) B G R of full range."""
    return cv2.transform(yuv, _TO_BGR)


@dataclass(frozen=True, slots=True)
class Settings:
    """What differs from PySceneDetect's defaults, in its own units: ``min_content`` is the adaptive detector's."""

    threshold: float | None = None
    min_scene_frames: int | None = None
    min_content: float | None = None


def make_detector(method: str, settings: Settings) -> SceneDetector:
    """The detector that a method name means, at PySceneDetect's defaults where nothing else is set."""
    from scenedetect.detectors import AdaptiveDetector, ContentDetector, ThresholdDetector

    adaptive = method == "pyscenedetect-adaptive"
    given = {
        "adaptive_threshold" if adaptive else "threshold": settings.threshold,
        "min_scene_len": settings.min_scene_frames,
        "min_content_val": settings.min_content,
    }
    chosen: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    kinds = {
        "pyscenedetect-content": ContentDetector,
        "pyscenedetect-adaptive": AdaptiveDetector,
        "pyscenedetect-threshold": ThresholdDetector,
    }
    return kinds[method](**chosen)


class SceneDetectFinder:
    """Shot finder that asks a PySceneDetect detector. Time is the frame number there: cuts come back exact at any rate,
    and its minimum scene length counts frames. All its cuts are hard."""

    n_flashes = 0

    def __init__(self, method: str, rate_fps: float, settings: Settings) -> None:
        self.settled_pts = 0
        self._method = method
        self._detector = make_detector(method, settings)
        self._longest_fade = round(LONGEST_FADE_S * (rate_fps or 30.0))
        self._pts: deque[int] = deque()
        self._first = 0

    def wants_between(self, thumb: Thumb) -> bool:
        """All of them: the detectors compare neighbouring frames."""
        return True

    def push(self, thumb: Thumb) -> list[Edge]:
        """Take the next frame; give the edges that are now certain."""
        self._pts.append(thumb.pts)
        number = self._first + len(self._pts) - 1
        cuts = self._detector.process_frame(_frame_time(number), yuv_to_bgr(thumb.yuv))
        edges = self._edges([cut.frame_num for cut in cuts])
        self._settle(number)
        return edges

    def finish(self, skipped: Sequence[int] = ()) -> list[Edge]:
        """The stream ended; give the remaining edges."""
        if not self._pts:
            return []
        last = self._first + len(self._pts) - 1
        return self._edges([cut.frame_num for cut in self._detector.post_process(_frame_time(last))])

    def _edges(self, numbers: list[int]) -> list[Edge]:
        return [
            edge
            for number in sorted(numbers)
            for edge in hard_cut(self._pts[max(number - self._first, 0)], self._method)
        ]

    def _settle(self, newest: int) -> None:
        """No cut to come lies before the frame settled here; the time stamps before it are forgotten."""
        settled = newest - self._detector.event_buffer_length
        fade = getattr(self._detector, "last_fade", {})
        if fade.get("type") == "out":
            settled = max(min(settled, fade["frame"].frame_num), newest - self._longest_fade)
        while self._first < settled:
            self._pts.popleft()
            self._first += 1
        self.settled_pts = self._pts[0]


def _frame_time(number: int) -> FrameTimecode:
    from scenedetect.common import FrameTimecode

    return FrameTimecode(number, Fraction(30))
