from fractions import Fraction

import cv2
import numpy as np
import pytest

from curate.errors import StageError
from curate.media.facts import read_facts
from curate.media.sheet import CELL_WIDTH_PX, clip_sheet, contact_sheet
from curate.records import Clip, Span
from curate.testing.footage import moving_texture, write_video


def opened(png: bytes) -> np.ndarray:
    picture = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    return picture[..., ::-1]


def test_frames_lie_in_rows_with_room_for_captions():
    red, blue = np.full((90, 320, 3), (250, 0, 0), np.uint8), np.full((90, 320, 3), (0, 0, 250), np.uint8)
    sheet = opened(contact_sheet([red, blue, red], ["0.0 s", "0.5 s", "1.0 s"], columns=2, title="clip é"))
    assert sheet.shape[1] > 2 * CELL_WIDTH_PX
    is_red = (sheet == (250, 0, 0)).all(-1)
    is_blue = (sheet == (0, 0, 250)).all(-1)
    assert (is_red.sum(), is_blue.sum()) == (2 * 90 * 320, 90 * 320)
    below = sheet[is_red.any(1).nonzero()[0][89] + 1 :][:20, :CELL_WIDTH_PX]
    assert (below < 100).any()  # the caption


def test_tall_frames_are_shrunk_to_fit():
    sheet = opened(contact_sheet([np.zeros((4000, 100, 3), np.uint8)], ["x"]))
    assert sheet.shape[0] < 400


def test_a_sheet_needs_frames_and_captions():
    with pytest.raises(StageError):
        contact_sheet([], [])
    with pytest.raises(StageError):
        contact_sheet([np.zeros((4, 4, 3), np.uint8)], [])


@pytest.mark.parametrize("rotation_deg", [0, 90])
def test_sheet_of_a_clip_shows_its_frames(tmp_path, rotation_deg):
    path = tmp_path / "a.mp4"
    write_video(path, moving_texture(50, 320, 180, (2, 0)), Fraction(25), rotation_deg=rotation_deg)
    facts = read_facts(str(path))
    clip = Clip.of_span("d", 0, facts.time_base_fraction, Span(facts.end_pts // 5, facts.end_pts))
    sheet = opened(clip_sheet(str(path), facts, clip, n=8))
    rows = 2
    assert sheet.shape[1] >= 4 * CELL_WIDTH_PX
    assert sheet.shape[0] > rows * min(facts.height_px, 320)
    few = opened(clip_sheet(str(path), facts, clip, n=3))
    assert few.shape[1] < sheet.shape[1]
