"""The site builds without a warning, has every page, and loads nothing from elsewhere."""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from docs_kit import ROOT
from mkdocs.commands.build import build
from mkdocs.config import load_config
from mkdocs.exceptions import Abort

LOADED = re.compile(r"<(?:script|link|img|iframe|source)\b[^>]*?\b(?:src|href)=[\"']?((?:https?:)?//[^\"' >]+)")


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Iterator[Path]:
    """The built site. Its logger is MkDocs' own, which counts warnings in strict builds."""
    folder = tmp_path_factory.mktemp("site")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_MKDOCS_2_WARNING", "1")
        build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(folder)))
    return folder


def test_every_page_is_there(site):
    pages = {path.relative_to(ROOT / "docs").with_suffix("") for path in (ROOT / "docs").rglob("*.md")}
    built = {path.relative_to(site).with_suffix("") for path in site.rglob("*.html")}
    named = {path.with_name("index") if path.name == "README" else path for path in pages}
    assert named - built == set()
    assert (site / "search" / "search_index.json").stat().st_size > 100_000


def test_nothing_is_loaded_from_elsewhere(site):
    files = [path for path in site.rglob("*") if path.suffix in {".html", ".css"}]
    assert len(files) > 40
    for path in files:
        text = path.read_text(encoding="utf-8")
        found = LOADED.findall(text) + re.findall(r"url\([\"']?((?:https?:)?//[^)]*)", text)
        assert found == [], path


def test_links_out_of_the_documentation_become_names(site):
    assert "<code>curate/errors.py</code>" in (site / "failures.html").read_text(encoding="utf-8")


def test_a_link_to_nowhere_stops_the_build(tmp_path, caplog):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text("# Start\n\n[nowhere](nowhere.md)\n")
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    with caplog.at_level(logging.WARNING, "mkdocs"), pytest.raises(Abort, match="strict"):
        options = {"docs_dir": str(tmp_path / "docs"), "site_dir": str(tmp_path / "site"), "hooks": [], "nav": None}
        build(load_config(str(tmp_path / "mkdocs.yml"), **options))
    assert "nowhere.md" in caplog.text
