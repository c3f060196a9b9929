"""What a stage begins with: at random from the recipe's seed, and the same encoders each time."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from train_kit import image_unet, small_recipe

from curate.train.encoders import Encoders
from curate.train.network import part_of
from curate.train.parts import start
from curate.train.recipe import TrainRecipe, parse_train_recipe


def recipe(kind: str = "image", seed: int = 0) -> TrainRecipe:
    return parse_train_recipe(yaml.safe_dump(small_recipe(kind, seed=seed)), "test")


@pytest.fixture(scope="module")
def stable_diffusion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder laid out as Stable Diffusion 2.1's, small."""
    folder = tmp_path_factory.mktemp("sd")
    image_unet().save_pretrained(folder / "unet")
    Encoders.tiny().save(folder)
    return folder


@pytest.mark.parametrize("inflated", [True, False])
def test_what_begins_at_random_is_drawn_from_the_seed_alone(stable_diffusion, inflated):
    init = str(stable_diffusion) if inflated else ""
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = start(recipe(), init).unet.state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    again, other = (start(recipe(seed=seed), init).unet.state_dict() for seed in (0, 7))
    assert all(torch.equal(again[name], first[name]) for name in first)
    differ = {part_of(name) for name in first if not torch.equal(other[name], first[name])}
    assert differ == ({"temporal", "vector"} if inflated else {"spatial", "temporal", "vector"})
