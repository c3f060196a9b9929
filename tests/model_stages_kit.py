"""Stages that need model files, each as an author would write it, and machines whose files differ."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from engine_kit import Luma
from model_kit import ModelKit

from curate.query import connect
from curate.recipe import Recipe, parse_recipe
from curate.stage import ClipItem
from curate.stages import registry
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


def machine(folder: Path, monkeypatch: pytest.MonkeyPatch, **texts: str) -> ModelKit:
    """A store of its own with cards of its own, one a text, in use from now on."""
    kit = ModelKit(folder, monkeypatch)
    for name, text in texts.items():
        (folder / "made" / name).mkdir(parents=True)
        (folder / "made" / name / "w.txt").write_text(text)
        kit.add(name, folder / "made" / name)
    return kit


def digest(name: str) -> str:
    """Of the file of a card that `machine` made."""
    return load_card(name).digests()[f"{name}/w.txt"]


RECIPE = """
name: planned
stages: [probe, cut: {min_len_s: 0.5}, luma, dimmed]
select: {name: planned, conditions: [], dedup: {method: none}}
"""


def planned_recipe(monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """Cut by `cutter`, measured by `dimmer`."""
    monkeypatch.setitem(registry.BUILT_IN, "luma", "engine_kit:Luma")
    for name, cls in {"dimmed": "Dimmed", "cut": "CutByModel"}.items():
        monkeypatch.setitem(registry.BUILT_IN, name, f"model_stages_kit:{cls}")
    return parse_recipe(RECIPE, "test")


def two_machines(folder: Path, monkeypatch: pytest.MonkeyPatch, changed: str) -> tuple[ModelKit, str, str]:
    """A worker whose file of one card is another than the driver's, which is in use; and the digests of both."""
    texts = {"dimmer": "0.5", "cutter": "sharp"}
    worker = machine(folder / "worker", monkeypatch, **texts | {changed: "0.9"})
    theirs = digest(changed)
    machine(folder / "driver", monkeypatch, **texts)
    return worker, theirs, digest(changed)


def check_refused(corpus: Path, changed: str, theirs: str, ours: str) -> None:
    """AssertionError unless every cell of the stage failed, and says both digests."""
    stage = {"dimmer": "dimmed", "cutter": "cut"}[changed]
    parts = corpus / "tables" / "cells" / stage
    rows = (
        connect().sql(f"select outcome, error_class, error_message from read_parquet('{parts}/*/*.parquet')").fetchall()
    )
    assert {row[:2] for row in rows} == {("failed", "MissingModelError")}
    assert all(f"has sha256 {theirs}, the run was planned with {ours}" in row[2] for row in rows)
