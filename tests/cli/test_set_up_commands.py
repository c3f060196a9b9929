"""`curate recipes` and `doctor`."""

from __future__ import annotations

import re

import pytest
from cli_kit import RECIPE, curate


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


def test_doctor_says_what_is_missing_and_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("CURATE_MODELS", str(tmp_path / "models"))
    ended = curate("doctor")
    assert ended.status == 1
    assert "✗ model          pp-ocr-det: ch_PP-OCRv4_det_infer.onnx missing" in ended.out
    assert "→ Run `curate models fetch pp-ocr-det`" in ended.out
    for what in ("python", "processors", "memory", "scratch", "PyAV", "encoder", "ray", "model folder"):
        assert f" {what} " in ended.out


def test_doctor_is_content_with_a_machine_that_has_the_models_of_the_default_recipe():
    ended = curate("doctor")
    assert (ended.status, "✗" in ended.out) == (0, False)
    assert "✓ model          pp-ocr-det: 4.5 MiB, yes" in ended.out
    assert re.search(r"not here: .*coca-vit-l-14", ended.out)
    assert re.search(r"view +curate view \(pip install 'curate-video\[view\]'\): yes", ended.out)
