"""One small picture of a clip."""

from __future__ import annotations

import bisect

import cv2

from curate.errors import DecodeError, StageError
from curate.media.decode import iter_frames
from curate.media.pixels import Scaler, rotate
from curate.records import Clip, SourceFacts

_QUALITY = 60
_NEAR_SHARE = 0.35
"""A key frame this near to the middle of a clip, as a share of its length, stands for the middle."""

_MOST_DECODED_PX = 100_000_000
"""Where decoding up to the middle takes more pixels than that, a key frame near it will do."""


def clip_still(path: str, facts: SourceFacts, clip: Clip, width_px: int, height_px: int) -> tuple[bytes, int, int]:
    """The frame in the middle of a clip, or a key frame near it, fitted into a size: WebP, its width, its height.

    DecodeError where there is none.
    """
    with iter_frames(path, facts, start_pts=_wanted(facts, clip), end_pts=clip.end_pts) as frames:
        frame = next(frames, None)
        if frame is None:
            raise DecodeError("the clip holds no frame", subject=path)
        scale = min(1.0, width_px / facts.width_px, height_px / facts.height_px)
        size = max(1, round(facts.width_px * scale)), max(1, round(facts.height_px * scale))
        stored = size if facts.rotation_deg % 180 == 0 else size[::-1]
        pixels = rotate(Scaler().rgb(frame.master(), *stored), facts.rotation_deg)
    ok, data = cv2.imencode(".webp", pixels[..., ::-1], [cv2.IMWRITE_WEBP_QUALITY, _QUALITY])
    if not ok:
        raise StageError("the picture could not be written as WebP")
    return data.tobytes(), *size


def _wanted(facts: SourceFacts, clip: Clip) -> int:
    middle = (clip.start_pts + clip.end_pts) // 2
    keys = facts.key_frames_pts if facts.has_pts else []
    at = bisect.bisect_right(keys, middle)
    entry = keys[at - 1] if at else facts.start_pts
    frames = facts.n_frames * (middle - entry) / max(1, facts.end_pts - facts.start_pts)
    if frames * facts.coded_width_px * facts.coded_height_px <= _MOST_DECODED_PX:
        return middle
    near = [key for key in keys[max(0, at - 1) : at + 1] if clip.start_pts <= key < clip.end_pts]
    nearest = min(near, key=lambda key: abs(key - middle), default=middle)
    return nearest if abs(nearest - middle) <= _NEAR_SHARE * (clip.end_pts - clip.start_pts) else middle
