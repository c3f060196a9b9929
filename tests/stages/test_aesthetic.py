"""LAION's heads in both of their formats, against the same arithmetic written out and run by torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from clip_kit import OPENAI_LIKE, add_head, add_open_clip, mlp_head
from model_kit import ModelKit

from curate.engine.pipeline import build_pipeline
from curate.errors import ConfigError, ModelFileError
from curate.records import Outcome
from curate.stages.aesthetic import Aesthetic, AestheticConfig
from curate.stages.clip import Clip, ClipConfig
from curate.stages.registry import stage_class

LENGTH = 768


@pytest.fixture
def kit(tmp_path, monkeypatch):
    return ModelKit(tmp_path, monkeypatch)


def made(kit, tmp_path, state, head, length=LENGTH, family="openai"):
    add_head(kit, head, state, tmp_path / "made" / head, head=head, embedding=length, family=family)
    stage = Aesthetic(AestheticConfig(model=head))
    stage.setup()
    return stage


def item_of(clip_item, vectors):
    return clip_item(cells={"clip": dict(zip(("first", "middle", "last"), vectors, strict=True))})


def halves(seed, length=LENGTH):
    vectors = np.random.default_rng(seed).normal(size=(3, length))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)


def test_the_linear_head_by_hand(kit, tmp_path, clip_item):
    """Weights 1, 2, 3 ... over vectors of one number each: the rating is that weight plus the bias."""
    weight = torch.arange(1, LENGTH + 1, dtype=torch.float32)[None] / 100
    stage = made(kit, tmp_path, {"weight": weight, "bias": torch.tensor([2.5])}, "linear")
    unit = np.eye(LENGTH, dtype=np.float16)
    both = (unit[9] + unit[19]) * np.float16(0.5)
    values = stage.score(item_of(clip_item, [unit[0], unit[299], both]))
    assert values["scores"] == pytest.approx([2.51, 5.5, 2.5 + (0.1 + 0.2) / 2**0.5], abs=1e-6)


def test_the_mlp_head_by_hand(kit, tmp_path, clip_item):
    """Every layer passes on one number, doubled, plus one: ((((x*2+1)*2+1)*2+1)*2+1)*2+1, negative numbers too."""
    state = {name: torch.zeros_like(value) for name, value in mlp_head(LENGTH).items()}
    for number in (0, 2, 4, 6, 7):
        state[f"layers.{number}.weight"][0, 0] = 2.0
        state[f"layers.{number}.bias"][0] = 1.0
    stage = made(kit, tmp_path, state, "mlp")
    unit = np.eye(LENGTH, dtype=np.float16)
    values = stage.score(item_of(clip_item, [unit[0], -unit[0], unit[1]]))
    assert values["scores"] == [32 + 31, -32 + 31, 31]


def test_the_mlp_head_equals_the_authors_network(kit, tmp_path, clip_item):
    """Linear layers and drop-outs in evaluation, as the published predictor is written."""
    nn = torch.nn
    layers = [nn.Linear(LENGTH, 1024), nn.Dropout(0.2), nn.Linear(1024, 128), nn.Dropout(0.2), nn.Linear(128, 64)]
    network = nn.ModuleDict(
        {"layers": nn.Sequential(*layers, nn.Dropout(0.1), nn.Linear(64, 16), nn.Linear(16, 1))}
    ).eval()
    state = mlp_head(LENGTH, seed=3)
    network.load_state_dict(state)
    stage = made(kit, tmp_path, state, "mlp")
    vectors = halves(1)
    x = torch.from_numpy(vectors.astype(np.float32))
    with torch.no_grad():
        expected = network["layers"](torch.nn.functional.normalize(x, dim=-1))[:, 0].numpy()
    np.testing.assert_allclose(stage.score(item_of(clip_item, vectors))["scores"], expected, rtol=1e-5, atol=1e-5)


def test_length_of_an_embedding_does_not_matter(kit, tmp_path, clip_item):
    stage = made(kit, tmp_path, mlp_head(LENGTH), "mlp")
    vectors = halves(2).astype(np.float32)
    near = stage.score(item_of(clip_item, vectors))["scores"]
    assert stage.score(item_of(clip_item, vectors * 7))["scores"] == pytest.approx(near, rel=1e-5)


def test_batch_order_and_tables_change_nothing(kit, tmp_path, clip_item):
    stage = made(kit, tmp_path, mlp_head(LENGTH), "mlp")
    items = [item_of(clip_item, halves(seed)) for seed in range(3)]
    alone = [stage.process([item])[0].values for item in items]
    assert [cell.values for cell in stage.process(items[::-1])][::-1] == alone
    listed = [item_of(clip_item, halves(seed).astype(float).tolist()) for seed in range(3)]
    assert [cell.values for cell in stage.process(listed)] == alone


def test_an_embedding_of_another_length_fails_alone(kit, tmp_path, clip_item):
    stage = made(kit, tmp_path, mlp_head(LENGTH), "mlp")
    cells = stage.process([item_of(clip_item, halves(1)), item_of(clip_item, halves(1, 512))])
    assert [cell.outcome for cell in cells] == [Outcome.OK, Outcome.FAILED]
    assert cells[1].failure.message == "an embedding of 512 numbers, the head reads 768"


@pytest.mark.parametrize(
    ("state", "head", "words"),
    [
        (mlp_head(LENGTH), "linear", "is no linear head"),
        ({"weight": torch.zeros(1, LENGTH), "bias": torch.zeros(1)}, "mlp", "is no mlp head"),
        ({"weight": torch.zeros(1, 512), "bias": torch.zeros(1)}, "linear", "after 768 numbers"),
        ({"weight": torch.zeros(2, LENGTH), "bias": torch.zeros(2)}, "linear", "gives 2 numbers"),
        ({**mlp_head(LENGTH), "layers.9.running": torch.zeros(1)}, "mlp", "is no mlp head"),
    ],
)
def test_a_file_that_is_no_such_head_is_refused(kit, tmp_path, state, head, words):
    with pytest.raises(ModelFileError, match=words):
        made(kit, tmp_path, state, head)


def test_a_head_of_another_family_is_refused_before_anything_is_read(kit, tmp_path):
    add_open_clip(kit, "small", OPENAI_LIKE, tmp_path / "small")
    heads = {"fits": (24, "kit"), "longer": (32, "kit"), "foreign": (24, "openai")}
    for name, (length, family) in heads.items():
        state = {"weight": torch.zeros(1, length), "bias": torch.zeros(1)}
        add_head(kit, name, state, tmp_path / "heads" / name, head="linear", embedding=length, family=family)
    above = [stage_class(name)(stage_class(name).config_type()) for name in ("probe", "cut")]
    above.append(Clip(ClipConfig(model="small")))
    assert build_pipeline([*above, Aesthetic(AestheticConfig(model="fits"))]).steps[-1].stage.name == "aesthetic"
    for name in ("longer", "foreign"):
        with pytest.raises(ConfigError, match=rf"'{name}' rates .* `clip` gives kit ones of 24 \('small'\)"):
            build_pipeline([*above, Aesthetic(AestheticConfig(model=name))])


def test_the_head_needs_no_image(kit, tmp_path):
    stage = made(kit, tmp_path, mlp_head(LENGTH), "mlp")
    assert (stage.views(), stage.reads, stage.resources.gpus) == ({}, ("clip",), 0)
