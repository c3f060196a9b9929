"""Shards depend on their samples alone and open with plain tools."""

import json
import tarfile

import duckdb
import pyarrow as pa
import pytest
import webdataset

from curate.errors import CorpusError, StorageError
from curate.shards.index import Hole, ShardEntry, ShardIndex
from curate.shards.reader import ShardSet, read_samples
from curate.shards.writer import SIDECAR, Sample, build_shard
from curate.storage import Place


def sample(number, size=1000):
    clip_id = f"{number:032x}"
    facts = {name: None for name in SIDECAR.names if not name.startswith("video_")}
    facts.update(clip_id=clip_id, caption=f"Grüße {number}", fps=30000 / 1001, n_frames=14, bucket="64x64x8")
    return Sample(clip_id, bytes([number % 256]) * size, f"Grüße {number}", facts)


SAMPLES = [sample(n, size) for n, size in enumerate([1, 511, 512, 513, 70_000])]
COLUMNS = pa.table({"motion.v2d_px16": [0.1 * n for n in range(5)], "user.title": ["a", "b", None, "d", "e"]})


@pytest.fixture
def shard(tmp_path):
    built = build_shard(SAMPLES, COLUMNS)
    (tmp_path / "000000.tar").write_bytes(built.tar)
    (tmp_path / "000000.parquet").write_bytes(built.sidecar)
    return tmp_path


def test_same_samples_give_the_same_bytes():
    first, second = build_shard(SAMPLES, COLUMNS), build_shard(SAMPLES, COLUMNS)
    assert (first.tar, first.sidecar, first.sha256) == (second.tar, second.sidecar, second.sha256)
    assert build_shard(SAMPLES[::-1], COLUMNS).tar != first.tar


def test_plain_tar_members_carry_no_time_and_no_owner(shard):
    with tarfile.open(shard / "000000.tar") as tar:
        members = tar.getmembers()
    assert {(m.mtime, m.uid, m.gid, m.uname, m.gname) for m in members} == {(0, 0, 0, "", "")}
    assert [m.name for m in members[:3]] == [f"{SAMPLES[0].clip_id}{suffix}" for suffix in (".mp4", ".json", ".txt")]


def test_plain_webdataset_reads_it(shard):
    found = list(webdataset.WebDataset(str(shard / "000000.tar"), shardshuffle=False))
    assert [item["__key__"] for item in found] == [s.clip_id for s in SAMPLES]
    assert [item["mp4"] for item in found] == [s.video for s in SAMPLES]
    assert found[1]["txt"].decode() == "Grüße 1"
    assert json.loads(found[1]["json"])["user.title"] == "b"


def test_plain_duckdb_reads_the_sidecar_and_its_offsets_point_at_the_videos(shard):
    rows = duckdb.sql(
        f"SELECT clip_id, video_offset_bytes, video_bytes, \"motion.v2d_px16\" FROM '{shard}/000000.parquet'"
    ).fetchall()
    tar = (shard / "000000.tar").read_bytes()
    assert [row[0] for row in rows] == [s.clip_id for s in SAMPLES]
    assert [tar[at : at + size] for _, at, size, _ in rows] == [s.video for s in SAMPLES]
    assert [row[3] for row in rows] == COLUMNS["motion.v2d_px16"].to_pylist()


def test_a_shard_without_further_columns():
    assert build_shard(SAMPLES, pa.table({})).count == 5


def test_reader_gives_back_what_was_written(shard):
    found = list(read_samples(Place(str(shard / "000000.tar"))))
    assert [(s.clip_id, s.video, s.caption) for s in found] == [(s.clip_id, s.video, s.caption) for s in SAMPLES]
    assert found[4].facts["fps"] == 30000 / 1001


def test_reader_works_on_any_place_by_bucket(memory_bucket):
    folder = Place(f"{memory_bucket}/set")
    entries = []
    for bucket, samples in (("64x64x8", SAMPLES[:2]), ("96x96x8", SAMPLES[2:])):
        built = build_shard(samples, pa.table({}))
        folder.child(bucket, "000000.tar").write_bytes(built.tar)
        entries.append(ShardEntry(f"{bucket}/000000.tar", built.sha256, len(built.tar), built.count, bucket, "", "", 0))
    index = ShardIndex("plan", {"name": "x"}, "encoder", {}, tuple(entries), (Hole("a", "b", "c"),), {"small": 3})
    folder.child("index.json").write_text(index.to_json())
    shards = ShardSet.open(folder)
    assert shards.index == index
    assert [s.clip_id for s in shards.samples()] == [s.clip_id for s in SAMPLES]
    assert [s.clip_id for s in shards.samples("96x96x8")] == [s.clip_id for s in SAMPLES[2:]]


@pytest.mark.parametrize("cut", [700, 5000])
def test_cut_off_tar_is_an_error(tmp_path, cut):
    tar = build_shard(SAMPLES, COLUMNS).tar
    (tmp_path / "t.tar").write_bytes(tar[:cut])
    with pytest.raises(CorpusError):
        list(read_samples(Place(str(tmp_path / "t.tar"))))


def test_missing_tar_and_missing_member_are_errors(tmp_path):
    with pytest.raises(StorageError, match="does not exist"):
        list(read_samples(Place(str(tmp_path / "none.tar"))))
    with tarfile.open(tmp_path / "half.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("a.mp4"))
    with pytest.raises(CorpusError, match=r"lacks \.json, \.txt"):
        list(read_samples(Place(str(tmp_path / "half.tar"))))


@pytest.mark.parametrize(
    "text", ["", "[]", '{"format": 2}', '{"format": 1}', '{"format": 1, "shards": [1], "holes": []}']
)
def test_what_is_no_index_is_refused(tmp_path, text):
    (tmp_path / "index.json").write_text(text)
    with pytest.raises(CorpusError):
        ShardIndex.read(Place(str(tmp_path)))


def test_unfinished_set_is_refused(tmp_path):
    with pytest.raises(CorpusError, match="not a finished shard set"):
        ShardSet.open(Place(str(tmp_path)))
