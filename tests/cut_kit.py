"""Frames, edges and spans for the tests of cuts."""

from __future__ import annotations

from fractions import Fraction

import cv2
import numpy as np

from curate.records import SourceFacts, Span
from curate.stage import Thumb
from curate.stages.cut.model import Edge
from curate.stages.cut.spans import SpanMaker, SpanRule
from curate.testing import scenes

W, H = 128, 72
TO_YUV = np.array([[0.257, 0.504, 0.098, 16], [-0.148, -0.291, 0.439, 128], [0.439, -0.368, -0.071, 128]])
PEER_FACTS = SourceFacts(
    0, "mp4", "h264", "yuv420p", 8, W, H, W, H, 0, "1/1", "30", 30.0, False, True, "1/90000", 0, 0, 0.0, 0, [], [], 0,
    "[]",
)  # fmt: skip


def facts(keys: list[int] | None = None, closed: list[bool] | None = None) -> SourceFacts:
    return SourceFacts(
        0, "mp4", "h264", "yuv420p", 8, 64, 36, 64, 36, 0, "1/1", "30", 30.0, False, True, "1/30", 0, 0, 0.0, 0,
        keys or [], closed or [True] * len(keys or []), 0, "[]",
    )  # fmt: skip


def make(pts: list[int], end_pts: int, edges: list[Edge], rule: SpanRule, lag: int = 0) -> tuple[list[Span], SpanMaker]:
    """Spans when every edge becomes known ``lag`` frames after its own frame."""
    maker = SpanMaker(rule, Fraction(1, 30))
    left, spans = list(edges), []
    for i, now in enumerate(pts):
        maker.frame(now)
        settled = pts[max(i - lag, 0)]
        known = [edge for edge in left if edge.pts <= settled]
        left = left[len(known) :]
        spans += maker.settle(known, settled - 1 if lag == 0 else settled)
    spans += maker.finish(left, end_pts)
    for span in spans:
        assert span.n_frames == sum(span.start_pts <= each < span.end_pts for each in pts)
    return spans, maker


def bounds(spans: list[Span]) -> list[tuple[int, int]]:
    return [(span.start_pts, span.end_pts) for span in spans]


def footage() -> list[Thumb]:
    """Cuts (some close together), a flash, fades, a dissolve; 3000 ticks a frame, beginning at 500."""
    frames = [
        *scenes.moving_texture(40, W, H, (1, 0), 0),
        *scenes.moving_texture(6, W, H, (1, 0), 1),
        *scenes.moving_texture(6, W, H, (1, 0), 2),
        *scenes.with_flashes(scenes.moving_texture(50, W, H, (1, 0), 3), [20]),
        *scenes.fade(scenes.moving_texture(60, W, H, (1, 0), 4), n_in=15, n_out=15),
        *[np.zeros((H, W, 3), np.uint8)] * 25,
        *scenes.fade(scenes.moving_texture(60, W, H, (1, 0), 5), n_in=15),
        *scenes.crossfade(scenes.static_texture(40, W, H, 6), scenes.static_texture(40, W, H, 7), 16),
    ]
    return [Thumb(500 + 3000 * i, cv2.transform(frame, TO_YUV)) for i, frame in enumerate(frames)]
