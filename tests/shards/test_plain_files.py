"""Plain files of a shard set, read by the rules of those who read such lists."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cli_kit import curate

from curate.errors import UsageError
from curate.shards.index import ShardEntry, ShardIndex
from curate.shards.plain_files import unpack
from curate.shards.reader import ShardSet
from curate.shards.writer import SIDECAR, Sample, build_shard
from curate.storage import Place

CAPTIONS = ["A dog runs.", "Two lines,\nand a comma.", "", "Grüße \x1e aus\u2028Bonn", 'She says "no".', "last"]
BUCKETS = ["320x192x8", "192x320x8"]


def sample(number: int, bucket: str) -> Sample:
    facts = dict.fromkeys(name for name in SIDECAR.names if not name.startswith("video_"))
    facts |= {"clip_id": f"{number:032x}", "caption": CAPTIONS[number], "fps": 30000 / 1001, "n_frames": 14 + number}
    facts |= {"bucket": bucket, "width_px": 320, "height_px": 180 + 2 * number}
    return Sample(facts["clip_id"], bytes([number]) * (100 + number), CAPTIONS[number], facts)


@pytest.fixture
def shards(tmp_path) -> ShardSet:
    """Six clips in two buckets, as an export leaves them."""
    folder, entries = tmp_path / "shards", []
    for number, bucket in enumerate(BUCKETS):
        built = build_shard([sample(n, bucket) for n in range(3 * number, 3 * number + 3)], pa.table({}))
        (folder / bucket).mkdir(parents=True)
        (folder / bucket / "000000.tar").write_bytes(built.tar)
        (folder / bucket / "000000.parquet").write_bytes(built.sidecar)
        entries.append(ShardEntry(f"{bucket}/000000.tar", built.sha256, len(built.tar), 3, bucket, "", "", 0))
    index = ShardIndex("plan", {}, "encoder", {}, tuple(entries))
    return ShardSet(Place(str(folder)), index)


def by_lists(folder):
    """As readers of two lists do that skip empty lines."""
    paths, prompts = ((folder / name).read_text().splitlines() for name in ("videos.txt", "prompts.txt"))
    kept = [[line.strip() for line in lines if line.strip()] for lines in (paths, prompts)]
    assert len(kept[0]) == len(paths) and len(kept[1]) == len(prompts)
    return {(folder / path).read_bytes()[0]: prompt for path, prompt in zip(*kept, strict=True)}


def test_each_clip_has_its_own_caption_and_none_without_one_is_there(shards, tmp_path):
    done = unpack(shards, tmp_path / "clips")
    assert (done.n_clips, done.without_caption) == (5, 1)
    assert by_lists(tmp_path / "clips") == {n: " ".join(text.split()) for n, text in enumerate(CAPTIONS) if text}
    assert len(list((tmp_path / "clips" / "videos").iterdir())) == 5


def test_the_table_has_the_columns_that_a_bucketing_trainer_asks_for(shards, tmp_path):
    unpack(shards, tmp_path / "clips", BUCKETS[0])
    rows = pq.read_table(tmp_path / "clips" / "clips.parquet").to_pylist()
    assert list(rows[0]) == ["path", "text", "num_frames", "height", "width", "aspect_ratio", "resolution", "fps"]
    assert [row["text"] for row in rows] == ["A dog runs.", "Two lines, and a comma."]
    second = rows[1]
    assert (second["num_frames"], second["height"], second["width"]) == (15, 182, 320)
    assert second["aspect_ratio"] == 182 / 320 and second["resolution"] == 182 * 320
    assert second["fps"] == 29.97
    assert open(second["path"], "rb").read() == bytes([1]) * 101  # noqa: PTH123, SIM115 - as it is read elsewhere


def test_the_same_command_goes_on_and_mends_what_is_not_whole(shards, tmp_path):
    unpack(shards, tmp_path / "clips")
    before = by_lists(tmp_path / "clips")
    first, second = sorted((tmp_path / "clips" / "videos").iterdir())[:2]
    first.write_bytes(b"half")
    written = second.stat().st_mtime_ns
    unpack(shards, tmp_path / "clips")
    assert by_lists(tmp_path / "clips") == before
    assert second.stat().st_mtime_ns == written


def test_what_cannot_be_done_is_said(shards, tmp_path):
    with pytest.raises(UsageError, match="no bucket '320x192x9', did you mean '320x192x8'"):
        unpack(shards, tmp_path / "clips", "320x192x9")
    (tmp_path / "file").write_text("in the way")
    ended = curate("unpack", tmp_path / "nowhere", "--out", tmp_path / "clips")
    assert ended.status == 1 and "Error" in ended.err
    ended = curate("unpack", tmp_path / "nowhere", "--out", "s3://bucket/clips")
    assert ended.status == 2 and "is no folder on a disk of this machine" in ended.err
