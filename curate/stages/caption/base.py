"""What all captioners share: their columns, and the digest that ties a caption to the pixels it was made from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import pyarrow as pa

from curate.errors import ConfigError
from curate.stage import ClipStage, Column, ConfigT, Stage
from curate.view import View

CAPTION = Column("caption", pa.string(), "", "one English sentence or two")
FRAMES = Column(
    "frames",
    pa.string(),
    "",
    "digest of the frames that the captioner, or those whose captions it took, saw, 32 hex digits",
)

_CAPTIONERS = "Name stages that caption clips, such as `caption.coca`"


class CaptionStage(ClipStage[ConfigT]):
    """A stage whose cell holds ``caption`` and ``frames``. Its name is ``caption.`` and the captioner's own."""

    columns: ClassVar[tuple[Column, ...]] = (CAPTION, FRAMES)


def check_captions(
    above: Mapping[str, Stage[Any]], names: Sequence[str], key: str, *more: str, fix: str = _CAPTIONERS
) -> None:
    """ConfigError, naming the ``key`` of the recipe, unless each stage writes `caption`, `frames` and ``more``."""
    for name in names:
        lacks = sorted({CAPTION.name, FRAMES.name, *more} - {column.name for column in above[name].columns})
        if lacks:
            raise ConfigError(f"{name!r} writes no {' and no '.join(map(repr, lacks))}", subject=key, fix=fix)


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


def own_name(stage_name: str) -> str:
    """``caption.coca`` -> ``coca``: what a captioner is called in columns."""
    return stage_name.rpartition(".")[2]
