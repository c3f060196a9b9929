"""The motion vectors that a codec stored, as FFmpeg's decoders give them beside the frames.

H.263, MPEG-1, MPEG-2, MPEG-4, H.264 and their kin have them; FFmpeg gives none of HEVC, VP8, VP9 and AV1, and a frame
that is predicted from no other has none in any codec. Asking for them changes no pixel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from av.codec.context import Flags2
from av.sidedata.sidedata import SideDataContainer

from curate.view import NO_VECTOR, VECTOR_CELL_PX, VECTORS_PER_PX

if TYPE_CHECKING:
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

_MOST = -(NO_VECTOR + 1)


def ask_for_vectors(stream: VideoStream) -> None:
    """Let the decoder of a stream, which has decoded nothing yet, give the vectors of every frame."""
    stream.codec_context.flags2 |= Flags2.export_mvs


def cells_px(width_px: int, height_px: int) -> tuple[int, int]:
    """(columns, rows) of squares of VECTOR_CELL_PX that cover a stored picture."""
    return -(-width_px // VECTOR_CELL_PX), -(-height_px // VECTOR_CELL_PX)


def vector_cells(frame: VideoFrame, size_px: tuple[int, int]) -> np.ndarray:
    """int16 (rows, columns, 2) of a frame in a stream of (width, height): see `curate.view.View`.

    Blocks are whole squares at whole squares in every codec that has vectors; what lies beyond the picture is left out.
    """
    columns, rows = cells_px(*size_px)
    cells = np.full((rows, columns, 2), NO_VECTOR, np.int16)
    listed = _listed(frame)
    if listed is None:
        return cells
    way = np.stack([listed["motion_x"], listed["motion_y"]], axis=1) * VECTORS_PER_PX
    way = np.clip(np.rint(way / np.maximum(listed["motion_scale"], 1)[:, None]), -_MOST, _MOST).astype(np.int16)
    width, height = listed["w"].astype(np.int64), listed["h"].astype(np.int64)
    column = (listed["dst_x"] - width // 2) // VECTOR_CELL_PX
    row = (listed["dst_y"] - height // 2) // VECTOR_CELL_PX
    for down in range(int(height.max()) // VECTOR_CELL_PX):
        for right in range(int(width.max()) // VECTOR_CELL_PX):
            x, y = column + right, row + down
            inside = (right * VECTOR_CELL_PX < width) & (down * VECTOR_CELL_PX < height)
            inside &= (x >= 0) & (x < columns) & (y >= 0) & (y < rows)
            cells[y[inside], x[inside]] = way[inside]  # of several for one square the last one stays
    return cells


def _listed(frame: VideoFrame) -> np.ndarray | None:
    """The structured array of a frame's vectors, if it has any that can be told from what else lies beside it.

    Not by ``frame.side_data``: a frame that has given that refers to itself, and its pixels stay in memory until Python
    looks for such rings. A kind of side data that PyAV does not know is a ValueError, whatever lies beside it.
    """
    container: Any = SideDataContainer
    try:
        found = container(frame).get("MOTION_VECTORS")
    except ValueError:
        return None
    return found.to_ndarray() if found is not None and len(found) else None
