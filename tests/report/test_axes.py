"""Stops are values that occur, enough of them, with the selection's own limit among them."""

from __future__ import annotations

import math
import shlex
from itertools import pairwise

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpus_kit import CorpusKit
from hypothesis import given, settings
from hypothesis import strategies as st
from report_kit import CONDITIONS, facts_of, make, write_recipe

from curate.config import parse_config
from curate.job import select_again
from curate.query import RunTables, connect
from curate.report.axes import FEWEST_STOPS, MOST_STOPS
from curate.report.facts import build_facts, chosen_selection
from curate.report.provenance import units
from curate.select import SelectConfig, load_funnel, select


def scores_at(path, values, *conditions):
    """The axes of a corpus with one clip per score (None is a failed cell)."""
    return axes_at(path, {"motion": values}, *conditions)


def axes_at(path, scores, *conditions):
    """The same with a score of several stages."""
    kit = CorpusKit(path / "corpus", {stage: {"v2d_px16": pa.float64()} for stage in scores})
    clips = kit.source("a.mp4", [2.0] * len(next(iter(scores.values()))))
    for stage, values in scores.items():
        for clip, value in zip(clips, values, strict=True):
            if value is None:
                kit.failed(stage, clip)
            else:
                kit.cell(stage, clip, v2d_px16=value)
    corpus = kit.write()
    rule = {"name": "sel", "conditions": list(conditions), "dedup": {"method": "none"}}
    write_recipe(corpus, rule)
    select(corpus, parse_config(SelectConfig, rule, "select"))
    return facts_of(corpus)["axes"]


VALUE = st.one_of(st.none(), st.floats(), st.integers(0, 3).map(float))
LIMITS = st.sampled_from([{"min": 1.5}, {"max": 0.0}, {"drop_lowest": 0.25}, {"drop_highest": 0.5}])
STAGES = ("motion", "other", "third", "fourth")


@settings(max_examples=5, deadline=None)
@given(st.lists(st.tuples(*[VALUE] * 4), min_size=1, max_size=80), st.tuples(*[LIMITS] * 4))
def test_stops_and_counts_of_one_axis(tmp_path_factory, rows, limits):
    """Of four axes at once: a report takes most of the time."""
    scores = dict(zip(STAGES, map(list, zip(*rows, strict=True)), strict=True))
    conditions = [{"column": f"{stage}.v2d_px16", **limit} for stage, limit in zip(STAGES, limits, strict=True)]
    listed = axes_at(tmp_path_factory.mktemp("axes"), scores, *conditions)
    axes = {axis["condition"]: axis for axis in listed}
    assert len(axes) == len(listed)
    for number, (values, limit) in enumerate(zip(scores.values(), limits, strict=True)):
        check_axis(axes.get(number), values, limit)


def check_axis(axis, values, limit):
    measured = [value for value in values if value is not None]
    if axis is None:  # a percentile of nothing, or one that came to no number
        assert "drop" in next(iter(limit)) and (not measured or not all(map(math.isfinite, measured)))
        return
    stops, finite = axis["stops"], {value for value in measured if math.isfinite(value)}
    assert stops == sorted(set(stops)) and len(stops) <= MOST_STOPS
    assert set(stops) <= finite | {stops[axis["start"]]}
    assert len(stops) >= min(FEWEST_STOPS, len(finite))
    if "min" in limit or "max" in limit:
        assert stops[axis["start"]] == next(iter(limit.values()))
    passed = [sum(v >= s if axis["side"] == "min" else v <= s for s in stops) for v in measured if not math.isnan(v)]
    if not any(map(math.isnan, measured)):
        assert axis["alone_n"] == [passed.count(c) + (c == 0) * values.count(None) for c in range(len(stops) + 1)]
    assert sum(axis["alone_n"]) == len(values)
    assert sum(axis["alone_hours"]) == pytest.approx(len(values) * 2 / 3600)
    assert axis["never_n"] == values.count(None)
    assert sum(axis["counts"]) == axis["n"] == sum(map(math.isfinite, measured))
    assert (axis["min"], axis["max"]) == ((min(finite), max(finite)) if finite else (None, None))


def test_a_column_of_ties_still_has_all_its_values_as_stops(tmp_path):
    values = [0.0] * 2000 + [float(k) for k in range(1, 40)]
    (axis,) = scores_at(tmp_path, values, {"column": "motion.v2d_px16", "max": 0.5})
    assert len(axis["stops"]) == MOST_STOPS
    assert {0.0, 0.5, 39.0} <= set(axis["stops"])
    assert max(b - a for a, b in pairwise(axis["stops"])) <= 4


def test_stops_are_spread_by_rank(tmp_path):
    values = [float(k) ** 3 for k in range(1000)]
    (axis,) = scores_at(tmp_path, values, {"column": "motion.v2d_px16", "min": 1e6})
    ranks = [round(stop ** (1 / 3)) for stop in axis["stops"] if stop != 1e6]
    assert max(b - a for a, b in pairwise(ranks)) <= 70
    assert (ranks[0], ranks[-1]) == (0, 999)
    assert axis["percentile"] is None and axis["start_position"] == axis["start"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return make(tmp_path_factory.mktemp("made"), 20)


@pytest.fixture(scope="module")
def facts(corpus):
    return facts_of(corpus)


def test_a_percentile_starts_at_the_limit_that_the_selection_came_to(corpus, facts):
    limits = {limit.condition: limit.value for limit in load_funnel(corpus, "sel").thresholds}
    found = {axis["label"]: axis for axis in facts["axes"] if axis["percentile"]}
    assert {label: axis["stops"][axis["start"]] for label, axis in found.items()} == limits
    assert found["little motion"]["percentile"] == {"kind": "drop_lowest", "share": 0.25}
    highest = found["much.text=1"]
    assert highest["start_position"] == len(highest["stops"]) - 1 - highest["start"]


def test_limits_of_an_earlier_selection_are_taken_away_as_numbers(tmp_path):
    kit = CorpusKit(tmp_path / "corpus", {"motion": {"v2d_px16": pa.float64()}})

    def add(name, *values):
        for clip, value in zip(kit.source(name, [2.0] * len(values)), values, strict=True):
            kit.cell("motion", clip, v2d_px16=value)

    half = {"column": "motion.v2d_px16", "drop_lowest": 0.5}
    config = parse_config(SelectConfig, {"name": "half", "conditions": [half], "dedup": {"method": "none"}}, "select")
    add("low.mp4", 0.1, 0.2, 1 / 3, 0.4)
    select(kit.write(), config)
    add("high.mp4", *(1.0 + k for k in range(20)))
    corpus = kit.write("run-2")
    write_recipe(corpus, config.model_dump(mode="json", by_alias=True, exclude_none=True), "run-2")
    kept = select(corpus, config.model_copy(update={"name": "as-before"}), run_id="run-2", like="half").clips.kept
    assert kept == 22
    facts = build_facts(corpus, chosen_selection(corpus, None, "as-before"), pictures=0).facts
    (axis,) = facts["axes"]
    assert (axis["percentile"], axis["clear_key"]) == (None, "")
    (condition,) = facts["conditions"]
    assert condition["min"] == 1 / 3 and "drop_lowest" not in condition
    words = shlex.split(facts["commands"]["select"])
    sets = [words[i + 1] for i, word in enumerate(words) if word == "--set"]
    assert select_again(corpus, "", sets, name="taken", run_id="run-2").clips.kept == kept


def test_a_condition_of_two_limits_is_two_axes_and_words_are_none(facts):
    assert [axis["condition"] for axis in facts["axes"]] == [0, 1, 2, 3, 4, 5, 5, 7]
    assert [axis["side"] for axis in facts["axes"]][5:7] == ["min", "max"]
    assert [entry["label"] for entry in facts["fixed"]] == ["gate motion.freeze_ratio", "motion.camera"]
    columns = [condition["column"] for condition in facts["conditions"]]
    assert columns == [condition["column"] for condition in CONDITIONS]


def test_units_come_from_the_parts(tmp_path):
    kit = CorpusKit(tmp_path / "corpus", {"motion": {"speed": pa.float64()}})
    (clip,) = kit.source("a.mp4", [1.0])
    kit.cell("motion", clip, speed=1.0)
    corpus = kit.write()
    schema = pa.schema([pa.field("key", pa.string()), pa.field("speed", pa.float64(), metadata={"unit": "px/s"})])
    folder = corpus.cells("motion", kit.fingerprint("motion"))
    (part,) = folder.files()
    pq.write_table(pa.table({"key": [clip], "speed": [1.0]}, schema=schema), part)
    with connect() as con:
        found = units(RunTables(con, corpus, "run-1"))
    assert (found["motion.speed"], found["clip.duration_s"], found["source.width_px"]) == ("px/s", "s", "")
