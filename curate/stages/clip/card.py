"""What a card says of an OpenCLIP model before its files are here."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from curate.config import Config
from curate.view import MASTER_SHORT_SIDE_PX
from curate.weights.cards import card_settings

FRAMES = ("first", "middle", "last")
"""Columns of the embeddings, one a frame of the clip."""

POINTS = (0.0, 0.5, 1.0)
"""Where these frames lie in the clip (paper App. C: first, middle and last)."""


class ClipSettings(Config):
    """``image_px``: side of the square the image network sees. ``embedding``: length of its vectors.

    ``family``: models of one name share a space, so that a head trained on one may be used on another.
    """

    image_px: Annotated[int, Field(ge=8, le=MASTER_SHORT_SIDE_PX)]
    embedding: Annotated[int, Field(ge=1)]
    family: str


def clip_settings(model: str) -> ClipSettings:
    """Settings of an OpenCLIP card; ConfigError where it lacks one."""
    return card_settings(model, ClipSettings)
