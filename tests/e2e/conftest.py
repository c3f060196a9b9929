"""A bucket with one good video, a quick recipe, and a place for the corpus."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from cli_kit import good_video, write_recipe


@pytest.fixture(scope="session")
def good(tmp_path_factory) -> Path:
    return good_video(tmp_path_factory.mktemp("good") / "good.mp4")


@pytest.fixture
def bucket(good, tmp_path) -> Path:
    """A folder with one good video."""
    folder = tmp_path / "bucket"
    folder.mkdir()
    shutil.copy(good, folder)
    return folder


@pytest.fixture
def recipe(tmp_path) -> Path:
    return write_recipe(tmp_path)


@pytest.fixture
def corpus(tmp_path) -> Path:
    return tmp_path / "corpus"
