"""Order, references, gates, groups and fingerprints of a pipeline."""

from __future__ import annotations

import pickle
from typing import Any

import pyarrow as pa
import pytest
from engine_kit import (
    Double,
    Luma,
    LumaConfig,
    Picky,
    PickyConfig,
    PooledDouble,
    StrideConfig,
    StrideCut,
    gate,
    pipeline,
)

from curate.config import Config
from curate.engine.pipeline import Gate, build_pipeline
from curate.errors import ConfigError
from curate.stage import ClipStage, Column, Resources
from curate.stages.probe import Probe


class Worded(ClipStage[Config]):
    """Writes a word and a list: columns that no number can be compared with."""

    name = "worded"
    version = 1
    columns = (
        Column("word", pa.string(), "", "a word"),
        Column("words", pa.list_(pa.string()), "", "words"),
        Column("flag", pa.bool_(), "", "a switch"),
    )

    def score(self, item):
        return {"word": "a", "words": ["a"], "flag": True}


class OnGpu(Double):
    name = "gpu"
    resources = Resources(gpus=0.5)


class AfterPool(ClipStage[Config]):
    name = "after"
    version = 1
    columns = (Column("x", pa.float64(), "1", "x"),)
    reads = ("pooled",)

    def score(self, item):
        return {"x": item.cells["pooled"]["twice"]}


def luma(gain: float = 1.0) -> Luma:
    return Luma(LumaConfig(gain=gain))


def fingerprints(*items: Any, stride_s: float = 1.0) -> dict[str, str]:
    return {stage.name: fingerprint for _, stage, fingerprint in pipeline(*items, stride_s=stride_s).stages()}


@pytest.mark.parametrize(
    ("items", "words"),
    [
        ([Double(Config()), luma()], "stages.double: reads the cells of luma, which must stand above"),
        ([luma(), luma()], "stages.luma: stands twice"),
        ([gate("luma", "mean", min=1), luma()], "no stage stands above it"),
        ([luma(), gate("lumi", "mean", min=1), Double(Config())], "did you mean 'luma'?"),
        ([luma(), gate("luma", "mena", min=1), Double(Config())], "no column 'mena', did you mean 'mean'?"),
        ([luma(), gate("luma", "mean", min=1)], "the gate on luma.mean has no stage below it"),
        ([Worded(Config()), gate("worded", "word", min=1), luma()], "cannot judge worded.word, which holds string"),
        ([Worded(Config()), gate("worded", "words", one_of=("a",)), luma()], "cannot judge worded.words"),
        ([Worded(Config()), gate("worded", "flag", max=1), luma()], "cannot judge worded.flag"),
    ],
)
def test_a_wrong_order_or_reference_is_refused_before_anything_runs(items, words):
    with pytest.raises(ConfigError) as caught:
        pipeline(*items)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "items",
    [
        [],
        [Probe(Config())],
        [StrideCut(StrideConfig())],
        [Probe(Config()), Probe(Config()), StrideCut(StrideConfig())],
        [Probe(Config()), StrideCut(StrideConfig()), StrideCut(StrideConfig())],
    ],
)
def test_one_probe_and_one_cut_are_needed(items):
    with pytest.raises(ConfigError, match="exactly one `probe` and one `cut`"):
        build_pipeline(items)


def test_a_changed_stage_changes_itself_and_its_readers_alone():
    before = fingerprints(luma(), Double(Config()), Picky(PickyConfig()))
    after = fingerprints(luma(gain=2.0), Double(Config()), Picky(PickyConfig()))
    assert {name for name in before if before[name] != after[name]} == {"luma", "double"}


def test_the_clips_do_not_depend_on_what_looks_at_them_nor_the_cells_on_the_cut():
    """A clip's id is its span: another cut finds other clips, and cells of equal spans stay what they are."""
    base = fingerprints(luma())
    assert (
        fingerprints(luma(), Double(Config()), gate("luma", "mean", min=3), Picky(PickyConfig()))["cut"] == base["cut"]
    )
    other = fingerprints(luma(), stride_s=2.0)
    assert other["cut"] != base["cut"]
    assert (other["probe"], other["luma"]) == (base["probe"], base["luma"])


def test_gates_and_neighbours_and_order_change_no_fingerprint():
    base = fingerprints(luma(), Double(Config()))
    gated = fingerprints(Picky(PickyConfig()), luma(), gate("luma", "mean", min=5), Double(Config()))
    assert {name: gated[name] for name in base} == base


def test_fingerprints_of_the_kit_stay_what_they_are():
    """A new fingerprint means that every corpus computes its cells again: only for a reason."""
    assert luma().fingerprint({}) == "8711e5d3ef7679f3"
    assert fingerprints(luma(), Double(Config()))["double"] == "ad463884e1a0e63d"


@pytest.mark.parametrize(
    ("limits", "value", "passes"),
    [
        ({"min": 1.0}, 1.0, True),
        ({"min": 1.0}, 0.9, False),
        ({"max": 1.0}, 1.0, True),
        ({"max": 1.0}, 1.1, False),
        ({"min": 0.0, "max": 1.0}, 0.5, True),
        ({"one_of": ("a", "b")}, "b", True),
        ({"one_of": ("a", "b")}, "c", False),
        ({"none_of": ("a",)}, "a", False),
        ({"none_of": ("a",)}, "c", True),
        ({"min": 0.0}, None, False),
        ({}, None, False),
        ({}, 0.0, True),
    ],
)
def test_a_gate_passes_what_it_says(limits, value, passes):
    assert Gate("s", "c", **limits).passes({"s": {"c": value}}) is passes


def test_a_clip_without_the_cell_does_not_pass():
    assert not Gate("s", "c", max=1.0).passes({})


def test_gates_hold_for_all_stages_below_them():
    first, second = gate("luma", "mean", min=1), gate("luma", "mean", max=9)
    pipe = pipeline(luma(), first, Double(Config()), second, Picky(PickyConfig()))
    assert [step.gates for step in pipe.steps] == [(), (first,), (first, second)]
    listed = pipe.manifest_gates()
    assert [(entry["after_index"], entry["min"], entry["max"]) for entry in listed] == [(2, 1, None), (3, None, 9)]
    assert [entry["column"] for entry in listed] == ["luma.mean", "luma.mean"]


def test_what_needs_workers_of_its_own_starts_a_group_and_its_readers_follow():
    items = [luma(), PooledDouble(Config()), AfterPool(Config()), OnGpu(Config()), Picky(PickyConfig())]
    pipe = pipeline(*items)
    assert {step.stage.name: step.group for step in pipe.steps} == {
        "luma": 0,
        "pooled": 1,
        "after": 1,
        "gpu": 2,
        "picky": 0,
    }
    assert pipe.n_groups == 3
    assert [step.stage.name for step in pipe.group(1)] == ["pooled", "after"]


def test_only_stages_that_are_asked_for_start_groups():
    items = [luma(), OnGpu(Config()), PooledDouble(Config()), AfterPool(Config()), Picky(PickyConfig())]
    alone = pipeline(*items, only=("picky",))
    assert (alone.n_groups, [step.stage.name for step in alone.group(0)]) == (1, ["picky"])
    read = pipeline(*items, only=("after",))
    groups = [[step.stage.name for step in read.group(number)] for number in range(read.n_groups)]
    assert groups == [["luma"], ["pooled", "after"]]
    assert read.without_gpus() == read


def test_a_stage_below_a_gate_on_a_pool_works_in_that_pool():
    pipe = pipeline(luma(), PooledDouble(Config()), gate("pooled", "twice", min=0), Picky(PickyConfig()))
    assert [step.group for step in pipe.steps] == [0, 1, 1]


@pytest.mark.parametrize(
    ("only", "requested"),
    [
        ((), {"luma", "picky", "double"}),
        (("double",), {"luma", "picky", "double"}),
        (("luma",), {"luma"}),
        (("pick*",), {"picky"}),
        (("l*", "pi*"), {"luma", "picky"}),
    ],
)
def test_what_is_asked_for_brings_what_it_reads_and_stands_below(only, requested):
    items = [luma(), Picky(PickyConfig()), gate("picky", "start_s", max=9), Double(Config())]
    assert pipeline(*items, only=only).requested == requested


def test_a_pattern_that_matches_nothing_is_refused():
    with pytest.raises(ConfigError, match="no stage is called 'doubel', did you mean 'double'"):
        pipeline(luma(), Double(Config()), only=("doubel",))


def test_values_that_others_need_are_those_read_and_those_gates_look_at():
    pipe = pipeline(luma(), Double(Config()), Picky(PickyConfig()), gate("picky", "start_s", max=9), Worded(Config()))
    assert pipe.needed_values() == {"luma", "picky"}


def test_a_pipeline_travels_to_its_workers():
    pipe = pipeline(luma(), gate("luma", "mean", min=1), Double(Config()))
    again = pickle.loads(pickle.dumps(pipe))
    assert again.manifest_stages() == pipe.manifest_stages()
    assert again.manifest_gates() == pipe.manifest_gates()


def test_the_manifest_lists_every_stage_with_its_columns_and_version():
    listed = pipeline(luma(), Double(Config())).manifest_stages()
    assert [(entry["name"], entry["kind"]) for entry in listed] == [
        ("probe", "probe"),
        ("cut", "cut"),
        ("luma", "clip"),
        ("double", "clip"),
    ]
    assert listed[2]["columns"] == ["mean"] and listed[2]["version"] == 1
