"""What all tests share."""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import cv2
import fsspec
import numpy as np
import pytest
from hypothesis import settings

from curate import storage
from curate.testing import scenes
from curate.testing.bucket import make_sample_bucket
from curate.testing.footage import moving_texture, write_video

cv2.setNumThreads(1)

settings.register_profile("house", derandomize=True, deadline=None)
settings.load_profile("house")


LONG = tuple(
    f"tests/{name}/" for name in ("cli", "contract", "docs", "e2e", "engine", "fuzz", "soak", "store", "train")
)
"""Folders with files that take half a minute and more."""


def pytest_configure() -> None:
    """A job in the background starts with SIGINT ignored, and so would be what the tests stop with it. And Ray's
    workers, which have the lowest priority elsewhere, would wait here for all other tests."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.setdefault("RAY_worker_niceness", "0")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files in which a Ray is started go first, for one process does them all; then what is long, so that no process
    is busy with it when the others have ended."""

    def rank(item: pytest.Item) -> int:
        file = item.nodeid.partition("::")[0]
        return 0 if _starts_ray(file) else 1 if file.startswith(LONG) else 2

    items.sort(key=rank)


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
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes of this run of the tests have in common."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session", autouse=True)
def textures(shared_folder: Path) -> Iterator[None]:
    """What generated footage is cut from is computed once for all tests and processes; each takes a third of a
    second, and was a quarter of what all tests computed."""
    folder = shared_folder / "textures"
    folder.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scenes, "texture", _kept(scenes.texture, folder))
        yield


def _kept(make: Callable[[int, int], np.ndarray], folder: Path) -> Callable[..., np.ndarray]:
    @lru_cache(maxsize=64)
    def texture(seed: int = 0, size_px: int = 1024) -> np.ndarray:
        path = folder / f"{seed}-{size_px}.npy"
        if not path.exists():
            unfinished = folder / f"{os.getpid()}-{path.name}"
            np.save(unfinished, make(seed, size_px))
            unfinished.replace(path)
        return np.asarray(np.load(path, mmap_mode="c"))

    return texture


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Other processes wait until the block has ended."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def sample_clip_mp4(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds of a camera pan, 160x90 at 24 frames/s, H.264."""
    path = tmp_path_factory.mktemp("footage") / "pan.mp4"
    write_video(path, moving_texture(48, 160, 90, (-1.5, 0.0), seed=1), Fraction(24))
    return path


@pytest.fixture(scope="session")
def sample_bucket(shared_folder: Path) -> Path:
    """The generated files of the sample bucket. Nobody may change it."""
    folder = shared_folder / "sample" / "bucket"
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder.with_suffix(".lock")):
        make_sample_bucket(folder, real=False)
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium for the tests of one file."""
    from browser_kit import chromium

    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def offline(browser: Any) -> Iterator[Any]:
    """A tab without a network, in which the tests of a file load a page each."""
    from browser_kit import tab

    with tab(browser, offline=True) as found:
        yield found


@pytest.fixture
def memory_bucket() -> Iterator[str]:
    """An empty remote place."""
    fs = fsspec.filesystem("memory")
    fs.store.clear()
    fs.pseudo_dirs[:] = [""]
    yield "memory://bucket"
    fs.store.clear()
    fs.pseudo_dirs[:] = [""]
