"""`verify` finds what is wrong with a shard set, and nothing wrong with a whole one."""

import hashlib
import json

import pytest
from export_kit import ExportKit, config, select

from curate.export import export
from curate.forget import forget
from curate.shards.index import ShardIndex
from curate.shards.reader import ShardSet
from curate.shards.writer import Sample, build_shard
from curate.tables import read_parquet
from curate.testing.footage import moving_texture, write_video
from curate.verify import verify


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    folder = tmp_path_factory.mktemp("films")
    for name, seed in (("a.mp4", 1), ("b.mp4", 2)):
        write_video(folder / name, moving_texture(40, 192, 108, (2, 1), seed), gop=10, rotation_deg=90 * (seed - 1))
    return folder


@pytest.fixture
def corpus(films, tmp_path):
    kit = ExportKit(tmp_path / "corpus")
    kit.film(films / "a.mp4", [0, 10, 20, 30, 40])
    kit.film(films / "b.mp4", [0, 20, 40])
    corpus = kit.finish()
    export(corpus, "best", config(mode="auto"))
    return corpus


def first_shard(corpus):
    shard = ShardIndex.read(corpus.shards("best")).shards[0]
    return shard, corpus.shards("best").child(*shard.path.split("/"))


def kinds(problems):
    return {problem.kind for problem in problems}


@pytest.mark.parametrize("deep", [False, True])
def test_a_whole_set_has_no_problem(corpus, deep):
    assert verify(corpus, "best", deep=deep) == []


def test_no_set_is_a_problem(corpus):
    assert kinds(verify(corpus, "other")) == {"index"}


@pytest.mark.parametrize("spoil", [lambda d: d[:-1000], lambda d: d[:3000] + b"x" + d[3001:], lambda d: b"", None])
def test_damaged_or_missing_tar_is_found(corpus, spoil):
    shard, place = first_shard(corpus)
    if spoil:
        place.write_bytes(spoil(place.read_bytes()))
    else:
        place.remove()
    problems = verify(corpus, "best")
    assert [(p.kind, p.subject) for p in problems] == [("file", shard.path)]


def test_damaged_sidecar_is_found(corpus):
    shard, _ = first_shard(corpus)
    place = corpus.shards("best").child(*shard.sidecar.split("/"))
    place.write_bytes(place.read_bytes()[::-1])
    assert [(p.kind, p.subject) for p in verify(corpus, "best")] == [("file", shard.sidecar)]


def test_file_the_index_does_not_name_is_found(corpus):
    corpus.shards("best").child("64x64x8", "000009.tar").write_bytes(b"?")
    assert kinds(verify(corpus, "best")) == {"file"}


def rewrite(corpus, change):
    """Put another tar or sidecar in place of the first shard, with an index that agrees with its bytes."""
    shard, place = first_shard(corpus)
    folder = corpus.shards("best")
    sidecar = folder.child(*shard.sidecar.split("/"))
    samples = [Sample(s.clip_id, s.video, s.caption, s.facts) for s in ShardSet.open(folder).samples(shard.bucket)]
    columns = read_parquet(sidecar).select(["motion.v2d_px16"])
    built = change(samples, columns)
    place.write_bytes(built.tar)
    sidecar.write_bytes(built.sidecar)
    index = json.loads(folder.child("index.json").read_text())
    index["shards"][0].update(
        sha256=hashlib.sha256(built.tar).hexdigest(),
        bytes=len(built.tar),
        sidecar_sha256=hashlib.sha256(built.sidecar).hexdigest(),
        sidecar_bytes=len(built.sidecar),
    )
    folder.child("index.json").write_text(json.dumps(index))


def test_video_that_is_not_what_the_sidecar_says_is_found(corpus):
    def swap(samples, columns):
        facts = {**samples[0].facts, "n_frames": samples[0].facts["n_frames"] + 1, "width_px": 7}
        return build_shard([Sample(samples[0].clip_id, samples[0].video, "", facts), *samples[1:]], columns)

    rewrite(corpus, swap)
    messages = [p.message for p in verify(corpus, "best", deep=True)]
    assert any("frames, the sidecar says" in message for message in messages)
    assert any("px, the sidecar says" in message for message in messages)


def test_undecodable_video_is_found(corpus):
    def spoil(samples, columns):
        return build_shard(
            [Sample(s.clip_id, s.video[:200] + bytes(len(s.video) - 200), s.caption, s.facts) for s in samples], columns
        )

    rewrite(corpus, spoil)
    assert "decode" in kinds(verify(corpus, "best"))


def test_counts_that_disagree_are_found(corpus):
    rewrite(corpus, lambda samples, columns: build_shard(samples[1:], columns.slice(1)))
    assert kinds(verify(corpus, "best")) == {"sidecar"}


def test_tar_of_other_samples_than_the_sidecar_is_found(corpus):
    def mixed(samples, columns):
        whole, turned = build_shard(samples, columns), build_shard(samples[::-1], columns)
        return type(whole)(turned.tar, whole.sidecar, whole.count)

    rewrite(corpus, mixed)
    assert "tar" in kinds(verify(corpus, "best"))


def test_tar_that_is_none_is_found(corpus):
    def junk(samples, columns):
        whole = build_shard(samples, columns)
        return type(whole)(b"\1" * len(whole.tar), whole.sidecar, whole.count)

    rewrite(corpus, junk)
    assert "tar" in kinds(verify(corpus, "best"))


def test_clip_in_two_places_is_found(corpus):
    folder = corpus.shards("best")
    index = json.loads(folder.child("index.json").read_text())
    index["shards"].append(index["shards"][0])
    folder.child("index.json").write_text(json.dumps(index))
    assert any("2 places" in p.message for p in verify(corpus, "best"))


def test_changed_selection_is_reported(corpus):
    ids = [s.clip_id for s in ShardSet.open(corpus.shards("best")).samples()]
    select(corpus, ids, ids[:3])
    assert kinds(verify(corpus, "best")) == {"selection"}
    corpus.selections().child("best").remove()
    assert [p.message for p in verify(corpus, "best")] == ["the selection that was exported is gone"]


def test_shards_that_hold_a_taken_down_source_are_reported_until_exported_again(corpus, films):
    forget(corpus, str(films / "b.mp4"), "asked by the owner")
    problems = verify(corpus, "best")
    assert [(p.kind, "asked by the owner" in p.message) for p in problems] == [("taken_down", True)] * 2
    export(corpus, "best", config(mode="auto"))
    assert verify(corpus, "best", deep=True) == []
