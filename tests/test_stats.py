"""Statistics of small corpora with known values."""

from __future__ import annotations

import math

import pyarrow as pa
import pytest
from corpus_kit import CorpusKit
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.config import parse_config
from curate.errors import ConfigError, CorpusError
from curate.select import SelectConfig, select
from curate.stats import BINS, PERCENTILES, corpus_stats

STAGES = {
    "motion": {"speed": pa.float64(), "camera": pa.string(), "frozen": pa.bool_()},
    "features": {"phash_first": pa.uint64(), "classes": pa.list_(pa.string()), "embedding": pa.list_(pa.float32())},
}


def corpus_of(path, speeds):
    kit = CorpusKit(path / "corpus", STAGES)
    clips = kit.source("a.mp4", [2.0] * len(speeds))
    for clip, speed in zip(clips, speeds, strict=True):
        if speed is None:
            kit.failed("motion", clip, "StageError", "no flow")
        else:
            kit.cell("motion", clip, speed=speed, camera="static" if speed < 1 else "pan left", frozen=False)
            kit.cell("features", clip, phash_first=1, classes=["cat", "sofa"], embedding=[0.5])
    return kit, clips


@settings(max_examples=20, deadline=None)
@given(st.lists(st.one_of(st.none(), st.floats(-1e6, 1e6, width=32)), min_size=1, max_size=30))
def test_percentiles_are_nearest_rank_and_bins_hold_every_value(tmp_path_factory, speeds):
    kit, _ = corpus_of(tmp_path_factory.mktemp("c"), speeds)
    ranked = sorted(speed for speed in speeds if speed is not None)
    found = [s for s in corpus_stats(kit.write()).numbers if (s.stage, s.column) == ("motion", "speed")]
    if not ranked:
        assert found == []
        return
    (stats,) = found
    assert (stats.n, stats.failed) == (len(ranked), len(speeds) - len(ranked))
    assert (stats.min, stats.max) == (ranked[0], ranked[-1])
    for name, share in PERCENTILES.items():
        assert stats.percentiles[name] == ranked[math.ceil(round(share * len(ranked), 9)) - 1]
    assert sum(stats.counts) == len(ranked)
    assert len(stats.counts) == BINS
    assert (stats.edges[0], stats.edges[-1]) == (ranked[0], ranked[-1])


def test_categories_count_values_and_members_of_lists(tmp_path):
    kit, _ = corpus_of(tmp_path, [0.5, 0.6, 3.0, None])
    found = {(s.stage, s.column): s for s in corpus_stats(kit.write()).categories}
    assert found["motion", "camera"].top == [("static", 2), ("pan left", 1)]
    assert found["motion", "frozen"].top == [("false", 3)]
    assert found["features", "classes"].top == [("cat", 3), ("sofa", 3)]
    assert found["probe", "codec"].top == [("h264", 1)]
    assert found["motion", "camera"].failed == 1


def test_hashes_and_embeddings_are_no_scores(tmp_path):
    kit, _ = corpus_of(tmp_path, [0.5])
    stats = corpus_stats(kit.write())
    assert {s.column for s in (*stats.numbers, *stats.categories) if s.stage == "features"} == {"classes"}


def test_lists_of_scores_are_shown_by_their_mean(tmp_path):
    kit = CorpusKit(tmp_path / "corpus", {"aesthetic": {"scores": pa.list_(pa.float64())}})
    clips = kit.source("a.mp4", [2.0] * 4)
    for clip, scores in zip(clips, [[1.0, 2.0, 6.0], [4.0, 4.0, 7.0], []], strict=False):
        kit.cell("aesthetic", clip, scores=scores)
    kit.failed("aesthetic", clips[3])
    (found,) = (s for s in corpus_stats(kit.write()).numbers if s.stage == "aesthetic")
    assert (found.column, found.n, found.failed, found.min, found.max) == ("scores (mean)", 2, 1, 3.0, 5.0)


def test_seconds_sources_and_size(tmp_path):
    kit, _ = corpus_of(tmp_path, [0.5, 0.5, None])
    kit.input("b.mp4", "skipped", "same content as a.mp4")
    stats = corpus_stats(kit.write())
    motion = next(s for s in stats.seconds if s.stage == "motion")
    assert (motion.n, motion.sum_s, motion.max_s) == (3, pytest.approx(1.1), 0.5)
    assert [(s.outcome, s.cause, s.n) for s in stats.sources] == [
        ("ok", "", 1),
        ("skipped", "same content as a.mp4", 1),
    ]
    assert (stats.n_sources, stats.n_clips, stats.hours) == (1, 3, pytest.approx(6 / 3600))


def test_only_the_clips_of_the_run_count(tmp_path):
    kit, _ = corpus_of(tmp_path, [0.5, 0.5])
    kit.write("run-1")
    kit.inputs.clear()
    (clip,) = kit.source("b.mp4", [1.0])
    kit.cell("motion", clip, speed=9.0, camera="roll", frozen=True)
    corpus = kit.write("run-2")
    first, second = (corpus_stats(corpus, run) for run in ("run-1", "run-2"))
    assert [next(s.max for s in run.numbers if s.column == "speed") for run in (first, second)] == [0.5, 9.0]
    assert corpus_stats(corpus).run_id == "run-2"


def test_the_funnel_is_the_named_or_the_latest_selection_of_the_run(tmp_path):
    kit, _ = corpus_of(tmp_path, [0.5, 2.0])
    corpus = kit.write()
    assert corpus_stats(corpus).funnel is None
    for name, low in (("one", 1.0), ("two", 5.0)):
        data = {"name": name, "conditions": [{"column": "motion.speed", "min": low}], "dedup": {"method": "none"}}
        select(corpus, parse_config(SelectConfig, data, "select"))
    assert corpus_stats(corpus, selection="one").funnel["clips"]["kept"] == 1
    assert corpus_stats(corpus).funnel["name"] == "two"
    with pytest.raises(ConfigError, match="did you mean 'one'"):
        corpus_stats(corpus, selection="onee")
    with pytest.raises(ConfigError, match="was made over run"):
        corpus_stats(corpus, "run-9", "one")


def test_a_corpus_without_a_complete_run_says_so(tmp_path):
    with pytest.raises(CorpusError, match="no complete run"):
        corpus_stats(CorpusKit(tmp_path / "corpus", STAGES).corpus)


def test_a_run_without_clips(tmp_path):
    kit = CorpusKit(tmp_path / "corpus", STAGES)
    kit.input("notes.txt", "skipped", "not a video name")
    stats = corpus_stats(kit.write())
    assert (stats.n_clips, stats.numbers, stats.categories, stats.failures) == (0, [], [], [])
