"""A recipe that grows and changes over one corpus: what is computed is what is new, and nothing else."""

from __future__ import annotations

import shutil
from fractions import Fraction
from itertools import chain
from pathlib import Path

import pytest
from engine_kit import all_cells
from job_kit import do, table_files
from model_kit import fetch_packaged

from curate.recipe import Recipe, build, parse_recipe
from curate.testing.footage import moving_object, moving_texture, text_card, write_video

FIRST = """
name: grows
stages: [probe, cut, motion, quality, features]
select: {name: grows, conditions: [{column: motion.freeze_ratio, max: 0.9}]}
export: {caption: ""}
"""
MORE = FIRST.replace("features]", "features, text, caption.template]")
GATED = MORE.replace("features, text", "features, gate: {column: motion.speed_width_s, max: LIMIT}, text")
N_CLIPS = 5


@pytest.fixture(scope="module")
def films(tmp_path_factory) -> Path:
    """Three shots in one film, of which the first and last are quick, a card, and a tripod shot: five clips."""
    fetch_packaged()
    folder = tmp_path_factory.mktemp("films")
    size, rate = (320, 180), Fraction(25)
    quick = moving_texture(50, *size, (-1.5, 0), seed=1), moving_texture(50, *size, (0, 1.5), seed=3)
    write_video(folder / "shots.mp4", chain(quick[0], moving_object(50, *size, seed=2), quick[1]), rate)
    write_video(folder / "card.mp4", text_card(50, *size, "NEWS OF TODAY\nAND TOMORROW"), rate)
    write_video(folder / "tripod.mp4", moving_object(50, *size, seed=4), rate)
    return folder


@pytest.fixture(scope="module")
def grown(films, tmp_path_factory) -> Path:
    """A corpus in which `text` and the captions are not computed yet."""
    out = tmp_path_factory.mktemp("grown") / "corpus"
    do([films], out, recipe(FIRST))
    return out


@pytest.fixture
def out(grown, tmp_path) -> Path:
    """A copy of it, to be changed."""
    return Path(shutil.copytree(grown, tmp_path / "corpus"))


def recipe(text: str, *overrides: str) -> Recipe:
    return parse_recipe(text, "test", overrides)


def computed(films: Path, out: Path, chosen: Recipe) -> dict[str, set[str]]:
    """By clip, the stages of which a run computes cells; the tables must have grown by just these."""
    before = table_files(out)
    _, heard = do([films], out, chosen)
    after = table_files(out)
    assert before.items() <= after.items()
    new = {name.split("/")[1] for name in set(after) - set(before) if name.startswith("cells")}
    assert new == heard.computed
    return heard.missing


def test_adding_stages_computes_only_them_and_gives_what_a_whole_run_gives(films, out, tmp_path):
    added = computed(films, out, recipe(MORE))
    assert len(added) == N_CLIPS and all(stages == {"text", "caption.template"} for stages in added.values())
    do([films], tmp_path / "at once", recipe(MORE))
    pipe = build(recipe(MORE))
    assert all_cells(out, pipe) == all_cells(tmp_path / "at once", pipe)


def test_a_changed_parameter_computes_the_stage_and_what_reads_it(films, out):
    do([films], out, recipe(MORE))
    again = computed(films, out, recipe(MORE, "text.unclip_ratio=1.8"))
    assert len(again) == N_CLIPS and all(stages == {"text", "caption.template"} for stages in again.values())
    assert computed(films, out, recipe(MORE)) == {}, "the earlier cells are still there"


def test_a_changed_parameter_that_nobody_reads_computes_that_stage_alone(films, out):
    again = computed(films, out, recipe(FIRST, "motion.static_width_s=0.005"))
    assert len(again) == N_CLIPS and all(stages == {"motion"} for stages in again.values())


def test_a_loosened_gate_computes_only_the_clips_it_opened(films, out):
    first = computed(films, out, recipe(GATED.replace("LIMIT", "0.03")))
    opened = computed(films, out, recipe(GATED.replace("LIMIT", "10")))
    assert (len(first), len(opened)) == (3, 2) and not set(first) & set(opened)
    assert computed(films, out, recipe(MORE)) == {}
    assert computed(films, out, recipe(GATED.replace("LIMIT", "0.03"))) == {}


def test_what_selection_and_export_say_computes_nothing(films, out):
    changes = ["select.conditions.motion.freeze_ratio.max=0.1", "select.dedup.hamming=5", "export.crf=30"]
    assert computed(films, out, recipe(FIRST, *changes)) == {}
