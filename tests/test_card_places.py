"""The dataset card says what, never where: no address, path or file name is told, wherever it stands in a text."""

from __future__ import annotations

import pytest
import yaml

from curate.datafiles import recipe_files
from curate.export.provenance import without_places
from curate.recipe import load_recipe


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("/films/ACME Corp/Secret project (unreleased)/take 1.mp4 is gone", "***"),
        ("read s3://bucket/a b", "read ***"),
        ("as `/data/a b` says", "as `***"),
        ("<{/data/a b}>", "<{***"),
        ("one |/data/a b", "one |***"),
        ("a dash \u2013/data/a b", "a dash \u2013***"),
        ("asked host:8000/v1 twice", "asked ***"),
        ("asked gpu-box:8000 twice", "asked ***"),
        ("asked models.acme.test/v1", "asked ***"),
        ("ACME Corp/Secret project/take 1.mp4", "***"),
        ("films\\secret", "***"),
        ("x above 16/9 and/or 0.5 /s", "x above 16/9 and/or 0.5 ***"),
        ("~/films is gone", "***"),
        ("C:\\films\\a.mp4", "***"),
        ("duration 3 m/s", "duration 3 m/s"),
        ("16:9 at 25/1.001 frames/s", "16:9 at 25/1.001 frames/s"),
    ],
)
def test_places_are_not_told(text, told):
    assert without_places({"a": [text, 1]}) == {"a": [told, 1]}


@pytest.mark.parametrize("name", sorted(recipe_files()))
def test_a_recipe_of_ours_is_told_whole(name):
    recipe = yaml.safe_load(load_recipe(name).to_text())
    assert without_places(recipe) == recipe
