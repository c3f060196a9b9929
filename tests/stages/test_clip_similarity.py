"""Captions beside frames: the library's own cosines, all of them kept, one empty caption fails its clip alone."""

from __future__ import annotations

import numpy as np
import open_clip
import pytest
import torch
from clip_kit import KINDS, SIGLIP_LIKE, add_open_clip, kit_of_kinds, upstream_folder

from curate.engine.pipeline import build_pipeline
from curate.errors import ConfigError, ModelFileError
from curate.records import Outcome
from curate.stages.caption.template import TemplateCaption, TemplateConfig
from curate.stages.clip import Clip, ClipConfig, ClipSimilarity, SimilarityConfig
from curate.stages.registry import stage_class
from curate.tables import cell_schema, cells_table

CAPTIONS = ("caption.coca", "caption.vblip", "caption.fused")
TEXTS = ("a dog runs on grass .", "A brown dog is running.", "a horse jumps over a fence")


@pytest.fixture(scope="module")
def kit(tmp_path_factory):
    with kit_of_kinds(tmp_path_factory.mktemp("models")) as made:
        yield made


@pytest.fixture(scope="module", params=sorted(KINDS))
def stage(request, kit):
    made = ClipSimilarity(SimilarityConfig(model=request.param))
    made.setup()
    return made


def upstream(kit, name, texts):
    folder = upstream_folder(kit, name)
    model = open_clip.create_model(f"local-dir:{folder}", pretrained_text=False).eval()
    tokens = open_clip.get_tokenizer(f"local-dir:{folder}")(list(texts))
    with torch.no_grad():
        return model.encode_text(tokens, normalize=True).numpy()


def embedded(stage, seed):
    """A cell of `clip`: three unit vectors as half floats."""
    length = KINDS[stage.config.model]["model_cfg"]["embed_dim"]
    vectors = np.random.default_rng(seed).normal(size=(3, length))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return dict(zip(("first", "middle", "last"), vectors.astype(np.float16), strict=True))


def item_of(clip_item, stage, seed, texts=TEXTS):
    captions = {name: {"caption": text} for name, text in zip(stage.config.captions, texts, strict=True)}
    return clip_item(cells={"clip": embedded(stage, seed), **captions})


def test_text_embeddings_are_those_of_the_library(stage, kit):
    expected = upstream(kit, stage.config.model, TEXTS)
    np.testing.assert_allclose(stage.embed(TEXTS), expected, atol=2e-6)
    assert np.abs(expected[0] - expected[2]).max() > 1e-3


def test_all_nine_cosines_are_kept(stage, kit, clip_item):
    (cell,) = stage.process([item_of(clip_item, stage, 1)])
    values = cell.values
    texts = upstream(kit, stage.config.model, TEXTS).astype(np.float64)
    frames = np.stack([v.astype(np.float64) for v in embedded(stage, 1).values()])
    expected = texts @ (frames / np.linalg.norm(frames, axis=1, keepdims=True)).T
    for index, name in enumerate(("coca", "vblip", "fused")):
        np.testing.assert_allclose(values[name], expected[index], atol=3e-6)
    assert values["all"] == [*values["coca"], *values["vblip"], *values["fused"]]
    between = texts @ texts.T
    mean = (between[0, 1] + between[0, 2] + between[1, 2]) / 3
    assert values["disagreement"] == pytest.approx(1 - mean, abs=5e-6)
    assert values["best"] == CAPTIONS[int(expected.mean(axis=1).argmax())]


def test_equal_captions_do_not_disagree_and_the_first_of_them_is_best(stage, clip_item):
    (cell,) = stage.process([item_of(clip_item, stage, 2, (TEXTS[0],) * 3)])
    assert cell.values["disagreement"] == pytest.approx(0, abs=1e-12)
    assert cell.values["best"] == "caption.coca"
    assert cell.values["coca"] == cell.values["fused"]


def test_a_clip_gives_the_same_alone_in_a_batch_and_in_another_order(stage, clip_item):
    texts = [TEXTS, TEXTS[::-1], ("a cat", "a cat sleeps", "cats"), ("one", "two", "three")]
    items = [item_of(clip_item, stage, seed, own) for seed, own in enumerate(texts)]
    alone = [stage.process([item])[0].values for item in items]
    assert [cell.values for cell in stage.process(items)] == alone
    assert [cell.values for cell in stage.process(items[::-1])][::-1] == alone


def test_cells_read_from_a_table_give_the_same_as_fresh_ones(stage, clip_item):
    fresh = item_of(clip_item, stage, 3)
    listed = {name: [float(x) for x in vector] for name, vector in fresh.cells["clip"].items()}
    read = clip_item(cells={**fresh.cells, "clip": listed})
    assert stage.process([fresh])[0].values == stage.process([read])[0].values


@pytest.mark.parametrize("empty", ["", "  ", None])
def test_an_empty_caption_fails_that_clip_alone(stage, clip_item, empty):
    good, bad = item_of(clip_item, stage, 4), item_of(clip_item, stage, 5, (TEXTS[0], empty, TEXTS[2]))
    cells = stage.process([good, bad, good])
    assert [cell.outcome for cell in cells] == [Outcome.OK, Outcome.FAILED, Outcome.OK]
    assert (cells[1].failure.error_class, cells[1].failure.message) == (
        "StageError",
        "the caption of caption.vblip is empty",
    )


def test_embeddings_of_another_length_fail(stage, clip_item):
    item = item_of(clip_item, stage, 6)
    short = {name: vector[:-1] for name, vector in item.cells["clip"].items()}
    (cell,) = stage.process([clip_item(cells={**item.cells, "clip": short})])
    assert "the text's has" in cell.failure.message


def test_a_caption_longer_than_the_context_is_cut_off(stage):
    long = "a dog " * 100
    np.testing.assert_array_equal(stage.embed([long]), stage.embed([f"{long} and a cat"]))


def test_one_captioner_has_nobody_to_disagree_with(kit, clip_item):
    stage = ClipSimilarity(SimilarityConfig(model="openai", captions=("caption.coca",)))
    stage.setup()
    (cell,) = stage.process([item_of(clip_item, stage, 7, TEXTS[:1])])
    assert cell.values["disagreement"] is None
    assert cell.values["all"] == cell.values["coca"]
    row = cells_table(stage, [cell], host="h", run_id="r").to_pylist()[0]
    assert (row["disagreement"], row["best"]) == (None, "caption.coca")


def test_columns_and_cells_read_follow_the_captioners(kit):
    stage = ClipSimilarity(SimilarityConfig(model="openai", captions=("caption.vlm", "caption.coca")))
    assert stage.reads == ("clip", "caption.vlm", "caption.coca")
    assert [column.name for column in stage.columns] == ["vlm", "coca", "all", "disagreement", "best"]
    assert cell_schema(stage).names[1:6] == ["vlm", "coca", "all", "disagreement", "best"]
    plain = ClipSimilarity(SimilarityConfig(model="openai"))
    assert [column.name for column in plain.columns] == [c.name for c in stage_class("clip.similarity").columns]
    assert plain.fingerprint({}) != stage.fingerprint({})


@pytest.mark.parametrize("captions", [("caption.coca", "other.coca"), ("caption.all",), ("caption.a-b",)])
def test_captioners_that_would_share_a_column_are_refused(kit, captions):
    with pytest.raises(ConfigError, match="cannot be told apart"):
        ClipSimilarity(SimilarityConfig(model="openai", captions=captions))


def pipeline_of(similarity, clip="openai"):
    names = ("probe", "cut", "motion", "text", "features")
    above = [stage_class(name)(stage_class(name).config_type()) for name in names]
    captioner = TemplateCaption(TemplateConfig())
    return build_pipeline([*above, captioner, Clip(ClipConfig(model=clip)), ClipSimilarity(similarity)])


def test_a_pipeline_knows_its_columns_and_refuses_what_does_not_fit(kit):
    fits = SimilarityConfig(model="openai", captions=("caption.template",))
    manifest = pipeline_of(fits).manifest_stages()
    assert manifest[-1]["columns"] == ["template", "all", "disagreement", "best"]
    with pytest.raises(ConfigError, match=r"what `clip` embeds with 'siglip'.*Set clip\.similarity\.model=siglip"):
        pipeline_of(fits, clip="siglip")
    with pytest.raises(ConfigError, match="features writes no caption"):
        pipeline_of(SimilarityConfig(model="openai", captions=("features",)))
    with pytest.raises(ConfigError, match=r"reads the cells of caption\.coca"):
        pipeline_of(SimilarityConfig(model="openai", captions=("caption.coca",)))


def test_only_the_text_half_stays(stage):
    assert stage._tower._model.visual is None


def test_a_folder_without_its_tokenizer_is_refused(kit, tmp_path):
    add_open_clip(kit, "whole", SIGLIP_LIKE, tmp_path / "whole")
    for path in (tmp_path / "whole").glob("tokenizer*"):
        path.unlink()
    kit.add("dumb", tmp_path / "whole", {"image_px": 160, "embedding": 96, "family": "kit"})
    with pytest.raises(ModelFileError, match="no tokenizer"):
        ClipSimilarity(SimilarityConfig(model="dumb")).setup()
