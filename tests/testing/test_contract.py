"""The contract checker lets good stages through and names each rule that a bad one breaks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import pyarrow as pa
import pytest

from curate.config import Config
from curate.errors import StageError
from curate.stage import ClipItem, ClipStage, Column
from curate.testing.contract import check_stage
from curate.view import ViewSpec


class BrightnessConfig(Config):
    gain: float = 1.0
    invert: bool = False


class Brightness(ClipStage[BrightnessConfig]):
    """A good stage: mean brightness of the middle view."""

    name = "brightness"
    version = 1
    config_type = BrightnessConfig
    columns: ClassVar[tuple[Column, ...]] = (Column("mean_luma", pa.float64(), "", "mean luma, 0 to 255"),)

    def views(self) -> Mapping[str, ViewSpec]:
        return {"middle": ViewSpec(points=(0.5,), short_side_px=48, pixels="luma")}

    def score(self, item: ClipItem) -> Mapping[str, Any]:
        return {"mean_luma": float(item.views["middle"].frames.mean()) * self.config.gain}


class Reader(Brightness):
    name = "reader"
    reads = ("brightness",)

    def score(self, item: ClipItem) -> Mapping[str, Any]:
        return {"mean_luma": item.cells["brightness"]["mean_luma"]}

    def views(self) -> Mapping[str, ViewSpec]:
        return {}


class Nosy(Brightness):
    name = "nosy"

    def score(self, item: ClipItem) -> Mapping[str, Any]:
        return {"mean_luma": float("luma_of_others" in item.cells)}


class Forgetful(Brightness):
    name = "forgetful"

    def score(self, item: ClipItem) -> Mapping[str, Any]:
        return {}


class WrongType(Brightness):
    name = "wrong_type"

    def score(self, item: ClipItem) -> Mapping[str, Any]:
        return {"mean_luma": f"{item.views['middle'].frames.mean()} of 255"}


class Counting(Brightness):
    name = "counting"

    def score(self, item: ClipItem) -> Mapping[str, Any]:
        self.count = getattr(self, "count", 0.0) + item.views["middle"].frames.mean() * 0 + 1
        return {"mean_luma": float(self.count)}


class Mixing(Brightness):
    name = "mixing"

    def score_batch(self, items: Sequence[ClipItem]) -> list[Mapping[str, Any]]:
        total = sum(float(item.views["middle"].frames.mean()) for item in items)
        return [{"mean_luma": total / len(items)} for _ in items]


class Scribbling(Brightness):
    name = "scribbling"

    def score(self, item: ClipItem) -> Mapping[str, Any]:
        item.views["middle"].frames[...] = 0
        return {"mean_luma": 0.0}


class Blind(Brightness):
    name = "blind"

    def score(self, item: ClipItem) -> Mapping[str, Any]:
        return {"mean_luma": 1.0}


class SameForAll(Brightness):
    name = "same_for_all"

    def identity(self) -> dict[str, Any]:
        return {"name": self.name}


def test_a_good_stage_passes() -> None:
    check_stage(Brightness(BrightnessConfig()))
    check_stage(Reader(BrightnessConfig()), cells={"brightness": {"mean_luma": 3.0}})


@pytest.mark.parametrize(
    ("stage", "rule"),
    [
        (Nosy, r"touches \['luma_of_others'\] without declaring it"),
        (Forgetful, r"lacked \['mean_luma'\]"),
        (WrongType, "does not fit its declared type"),
        (Counting, "other values the second time"),
        (Mixing, "one by one than in a batch"),
        (Scribbling, "read-only"),
        (Blind, "gives values to an item without its views"),
        (SameForAll, "fingerprint leaves out config key 'gain'.*'invert'"),
    ],
)
def test_a_bad_stage_is_told_what_it_broke(stage: type[Brightness], rule: str) -> None:
    with pytest.raises(StageError, match=rule):
        check_stage(stage(BrightnessConfig()))


def test_cells_that_a_stage_reads_must_be_given() -> None:
    with pytest.raises(StageError, match="cells="):
        check_stage(Reader(BrightnessConfig()))
