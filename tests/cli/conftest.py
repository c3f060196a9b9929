"""One small bucket and one corpus of it, made once; tests that change a corpus take a copy."""

from __future__ import annotations

import shutil
from itertools import chain
from pathlib import Path

import pytest
from cli_kit import curate, flat_video, good_video, run_args, write_recipe

from curate.testing.footage import moving_texture, write_video


@pytest.fixture(scope="session")
def bucket(tmp_path_factory) -> Path:
    """a.mp4: one clip; b.mp4: two shots; flat.mp4: hardly any contrast; not a video; a note."""
    folder = tmp_path_factory.mktemp("cli") / "bucket"
    folder.mkdir()
    good_video(folder / "a.mp4")
    write_video(folder / "b.mp4", chain(*(moving_texture(40, 160, 90, (1.0, 0.5), seed) for seed in (1, 2))))
    flat_video(folder / "flat.mp4")
    (folder / "broken.mp4").write_bytes(b"no video at all, whatever the name says" * 9)
    (folder / "notes.txt").write_text("a note")
    return folder


@pytest.fixture(scope="session")
def recipe(tmp_path_factory) -> Path:
    return write_recipe(tmp_path_factory.mktemp("recipe"))


@pytest.fixture(scope="session")
def made(bucket, recipe, tmp_path_factory):
    """(corpus folder, how `curate run` ended)."""
    out = tmp_path_factory.mktemp("made") / "corpus"
    return out, curate("run", bucket, *run_args(recipe, out))


@pytest.fixture
def corpus(made, tmp_path) -> Path:
    """A copy of the corpus that may be changed."""
    return shutil.copytree(made[0], tmp_path / "corpus")
