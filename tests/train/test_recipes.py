"""The recipes that ship, against the paper's numbers: written out here, from SVD_SPEC 2.2 and 2.3."""

from __future__ import annotations

import pytest

from curate.datafiles import recipe_path
from curate.shards.buckets import Bucket, bucket_of
from curate.train.recipe import TrainRecipe, load_train_recipe

CAPTIONS = {"caption.coca.caption": 0.5, "caption.vblip.caption": 0.25, "caption.chosen.caption": 0.25}
# kind, width x height x frames, (p_mean, p_std), what learns, steps, and batch, lr, ema where published
STAGES = {
    "image-time": ("image", (512, 512, 1), (-1.2, 1.0), "time_embedding", 1_000),
    "image": ("image", (384, 256, 1), (-1.2, 1.0), "spatial", 30_000),
    "video-256x384": ("video", (384, 256, 14), (-1.2, 1.0), "all", 150_000, 1536, 1e-4),
    "video-320x576": ("video", (576, 320, 14), (0.0, 1.0), "all", 100_000, 768, 1e-4),
    "image-to-video-320x576": ("image-to-video", (576, 320, 14), (0.7, 1.6), "all", 50_000, 768, 3e-5),
    "image-to-video-576x1024": ("image-to-video", (1024, 576, 14), (1.0, 1.6), "all", 50_000, 768, 3e-5, 0.9999),
    "image-to-video-576x1024x25": ("image-to-video", (1024, 576, 25), (1.0, 1.6), "all", 50_000, 768, 3e-5, 0.9999),
}


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_is_the_papers(name):
    recipe = load_train_recipe(name)
    found = recipe.kind, size(recipe), (recipe.objective.p_mean, recipe.objective.p_std)
    published = (recipe.data.batch, recipe.optimiser.lr, recipe.ema)
    n_known = len(STAGES[name]) - 5
    assert (*found, recipe.trainable, recipe.steps, *published[:n_known]) == STAGES[name]
    assert (recipe.name, recipe.network, recipe.objective.kind) == (name, "svd", "edm")
    assert (recipe.augmentation.p_mean, recipe.augmentation.p_std) == (-3.0, 0.5)
    assert recipe.optimiser.lr_scale == {}
    assert recipe.dropout == 0.15  # published for the text-to-video stages, ours for the others
    assert recipe.data.captions == ({} if recipe.kind == "image-to-video" else CAPTIONS)
    assert recipe.data.motion == ("" if recipe.kind == "image" else "motion_score")


def size(recipe: TrainRecipe) -> tuple[int, int, int]:
    """Of the largest bucket, which is the only one: each key of the sizes has one value."""
    buckets = recipe.data.buckets
    assert len(buckets.short_sides_px) == len(buckets.aspects) == len(buckets.frames) == 1
    name, why_not = bucket_of(4096, 2304, 100, buckets)
    assert name, why_not
    return tuple(Bucket.parse(name))


def test_every_recipe_that_ships_is_in_the_table_or_tiny():
    names = {path.stem for path in recipe_path("image", "train").parent.glob("*.yaml")}
    assert {name for name in names if not name.startswith("tiny-")} == set(STAGES)
    kinds = {name: load_train_recipe(name).kind for name in names - set(STAGES)}
    assert kinds == {f"tiny-{kind}": kind for kind in ("image", "video", "image-to-video")}
