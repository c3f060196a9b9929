"""What all tests share."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import fsspec
import pytest
from hypothesis import settings

from curate import storage
from curate.testing.bucket import make_sample_bucket
from curate.testing.footage import moving_texture, write_video

cv2.setNumThreads(1)

settings.register_profile("house", derandomize=True, deadline=None)
settings.load_profile("house")


def pytest_configure() -> None:
    """A job in the background starts with SIGINT ignored, and so would be what the tests stop with it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files in which a Ray is started go first: they take longest."""
    items.sort(key=lambda item: not _starts_ray(item.nodeid.partition("::")[0]))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Files are spread over the processes of the tests, whole; those that start a Ray, which takes the whole machine,
    go to one. (pytest-xdist's own groups are without effect in pytest 9.2.)"""
    from xdist.scheduler.loadscope import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return "ray" if _starts_ray(file) else file

    return ByFile(config, log)


@cache
def _starts_ray(file: str) -> bool:
    return "pytest.mark.ray" in Path(__file__).parent.parent.joinpath(file).read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Places are asked again as often as ever, but at once."""
    monkeypatch.setattr(storage, "WAITS_S", tuple(0.0 for _ in storage.WAITS_S))


@pytest.fixture(scope="session")
def sample_clip_mp4(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds of a camera pan, 160x90 at 24 frames/s, H.264."""
    path = tmp_path_factory.mktemp("footage") / "pan.mp4"
    write_video(path, moving_texture(48, 160, 90, (-1.5, 0.0), seed=1), Fraction(24))
    return path


@pytest.fixture(scope="session")
def sample_bucket(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The generated files of the sample bucket. Nobody may change it."""
    folder = tmp_path_factory.mktemp("sample") / "bucket"
    make_sample_bucket(folder, real=False)
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium for the tests of one file."""
    from browser_kit import chromium

    with chromium() as started:
        yield started


@pytest.fixture
def memory_bucket() -> Iterator[str]:
    """An empty remote place."""
    fs = fsspec.filesystem("memory")
    fs.store.clear()
    fs.pseudo_dirs[:] = [""]
    yield "memory://bucket"
    fs.store.clear()
    fs.pseudo_dirs[:] = [""]
