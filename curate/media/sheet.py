"""Contact sheets: a few frames side by side with a line of text under each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import cv2
import numpy as np

from curate.errors import StageError
from curate.media.decode import Frame, iter_frames
from curate.media.pixels import Scaler, rotate
from curate.records import Clip, SourceFacts

CELL_WIDTH_PX = 320
CELL_HEIGHT_PX = 320
CAPTION_HEIGHT_PX = 22
TITLE_HEIGHT_PX = 30
MARGIN_PX = 6
_PAPER, _INK = 245, 20
_SMALL, _LARGE = 0.5, 0.7
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def contact_sheet(frames: Sequence[np.ndarray], captions: Sequence[str], *, columns: int = 4, title: str = "") -> bytes:
    """PNG of RGB frames, uint8 (height, width, 3), of any sizes, in rows of ``columns``; one caption a frame.

    Frames larger than CELL_WIDTH_PX x CELL_HEIGHT_PX are shrunk to fit. StageError without frames.
    """
    if not frames or len(frames) != len(captions):
        raise StageError(f"a contact sheet needs frames and as many captions, got {len(frames)} and {len(captions)}")
    cells = [_cell(frame, caption) for frame, caption in zip(frames, captions, strict=True)]
    columns = max(1, min(columns, len(cells)))
    cell_height_px = max(cell.shape[0] for cell in cells)
    step_x, step_y = CELL_WIDTH_PX + MARGIN_PX, cell_height_px + MARGIN_PX
    top_px = MARGIN_PX + (TITLE_HEIGHT_PX if title else 0)
    rows = math.ceil(len(cells) / columns)
    sheet = np.full((top_px + rows * step_y, MARGIN_PX + columns * step_x, 3), _PAPER, np.uint8)
    for i, cell in enumerate(cells):
        y, x = top_px + i // columns * step_y, MARGIN_PX + i % columns * step_x
        sheet[y : y + cell.shape[0], x : x + CELL_WIDTH_PX] = cell
    if title:
        _write(sheet, title, MARGIN_PX, TITLE_HEIGHT_PX - 6, _LARGE)
    ok, png = cv2.imencode(".png", sheet[..., ::-1])
    if not ok:
        raise StageError("the contact sheet could not be written as PNG")
    return png.tobytes()


def clip_sheet(path: str, facts: SourceFacts, clip: Clip, n: int = 8) -> bytes:
    """Contact sheet of ``n`` evenly spread frames of a clip (fewer where it has fewer), each with its time in seconds.

    Raises DecodeError, or StageError when the clip holds no frame.
    """
    step = Fraction(clip.end_pts - clip.start_pts, n)
    wanted = [clip.start_pts + i * step for i in range(n)]
    scaler = Scaler()
    pictures: list[np.ndarray] = []
    captions: list[str] = []
    with iter_frames(path, facts, start_pts=clip.start_pts, end_pts=clip.end_pts) as frames:
        for frame in frames:
            if wanted and frame.pts >= wanted[0]:
                wanted = [target for target in wanted if target > frame.pts]
                pictures.append(_displayed(frame, facts, scaler))
                captions.append(f"{float(frame.pts * clip.time_base):.3f} s")
    return contact_sheet(pictures, captions, title=clip.clip_id)


def _displayed(frame: Frame, facts: SourceFacts, scaler: Scaler) -> np.ndarray:
    scale = min(1.0, CELL_WIDTH_PX / facts.width_px, CELL_HEIGHT_PX / facts.height_px)
    size = max(1, round(facts.width_px * scale)), max(1, round(facts.height_px * scale))
    stored = size if facts.rotation_deg % 180 == 0 else size[::-1]
    return rotate(scaler.rgb(frame.master(), *stored), facts.rotation_deg)


def _cell(frame: np.ndarray, caption: str) -> np.ndarray:
    """A frame, shrunk to fit and centred, above its caption: uint8 (height, CELL_WIDTH_PX, 3)."""
    height_px, width_px = frame.shape[:2]
    scale = min(1.0, CELL_WIDTH_PX / width_px, CELL_HEIGHT_PX / height_px)
    size = max(1, round(width_px * scale)), max(1, round(height_px * scale))
    shown = cv2.resize(frame, size, interpolation=cv2.INTER_AREA) if scale < 1 else frame
    cell = np.full((size[1] + CAPTION_HEIGHT_PX, CELL_WIDTH_PX, 3), _PAPER, np.uint8)
    left = (CELL_WIDTH_PX - size[0]) // 2
    cell[: size[1], left : left + size[0]] = shown
    _write(cell, caption, 2, size[1] + CAPTION_HEIGHT_PX - 6, _SMALL)
    return cell


def _write(picture: np.ndarray, text: str, x: int, y: int, scale: float) -> None:
    """One line of dark text, made smaller where it would not fit."""
    plain = text.encode("ascii", "replace").decode()
    room_px = picture.shape[1] - 2 * x
    width_px = cv2.getTextSize(plain, _FONT, scale, 1)[0][0]
    fitted = scale * min(1.0, room_px / max(1, width_px))
    cv2.putText(picture, plain, (x, y), _FONT, fitted, (_INK, _INK, _INK), 1, cv2.LINE_AA)
