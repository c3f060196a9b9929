"""The paper's recipe as it ships, over real films, on small checkpoints of every model; nothing is set.

Not found by name, since users have not the films: `make test-real FOOTAGE=folder WEIGHTS=folder`.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_kit import curate
from engine_kit import all_cells
from svd_kit import (
    AXES,
    cells_by_stage,
    cells_of,
    computed_twice,
    funnel_of,
    kept_and_expected,
    killed,
    made,
    manifest_of,
    pipeline,
    rows_of,
    small_models,
    unfit_captions,
)

AS_IT_SHIPS: list[str] = []


@pytest.fixture(scope="module")
def done(footage, tmp_path_factory) -> Path:
    """The corpus that the inline engine makes."""
    with pytest.MonkeyPatch.context() as patch:
        small_models(tmp_path_factory.mktemp("models"), patch)
        yield made(footage, tmp_path_factory.mktemp("inline") / "corpus", "inline", AS_IT_SHIPS)


def films_of(out: Path) -> list[str]:
    """The film of every clip."""
    return [row["source_digest"] for row in rows_of(out.glob("tables/clips/*/*.parquet"))]


def test_every_clip_has_every_cell_and_the_caption_that_fits_best(done):
    films = films_of(done)
    found = cells_by_stage(done, AS_IT_SHIPS)
    print(f"{len(films)} clips of {len(set(films))} films, cells: {found}")
    assert len(set(films)) >= 2
    assert set(found.values()) == {len(films)}
    assert manifest_of(done)["counts"]["cells_failed"] == 0
    assert unfit_captions(done) == []


def test_the_funnel_says_what_independent_axes_would_keep(done):
    told = curate("select", done)
    print(told.out)
    funnel = funnel_of(done)
    assert {each["name"] for each in funnel["conditions"]} == AXES
    retention = funnel["retention"]
    assert (retention["joint"], retention["product"]) == pytest.approx(kept_and_expected(done))
    assert "expected if they were independent" in told.out


def test_ray_gives_the_same_cells(done, footage, tmp_path):
    other = made(footage, tmp_path / "corpus", "ray", AS_IT_SHIPS)
    assert all_cells(other, pipeline(AS_IT_SHIPS)) == all_cells(done, pipeline(AS_IT_SHIPS))


def test_killed_midway_and_run_again_nothing_that_was_done_is_done_again(done, footage, tmp_path):
    out = tmp_path / "corpus"
    killed(footage, out, AS_IT_SHIPS)
    before, whole = cells_by_stage(out, AS_IT_SHIPS), cells_by_stage(done, AS_IT_SHIPS)
    assert 0 < before["caption.fused"] < whole["caption.fused"]
    made(footage, out, "inline", AS_IT_SHIPS)
    assert all_cells(out, pipeline(AS_IT_SHIPS)) == all_cells(done, pipeline(AS_IT_SHIPS))
    again = {name: use["items"] for name, use in manifest_of(out)["stage_use"].items()}
    twice = computed_twice(out, AS_IT_SHIPS)
    print(f"cells before the kill: {before}\ncells computed after it: {again}\ntwice, by film: {dict(twice)}")
    assert set(again) <= set(whole)
    assert all(before[name] + again[name] >= whole[name] for name in again)
    assert len(twice) <= 1, "the film that was read when the run died"
    largest = max(films_of(done).count(film) for film in films_of(done))
    assert all(before[name] + again[name] - whole[name] <= largest for name in again)
    assert len(cells_of(out, "caption.fused")) == whole["caption.fused"]
