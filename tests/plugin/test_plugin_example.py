"""The example package of docs/examples: a stage from outside, installed beside the core and named by a recipe."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from curate.job import JobOptions, run_job
from curate.query import RunTables, connect, last_run
from curate.recipe import build, load_recipe, parse_recipe
from curate.stages.registry import stage_names
from curate.tables import Corpus
from curate.testing.footage import write_video
from curate.watch.listener import JobListener

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "curate-stage-brightness"
RECIPE = EXAMPLE / "bright.yaml"
LEVELS = [80 + 80 * i / 47 for i in range(48)] + [20] * 36
"""Mean level of each frame: two seconds that become brighter, then a dark shot of one and a half."""


class Silent(JobListener):
    """Cares for nothing."""


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example, installed into a folder of its own from a copy (building leaves files beside the sources)."""
    folder = tmp_path_factory.mktemp("plugin")
    shutil.copytree(EXAMPLE, folder / "source")
    offline = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--target"]
    pip = [sys.executable, "-m", "pip", "install", *offline]
    subprocess.run([*pip, str(folder / "site"), str(folder / "source")], check=True)
    return folder / "site"


@pytest.fixture(scope="session")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """256x144 px at 24 frames/s, grey, of LEVELS."""
    bucket = tmp_path_factory.mktemp("bucket")
    rng = np.random.default_rng(1)
    patterns = [np.kron(sign, np.ones((16, 16)))[..., None].repeat(3, 2) for sign in rng.choice((-15, 15), (2, 9, 16))]
    patterns = [pattern - pattern.mean() for pattern in patterns]
    frames = (np.rint(level + patterns[i >= 48]).astype(np.uint8) for i, level in enumerate(LEVELS))
    write_video(bucket / "ramp.mp4", frames, Fraction(24))
    return bucket / "ramp.mp4"


def python(installed: Path, *arguments: str) -> str:
    """What a Python with the plug-in on its path prints."""
    env = {**os.environ, "PYTHONPATH": str(installed), "COLUMNS": "200"}
    done = subprocess.run([sys.executable, *arguments], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def curate(installed: Path, *arguments: str) -> str:
    return python(installed, "-m", "curate.cli.main", *arguments)


def rows(corpus: Corpus, columns: Sequence[str]) -> list[Mapping[str, Any]]:
    """The clips of the last run in order of time."""
    with connect() as con:
        tables = RunTables(con, corpus, last_run(corpus))
        return con.sql(tables.wide_sql(["clip.start_s", *columns])).order('"clip.start_s"').to_arrow_table().to_pylist()


def parts(corpus: Corpus) -> dict[str, set[str]]:
    """Part files by stage and fingerprint."""
    cells = Path(corpus.uri) / "tables" / "cells"
    folders = {path.parent for path in cells.rglob("*.parquet")}
    return {str(folder.relative_to(cells)): {path.name for path in folder.iterdir()} for folder in folders}


def core_recipe() -> str:
    """The example's recipe without its own stage."""
    data = yaml.safe_load(RECIPE.read_text())
    data["stages"] = [entry for entry in data["stages"] if "brightness" not in entry]
    data["select"]["conditions"] = []
    return yaml.safe_dump(data)


@pytest.fixture(scope="session")
def story(installed: Path, video: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Corpus, dict[str, set[str]]]:
    """A corpus scored by the core alone, then with the plug-in's stage added; with its parts as they were before."""
    corpus = Corpus(str(tmp_path_factory.mktemp("out") / "corpus"))
    options = JobOptions(corpus.uri, engine="inline", export=False)
    run_job([str(video)], parse_recipe(core_recipe(), "core"), options, Silent())
    before = parts(corpus)
    curate(installed, "run", str(video), "--out", corpus.uri, "--recipe", str(RECIPE), "--engine", "inline")
    return corpus, before


def test_cells_of_the_plug_in_are_there_and_right(story):
    corpus, _ = story
    found = rows(corpus, ["clip.end_s", "brightness.outcome", "brightness.mean_levels", "brightness.rise_levels"])
    assert [(row["clip.start_s"], row["clip.end_s"]) for row in found] == [(0.0, 2.0), (2.0, 3.5)]
    assert [row["brightness.outcome"] for row in found] == ["ok", "ok"]
    # First, middle and last frame on the grid of 1/4 s, which is every sixth frame.
    ramp = [LEVELS[frame] for frame in (0, 24, 42)]
    assert found[0]["brightness.mean_levels"] == pytest.approx(sum(ramp) / 3, abs=1.5)
    assert found[0]["brightness.rise_levels"] == pytest.approx(ramp[2] - ramp[0], abs=1.5)
    assert found[1]["brightness.mean_levels"] == pytest.approx(20, abs=1.5)
    assert found[1]["brightness.rise_levels"] == pytest.approx(0, abs=1.5)


def test_recipe_selects_and_exports_by_the_plug_in(story):
    corpus, _ = story
    bright, dark = (row["brightness.mean_levels"] for row in rows(corpus, ["brightness.mean_levels"]))
    assert dark < 40 < bright
    with connect() as con:
        place = Path(corpus.uri) / "selections" / "bright" / "selection.parquet"
        verdicts = con.sql(f"SELECT verdict, reason FROM read_parquet('{place}') ORDER BY verdict").fetchall()
        sidecars = Path(corpus.uri) / "shards" / "bright" / "*" / "*.parquet"
        exported = con.sql(f"""SELECT "brightness.mean_levels" FROM read_parquet('{sidecars}')""").fetchall()
    assert [verdict for verdict, _ in verdicts] == ["dropped", "kept"]
    assert "brightness.mean_levels" in verdicts[0][1]
    assert exported == [(bright,)]


def test_adding_the_stage_computes_nothing_else(story):
    corpus, before = story
    after = parts(corpus)
    added = {name for name in after if after[name] != before.get(name)}
    assert [name.split("/")[0] for name in added] == ["brightness"]
    assert set(before) < set(after)


def test_fingerprints_of_core_stages_do_not_change(installed):
    shown = curate(installed, "recipes", "show", str(RECIPE))
    alone = build(parse_recipe(core_recipe(), "core")).stages()
    assert all(re.search(rf"^# {stage.name} {fingerprint}: ", shown, re.MULTILINE) for _, stage, fingerprint in alone)
    embedded = curate(installed, "recipes", "show", "embedded")
    fingerprints = [fingerprint for *_, fingerprint in build(load_recipe("embedded")).stages()]
    assert all(fingerprint in embedded for fingerprint in fingerprints)


def test_recipes_show_lists_the_stage_with_its_columns(installed):
    shown = curate(installed, "recipes", "show", str(RECIPE))
    assert re.search(r"^# brightness [0-9a-f]{16}: mean_levels, rise_levels", shown, re.MULTILINE)
    assert "brightness" not in stage_names()  # not installed in this process: it came by the entry point alone


def test_stage_keeps_the_contract(installed):
    code = (
        "from curate.testing.contract import check_stage\n"
        "from curate_stage_brightness import Brightness, BrightnessConfig\n"
        "check_stage(Brightness(BrightnessConfig()))\n"
        "print('kept')"
    )
    assert python(installed, "-c", code).strip() == "kept"
