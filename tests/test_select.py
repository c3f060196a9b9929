"""Selections over small corpora with known values."""

from __future__ import annotations

import json
import math
import random

import pyarrow as pa
import pytest
from corpus_kit import CorpusKit, digest_of
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.config import parse_config
from curate.errors import ConfigError, CorpusError
from curate.query import TOMBSTONES
from curate.select import SelectConfig, input_verdicts, load_funnel, select
from curate.tables import read_parquet, rows_table, write_part

HASHES = {f"phash_{at}": pa.uint64() for at in ("first", "middle", "last")}
STAGES = {
    "motion": {"speed": pa.float64(), "camera": pa.string()},
    "quality": {"sharpness": pa.float64(), "dark": pa.bool_()},
    "features": {**HASHES, "phash_flat": pa.bool_(), "classes": pa.list_(pa.string())},
    "caption.template": {"caption": pa.string(), "words": pa.int32()},
}
NO_DEDUP = {"dedup": {"method": "none"}}


def config(*conditions, **other):
    return parse_config(SelectConfig, {"name": "sel", "conditions": list(conditions), **NO_DEDUP, **other}, "select")


def rows_of(corpus, name="sel"):
    return {
        row["clip_id"]: row for row in read_parquet(corpus.selections().child(name, "selection.parquet")).to_pylist()
    }


def verdicts(corpus, name="sel"):
    return {clip: (row["verdict"], row["reason"]) for clip, row in rows_of(corpus, name).items()}


def speeds(kit, values, uri="a.mp4", camera="static"):
    """A source with one clip of 2 s per speed; None is a failed cell."""
    clips = kit.source(uri, [2.0] * len(values))
    for clip, value in zip(clips, values, strict=True):
        if value is None:
            kit.failed("motion", clip)
        else:
            kit.cell("motion", clip, speed=value, camera=camera)
    return clips


def kit_at(path, **options):
    return CorpusKit(path / "corpus", STAGES, **options)


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.one_of(st.integers(0, 6).map(float), st.none()), min_size=1, max_size=25),
    st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9]),
    st.booleans(),
)
def test_percentiles_are_nearest_rank_with_ties_kept(tmp_path_factory, values, share, lowest):
    kit = kit_at(tmp_path_factory.mktemp("c"))
    clips = speeds(kit, values)
    corpus = kit.write()
    funnel = select(corpus, config({"column": "motion.speed", ("drop_lowest" if lowest else "drop_highest"): share}))
    sign = 1 if lowest else -1
    ranked = sorted(sign * value for value in values if value is not None)
    rank_from_kept_end = math.ceil(round((1 - share) * len(ranked), 9))
    limit = ranked[len(ranked) - rank_from_kept_end] * sign if ranked else None
    assert funnel.thresholds[0].value == limit
    assert funnel.thresholds[0].n == len(ranked)
    found = {clip: verdict for clip, (verdict, _) in verdicts(corpus).items()}
    for clip, value in zip(clips, values, strict=True):
        assert found[clip] == ("failed" if value is None else "kept" if sign * value >= sign * limit else "dropped")
    assert funnel.clips.dropped <= share * len(ranked)


def digest_in_order(path, shuffle):
    """Of a selection over rows that were shuffled first."""
    kit = kit_at(path)
    for number in range(3):
        clips = speeds(kit, [0.1 * number, 0.5, None, 0.9], uri=f"{number}.mp4")
        for clip in clips:
            hashes = dict.fromkeys(HASHES, len(clip) + number // 2)
            kit.cell("features", clip, **hashes, phash_flat=False, classes=[])
            kit.cell("quality", clip, sharpness=float(number), dark=False)
    for rows in (*kit.cells.values(), kit.clips, kit.inputs):
        shuffle(rows)
    chosen = {"column": "motion.speed", "drop_lowest": 0.3, "on_failed": "keep"}
    return select(kit.write(), config(chosen, dedup={"keep": "quality.sharpness"})).digest


@pytest.fixture(scope="module")
def digest_as_written(tmp_path_factory):
    return digest_in_order(tmp_path_factory.mktemp("c"), lambda rows: None)


@settings(max_examples=15, deadline=None)
@given(st.randoms(use_true_random=False))
def test_the_order_of_rows_and_parts_does_not_matter(tmp_path_factory, digest_as_written, shuffler: random.Random):
    assert digest_in_order(tmp_path_factory.mktemp("c"), shuffler.shuffle) == digest_as_written


def test_every_kind_of_condition(tmp_path):
    kit = kit_at(tmp_path)
    a, b, c = kit.source("a.mp4", [2.0, 5.0, 9.0], user={"licence": "CC0", "year": "1999"}, width_px=640)
    for clip, camera, classes in ((a, "static", ["cat"]), (b, "pan left", ["dog", "ball"]), (c, None, None)):
        kit.cell("motion", clip, speed=1.0, camera=camera)
        kit.cell("quality", clip, sharpness=1.0, dark=clip == a)
        kit.cell("features", clip, classes=classes)
    corpus = kit.write()

    def kept(**condition):
        select(corpus, config(condition))
        return {name for name, clip in zip("abc", (a, b, c), strict=True) if verdicts(corpus)[clip][0] == "kept"}

    assert kept(column="clip.duration_s", min=3, max=8) == {"b"}
    assert kept(column="clip.duration_s", max=5.0) == {"a", "b"}
    assert kept(column="motion.camera", **{"in": ["static", "roll"]}) == {"a"}
    assert kept(column="motion.camera", not_in=["static"]) == {"b", "c"}
    assert kept(column="motion.camera", equals="pan left") == {"b"}
    assert kept(column="quality.dark", equals=False) == {"b", "c"}
    assert kept(column="features.classes", **{"in": ["cat", "ball"]}) == {"a", "b"}
    assert kept(column="features.classes", not_in=["ball"]) == {"a", "c"}
    assert kept(column="source.width_px", equals=640) == {"a", "b", "c"}
    assert kept(column="user.licence", equals="CC0") == {"a", "b", "c"}
    assert kept(column="user.year", min=2000) == set()
    assert kept(column="user.year", equals=1999) == {"a", "b", "c"}


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ({"column": "motion.camera", "min": 1}, "column of numbers"),
        ({"column": "motion.camera", "drop_lowest": 0.1}, "column of numbers"),
        ({"column": "motion.speed", "equals": "fast"}, "the column holds numbers"),
        ({"column": "quality.dark", "in": [1]}, "true or false"),
        ({"column": "motion.sped", "min": 1}, "did you mean 'motion.speed'"),
    ],
)
def test_a_condition_that_does_not_suit_its_column_is_refused(tmp_path, condition, message):
    kit = kit_at(tmp_path)
    (clip,) = speeds(kit, [0.5])
    kit.cell("quality", clip, sharpness=1.0, dark=False)
    with pytest.raises(ConfigError, match=message):
        select(kit.write(), config(condition))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"conditions": [{"column": "a"}]}, "exactly one of"),
        ({"conditions": [{"column": "a", "min": 1, "equals": 2}]}, "exactly one of"),
        ({"conditions": [{"column": "a", "min": 2, "max": 1}]}, "nothing could pass"),
        ({"conditions": [{"column": "a", "min": 2}, {"column": "a", "max": 3}]}, "give each a `name`"),
        ({"conditions": [{"column": "a", "drop_lowest": 25}]}, "less than 1"),
        ({"name": "../up"}, "name"),
        ({"dedupe": {}}, "did you mean 'dedup'"),
    ],
)
def test_a_wrong_configuration_says_what_is_wrong(data, message):
    with pytest.raises(ConfigError, match=message):
        parse_config(SelectConfig, data, "select")


def test_the_first_failing_condition_is_the_reason_and_all_are_stored(tmp_path):
    kit = kit_at(tmp_path)
    clips = speeds(kit, [0.1, 0.9], camera="static")
    corpus = kit.write()
    funnel = select(
        corpus,
        config(
            {"column": "motion.speed", "min": 0.5},
            {"column": "motion.camera", "not_in": ["static"], "name": "moving camera"},
        ),
    )
    rows = rows_of(corpus)
    assert rows[clips[0]]["reason"] == "motion.speed below 0.5"
    assert rows[clips[0]]["failing"] == ["motion.speed", "moving camera"]
    assert rows[clips[1]]["reason"] == "moving camera (motion.camera is one of static)"
    assert [(c.first, c.failing) for c in funnel.conditions] == [(1, 1), (1, 2)]


@pytest.mark.parametrize(
    ("on_failed", "verdict", "reason"),
    [
        ("failed", "failed", "motion.speed: motion could not be measured"),
        ("drop", "dropped", "motion.speed: motion could not be measured"),
        ("keep", "kept", None),
    ],
)
def test_a_failed_cell_is_never_a_low_score(tmp_path, on_failed, verdict, reason):
    kit = kit_at(tmp_path)
    clips = speeds(kit, [None, 0.9])
    corpus = kit.write()
    funnel = select(corpus, config({"column": "motion.speed", "min": 0.5, "on_failed": on_failed}))
    assert verdicts(corpus)[clips[0]] == (verdict, reason)
    assert funnel.conditions[0].failing == 0


def test_changing_a_threshold_changes_no_table(tmp_path):
    kit = kit_at(tmp_path)
    speeds(kit, [0.1, 0.5, 0.9])
    corpus = kit.write()
    before = sorted(str(p) for p in (tmp_path / "corpus" / "tables").rglob("*"))
    kept = [select(corpus, config({"column": "motion.speed", "min": low})).clips.kept for low in (0.0, 0.5, 0.9)]
    assert kept == [3, 2, 1]
    assert sorted(str(p) for p in (tmp_path / "corpus" / "tables").rglob("*")) == before


GATE = {"after_index": 2, "column": "motion.speed", "min": 0.3}


def gated_kit(path):
    kit = kit_at(path, gates=[GATE])
    clips = speeds(kit, [0.1, 0.4, 0.6, 0.8])
    for number, clip in enumerate(clips[1:]):
        kit.cell("quality", clip, sharpness=float(number), dark=False)
    return kit, clips


def test_what_a_gate_shuts_out_is_dropped_in_its_name(tmp_path):
    kit, clips = gated_kit(tmp_path)
    corpus = kit.write()
    funnel = select(corpus, config({"column": "quality.sharpness", "min": 1.0}))
    found = verdicts(corpus)
    assert found[clips[0]] == ("dropped", "gate: motion.speed below 0.3")
    assert found[clips[1]] == ("dropped", "quality.sharpness below 1")
    assert [found[clip][0] for clip in clips[2:]] == ["kept", "kept"]
    assert [(c.kind, c.first) for c in funnel.conditions] == [("gate", 1), ("condition", 1)]


def test_a_cell_below_a_failing_gate_counts_for_nothing(tmp_path):
    kit, clips = gated_kit(tmp_path)
    kit.cell("quality", clips[0], sharpness=-5.0, dark=False)
    corpus = kit.write()
    chosen = {"column": "quality.sharpness", "drop_lowest": 0.34, "population": "after_gate"}
    funnel = select(corpus, config(chosen))
    assert (funnel.thresholds[0].n, funnel.thresholds[0].value) == (3, 1.0)
    assert verdicts(corpus)[clips[0]] == ("dropped", "gate: motion.speed below 0.3")


def test_a_failed_gate_cell_fails_the_clip(tmp_path):
    kit = kit_at(tmp_path, gates=[GATE])
    (clip,) = speeds(kit, [None])
    corpus = kit.write()
    select(corpus, config({"column": "quality.sharpness", "min": 1.0}))
    assert verdicts(corpus)[clip] == ("failed", "gate motion.speed: motion could not be measured")


def test_a_percentile_below_a_gate_must_be_meant(tmp_path):
    kit, _ = gated_kit(tmp_path)
    corpus = kit.write()
    with pytest.raises(ConfigError, match="after_gate"):
        select(corpus, config({"column": "quality.sharpness", "drop_lowest": 0.5}))
    above = select(corpus, config({"column": "motion.speed", "drop_lowest": 0.5}))
    assert (above.thresholds[0].n, above.thresholds[0].value) == (4, 0.6)


def test_missing_cells_are_refused_with_the_command(tmp_path):
    kit, clips = gated_kit(tmp_path)
    kit.cells["quality"].pop()
    corpus = kit.write()
    with pytest.raises(CorpusError, match=r"1 clips have no cell of 'quality'.*--stages quality"):
        select(corpus, config({"column": "quality.sharpness", "min": 1.0}))
    assert not corpus.selections().child("sel").exists()
    assert select(corpus, config({"column": "motion.speed", "min": 1.0})).clips.found == len(clips)


def test_like_applies_the_thresholds_of_an_earlier_selection(tmp_path):
    kit = kit_at(tmp_path)
    speeds(kit, [0.1, 0.2, 0.3, 0.4])
    corpus = kit.write()
    chosen = {"column": "motion.speed", "drop_lowest": 0.5}
    first = select(corpus, config(chosen, name="first"))
    kit.inputs.clear()
    clips = speeds(kit, [0.25, 0.3, 0.9], uri="new.mp4")
    kit.write("run-2")
    second = select(corpus, config(chosen), like="first")
    assert second.thresholds[0].value == first.thresholds[0].value == 0.3
    assert second.thresholds[0].like == "first"
    assert [verdicts(corpus)[clip][0] for clip in clips] == ["dropped", "kept", "kept"]
    assert select(corpus, config(chosen)).thresholds[0].value == 0.3
    with pytest.raises(ConfigError, match="no threshold for this condition"):
        select(corpus, config({"column": "motion.speed", "drop_highest": 0.5}), like="first")
    with pytest.raises(ConfigError, match="did you mean 'first'"):
        select(corpus, config(chosen), like="frist")


def test_forgotten_sources_are_dropped(tmp_path):
    kit = kit_at(tmp_path)
    gone, by_name, stays = (speeds(kit, [0.5], uri=uri)[0] for uri in ("gone.mp4", "name.mp4", "stays.mp4"))
    corpus = kit.write()
    stones = [
        {"source_digest": digest_of("gone.mp4"), "uri": "stays.mp4", "reason": "take-down"},
        {"source_digest": None, "uri": "name.mp4", "reason": "take-down"},
    ]
    write_part(corpus.root.child("tables", "tombstones"), rows_table(TOMBSTONES, stones))
    funnel = select(corpus, config({"column": "motion.speed", "min": 0.9}))
    found = verdicts(corpus)
    assert found[gone] == found[by_name] == ("dropped", "forgotten")
    assert found[stays] == ("dropped", "motion.speed below 0.9")
    assert {(r.reason, r.n) for r in funnel.input_reasons} == {
        ("forgotten", 2),
        ("no clip kept: motion.speed below 0.9", 1),
    }


def with_hashes(kit, clips, hashes, **quality):
    for number, (clip, value) in enumerate(zip(clips, hashes, strict=True)):
        if value is None:
            kit.failed("features", clip)
        else:
            kit.cell("features", clip, **dict.fromkeys(HASHES, value), phash_flat=value == 0)
        kit.cell("quality", clip, sharpness=quality.get("sharpness", float(number)), dark=False)


def test_the_better_of_two_near_duplicates_stays(tmp_path):
    kit = kit_at(tmp_path)
    clips = [speeds(kit, [0.5], uri=f"{i}.mp4")[0] for i in range(4)]
    with_hashes(kit, clips, [0b0001, 0b0010, 0b1111 << 20, 0b0100])
    corpus = kit.write()
    funnel = select(corpus, config(dedup={"keep": "quality.sharpness"}))
    rows = rows_of(corpus)
    assert [rows[clip]["verdict"] for clip in clips] == ["dropped", "dropped", "kept", "kept"]
    assert [rows[clip]["duplicate_of"] for clip in clips] == [clips[3], clips[3], None, None]
    assert rows[clips[0]]["reason"] == "near-duplicate"
    assert funnel.near_duplicates == 2


def test_dropped_clips_and_flat_pictures_take_no_part_in_deduplication(tmp_path):
    kit = kit_at(tmp_path)
    clips = [speeds(kit, [speed], uri=f"{i}.mp4")[0] for i, speed in enumerate((0.1, 0.9, 0.9, 0.9))]
    with_hashes(kit, clips, [5, 5, 0, 0])
    corpus = kit.write()
    select(corpus, config({"column": "motion.speed", "min": 0.5}, dedup={}))
    assert [verdicts(corpus)[clip][0] for clip in clips] == ["dropped", "kept", "kept", "kept"]


@pytest.mark.parametrize(("on_failed", "verdict"), [("failed", "failed"), ("drop", "dropped"), ("keep", "kept")])
def test_a_survivor_whose_hashes_failed(tmp_path, on_failed, verdict):
    kit = kit_at(tmp_path)
    clips = [speeds(kit, [0.5], uri=f"{i}.mp4")[0] for i in range(2)]
    with_hashes(kit, clips, [None, 5])
    corpus = kit.write()
    funnel = select(corpus, config(dedup={"on_failed": on_failed}))
    assert [verdicts(corpus)[clip][0] for clip in clips] == [verdict, "kept"]
    assert funnel.clips.found == 2


def test_deduplication_needs_the_hashes_of_survivors_only(tmp_path):
    kit = kit_at(tmp_path)
    slow, fast = speeds(kit, [0.1, 0.9])
    with_hashes(kit, [fast], [5])
    corpus = kit.write()
    assert select(corpus, config({"column": "motion.speed", "min": 0.5}, dedup={})).clips.kept == 1
    with pytest.raises(CorpusError, match="no cell of 'features'"):
        select(corpus, config(dedup={}))
    assert slow != fast


def bad_inputs(kit):
    kit.input("broken.mp4", "failed", "NotMediaError: no demuxer reads the file")
    kit.input("copy.mp4", "skipped", "same content as a.mp4", digest_of("a.mp4"))
    kit.input("link.mp4", "skipped", "symlink out of the root")
    kit.source("short.mp4", [])
    kit.source("cut.mp4", [])
    kit.cells["cut"].pop()
    kit.failed("cut", digest_of("cut.mp4"), "DecodeError", "the stream ends early")


def test_every_input_is_accounted_for(tmp_path):
    kit = kit_at(tmp_path)
    bad_inputs(kit)
    speeds(kit, [0.9, 0.1], uri="a.mp4")
    speeds(kit, [0.1, 0.2], uri="slow.mp4")
    speeds(kit, [None, None], uri="unmeasured.mp4")
    corpus = kit.write()
    funnel = select(corpus, config({"column": "motion.speed", "min": 0.5}))
    assert {(v.uri, v.verdict, v.reason) for v in input_verdicts(corpus, "sel")} == {
        ("a.mp4", "kept", ""),
        ("broken.mp4", "failed", "NotMediaError: no demuxer reads the file"),
        ("copy.mp4", "skipped", "same content as a.mp4"),
        ("cut.mp4", "failed", "DecodeError: the stream ends early"),
        ("link.mp4", "skipped", "symlink out of the root"),
        ("short.mp4", "dropped", "no clip of at least the minimum length"),
        ("slow.mp4", "dropped", "no clip kept: motion.speed below 0.5"),
        ("unmeasured.mp4", "failed", "every clip failed: motion.speed: motion could not be measured"),
    }
    inputs = funnel.inputs
    assert (inputs.found, inputs.kept, inputs.dropped, inputs.failed, inputs.skipped) == (8, 1, 2, 3, 2)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.lists(st.sampled_from([0.1, 0.4, 0.9, None]), max_size=4), max_size=6), st.booleans())
def test_the_counts_add_up(tmp_path_factory, sources, gated):
    kit = kit_at(tmp_path_factory.mktemp("c"), gates=[GATE] if gated else [])
    bad_inputs(kit)
    for number, values in enumerate(sources):
        clips = speeds(kit, values, uri=f"{number}.mp4")
        with_hashes(kit, clips, [77 if value == 0.4 else 5 for value in values])
    corpus = kit.write()
    funnel = select(corpus, config({"column": "motion.speed", "max": 0.5}, dedup={}))
    for counts, reasons in ((funnel.inputs, funnel.input_reasons), (funnel.clips, funnel.clip_reasons)):
        assert counts.found == counts.kept + counts.dropped + counts.failed + counts.skipped
        for verdict in ("dropped", "failed", "skipped"):
            assert getattr(counts, verdict) == sum(r.n for r in reasons if r.verdict == verdict)
    assert funnel.clips.found == sum(map(len, sources)) == len(rows_of(corpus))
    assert funnel.inputs.found == 5 + len(sources)
    assert funnel.hours["found"] == pytest.approx(funnel.clips.found * 2 / 3600)
    assert load_funnel(corpus, "sel") == funnel


def test_an_input_without_clips_yet_is_refused(tmp_path):
    kit = kit_at(tmp_path)
    speeds(kit, [0.5])
    kit.cells["cut"].clear()
    with pytest.raises(CorpusError, match="1 inputs have no clips yet"):
        select(kit.write(), config())


def test_a_run_without_clips_selects_nothing(tmp_path):
    kit = kit_at(tmp_path)
    kit.input("notes.txt", "skipped", "not a video name")
    corpus = kit.write()
    conditions = [{"column": "motion.speed", "drop_lowest": 0.25}, {"column": "motion.camera", "equals": "static"}]
    funnel = select(corpus, config(*conditions, dedup={}))
    assert (funnel.clips.found, funnel.inputs.skipped, funnel.thresholds[0].value) == (0, 1, None)
    assert rows_of(corpus) == {}


def test_buckets_are_asked_once_per_shape_for_what_is_kept(tmp_path):
    kit = kit_at(tmp_path)
    speeds(kit, [0.5, 0.9, 0.9])
    corpus = kit.write()
    asked = []

    def bucket_of(width_px, height_px, n_frames, fps):
        asked.append((width_px, height_px, n_frames, fps))
        return "big"

    funnel = select(corpus, config({"column": "motion.speed", "min": 0.6}), bucket_of=bucket_of)
    assert asked == [(1280, 720, 50, 25.0)]
    assert sorted(str(row["bucket"]) for row in rows_of(corpus).values()) == ["None", "big", "big"]
    assert funnel.buckets == {"big": 2}


def test_retention_compares_the_conditions_together_with_the_product_of_each(tmp_path):
    kit = kit_at(tmp_path)
    clips = speeds(kit, [0.1, 0.1, 0.9, 0.9])
    for clip, sharpness in zip(clips, [0.0, 0.0, 1.0, 1.0], strict=True):
        kit.cell("quality", clip, sharpness=sharpness, dark=False)
    conditions = [{"column": "motion.speed", "min": 0.5}, {"column": "quality.sharpness", "min": 0.5}]
    retention = select(kit.write(), config(*conditions)).retention
    assert (retention.judged, retention.joint, retention.product, retention.ratio) == (4, 0.5, 0.25, 2.0)


def test_retention_of_the_papers_four_percentiles(tmp_path):
    """SVD 3.3: 25 % of motion, aesthetics and text area and 50 % of similarity leave 0.211 of independent axes."""
    names = ("motion", "aesthetic", "clip", "text")
    kit = CorpusKit(tmp_path / "corpus", {name: {"score": pa.float64()} for name in names})
    clips = kit.source("a.mp4", [2.0] * 256)
    for number, clip in enumerate(clips):
        for axis, name in enumerate(names):
            kit.cell(name, clip, score=float(number // 4**axis % 4))
    shares = {"motion": 0.25, "aesthetic": 0.25, "clip": 0.5}
    conditions = [{"column": f"{name}.score", "drop_lowest": share} for name, share in shares.items()]
    conditions.append({"column": "text.score", "drop_highest": 0.25})
    corpus = kit.write()
    retention = select(corpus, config(*conditions)).retention
    assert (retention.judged, retention.product, retention.joint) == (256, 0.75**3 * 0.5, 54 / 256)
    assert retention.ratio == 1.0
    written = json.loads((tmp_path / "corpus/selections/sel/funnel.json").read_text())["retention"]
    assert written == {"judged": 256, "joint": 54 / 256, "product": 0.2109375}


LISTS = {
    "clip.similarity": {"all": pa.list_(pa.float64()), "best": pa.string()},
    "aesthetic": {"scores": pa.list_(pa.float64()), "words": pa.list_(pa.string())},
}


def lists_at(tmp_path, rows):
    """A corpus of one clip per list of scores; None is a failed cell, as everywhere here."""
    kit = CorpusKit(tmp_path / "corpus", LISTS)
    clips = kit.source("a.mp4", [2.0] * len(rows))
    for clip, scores in zip(clips, rows, strict=True):
        if scores is None:
            kit.failed("aesthetic", clip)
        else:
            kit.cell("aesthetic", clip, scores=scores, words=["a"])
        kit.cell("clip.similarity", clip, all=[0.1] * 9, best="coca")
    return kit.write(), clips


@pytest.mark.parametrize(
    ("aggregate", "kept"),
    [("mean", "bc"), ("min", "c"), ("max", "abc"), ("first", "ac"), ("middle", "bc"), ("last", "bc")],
)
def test_a_list_is_made_one_number(tmp_path, aggregate, kept):
    rows = {"a": [6.0, 1.0, 2.0], "b": [2.0, 8.0, 5.0], "c": [5.0, 5.0, 5.0], "d": [4.0, 3.0, 1.0], "e": []}
    corpus, clips = lists_at(tmp_path, list(rows.values()))
    name = f"{aggregate} of aesthetic.scores"
    funnel = select(corpus, config({"column": "aesthetic.scores", "aggregate": aggregate, "min": 5}))
    found = verdicts(corpus)
    assert "".join(n for n, clip in zip(rows, clips, strict=True) if found[clip][0] == "kept") == kept
    assert funnel.conditions[0].text == f"{name} below 5"
    funnel = select(corpus, config({"column": "aesthetic.scores", "aggregate": aggregate, "drop_lowest": 0.5}))
    limit = funnel.thresholds[0]
    number = {"mean": lambda x: sum(x) / 3, "min": min, "max": max, "first": lambda x: x[0]}
    number |= {"middle": lambda x: x[1], "last": lambda x: x[2]}
    assert (limit.n, limit.aggregate) == (4, aggregate)
    assert limit.value == sorted(number[aggregate](row) for row in rows.values() if row)[2]
    assert f"{name} in the lowest 50 %" in funnel.conditions[0].text


def test_failed_cells_and_lists_of_other_lengths(tmp_path):
    corpus, clips = lists_at(tmp_path, [None, [1.0, 2.0, 3.0, 4.0], [7.0], [9.0, 9.0]])
    condition = {"column": "aesthetic.scores", "aggregate": "middle", "drop_highest": 0.4}
    funnel = select(corpus, config(condition))
    assert (funnel.thresholds[0].n, funnel.thresholds[0].value) == (3, 7.0)
    assert [verdicts(corpus)[clip][0] for clip in clips] == ["failed", "kept", "kept", "dropped"]


def test_a_threshold_of_an_earlier_selection_is_that_of_the_same_aggregate(tmp_path):
    corpus, _ = lists_at(tmp_path, [[1.0, 2.0, 6.0], [4.0, 4.0, 7.0]])
    condition = {"column": "aesthetic.scores", "aggregate": "mean", "drop_lowest": 0.5}
    earlier = select(corpus, config(condition, name="first"))
    again = select(corpus, config(condition), like="first")
    assert (
        (again.thresholds[0].value, again.thresholds[0].like)
        == (earlier.thresholds[0].value, "first")
        == (5.0, "first")
    )
    with pytest.raises(ConfigError, match="no threshold"):
        select(corpus, config({**condition, "aggregate": "max"}), like="first")


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        ({"column": "aesthetic.scores", "min": 5}, "holds lists of them. Say which: aggregate: mean"),
        ({"column": "aesthetic.scores", "drop_lowest": 0.5}, "a percentile needs one number, the column holds lists"),
        ({"column": "aesthetic.words", "aggregate": "mean", "min": 5}, "the column holds lists of something else"),
        ({"column": "clip.duration_s", "aggregate": "mean", "min": 5}, "the column holds one number"),
        ({"column": "clip.similarity.best", "aggregate": "max", "drop_lowest": 0.1}, "the column holds no lists"),
    ],
)
def test_an_aggregate_that_does_not_suit_is_refused(tmp_path, condition, words):
    corpus, _ = lists_at(tmp_path, [[1.0], [2.0]])
    with pytest.raises(ConfigError, match=words):
        select(corpus, config(condition))


def test_an_aggregate_goes_with_numbers_only():
    with pytest.raises(ConfigError, match="goes with min, max, drop_lowest or drop_highest"):
        config({"column": "aesthetic.scores", "aggregate": "mean", "in": [1]})
    with pytest.raises(ConfigError, match="'mean', 'min', 'max', 'first', 'middle' or 'last'"):
        config({"column": "aesthetic.scores", "aggregate": "median", "min": 1})


def test_selecting_again_replaces_the_selection_whole(tmp_path):
    kit = kit_at(tmp_path)
    speeds(kit, [0.1, 0.9])
    corpus = kit.write()
    first = select(corpus, config({"column": "motion.speed", "min": 0.5}))
    again = select(corpus, config({"column": "motion.speed", "min": 0.5}))
    assert first.digest == again.digest
    folder = tmp_path / "corpus" / "selections" / "sel"
    assert sorted(p.name for p in folder.iterdir()) == ["funnel.json", "selection.parquet"]
    assert json.loads((folder / "funnel.json").read_text())["run_id"] == "run-1"
