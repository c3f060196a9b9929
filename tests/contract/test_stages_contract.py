"""Every stage that a recipe may name keeps the contract: those that ship here, and those that are installed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from endpoint_kit import Script, served
from svd_kit import EMBEDDING, small_models

from curate.stage import ClipStage, Column, CutStage, ProbeStage, Stage
from curate.stages.cut import CutConfig
from curate.stages.registry import BUILT_IN, stage_class, stage_names
from curate.testing.contract import check_stage

UNIT = np.eye(EMBEDDING, dtype=np.float16)
CELLS = {"clip": {"first": UNIT[0], "middle": UNIT[1], "last": UNIT[2]}}
"""Where `plausible` values are too little."""

CONFIGS: dict[str, dict[str, Any]] = {
    "clip.similarity": {"captions": ("caption.template",)},
    "motion.vectors": {"patch_px": 64},
    "caption.vlm": {},
    "caption.fused": {"captions": ["caption.vlm"]},
    "caption.chosen": {"captions": ["caption.vlm"], "similarity": None},
}
"""Where a stage has no defaults, or they ask for much."""

ASKING = ("caption.vlm", "caption.fused")


@pytest.fixture(scope="module", autouse=True)
def endpoint():
    """A model that answers, for the stages that ask one."""
    with served(Script(lambda asked: "a dog")) as url, pytest.MonkeyPatch.context() as patch:
        for name in ASKING:
            patch.setitem(CONFIGS, name, {**CONFIGS[name], "endpoint": {"url": url, "model": "m"}})
        yield


@pytest.fixture(scope="module", autouse=True)
def weights(tmp_path_factory):
    """The models that a package index carries; large ones have small ones in their place."""
    with pytest.MonkeyPatch.context() as patch:
        small_models(tmp_path_factory.mktemp("models"), patch)
        yield


def plausible(column: Column) -> Any:
    """A value of the column's type."""
    if pa.types.is_nested(column.dtype):
        return []
    if pa.types.is_string(column.dtype):
        return "static"
    return False if pa.types.is_boolean(column.dtype) else pa.scalar(0).cast(column.dtype).as_py()


def cells_for(stage: Stage[Any]) -> dict[str, dict[str, Any]]:
    reads = stage.reads if isinstance(stage, ClipStage) else ()
    return {
        name: CELLS.get(name) or {column.name: plausible(column) for column in stage_class(name).columns}
        for name in reads
    }


def made(name: str, **config: Any) -> Stage[Any]:
    cls = stage_class(name)
    return cls(cls.config_type.model_validate({**CONFIGS.get(name, {}), **config}))


@pytest.mark.parametrize("name", sorted(stage_names()))
def test_a_registered_stage_keeps_the_contract(name):
    stage = made(name)
    check_stage(stage, cells=cells_for(stage))


def test_the_other_text_detector_keeps_the_contract():
    check_stage(made("text", detector="craft", craft={"canvas_px": 96}))


METHODS = ["fixed", "stride", "transnetv2", "cascade+transnetv2", "pyscenedetect-content", "pyscenedetect-adaptive"]


@pytest.mark.parametrize("method", [*METHODS, "pyscenedetect-threshold"])
def test_every_way_to_cut_keeps_the_contract(method):
    check_stage(made("cut", method=method, min_len_s=0.5, fixed_s=1.0))


def test_the_registry_names_each_stage_as_it_names_itself():
    found = {name: stage_class(name) for name in stage_names()}
    assert {name: cls.name for name, cls in found.items()} == {name: name for name in found}
    assert set(BUILT_IN) <= set(found)
    assert sum(issubclass(cls, ProbeStage) for cls in found.values()) >= 1
    assert sum(issubclass(cls, CutStage) for cls in found.values()) >= 1
    assert CutConfig in {cls.config_type for cls in found.values()}


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_columns_say_what_they_hold(name):
    for column in stage_class(name).columns:
        assert column.doc, column.name
        assert column.unit or not pa.types.is_floating(column.dtype) or name == "quality", f"{column.name} has no unit"


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_making_a_stage_is_light(name, monkeypatch, tmp_path):
    """The driver makes stages: no weights are read before `setup`, and none need to be there."""
    monkeypatch.setenv("CURATE_MODELS", str(tmp_path / "nowhere"))
    assert made(name).fingerprint({})
