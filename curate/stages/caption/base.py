"""What all captioners share: their columns, and the digest that ties a caption to the pixels it was made from."""

from __future__ import annotations

import hashlib
from typing import ClassVar

import pyarrow as pa

from curate.stage import ClipStage, Column, ConfigT
from curate.view import View

CAPTION = Column("caption", pa.string(), "", "one English sentence or two")
FRAMES = Column("frames", pa.string(), "", "digest of the frames that the captioner saw, 32 hex digits")


class CaptionStage(ClipStage[ConfigT]):
    """A stage whose cell holds ``caption`` and ``frames``. Its name is ``caption.`` and the captioner's own."""

    columns: ClassVar[tuple[Column, ...]] = (CAPTION, FRAMES)


def frames_digest(view: View) -> str:
    """Digest of a view's pixels, shape and time stamps: the same wherever and whenever the clip is sampled."""
    digest = hashlib.sha256(f"{view.frames.shape} {view.pts.tolist()} {view.time_base}".encode())
    digest.update(view.frames.tobytes())
    return digest.hexdigest()[:32]


def tidy(text: str) -> str:
    """One line, single spaces, no control characters; what a tokenizer parted is closed again (`` .`` -> ``.``)."""
    line = " ".join("".join(ch if ch.isprintable() else " " for ch in text).split())
    for mark in ".,;:!?":
        line = line.replace(f" {mark}", mark)
    return line
