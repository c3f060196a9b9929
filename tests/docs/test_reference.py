"""Generated pages are those that the code gives."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from docs_kit import ROOT

from curate.stages.registry import BUILT_IN


@pytest.fixture(scope="module")
def reference():
    spec = importlib.util.spec_from_file_location("reference", ROOT / "docs" / "tools" / "reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_pages_are_current(reference):
    stale = [path.name for path, text in reference.pages() if path.read_text(encoding="utf-8") != text]
    assert stale == [], "run `make reference`"


def test_a_changed_column_is_noticed(reference):
    text = (ROOT / "docs" / "stages.md").read_text(encoding="utf-8")
    assert reference.with_columns(text.replace("| `sharpness` | float64 |", "| `sharpness` | int32 |")) == text


def test_every_command_stage_and_recipe_is_there(reference):
    pages = {Path(path).stem: text for path, text in reference.pages() if path.parent.name == "reference"}
    assert all(f"\n## {name}\n" in pages["cli"] for name in ("curate run", "curate models fetch"))
    assert all(f"\n## {name}\n" in pages["stages"] and f"\n### {name}\n" in pages["recipes"] for name in BUILT_IN)
    assert all(f"\n### {path.stem}\n" in pages["recipes"] for path in (ROOT / "pipelines").glob("*.yaml"))
