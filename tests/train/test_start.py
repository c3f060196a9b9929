"""What a stage begins with: at random from the recipe's seed, and the same encoders each time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from clips_kit import make_set, usual
from train_kit import image_unet, small_recipe, smallest_model

from curate.errors import ConfigError
from curate.train.encoders import Encoders
from curate.train.network import part_of
from curate.train.parts import start
from curate.train.recipe import TrainRecipe, parse_train_recipe
from curate.train.run import Job, train


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


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("set")
    make_set(str(folder / "set"), usual(9, frames=6), folder)
    return str(folder / "set")


@pytest.mark.parametrize(("kind", "part"), [("image-to-video", "image"), ("video", "codec")])
def test_a_run_goes_on_with_the_encoders_that_it_began_with(data, tmp_path, kind, part):
    """Told by what they compute, not by the folder's name; a model that the stage does not use may be another. Beside
    a network at random, or in place of those of the folder that the stage starts from."""
    init = smallest_model(tmp_path / "init") if kind == "video" else ""
    tiny, another = Encoders.tiny(), Encoders.tiny(seed=1)
    another.codec.vae.decoder.conv_in.bias.data[0] += 1e-3
    unused = "image" if kind == "video" else "text"
    tiny.save(tmp_path / "own")
    replace(tiny, **{unused: getattr(another, unused)}).save(tmp_path / "same")
    replace(tiny, **{part: getattr(another, part)}).save(tmp_path / "other")

    def trained(steps: int, encoders: str) -> int:
        stage = parse_train_recipe(yaml.safe_dump(small_recipe(kind, steps=steps)), "test")
        job = Job(stage, data, tmp_path / "run", init, str(tmp_path / encoders), device="cpu")
        return train(job).step

    assert trained(1, "own") == 1
    with pytest.raises(ConfigError, match="another recipe or start: --encoders differs"):
        trained(2, "other")
    assert trained(2, "same") == 2
