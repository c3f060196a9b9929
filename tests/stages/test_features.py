"""The features stage: equal to the network's own package, hashes that survive re-encoding."""

import json
from pathlib import Path

import cv2
import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from efficientnet_lite_pytorch import EfficientNet
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.records import Outcome
from curate.stages.features import Features, FeaturesConfig, phash
from curate.tables import cells_table
from curate.weights.store import path_of


@pytest.fixture(scope="module")
def stage(weights):
    made = Features(FeaturesConfig())
    made.setup()
    return made


def picture(seed, size_px=224):
    """A soft random picture with structure at all sizes, RGB."""
    rng = np.random.default_rng(seed)
    layers = [cv2.resize(rng.normal(0, 60 / k, (4 * k, 4 * k, 3)), (size_px, size_px)) for k in (1, 2, 4, 8)]
    return np.clip(128 + sum(layers), 0, 255).astype(np.uint8)


def luma(rgb):
    return cv2.resize(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), (32, 32), interpolation=cv2.INTER_AREA)


def item_of(clip_item, rgb, ends=None):
    return clip_item(views={"middle": rgb[None], "ends": ends if ends is not None else [luma(rgb)] * 3})


def upstream(rgb):
    """Pooled features and logits as the package computes them when its model is called."""
    model = EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=path_of("efficientnet-lite0", "efficientnet-lite0-57934424.pth")
    ).eval()
    pooled = []
    model._fc.register_forward_pre_hook(lambda module, inputs: pooled.append(inputs[0]))
    with torch.no_grad():
        logits = model(torch.from_numpy(rgb.transpose(2, 0, 1)[None].astype(np.float32) - 127) / 128)
    return pooled[0][0].numpy(), torch.softmax(logits, 1)[0].numpy()


def test_equals_the_packages_own_output(stage):
    rgb = picture(3)
    features, probabilities = stage.look(rgb)
    own_features, own_probabilities = upstream(rgb)
    np.testing.assert_allclose(features, own_features, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(probabilities, own_probabilities, rtol=1e-4, atol=1e-6)


def test_names_are_the_classes_above_the_bound(weights, clip_item):
    names = json.loads(Path(path_of("efficientnet-lite0", "imagenet1k_label_to_names.json")).read_text())
    low = Features(FeaturesConfig(min_probability=0.01))
    low.setup()
    rgb = picture(5)
    values = low.score(item_of(clip_item, rgb))
    _, probabilities = low.look(rgb)
    best = names[str(int(probabilities.argmax()))].split(",")[0]
    assert values["classes"][0] == best
    assert values["class_probs"] == sorted(values["class_probs"], reverse=True)
    assert all(p > 0.01 for p in values["class_probs"])
    assert len(set(values["classes"])) == len(values["classes"])


def test_cells_survive_parquet_and_are_read_by_duckdb(stage, clip_item, tmp_path):
    cells = stage.process([item_of(clip_item, picture(1)), item_of(clip_item, picture(2))])
    assert {cell.outcome for cell in cells} == {Outcome.OK}
    path = tmp_path / "cells.parquet"
    pq.write_table(cells_table(stage, cells, host="h", run_id="r"), path)
    rows = duckdb.sql(
        f"select len(embedding), embedding[1], phash_middle, bit_count(xor(phash_middle, phash_first)), phash_flat "
        f"from '{path}'"
    ).fetchall()
    for row, cell in zip(rows, cells, strict=True):
        assert row == (1280, float(cell.values["embedding"][0]), cell.values["phash_middle"], 0, False)


def test_a_batch_gives_what_single_items_give(stage, clip_item):
    items = [item_of(clip_item, picture(seed)) for seed in range(3)]
    alone = [stage.process([item])[0].values for item in items]
    for together, single in zip(stage.process(items), alone, strict=True):
        assert together.values["embedding"].tobytes() == single["embedding"].tobytes()
        assert {k: v for k, v in together.values.items() if k != "embedding"} == {
            k: v for k, v in single.items() if k != "embedding"
        }


def test_hashes_of_the_three_frames_and_flatness(stage, clip_item):
    black, bright = np.zeros((32, 32), np.uint8), luma(picture(7))
    values = stage.score(item_of(clip_item, picture(7), [black, bright, black]))
    assert (values["phash_first"], values["phash_last"], values["phash_flat"]) == (0, 0, False)
    assert values["phash_middle"] == phash(bright)
    assert stage.score(item_of(clip_item, picture(7), [black] * 3))["phash_flat"] is True


def test_a_view_without_its_frames_fails(stage, clip_item):
    (cell,) = stage.process([item_of(clip_item, picture(1), [luma(picture(1))])])
    assert (cell.outcome, cell.failure.error_class) == (Outcome.FAILED, "StageError")


def hamming(a, b):
    return (a ^ b).bit_count()


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_a_re_encoded_picture_keeps_its_hash(seed):
    rgb = picture(seed, 320)
    _, jpeg = cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 60])
    again = cv2.imdecode(jpeg, cv2.IMREAD_COLOR)[..., ::-1]
    assert hamming(phash(luma(rgb)), phash(luma(again))) <= 3


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_brightness_and_contrast_leave_the_hash(seed):
    rgb = luma(picture(seed)).astype(np.float64)
    changed = np.clip(rgb * 0.8 + 20, 0, 255).round().astype(np.uint8)
    assert hamming(phash(rgb.astype(np.uint8)), phash(changed)) <= 5


def test_different_pictures_lie_far_apart():
    hashes = [phash(luma(picture(seed))) for seed in range(40)]
    distances = [hamming(a, b) for i, a in enumerate(hashes) for b in hashes[:i]]
    assert min(distances) > 10
    assert 28 < np.mean(distances) < 36


@pytest.mark.parametrize("level", [0, 16, 128, 255])
def test_flat_pictures_have_no_hash(level):
    noise = np.random.default_rng(0).integers(-2, 3, (32, 32))
    assert phash(np.full((32, 32), level, np.uint8)) is None
    assert phash(np.clip(level + noise, 0, 255).astype(np.uint8)) is None
