"""Laws of near-duplicate removal by embeddings, against a comparison of all pairs, and through a selection."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from corpus_kit import CorpusKit
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.config import parse_config
from curate.errors import ConfigError, CorpusError
from curate.select import SelectConfig, embeddings, select
from curate.select.embeddings import CosineRule, Embedded, near_duplicates_by_embedding
from curate.tables import read_parquet

LENGTH = 16


def embedded(rows):
    """Rows of (three vectors, source, start_s, duration_s)."""
    vectors = np.array([row[0] for row in rows], np.float16).reshape(len(rows), 3, LENGTH)
    return Embedded(
        vectors, *(np.array([row[i] for row in rows], kind) for i, kind in enumerate((int, float, float), 1))
    )


def cosine(a, b):
    a, b = np.asarray(a, np.float16).astype(float), np.asarray(b, np.float16).astype(float)
    lengths = np.linalg.norm(a) * np.linalg.norm(b)
    return float((a * b).sum() / lengths) if lengths else 0.0


def alike(a, b, rule):
    (vectors_a, source_a, start_a, length_a), (vectors_b, source_b, start_b, length_b) = a, b
    near = all(cosine(x, y) >= rule.cosine for x, y in zip(vectors_a, vectors_b, strict=True))
    close = abs(length_a - length_b) <= rule.duration_tolerance * max(length_a, length_b)
    apart = source_a == source_b and (start_a + length_a <= start_b or start_b + length_b <= start_a)
    return near and close and not apart


def naive(rows, rule):
    """The rule as its documentation says it: the best kept one that matches."""
    kept_for = []
    for i, row in enumerate(rows):
        kept = (j for j in range(i) if kept_for[j] < 0 and alike(rows[j], row, rule))
        kept_for.append(next(kept, -1))
    return kept_for


def turned(base, step):
    """A unit vector ``step`` times 0.1 rad from a basis vector; three steps are a cosine of 0.955."""
    vector = np.zeros(LENGTH)
    vector[base], vector[base + 8] = np.cos(0.1 * step), np.sin(0.1 * step)
    return vector


vectors = st.builds(turned, st.integers(0, 1), st.integers(0, 8))
clip = st.tuples(
    st.tuples(vectors, vectors, vectors) | vectors.map(lambda v: (v, v, v)),
    st.integers(0, 3),
    st.sampled_from([0.0, 5.0, 10.0]),
    st.sampled_from([0.0, 4.0, 4.3, 4.4, 4.5, 5.0, 9.0]),
)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(clip, max_size=40),
    st.sampled_from([0.9, 0.955, 0.99]),
    st.sampled_from([0.0, 0.1, 0.5]),
    st.sampled_from([(3, 2, 2, 2), (8, 3, 4, 1), (2048, 4096, 256, 256)]),
)
def test_the_clips_kept_are_those_of_the_rule(rows, threshold, tolerance, sizes):
    rule = CosineRule(threshold, tolerance)
    with pytest.MonkeyPatch.context() as patch:
        for name, size in zip(("_BLOCK", "_CHUNK", "_PART", "_PAIRS"), sizes, strict=True):
            patch.setattr(embeddings, name, size)
        found = near_duplicates_by_embedding(embedded(rows), rule).tolist()
    assert found == naive(rows, rule)


def copies(seed, n, n_originals, length=64):
    """Random vectors, the rest of them slightly changed copies of the first ones."""
    rng = np.random.default_rng(seed)
    originals = rng.normal(size=(n_originals, 3, length))
    of = rng.integers(0, n_originals, n - n_originals)
    changed = originals[of] + rng.normal(size=(n - n_originals, 3, length)) * rng.choice(
        [0.05, 0.3, 0.4], (len(of), 1, 1)
    )
    durations = rng.choice(np.linspace(1, 20, 60), n)
    return np.concatenate([originals, changed]), durations


def test_thousands_of_clips_as_all_pairs_give_it():
    """Over several blocks, chunks and parts as they are."""
    vectors, durations = copies(3, 5000, 3000)
    n, rule = len(vectors), CosineRule()
    clips = Embedded(vectors.astype(np.float16), np.arange(n) % 700, np.zeros(n), durations)
    exact = clips.vectors.astype(np.float64)
    exact /= np.linalg.norm(exact, axis=2, keepdims=True)
    expected = np.full(n, -1)
    for i in range(n):
        near = np.ones(i, bool)
        for frame in range(3):
            near &= exact[:i, frame] @ exact[i, frame] >= rule.cosine
        near &= np.abs(durations[:i] - durations[i]) <= 0.1 * np.maximum(durations[:i], durations[i])
        hits = np.flatnonzero(near & (expected[:i] < 0))
        expected[i] = hits[0] if len(hits) else -1
    assert 100 < (expected >= 0).sum() < 2000
    np.testing.assert_array_equal(near_duplicates_by_embedding(clips, rule), expected)


def test_the_same_card_a_thousand_times_leaves_one_a_length():
    rows = [((turned(0, 0),) * 3, i, 0.0, (4.0, 8.0, 16.0)[i % 3]) for i in range(1000)]
    found = near_duplicates_by_embedding(embedded(rows), CosineRule())
    assert found.tolist() == [-1] * 3 + [i % 3 for i in range(3, 1000)]


def test_a_fixed_camera_keeps_all_its_clips_and_a_copy_of_it_none():
    rows = [((turned(0, 0),) * 3, source, 10.0 * i, 10.0) for source in (0, 1) for i in range(60)]
    found = near_duplicates_by_embedding(embedded(rows), CosineRule())
    assert (found[:60] < 0).all()
    assert (found[60:] >= 0).all()


@pytest.mark.parametrize("lengths", [(4.0, 4.8, 4.4), (4.8, 4.0, 4.4)])
def test_of_two_kept_clips_on_either_side_of_its_length_the_better_is_named(lengths, monkeypatch):
    monkeypatch.setattr(embeddings, "_BLOCK", 1)
    rows = [((turned(0, 0),) * 3, i, 0.0, length_s) for i, length_s in enumerate(lengths)]
    assert near_duplicates_by_embedding(embedded(rows), CosineRule()).tolist() == [-1, -1, 0]


def test_a_vector_of_nothing_matches_nothing_and_no_clips_are_none():
    rows = [((np.zeros(LENGTH),) * 3, i, 0.0, 4.0) for i in range(3)]
    assert near_duplicates_by_embedding(embedded(rows), CosineRule()).tolist() == [-1] * 3
    none = Embedded(np.zeros((0, 3, 0), np.float16), np.zeros(0, int), np.zeros(0), np.zeros(0))
    assert near_duplicates_by_embedding(none, CosineRule()).tolist() == []


FRAMES = ("first", "middle", "last")
STAGES = {
    "quality": {"sharpness": pa.float64()},
    "features": {**{f"phash_{at}": pa.uint64() for at in FRAMES}, "phash_flat": pa.bool_()},
    "clip": dict.fromkeys(FRAMES, pa.list_(pa.float16())),
}


def config(**dedup):
    return parse_config(SelectConfig, {"name": "sel", "dedup": dedup}, "select")


def corpus_of(path, shown, stages=tuple(STAGES), hashes=None):
    """One source a clip; ``shown`` gives each clip's vector, None is a failed cell. Later clips are sharper."""
    kit = CorpusKit(path / "corpus", {name: STAGES[name] for name in stages})
    clips = [kit.source(f"{i}.mp4", [4.0])[0] for i in range(len(shown))]
    for number, (clip, vector) in enumerate(zip(clips, shown, strict=True)):
        kit.cell("quality", clip, sharpness=float(number))
        same = (hashes or [15 << 4 * number for number in range(len(shown))])[number]
        kit.cell("features", clip, **{f"phash_{at}": same for at in FRAMES}, phash_flat=False)
        if "clip" in stages and vector is None:
            kit.failed("clip", clip)
        elif "clip" in stages:
            kit.cell("clip", clip, **dict.fromkeys(FRAMES, np.asarray(vector, np.float16)))
    return kit.write(), clips


def rows_of(corpus):
    table = read_parquet(corpus.selections().child("sel", "selection.parquet"))
    return {row["clip_id"]: row for row in table.to_pylist()}


SHOWN = [turned(0, 0), turned(0, 1), turned(0, 8), turned(0, 9)]


def test_the_better_of_two_stays_by_what_the_clips_show(tmp_path):
    corpus, clips = corpus_of(tmp_path, SHOWN)
    funnel = select(corpus, config(method="embedding", keep="quality.sharpness"))
    rows = rows_of(corpus)
    assert [rows[clip]["verdict"] for clip in clips] == ["dropped", "kept", "dropped", "kept"]
    assert [rows[clip]["duplicate_of"] for clip in clips] == [clips[1], None, clips[3], None]
    assert funnel.near_duplicates == 2
    assert select(corpus, config(method="embedding", cosine=0.999)).near_duplicates == 0
    assert select(corpus, config(method="hash")).near_duplicates == 0


@pytest.mark.parametrize(("on_failed", "verdict"), [("failed", "failed"), ("drop", "dropped"), ("keep", "kept")])
def test_a_survivor_whose_embeddings_failed(tmp_path, on_failed, verdict):
    corpus, clips = corpus_of(tmp_path, [None, *SHOWN[:2]])
    funnel = select(corpus, config(method="embedding", on_failed=on_failed, keep="quality.sharpness"))
    rows = rows_of(corpus)
    assert [rows[clip]["verdict"] for clip in clips] == [verdict, "dropped", "kept"]
    assert (funnel.clips.found, funnel.near_duplicates) == (3, 1)


def test_auto_takes_embeddings_where_the_run_has_them(tmp_path):
    corpus, _ = corpus_of(tmp_path / "with", SHOWN)
    assert select(corpus, config(method="auto")).near_duplicates == 2
    bare = ("quality", "features")
    corpus, _ = corpus_of(tmp_path / "without", SHOWN, bare, hashes=[1, 1, 1, 1])
    assert select(corpus, config(method="auto")).near_duplicates == 3
    with pytest.raises(ConfigError, match="has no stage 'clip'"):
        select(corpus, config(method="embedding"))


def test_embeddings_that_are_missing_or_of_two_lengths_are_refused(tmp_path):
    kit = CorpusKit(tmp_path / "corpus", STAGES)
    clips = [kit.source(f"{i}.mp4", [4.0])[0] for i in range(2)]
    kit.cell("clip", clips[0], **dict.fromkeys(FRAMES, np.zeros(4, np.float16)))
    with pytest.raises(CorpusError, match="1 clips have no cell of 'clip'"):
        select(kit.write(), config(method="embedding"))
    kit.cell("clip", clips[1], **dict.fromkeys(FRAMES, np.zeros(5, np.float16)))
    with pytest.raises(CorpusError, match="or one of another length"):
        select(kit.write(), config(method="embedding"))


def test_a_run_without_survivors(tmp_path):
    corpus, _ = corpus_of(tmp_path, [None, None])
    assert select(corpus, config(method="embedding", on_failed="drop")).clips.kept == 0
