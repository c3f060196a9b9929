"""Weights of the embedded stages, and clips made of given frames."""

from fractions import Fraction

import numpy as np
import pytest

from curate.records import Clip, SourceFacts, Span
from curate.stage import ClipItem
from curate.view import View
from curate.weights.cards import load_card
from curate.weights.store import fetch

TIME_BASE = Fraction(1, 90000)


@pytest.fixture(scope="session")
def weights():
    """The model files of `text`, `features` and `cut`, fetched once into the user's own model folder."""
    for name in ("pp-ocr-det", "craft", "efficientnet-lite0", "transnetv2"):
        fetch(load_card(name))


@pytest.fixture(scope="session")
def clip_item():
    """A maker of items: ``clip_item(views={name: frames}, cells={...})``, frames uint8 (n, height, width[, 3])."""
    clip = Clip.of_span("0" * 64, 0, TIME_BASE, Span(0, 5 * 90000))
    facts = SourceFacts(
        stream=0, container="mp4", codec="h264", pix_fmt="yuv420p", bit_depth=8, coded_width_px=320,
        coded_height_px=180, width_px=320, height_px=180, rotation_deg=0, sar="1/1", rate="30/1", rate_fps=30.0,
        vfr=False, has_pts=True, time_base="1/90000", start_pts=0, end_pts=5 * 90000, duration_s=5.0, n_frames=150,
        key_frames_pts=[0], key_frames_closed=[True], bit_rate_bps=0, streams_json="[]",
    )  # fmt: skip

    def make(views=None, cells=None):
        made = {}
        for name, given in (views or {}).items():
            frames = np.asarray(given)
            pts = np.arange(len(frames), dtype=np.int64) * 45000
            made[name] = View(frames, pts, TIME_BASE, np.zeros(len(frames), np.int64))
        return ClipItem(clip, facts, made, cells or {})

    return make
