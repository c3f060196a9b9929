"""PySceneDetect's detectors through the stage find what they find by themselves."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from cut_kit import PEER_FACTS, TO_YUV, H, W, footage
from scenedetect.common import FrameTimecode
from scenedetect.detectors import AdaptiveDetector, ContentDetector, ThresholdDetector

from curate.records import CutKind
from curate.stage import Thumb
from curate.stages.cut import Cut, CutConfig
from curate.stages.cut.scenedetect import yuv_to_bgr
from curate.testing import scenes

DETECTORS = {
    "pyscenedetect-content": ContentDetector,
    "pyscenedetect-adaptive": AdaptiveDetector,
    "pyscenedetect-threshold": ThresholdDetector,
}


def alone(method: str, shown: list[Thumb]) -> list[int]:
    """pts of the cuts when the detector is called directly."""
    detector = DETECTORS[method]()
    cuts = []
    for i, thumb in enumerate(shown):
        cuts += detector.process_frame(FrameTimecode(i, 30.0), yuv_to_bgr(thumb.yuv))
    cuts += detector.post_process(FrameTimecode(len(shown) - 1, 30.0))
    return sorted(shown[cut.frame_num].pts for cut in cuts)


@pytest.mark.parametrize("method", DETECTORS)
def test_same_cuts_as_the_detector_by_itself(method: str):
    shown = footage()
    stage = Cut(CutConfig.model_validate({"method": method, "min_len_s": 0, "max_len_s": 0}))
    detector = stage.detector(PEER_FACTS)
    spans = [span for thumb in shown for span in detector.push(thumb)] + detector.finish(shown[-1].pts + 3000)
    expected = alone(method, shown)
    assert expected
    assert [span.end_pts for span in spans[:-1]] == [span.start_pts for span in spans[1:]] == expected
    assert {span.end_kind for span in spans[:-1]} == {CutKind.HARD}
    assert {span.end_detector for span in spans[:-1]} == {method}
    assert detector.summary()["n_hard"] == len(expected)


def test_a_long_dark_stretch_does_not_hold_the_spans_for_ever():
    stage = Cut(CutConfig(method="pyscenedetect-threshold", min_len_s=0, max_len_s=5.0))
    detector = stage.detector(PEER_FACTS)
    dark = np.zeros((H, W, 3), np.uint8)
    frames = [*scenes.static_texture(60, W, H, 1), *[dark] * 900, *scenes.static_texture(60, W, H, 2)]
    late = []
    for i, frame in enumerate(frames):
        late += [(i * 3000 - s.start_pts) / 90000 for s in detector.push(Thumb(i * 3000, cv2.transform(frame, TO_YUV)))]
    assert max(late) <= stage.longest_clip_s() + 5.0
    assert detector.finish(len(frames) * 3000)
