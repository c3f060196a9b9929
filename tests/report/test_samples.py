"""Which clips are shown: those at the limits, the ends, some at random, captions with their disagreement."""

from __future__ import annotations

import pytest
from report_kit import facts_of, make

from curate.query import RunTables, connect
from curate.report.samples import TEXT_CHARS, Sizes


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return make(tmp_path_factory.mktemp("samples"), 20, method="hash")


@pytest.fixture(scope="module")
def facts(corpus):
    return facts_of(corpus)


@pytest.fixture(scope="module")
def wide(corpus):
    """Rows of all clips by id."""
    names = ["motion.v2d_px16", "text.area_max", "caption.coca.caption", "clip.similarity.disagreement", "source.uri"]
    with connect() as con:
        rows = con.sql(RunTables(con, corpus, "run-1").wide_sql(names)).to_arrow_table().to_pylist()
    return {row["clip_id"]: row for row in rows}


def test_clips_next_to_a_limit_are_the_nearest_on_either_side(facts, wide):
    for axis, column in ((facts["axes"][0], "motion.v2d_px16"), (facts["axes"][2], "text.area_max")):
        limit = axis["stops"][axis["start"]]
        near = {
            side: [wide[e["clip"]][column] for e in axis["near"] if e["side"] == side] for side in ("below", "above")
        }
        assert near["below"] and near["above"]
        values = near["below"] + near["above"]
        assert values == sorted(values)
        if axis["side"] == "min":
            assert min(near["above"]) >= limit > max(near["below"])
        else:
            assert max(near["below"]) <= limit < min(near["above"])
        # Nothing lies between them and the limit that is not shown.
        shown = set(values)
        stats = [row[column] for row in wide.values() if row[column] is not None]
        between = [v for v in stats if min(values) < v < max(values) and v not in shown]
        assert between == []


def test_the_best_is_what_the_limit_looks_for(facts, wide):
    motion, text = facts["axes"][0], facts["axes"][2]
    for axis, column, best in ((motion, "motion.v2d_px16", max), (text, "text.area_max", min)):
        found = [wide[clip][column] for clip in axis["best"]]
        worst = [wide[clip][column] for clip in axis["worst"]]
        assert found[0] == {max: axis["max"], min: axis["min"]}[best]
        assert best(found[-1], worst[-1]) == found[-1]


def test_what_is_shown_is_bounded_and_the_same_every_time(corpus, facts):
    assert facts_of(corpus)["random"] == facts["random"]
    for pictures in (200, 40):
        sizes = Sizes.of(pictures, len(facts["axes"]))
        per_axis = 2 * sizes.near + 2 * sizes.ends
        assert per_axis * len(facts["axes"]) + sizes.random + sizes.captions + 2 * sizes.pairs <= 1.1 * pictures + 16
    near = [entry["clip"] for axis in facts["axes"] for entry in axis["near"]]
    told = [*facts["random"], *(entry["clip"] for entry in facts["captions"])]
    pairs = [pair[which] for pair in facts["duplicates"]["pairs"] for which in ("clip", "kept")]
    ends = [clip for axis in facts["axes"] for clip in (*axis["best"], *axis["worst"])]
    assert list(facts["clip_facts"]) == list(dict.fromkeys([*near, *told, *pairs, *ends]))


def test_every_clip_that_is_shown_says_what_it_is(facts, wide):
    for clip, about in facts["clip_facts"].items():
        assert about["uri"] == wide[clip]["source.uri"]
        assert about["verdict"] in {"kept", "dropped", "failed"} and bool(about["reason"]) == (
            about["verdict"] != "kept"
        )
        assert set(about["values"]) == {axis["measure"] for axis in facts["axes"]}
        assert about["end_s"] > about["start_s"]


def test_captions_lie_side_by_side_those_that_disagree_most_first(facts, wide):
    assert facts["caption_columns"] == ["caption.coca.caption", "caption.chosen.caption"]
    listed = [entry["disagreement"] for entry in facts["captions"]]
    assert listed == sorted(listed, reverse=True)
    kept = [clip for clip, about in facts["clip_facts"].items() if about["verdict"] == "kept"]
    assert {entry["clip"] for entry in facts["captions"]} <= set(kept)
    for entry in facts["captions"]:
        assert entry["disagreement"] == wide[entry["clip"]]["clip.similarity.disagreement"]
        for caption in entry["captions"]:
            assert len(caption["text"]) <= TEXT_CHARS + 1
            if caption["column"] == "caption.coca.caption":
                assert wide[entry["clip"]]["caption.coca.caption"].startswith(caption["text"].rstrip("…"))
                assert caption["score"] is None or caption["score"] == pytest.approx(0.2)
