"""CLIP, similarity and aesthetics in a whole run: cells, selection by aggregates, near-duplicates, nothing twice."""

from __future__ import annotations

from pathlib import Path

import job_kit
import numpy as np
import open_clip
import pyarrow.parquet as pq
import pytest
import torch
from clip_kit import OPENAI_LIKE, SIGLIP_LIKE, add_head, add_open_clip, kit_beside, mlp_head

from curate.errors import ConfigError
from curate.recipe import build, parse_recipe
from curate.stages.aesthetic import rate, read_head
from curate.tables import Corpus
from curate.testing.footage import write_video
from curate.testing.scenes import moving_texture

RECIPE = """
name: clips
stages:
  - probe
  - cut: {min_len_s: 1}
  - motion
  - text
  - features
  - caption.template
  - clip: {model: kit-clip}
  - clip.similarity: {model: kit-clip, captions: [caption.template]}
  - aesthetic: {model: kit-head}
select:
  conditions:
    - {column: clip.similarity.all, aggregate: mean, drop_lowest: 0.0}
    - {column: aesthetic.scores, aggregate: min, drop_lowest: 0.0}
  dedup: {method: auto, cosine: 0.98, keep: clip.duration_s}
export: {caption: ""}
"""
LENGTH = OPENAI_LIKE["model_cfg"]["embed_dim"]


@pytest.fixture(scope="module")
def kit(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    with pytest.MonkeyPatch.context() as patch:
        made = kit_beside(folder, patch, ("efficientnet-lite0", "pp-ocr-det"))
        add_open_clip(made, "kit-clip", OPENAI_LIKE, folder / "made" / "clip")
        add_open_clip(made, "kit-siglip", SIGLIP_LIKE, folder / "made" / "siglip")
        settings = {"head": "mlp", "embedding": LENGTH, "family": "kit"}
        add_head(made, "kit-head", mlp_head(LENGTH), folder / "made" / "head", **settings)
        yield made


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    """Four films, the last one as the first with its end left out."""
    folder = tmp_path_factory.mktemp("bucket")
    for seed in (1, 2, 3):
        write_video(folder / f"{seed}.mp4", moving_texture(48, 96, 64, (1, 0), seed=seed))
    write_video(folder / "copy.mp4", moving_texture(46, 96, 64, (1, 0), seed=1))
    return folder


@pytest.fixture(scope="module")
def done(kit, bucket, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "corpus"
    result, _ = job_kit.do([bucket], out, parse_recipe(RECIPE, "test"), export=False)
    return Corpus(str(out)), result


def cells(corpus, stage):
    parts = Path(corpus.uri, "tables/cells", stage).glob("*/part-*.parquet")
    return {row["key"]: row for path in parts for row in pq.read_table(path).to_pylist()}


def test_every_clip_has_all_three_cells_and_they_agree(done, kit):
    corpus, result = done
    assert result.run.counts["cells_failed"] == 0
    clip, similarity, aesthetic, captions = (
        cells(corpus, name) for name in ("clip", "clip.similarity", "aesthetic", "caption.template")
    )
    assert len(clip) == len(similarity) == len(aesthetic) == 4
    folder = kit.cards.parent / "made"
    model = open_clip.create_model(f"local-dir:{folder / 'clip'}", pretrained_text=False).eval()
    tokenize = open_clip.get_tokenizer(f"local-dir:{folder / 'clip'}")
    layers = read_head(str(folder / "head" / "head.pth"), "mlp", LENGTH)
    for key, row in clip.items():
        frames = np.array([row[name] for name in ("first", "middle", "last")], np.float32)
        np.testing.assert_allclose(np.linalg.norm(frames, axis=1), 1, atol=1e-3)
        assert aesthetic[key]["scores"] == rate(layers, frames).astype(float).tolist()
        with torch.no_grad():
            text = model.encode_text(tokenize([captions[key]["caption"]]), normalize=True)[0].numpy()
        unit = frames / np.linalg.norm(frames, axis=1, keepdims=True)
        np.testing.assert_allclose(similarity[key]["template"], unit @ text, atol=3e-6)
        assert similarity[key]["all"] == similarity[key]["template"]
        assert (similarity[key]["disagreement"], similarity[key]["best"]) == (None, "caption.template")


def test_the_selection_uses_aggregates_and_embeddings(done):
    corpus, result = done
    scores = sorted(min(row["scores"]) for row in cells(corpus, "aesthetic").values())
    assert [t.aggregate for t in result.funnel.thresholds] == ["mean", "min"]
    assert result.funnel.thresholds[1].value == scores[0]
    assert (result.funnel.clips.found, result.funnel.clips.kept, result.funnel.near_duplicates) == (4, 3, 1)


def test_a_second_run_computes_nothing_and_another_model_only_what_reads_it(done, kit, bucket):
    corpus, first = done
    again, heard = job_kit.do([bucket], corpus.uri, parse_recipe(RECIPE, "test"), export=False)
    assert heard.works == [] and again.funnel.digest == first.funnel.digest
    before = build(parse_recipe(RECIPE, "test"))
    after = build(parse_recipe(RECIPE.replace("captions: [", "dtype: bfloat16, captions: ["), "test"))
    changed = [a.stage.name for a, b in zip(before.steps, after.steps, strict=True) if a.fingerprint != b.fingerprint]
    assert changed == ["clip.similarity"]
    with pytest.raises(ConfigError, match=r"kit-head.*`clip` gives kit ones of 96"):
        build(parse_recipe(RECIPE.replace("kit-clip", "kit-siglip"), "test"))
