"""The paper's recipe through Ray gives what the inline engine gives: every stage runs its real code, as in test_svd."""

from __future__ import annotations

import pytest
from engine_kit import all_cells
from svd_kit import CLIPS_A_FILM, SMALL, TEXT_FILM, made, pipeline, small_models, write_films

pytestmark = pytest.mark.ray


def test_ray_gives_the_same_cells(tmp_path, monkeypatch):
    small_models(tmp_path / "models", monkeypatch)
    (tmp_path / "bucket").mkdir()
    bucket = write_films(tmp_path / "bucket", (1, 3, 5, TEXT_FILM))
    found = {engine: made(bucket, tmp_path / engine, engine, SMALL) for engine in ("inline", "ray")}
    cells = {engine: all_cells(out, pipeline(SMALL)) for engine, out in found.items()}
    assert cells["ray"] == cells["inline"]
    assert len(cells["ray"]["caption.chosen"]) == len(cells["ray"]["clips"]) == 4 * CLIPS_A_FILM
