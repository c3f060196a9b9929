"""Stages that need model files, each as an author would write it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine_kit import Luma

from curate.stage import ClipItem
from curate.stages.cut import Cut
from curate.weights.cards import load_card
from curate.weights.store import path_of


class Dimmed(Luma):
    """Mean brightness times the number in the file of the card ``dimmer``."""

    name = "dimmed"

    def model_digests(self) -> Mapping[str, str]:
        return load_card("dimmer").digests()

    def setup(self) -> None:
        self.factor = float(Path(path_of("dimmer", "w.txt")).read_text())

    def score(self, item: ClipItem) -> Mapping[str, Any]:
        return {"mean": super().score(item)["mean"] * self.factor}


class Twin(Dimmed):
    """The same by the card ``twin``, which the model hub gives without a digest."""

    name = "twin"

    def model_digests(self) -> Mapping[str, str]:
        return load_card("twin").digests()


class CutByModel(Cut):
    """A cut stage with a model, ``cutter``."""

    def model_digests(self) -> Mapping[str, str]:
        return load_card("cutter").digests()
