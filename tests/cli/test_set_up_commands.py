"""`curate models`, `recipes`, `doctor`."""

from __future__ import annotations

import hashlib

import pytest
from cli_kit import RECIPE, curate

from curate.weights import cards

CARD = """\
name: tiny
purpose: a test
licence: Apache-2.0
files:
  - {{name: tiny.bin, sha256: {sha256}, size_bytes: 4, sources: ["file:{source}"]}}
input: nothing
output: nothing
memory_bytes: 1
needed_by: [quality]
"""


@pytest.fixture
def card(tmp_path, monkeypatch):
    """One card whose file lies on this machine, and an empty model folder; gives that folder."""
    source = tmp_path / "source.bin"
    source.write_bytes(b"tiny")
    folder = tmp_path / "cards"
    folder.mkdir()
    text = CARD.format(sha256=hashlib.sha256(b"tiny").hexdigest(), source=source)
    (folder / "tiny.yaml").write_text(text)
    monkeypatch.setattr(cards, "find_data_dir", lambda _: folder)
    monkeypatch.setenv("CURATE_MODELS", str(tmp_path / "models"))
    return tmp_path / "models"


def test_models_are_listed_fetched_and_verified(card):
    listed = curate("models", "list")
    assert listed.out.splitlines()[1].split() == ["tiny", "quality", "4", "B", "Apache-2.0", "no"]
    missing = curate("models", "verify")
    assert (missing.status, "tiny/tiny.bin: missing" in missing.out) == (1, True)
    assert "Run `curate models fetch`" in missing.out
    fetched = curate("models", "fetch", "tiny")
    assert (fetched.status, "tiny/tiny.bin: from file:" in fetched.out) == (0, True)
    assert "already here" in curate("models", "fetch").out
    assert curate("models", "verify").status == 0
    assert curate("models", "list").out.splitlines()[1].split()[-1] == "yes"
    (file,) = card.rglob("tiny.bin")
    file.write_bytes(b"tinY")
    wrong = curate("models", "verify", "tiny")
    assert (wrong.status, "tiny/tiny.bin: wrong digest" in wrong.out) == (1, True)


def test_a_source_that_gives_nothing_ends_with_1(card, tmp_path):
    (tmp_path / "source.bin").unlink()
    ended = curate("models", "fetch")
    assert (ended.status, "no source gave 'tiny.bin'" in ended.err) == (1, True)


def test_an_unknown_card_names_the_nearest(card):
    ended = curate("models", "fetch", "tinny")
    assert (ended.status, "'tiny'" in ended.err) == (2, True)


def test_recipes_are_listed():
    ended = curate("recipes", "list")
    assert ended.status == 0
    assert any(line.startswith("embedded ") for line in ended.out.splitlines())


def test_what_recipes_show_prints_is_a_recipe(tmp_path):
    ended = curate("recipes", "show", "embedded", "--set", "cut.min_len_s=3")
    assert ended.status == 0
    mine = tmp_path / "mine.yaml"
    mine.write_text(ended.out)
    assert "min_len_s: 3" in ended.out
    assert curate("recipes", "show", mine).out == ended.out
    valid = curate("recipes", "validate", mine)
    assert (valid.status, "is right: probe, cut, motion" in valid.out) == (0, True)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("min_len_s", "min_lenght_s"), "unknown key 'cut.min_lenght_s', did you mean 'min_len_s'?"),
        (("quality]", "qualty]"), "did you mean 'quality'?"),
        (("conditions", "condition"), "unknown key 'recipe.select.condition', did you mean 'conditions'?"),
        (("min: 0.0", "min: much"), "conditions.0.min"),
        (("stages: [", "stages: ]"), "is not YAML"),
    ],
)
def test_a_wrong_recipe_ends_with_2_and_one_line(tmp_path, change, said):
    path = tmp_path / "mine.yaml"
    path.write_text(RECIPE.replace(*change))
    ended = curate("recipes", "validate", path)
    assert ended.status == 2
    assert said in ended.err
    assert ended.err.count("\n") == 1


def test_doctor_says_what_is_missing_and_how_to_get_it(card):
    ended = curate("doctor")
    assert ended.status == 1
    assert "✗ model          tiny: tiny.bin missing  → Run `curate models fetch tiny`" in ended.out
    for what in ("python", "processors", "memory", "scratch", "PyAV", "encoder", "ray", "model folder"):
        assert f" {what} " in ended.out


def test_doctor_is_content_with_a_machine_that_has_all(card):
    curate("models", "fetch")
    ended = curate("doctor")
    assert (ended.status, "✗" in ended.out) == (0, False)
