"""Which caption is taken: the fused sentence, or where it was marked the single one that CLIP finds nearer."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.engine.pipeline import build_pipeline
from curate.errors import ConfigError
from curate.recipe import build, parse_recipe
from curate.records import Outcome
from curate.stage import ClipStage, Column
from curate.stages.caption.base import CaptionStage
from curate.stages.caption.chosen import ChosenCaption, ChosenConfig
from curate.stages.caption.fused import FusedCaption, FusedConfig
from curate.stages.cut import Cut, CutConfig
from curate.stages.probe import Probe
from curate.testing.contract import check_stage

SINGLE = {"caption": "a dog", "frames": "c" * 32}, {"caption": "a cat", "frames": "v" * 32}


def cells(marked, coca=(0.2, 0.2, 0.2), vblip=(0.1, 0.1, 0.1)):
    return {
        "caption.fused": {"caption": "a dog and a cat", "frames": "f" * 32, "marked": marked, "invented": []},
        "caption.coca": SINGLE[0],
        "caption.vblip": SINGLE[1],
        "clip.similarity": {"coca": list(coca), "vblip": list(vblip)},
    }


def taken(clip_item, given, **config):
    stage = ChosenCaption(ChosenConfig(**config))
    (cell,) = stage.process([clip_item(cells={name: given[name] for name in stage.reads})])
    return cell


def test_a_sentence_that_adds_nothing_is_taken(clip_item):
    values = taken(clip_item, cells(False, vblip=(0.9, 0.9, 0.9))).values
    assert values == {"caption": "a dog and a cat", "frames": "f" * 32, "source": "fused", "replaced": False}


def test_a_marked_one_gives_way_to_the_nearer_single_caption(clip_item):
    values = taken(clip_item, cells(True, coca=(0.1, 0.4, 0.1), vblip=(0.3, 0.3, 0.3))).values
    assert values == {"caption": "a cat", "frames": "v" * 32, "source": "vblip", "replaced": True}


def test_without_similarities_it_gives_way_to_the_first(clip_item):
    values = taken(clip_item, cells(True, vblip=(0.9, 0.9, 0.9)), similarity=None).values
    assert (values["source"], values["replaced"]) == ("coca", True)
    order = ("caption.vblip", "caption.coca")
    assert taken(clip_item, cells(True), similarity=None, captions=order).values["source"] == "vblip"


@settings(deadline=None)
@given(
    st.lists(st.floats(-1, 1), min_size=3, max_size=3),
    st.lists(st.floats(-1, 1), min_size=3, max_size=3),
    st.booleans(),
)
def test_frames_and_caption_are_of_one_cell(clip_item, coca, vblip, marked):
    given_cells = cells(marked, coca, vblip)
    values = taken(clip_item, given_cells).values
    cell = given_cells[f"caption.{values['source']}"]
    assert (values["caption"], values["frames"]) == (cell["caption"], cell["frames"])
    assert values["replaced"] == marked
    if marked:
        assert values["source"] == ("vblip" if sum(vblip) / 3 > sum(coca) / 3 else "coca")


def test_an_empty_caption_is_never_taken(clip_item):
    given_cells = cells(True) | {"caption.coca": {"caption": "", "frames": "c" * 32}}
    assert taken(clip_item, given_cells).values["source"] == "vblip"
    given_cells["caption.vblip"] = {"caption": "", "frames": "v" * 32}
    cell = taken(clip_item, given_cells)
    assert (cell.outcome, cell.failure.error_class) == (Outcome.FAILED, "StageError")


def test_a_captioner_without_similarities_is_named(clip_item):
    given_cells = cells(True) | {"clip.similarity": {"coca": [0.1] * 3}}
    cell = taken(clip_item, given_cells)
    assert "says nothing of vblip" in cell.failure.message


def test_it_keeps_the_stage_contract():
    check_stage(ChosenCaption(ChosenConfig()), cells=cells(True))


class Coca(CaptionStage):
    name = "caption.coca"
    version = 1
    reads_pixels = False

    def score(self, item):
        return dict(SINGLE[0])


class Vblip(Coca):
    name = "caption.vblip"
    version = 1


class Similarity(ClipStage):
    name = "clip.similarity"
    version = 1
    reads = ("caption.coca", "caption.vblip", "caption.fused")
    columns = tuple(Column(name, pa.list_(pa.float64()), "", "cosines") for name in ("coca", "vblip", "fused"))

    def score(self, item):
        return {name: [0.1] * 3 for name in ("coca", "vblip", "fused")}


def captioners(fused=None, /, **chosen):
    first = [Probe(Probe.config_type()), Cut(CutConfig()), Coca(Coca.config_type()), Vblip(Coca.config_type())]
    fused_stage = FusedCaption(FusedConfig(**fused or {}))
    return [*first, fused_stage, Similarity(Similarity.config_type()), ChosenCaption(ChosenConfig(**chosen))]


def test_what_a_stage_reads_follows_its_configuration():
    pipeline = build_pipeline(captioners())
    reads = {step.stage.name: step.stage.reads for step in pipeline.steps}
    assert reads["caption.fused"] == ("caption.coca", "caption.vblip")
    assert reads["caption.chosen"] == ("caption.fused", "caption.coca", "caption.vblip", "clip.similarity")
    alone = build_pipeline(captioners({"captions": ("caption.coca",)}, similarity=None), only=["caption.chosen"])
    assert next(step for step in alone.steps if step.stage.name == "caption.fused").stage.reads == ("caption.coca",)
    assert alone.requested == {"caption.coca", "caption.vblip", "caption.fused", "caption.chosen"}


def test_another_caption_that_is_read_gives_another_fingerprint():
    def fingerprints(**fused):
        return {step.stage.name: step.fingerprint for step in build_pipeline(captioners(fused)).steps}

    own, other = fingerprints(), fingerprints(captions=("caption.vblip", "caption.coca"))
    assert own["caption.coca"] == other["caption.coca"]
    assert own["caption.fused"] != other["caption.fused"]
    assert own["caption.chosen"] != other["caption.chosen"]


def test_a_caption_that_stands_nowhere_above_is_named():
    with pytest.raises(ConfigError, match=r"caption\.nobody"):
        build_pipeline(captioners({"captions": ("caption.nobody",)}))


class Mute(CaptionStage):
    """Writes words, but not which frames they are of."""

    name = "mute"
    version = 1
    columns = CaptionStage.columns[:1]
    reads_pixels = False

    def score(self, item):
        return {"caption": "a dog"}


@pytest.mark.parametrize(
    ("fused", "chosen", "words"),
    [
        (
            {"captions": ("mute",)},
            {},
            r"caption\.fused\.captions: 'mute' writes no 'frames'\. Name stages that caption",
        ),
        ({}, {"fused": "caption.coca"}, r"caption\.chosen\.fused: 'caption\.coca' writes no 'marked'\. Name"),
        ({}, {"captions": ("mute",)}, r"caption\.chosen\.captions: 'mute' writes no 'frames'\. Name stages that"),
        (
            {},
            {"captions": ("caption.vblip", "caption.other")},
            r"caption\.chosen\.similarity: 'clip\.similarity' says nothing of caption\.other\. "
            r"Add caption\.other to clip\.similarity\.captions, or set caption\.chosen\.similarity=null",
        ),
        ({}, {"similarity": "caption.coca"}, r"'caption\.coca' says nothing of caption\.coca, caption\.vblip"),
    ],
)
def test_stages_that_write_something_else_are_refused_with_the_key_to_change(fused, chosen, words):
    class Other(Coca):
        name = "caption.other"
        version = 1

    first = captioners(fused, **chosen)
    with pytest.raises(ConfigError, match=words):
        build_pipeline([*first[:2], Mute(Mute.config_type()), Other(Coca.config_type()), *first[2:]])


def test_a_caption_without_similarity_may_be_chosen_where_none_is_asked_for():
    stages = captioners(captions=("caption.vblip",), similarity=None)
    assert build_pipeline(stages).requested >= {"caption.chosen"}


def test_captions_of_a_stage_that_measures_movement_are_refused():
    text = """
    name: x
    stages: [probe, cut, motion, caption.fused: {captions: [motion]}]
    select: {name: x, dedup: {method: none}}
    """
    with pytest.raises(ConfigError, match=r"caption\.fused\.captions: 'motion' writes no 'caption' and no 'frames'"):
        build(parse_recipe(text, "test"))
