"""The one list of stages: those that ship here, and those that installed packages add by the entry-point group."""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
from functools import lru_cache
from typing import Any

from curate.config import nearest
from curate.errors import ConfigError
from curate.stage import Stage

ENTRY_POINT_GROUP = "curate.stages"

BUILT_IN = {
    "probe": "curate.stages.probe:Probe",
    "cut": "curate.stages.cut:Cut",
    "motion": "curate.stages.motion:Motion",
    "motion.farneback": "curate.stages.motion.farneback:Farneback",
    "motion.vectors": "curate.stages.motion.vectors:MotionVectors",
    "quality": "curate.stages.quality:Quality",
    "text": "curate.stages.text:Text",
    "features": "curate.stages.features:Features",
    "caption.template": "curate.stages.caption.template:TemplateCaption",
    "caption.coca": "curate.stages.caption.coca:CocaCaption",
    "caption.vblip": "curate.stages.caption.vblip:VblipCaption",
    "clip": "curate.stages.clip:Clip",
    "clip.similarity": "curate.stages.clip:ClipSimilarity",
    "aesthetic": "curate.stages.aesthetic:Aesthetic",
    "caption.vlm": "curate.stages.caption.vlm:VlmCaption",
    "caption.fused": "curate.stages.caption.fused:FusedCaption",
    "caption.chosen": "curate.stages.caption.chosen:ChosenCaption",
}


def stage_names() -> dict[str, str]:
    """Every stage that a recipe may name -> ``module:Class``."""
    return {**_added(tuple(sys.path)), **BUILT_IN}


@lru_cache(maxsize=1)
def _added(_path: tuple[str, ...]) -> dict[str, str]:
    """Those of installed packages. Every package there is must be opened to know, so they are asked once a path."""
    return {entry.name: entry.value for entry in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP)}


def stage_class(name: str) -> type[Stage[Any]]:
    """The class of a stage; ConfigError for an unknown name or a plug-in that cannot be imported."""
    names = stage_names()
    if name not in names:
        raise ConfigError(f"no stage is called {name!r}, {nearest(name, names)}", subject="stages")
    module, _, attribute = names[name].partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"cannot be loaded from {names[name]}: {error}", subject=f"stages.{name}") from error
    if not (isinstance(found, type) and issubclass(found, Stage) and found.name == name):
        raise ConfigError(f"{names[name]} is no stage named {name!r}", subject=f"stages.{name}")
    return found
