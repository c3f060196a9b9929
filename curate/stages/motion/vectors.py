"""Motion as the codec stored it: the vectors of a clip's own stream, without a look at its pixels.

What NeMo Curator filters by, and in its units, so that its two thresholds mean here what they mean there. A vector
leads from a block to the place that it was predicted from, in one of the frames before or after: which one the list
does not tell, so its length is not divided by time. An encoder chooses what costs few bits, not what moved.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from curate.config import Config
from curate.errors import NoMotionVectorsError, StageError
from curate.records import SourceFacts
from curate.stage import ClipItem, ClipStage, Column
from curate.view import GRID_PER_S, NO_VECTOR, VECTOR_CELL_PX, VECTORS_PER_PX, ViewSpec

_KIN = ("flv1", "h263", "mpeg1video", "mpeg2video", "mpeg4", "msmpeg4v2", "msmpeg4v3", "rv10", "rv20", "wmv1", "wmv2")
WITH_VECTORS = frozenset((*_KIN, "h264"))
"""Codecs whose vectors FFmpeg's decoders were seen to give; HEVC, VP8, VP9, AV1 and those of key frames alone not."""


class VectorsConfig(Config):
    """``every_s``: one frame in as many seconds is looked at, a multiple of 1/4. ``patch_px``: side of a patch."""

    every_s: Annotated[float, Field(gt=0, multiple_of=1 / GRID_PER_S)] = 0.5
    patch_px: Annotated[int, Field(ge=2 * VECTOR_CELL_PX)] = 256


def _number(name: str, unit: str, doc: str) -> Column:
    return Column(name, pa.float64(), unit, doc)


class MotionVectors(ClipStage[VectorsConfig]):
    """Lengths of the codec's motion vectors in stored pixels, over width plus height of the stored picture.

    Looked at are the frames of the grid that the codec predicted from others: key frames have no vectors and do not
    count. A place without one in such a frame (it was coded anew) counts as 0. ``global_mean`` is the mean over all
    pixels and frames. For ``patch_min`` the mean over the frames is taken at every pixel; the picture is divided into
    patches of ``patch_px`` from its upper left corner, as many as its sides hold, rounded; a patch has the value in its
    middle (of the four pixels there, or what is left of them at the edge), and the least one counts.

    NoMotionVectorsError where no frame has vectors, StageError for a picture that is smaller than a patch: neither is
    a clip that stands still.
    """

    name = "motion.vectors"
    version = 1
    config_type = VectorsConfig
    columns: ClassVar[tuple[Column, ...]] = (
        _number("global_mean", "(w + h)", "mean length of the vectors over picture and frames"),
        _number("patch_min", "(w + h)", "least of the patches' mean lengths, each at its middle"),
        _number("covered_share", "share", "of the picture, over the frames, that has a vector"),
        Column("n_frames", pa.int32(), "frames", "frames with vectors that the means are taken over"),
    )

    def views(self) -> Mapping[str, ViewSpec]:
        """The vectors of a frame every so many seconds."""
        return {"vectors": ViewSpec(sampling="every", every_s=self.config.every_s, pixels="vectors")}

    def score(self, item: ClipItem) -> Mapping[str, Any]:
        """Values of one clip."""
        width_px, height_px = item.facts.coded_width_px, item.facts.coded_height_px
        patch_px = self.config.patch_px
        if min(width_px, height_px) < patch_px:
            raise StageError(
                f"pictures of {width_px}x{height_px} px hold no patch of {patch_px} px", subject=item.clip.clip_id
            )
        total, covered, n_frames = _summed(item.views["vectors"].frames)
        if not n_frames:
            raise _no_vectors(item.facts, item.clip.clip_id)
        mean = total / (n_frames * VECTORS_PER_PX * (width_px + height_px))
        weights = np.outer(_inside_px(height_px, mean.shape[0]), _inside_px(width_px, mean.shape[1]))
        weights /= width_px * height_px
        return {
            "global_mean": float((mean * weights).sum()),
            "patch_min": _patch_min(mean, width_px, height_px, patch_px),
            "covered_share": float((covered * weights).sum() / n_frames),
            "n_frames": n_frames,
        }


def _summed(frames: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Of int16 (n, rows, columns, 2): float64 (rows, columns) sum of lengths, frames with a vector there, and how many
    frames have any. One frame after the other: all at once would take gigabytes of a long clip of large pictures."""
    total, covered, n_frames = np.zeros(frames.shape[1:3]), np.zeros(frames.shape[1:3]), 0
    for frame in frames:
        has = frame[..., 0] != NO_VECTOR
        if has.any():
            total += np.where(has, np.hypot(frame[..., 0].astype(np.float64), frame[..., 1]), 0.0)
            covered += has
            n_frames += 1
    return total, covered, n_frames


def _inside_px(side_px: int, n_cells: int) -> np.ndarray:
    """float64 (n_cells,): how many pixels of each square lie inside the picture along one side."""
    return np.minimum(VECTOR_CELL_PX, side_px - VECTOR_CELL_PX * np.arange(n_cells)).astype(np.float64)


def _patch_min(mean: np.ndarray, width_px: int, height_px: int, patch_px: int) -> float:
    """The least value in the middle of a patch."""
    rows, columns = (_middles(side_px, patch_px) for side_px in (height_px, width_px))
    return float(mean[rows[:, None, :, None], columns[None, :, None, :]].mean(axis=(2, 3)).min())


def _middles(side_px: int, patch_px: int) -> np.ndarray:
    """int (patches, 2): squares of the two pixels in the middle of each patch along one side."""
    middle = np.arange(round(side_px / patch_px)) * patch_px + (patch_px - 1) / 2
    pixels = np.stack([np.floor(middle), np.ceil(middle)], axis=1)
    return np.minimum(pixels, side_px - 1).astype(np.intp) // VECTOR_CELL_PX


def _no_vectors(facts: SourceFacts, clip_id: str) -> NoMotionVectorsError:
    if facts.codec in WITH_VECTORS:
        why = "no frame that was looked at was predicted from another: the stream is made of key frames"
    else:
        why = f"the decoder of {facts.codec} gives no motion vectors"
    return NoMotionVectorsError(
        why, subject=clip_id, fix="Judge its motion by the stage `motion`, which looks at pixels"
    )
