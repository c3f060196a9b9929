"""From a selection to shards: every kept clip lies in one shard, is a hole, or is counted; same inputs, same bytes."""

import errno
import json
import os
import pickle
import shutil
from collections import Counter
from pathlib import Path

import duckdb
import fsspec
import pytest
import webdataset
from export_kit import ExportKit, all_bytes, config, select
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given
from hypothesis import strategies as st

from curate.errors import ConfigError, CorpusError, StorageError
from curate.export import ExportConfig, export, plan_export
from curate.export.plan import assign
from curate.media.playback import decode_fully
from curate.query import RunTables, connect
from curate.shards.index import ShardIndex
from curate.shards.reader import ShardSet
from curate.shards.tombstones import add_tombstones
from curate.tables import Corpus
from curate.testing.footage import Track, fade, letterbox, moving_texture, write_tracks, write_video

CUTS = [0, 11, 20, 23, 40]
"""Clips of 11, 9, 3 and 17 frames: the third is shorter than any bucket."""


def film(path, seed, n=40, width=192, height=108, **more):
    write_video(path, moving_texture(n, width, height, (2, 1), seed), **more)
    return path


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    folder = tmp_path_factory.mktemp("films")
    b_frames = {"options": {"preset": "fast", "bf": "3", "crf": "16"}, "gop": 12}
    return [
        film(folder / "a.mp4", 1),
        film(folder / "b.mp4", 2, **b_frames),
        film(folder / "c.mp4", 3, rotation_deg=90),
    ]


@pytest.fixture
def bucket(films, tmp_path):
    """Own copies, so that a test may spoil them."""
    folder = tmp_path / "bucket"
    folder.mkdir()
    return [shutil.copy2(path, folder / path.name) for path in films]


@pytest.fixture
def corpus(bucket, tmp_path):
    return made(tmp_path / "corpus", bucket)


def made(path, bucket, order=1):
    kit = ExportKit(path)
    for source in bucket[::order]:
        kit.film(source, CUTS, title=source.stem)
    return kit.finish()


def backwards(function, items):
    """Another engine: last task first, everything through pickle."""
    results = [pickle.loads(pickle.dumps(function(pickle.loads(pickle.dumps(item))))) for item in items[::-1]]
    yield from results[::-1]


def explode(function, items):
    raise AssertionError("nothing was to be written")


def test_every_kept_clip_is_in_one_shard_or_counted(corpus):
    report = export(corpus, "best", config(shard_bytes=6_000))
    shards = ShardSet.open(corpus.shards("best"))
    samples = list(shards.samples())
    assert (report.kept, report.n_clips, report.left_out) == (12, 9, {"bucket: shorter than 4 frames": 3})
    assert len({sample.clip_id for sample in samples}) == report.n_clips == len(samples)
    assert not report.holes
    assert not report.reused
    assert report.n_shards == len(shards.index.shards) > len({shard.bucket for shard in shards.index.shards})
    assert report.size_bytes == sum(shard.bytes for shard in shards.index.shards)
    assert Counter(s.facts["n_frames"] for s in samples) == {11: 3, 9: 3, 17: 3}


def test_exported_clips_hold_their_span_and_fill_their_bucket(corpus):
    export(corpus, "best", config())
    for sample in ShardSet.open(corpus.shards("best")).samples():
        shown, facts = decode_fully(sample.video), sample.facts
        width_px, height_px, frames = (int(part) for part in facts["bucket"].split("x"))
        assert shown.n_frames == facts["n_frames"] >= frames
        assert (shown.width_px, shown.height_px) == (facts["width_px"], facts["height_px"])
        assert shown.width_px >= width_px
        assert shown.height_px >= height_px
        assert shown.duration_s == pytest.approx(facts["end_s"] - facts["start_s"])
        assert facts["fps"] == pytest.approx(30.0)


def test_plain_webdataset_and_plain_duckdb_read_the_set(corpus):
    export(corpus, "best", config())
    folder = corpus.shards("best").path
    tars = sorted(str(path) for path in Path(folder).rglob("*.tar"))
    found = {item["__key__"]: item for item in webdataset.WebDataset(tars, shardshuffle=False)}
    rows = duckdb.sql(
        f"""SELECT clip_id, caption, motion_score, "motion.v2d_px16", "user.title", fps
        FROM read_parquet('{folder}/*/*.parquet')"""
    ).fetchall()
    assert {row[0] for row in rows} == set(found)
    for clip_id, caption, motion, column, title, fps in rows:
        meta = json.loads(found[clip_id]["json"])
        assert found[clip_id]["txt"].decode() == caption == meta["caption"]
        assert "täxture" in caption
        assert motion == column == meta["motion_score"] == meta["motion.v2d_px16"]
        assert title == meta["user.title"] in {"a", "b", "c"}
        assert fps == pytest.approx(30)


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"columns": ["user.author", "user.Author"]},
        {"caption": "user.author"},
        {"caption": "user.Author", "columns": ["user.author"]},
    ],
)
def test_columns_of_a_source_list_that_differ_only_in_case_are_one(tmp_path, bucket, asked):
    """In WebDataset buckets every sample names its own keys. Either spelling may be asked for, and both."""
    kit = ExportKit(tmp_path / "corpus")
    said = ({"Author": "A"}, {"author": "B"}, {"Author": "C", "author": "c"})
    for source, user in zip(bucket, said, strict=True):
        kit.film(source, CUTS, **user)
    corpus = kit.finish(kit.clip_ids[:1] + kit.clip_ids[4:5] + kit.clip_ids[8:9])
    export(corpus, "best", config(**asked))
    samples = list(ShardSet.open(corpus.shards("best")).samples())
    assert {sample.facts["user.Author"] for sample in samples} == {"A", "B", "C"}
    assert not any("user.author" in sample.facts for sample in samples)
    if "caption" in asked:
        assert {sample.caption for sample in samples} == {"A", "B", "C"}
    with connect() as con:
        tables = RunTables(con, corpus, "run-1")
        tables.load("wide", ["user.author", "user.AUTHOR", "clip.duration_s"])
        assert con.sql("SELECT * FROM wide").columns == ["clip", "source", "clip.duration_s", "user.AUTHOR"]


def test_shards_hold_no_path_and_no_list_columns_by_default(corpus, tmp_path):
    export(corpus, "best", config())
    folder = corpus.shards("best")
    assert not [name for name, data in all_bytes(folder).items() if str(tmp_path).encode() in data]
    sample = next(ShardSet.open(folder).samples())
    assert not {"motion.flow", "source.uri"} & set(sample.facts)


@pytest.mark.parametrize("mode", ["encode", "auto"])
def test_same_selection_and_sources_give_the_same_bytes(bucket, tmp_path, mode):
    wanted = config(mode=mode, shard_bytes=6_000)
    first, elsewhere = made(tmp_path / "one", bucket), tmp_path / "elsewhere"
    elsewhere.mkdir()
    moved = [shutil.copy2(path, elsewhere / path.name) for path in bucket]
    second = made(tmp_path / "two", moved, order=-1)
    export(first, "best", wanted)
    export(second, "best", wanted, run_map=backwards)
    assert all_bytes(first.shards("best")) == all_bytes(second.shards("best"))


def test_another_seed_gives_another_order_of_the_same_clips(corpus):
    orders = []
    for seed in (0, 1):
        export(corpus, "best", config(seed=seed, name=f"s{seed}"))
        orders.append([s.clip_id for s in ShardSet.open(corpus.shards(f"s{seed}")).samples()])
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1])


def test_planning_counts_what_is_left_out_and_writes_nothing(corpus, tmp_path):
    plan = plan_export(corpus, "best", config(buckets={"short_sides_px": (128, 256)}))
    assert plan.left_out == {"bucket: smaller than 128 px on a side": 12}
    assert plan.tasks == ()
    assert not (tmp_path / "corpus" / "shards").exists()


def test_a_set_without_any_clip_is_a_set(corpus):
    report = export(corpus, "best", config(buckets={"short_sides_px": (1024,)}))
    assert (report.n_clips, report.n_shards, sum(report.left_out.values())) == (0, 0, 12)
    assert list(ShardSet.open(corpus.shards("best")).samples()) == []


def test_same_export_again_writes_nothing(corpus):
    first = export(corpus, "best", config())
    again = export(corpus, "best", config(), run_map=explode)
    assert again.reused
    assert (again.n_clips, again.size_bytes, again.left_out) == (first.n_clips, first.size_bytes, first.left_out)


def test_stopped_export_goes_on_where_it_stopped(corpus, tmp_path):
    quick, done = config(shard_bytes=6_000), []

    def dies_after_two(function, items):
        for item in items:
            if len(done) == 2:
                raise KeyboardInterrupt
            done.append(item.stem)
            yield function(item)

    with pytest.raises(KeyboardInterrupt):
        export(corpus, "best", quick, run_map=dies_after_two)
    assert not corpus.shards("best").exists()
    staged = {p: p.stat().st_mtime_ns for p in (tmp_path / "corpus" / "shards").rglob("*.tar")}
    assert len(staged) == 2
    untouched = {}

    def looks(function, items):
        for item in items:
            yield function(item)
        untouched.update({p: p.stat().st_mtime_ns for p in staged})

    export(corpus, "best", quick, run_map=looks)
    assert untouched == staged
    assert [path.name for path in (tmp_path / "corpus" / "shards").iterdir()] == ["best"]


def test_staged_shards_whose_files_are_gone_are_written_again(corpus, tmp_path):
    """An export killed between putting the set in place and clearing up leaves marks without files."""
    quick, shards = config(shard_bytes=6_000), tmp_path / "corpus" / "shards"

    def keeps_marks(function, items):
        yield from map(function, items)
        shutil.copytree(next(shards.glob(".best.*")) / "records", tmp_path / "records")
        (tmp_path / "staging").write_text(next(shards.glob(".best.*")).name)

    first = export(corpus, "best", quick, run_map=keeps_marks)
    shutil.rmtree(shards / "best")
    shutil.copytree(tmp_path / "records", shards / (tmp_path / "staging").read_text() / "records")
    again = export(corpus, "best", quick)
    assert (again.n_clips, again.size_bytes) == (first.n_clips, first.size_bytes)


def test_new_selection_of_the_same_name_replaces_the_set(corpus):
    export(corpus, "best", config())
    ids = [s.clip_id for s in ShardSet.open(corpus.shards("best")).samples()]
    select(corpus, ids, ids[:2])
    export(corpus, "best", config())
    folder = corpus.shards("best")
    index = ShardIndex.read(folder)
    assert {s.clip_id for s in ShardSet.open(folder).samples()} == set(ids[:2])
    named = {path for shard in index.shards for path in (shard.path, shard.sidecar)} | {"index.json", "README.md"}
    assert set(all_bytes(folder)) == named


def test_vanished_and_changed_sources_leave_holes_and_are_tried_again(corpus, bucket):
    gone, changed, _ = bucket
    kept_bytes = gone.read_bytes(), changed.read_bytes()
    gone.unlink()
    film(changed, seed=9)
    report = export(corpus, "best", config())
    assert Counter(hole.reason for hole in report.holes) == {
        "TransientStorageError: is gone since it was listed": 3,
        "SourceChangedError: is no longer the content that was scored": 3,
    }
    assert report.n_clips == 3
    assert report.kept == report.n_clips + len(report.holes) + sum(report.left_out.values())
    gone.write_bytes(kept_bytes[0])
    changed.write_bytes(kept_bytes[1])
    report = export(corpus, "best", config())
    assert (report.n_clips, report.holes) == (9, ())


def test_retry_takes_whole_shards_over(corpus, bucket):
    quick = config(shard_bytes=1)
    data = bucket[0].read_bytes()
    bucket[0].unlink()
    export(corpus, "best", quick)
    bucket[0].write_bytes(data)
    for path in bucket[1:]:
        path.unlink()
    report = export(corpus, "best", quick)
    assert (report.n_clips, report.holes) == (9, ())


def test_touched_source_is_known_by_its_digest_and_a_second_name_helps_out(bucket, tmp_path):
    twin = shutil.copy2(bucket[0], tmp_path / "twin.mp4")
    kit = ExportKit(tmp_path / "corpus")
    kit.film(bucket[0], CUTS, names=[twin])
    kit.film(bucket[1], CUTS)
    corpus = kit.finish()
    bucket[0].unlink()
    os.utime(bucket[1], (1, 1))
    assert export(corpus, "best", config()).n_clips == 6


class FullScratch(MemoryFileSystem):
    """A remote place whose files cannot be copied, because the disk they go to is full."""

    protocol = "fullscratch"

    def info(self, path, **kwargs):
        return {"name": path, "type": "file", "size": 1000}

    def _open(self, path, *args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_full_scratch_disk_stops_the_export_instead_of_leaving_holes(films, tmp_path):
    fsspec.register_implementation("fullscratch", FullScratch, clobber=True)
    kit = ExportKit(tmp_path / "corpus")
    kit.film(films[0], CUTS)
    for rows in (kit.inputs, kit.source_rows):
        rows[-1].update(uri="fullscratch:///a.mp4")
    with pytest.raises(StorageError, match="no space left"):
        export(kit.finish(), "best", config())


def test_source_that_no_longer_decodes_leaves_holes_not_wreckage(bucket, tmp_path):
    data = bytearray(bucket[0].read_bytes())
    kit = ExportKit(tmp_path / "corpus")
    kit.film(bucket[0], CUTS)
    kit.film(bucket[1], CUTS)
    corpus = kit.finish()
    facts = bucket[0].stat()
    bucket[0].write_bytes(bytes(len(data)))
    os.utime(bucket[0], ns=(facts.st_atime_ns, facts.st_mtime_ns))
    report = export(corpus, "best", config())
    assert report.n_clips == 3
    assert {hole.reason.partition(":")[0] for hole in report.holes} == {"NotMediaError"}


def test_taken_down_sources_are_left_out_with_the_reason(corpus):
    samples = next(ShardSet.open(_exported(corpus)).samples())
    add_tombstones(corpus, [samples.facts["source_digest"]], "", "asked by the owner")
    report = export(corpus, "best", config())
    assert report.left_out["taken down: asked by the owner"] == 4
    found = {s.facts["source_digest"] for s in ShardSet.open(corpus.shards("best")).samples()}
    assert samples.facts["source_digest"] not in found


def _exported(corpus):
    export(corpus, "best", config())
    return corpus.shards("best")


def test_letterbox_bars_are_cut_off(tmp_path):
    path = tmp_path / "bars.mp4"
    write_video(path, letterbox(moving_texture(20, 192, 160, (2, 1), seed=4), 20))
    kit = ExportKit(tmp_path / "corpus")
    kit.film(path, [0, 20], bars_px=20)
    corpus = kit.finish()
    export(corpus, "best", config(crop="letterbox", name="cropped"))
    export(corpus, "best", config(name="whole"))
    (cropped,), (whole,) = (list(ShardSet.open(corpus.shards(n)).samples()) for n in ("cropped", "whole"))
    assert (cropped.facts["width_px"], cropped.facts["height_px"]) == (192, 120)
    assert cropped.facts["crop_px"] == [0, 20, 192, 120]
    assert (whole.facts["height_px"], whole.facts["crop_px"]) == (160, None)
    shown = decode_fully(cropped.video)
    assert (shown.width_px, shown.height_px, shown.n_frames) == (192, 120, 20)


def test_stream_copy_between_closed_key_frames_only(films, tmp_path):
    kit = ExportKit(tmp_path / "corpus")
    kit.film(films[1], [0, 12, 24, 30])
    corpus = kit.finish()
    export(corpus, "best", config(mode="auto"))
    modes = {s.facts["start_pts"]: s.facts["mode"] for s in ShardSet.open(corpus.shards("best")).samples()}
    assert [modes[start] for start in sorted(modes)] == ["copy", "copy", "encode"]


@pytest.mark.parametrize("counted", [True, False])
def test_at_a_varying_rate_the_counted_frames_choose_the_bucket(tmp_path, counted):
    """Without a count the mean rate has to do; what it promised too much of is a hole."""
    path, slow = tmp_path / "vfr.mp4", 20
    pts = [*range(0, 9000 * slow, 9000), *range(9000 * slow, 9000 * slow + 3000 * 60, 3000)]
    write_video(path, fade(moving_texture(len(pts), 192, 108, (1, 0), seed=2), 5), pts=pts)
    kit = ExportKit(tmp_path / "corpus")
    kit.film(path, [0, 7, 80], counted=counted)
    report = export(kit.finish(), "best", config())
    assert report.n_clips == (2 if counted else 1)
    holes = [] if counted else ["DecodeError: holds 7 frames, its bucket needs 8"]
    assert [hole.reason for hole in report.holes] == holes


def test_corpus_on_an_object_store(films, memory_bucket, tmp_path):
    local = made(tmp_path / "corpus", films[:2])
    fs = Corpus(memory_bucket).root.fs
    fs.put(str(tmp_path / "corpus") + "/", "/bucket/", recursive=True)
    corpus = Corpus(memory_bucket)
    export(local, "best", config())
    report = export(corpus, "best", config())
    assert report.n_clips == 6
    assert all_bytes(corpus.shards("best")) == all_bytes(local.shards("best"))
    ids = [s.clip_id for s in ShardSet.open(corpus.shards("best")).samples()]
    select(corpus, ids, ids[:1])
    assert export(corpus, "best", config()).n_clips == 1
    assert len([n for n in fs.find("/bucket/shards") if n.endswith((".tar", ".parquet"))]) == 2


def test_unwritable_corpus_stops_the_export(corpus, tmp_path):
    (tmp_path / "corpus" / "shards").write_text("in the way")
    with pytest.raises(StorageError):
        export(corpus, "best", config())


@pytest.mark.parametrize(
    ("more", "match"),
    [
        ({"caption": "caption.templte.caption"}, r"did you mean 'caption.template.caption'"),
        ({"columns": ("motion.v2d",)}, r"did you mean 'motion.v2d_px16'"),
        ({"columns": ("clip.start_s",)}, "in every sidecar already"),
    ],
)
def test_unknown_columns_are_refused(corpus, more, match):
    with pytest.raises(ConfigError, match=match):
        export(corpus, "best", config(**more))


def test_missing_selection_is_refused(corpus):
    with pytest.raises(CorpusError, match="no selection 'wurst'"):
        export(corpus, "wurst", config())


def test_no_caption_and_no_motion(corpus):
    export(corpus, "best", config(caption="", motion="", columns=()))
    sample = next(ShardSet.open(corpus.shards("best")).samples())
    assert (sample.caption, sample.facts["motion_score"]) == ("", None)
    assert not [name for name in sample.facts if "." in name]


def test_configuration_survives_being_written_down():
    wanted = config(audio=True, columns=("a.b",))
    assert ExportConfig.model_validate_json(wanted.model_dump_json()) == wanted
    assert wanted.encode_options().audio


def test_sound_goes_along_when_asked_for(tmp_path):
    path = tmp_path / "sound.mp4"
    write_tracks(path, [Track(moving_texture(40, 192, 108, (2, 1), 1))], tone_s=2.0)
    kit = ExportKit(tmp_path / "corpus")
    kit.film(path, [0, 20, 40])
    corpus = kit.finish()
    export(corpus, "best", config(audio=True))
    assert [s.facts["has_audio"] for s in ShardSet.open(corpus.shards("best")).samples()] == [True, True]


plans = st.lists(
    st.tuples(st.uuids().map(lambda u: u.hex), st.sampled_from("abc"), st.floats(1, 1e9)),
    max_size=60,
    unique_by=lambda x: x[0],
)


@given(plans, st.integers(0, 5), st.integers(1, 10**9))
def test_planner_puts_every_clip_into_exactly_one_shard_of_its_bucket(items, seed, shard_bytes):
    shards = list(assign(items, seed=seed, shard_bytes=shard_bytes))
    assert sorted(i for _, _, members in shards for i in members) == list(range(len(items)))
    assert all(items[i][1] == bucket for bucket, _, members in shards for i in members)
    assert all(members for _, _, members in shards)
    for bucket in {bucket for bucket, _, _ in shards}:
        numbers = [number for name, number, _ in shards if name == bucket]
        assert numbers == list(range(len(numbers)))
        total = sum(size for _, name, size in items if name == bucket)
        assert len(numbers) <= max(1, round(total / shard_bytes))


@given(plans, st.randoms())
def test_plan_does_not_depend_on_the_order_of_rows(items, random):
    def by_id(rows):
        return [(b, n, [rows[i][0] for i in members]) for b, n, members in assign(rows, seed=3, shard_bytes=10**8)]

    mixed = list(items)
    random.shuffle(mixed)
    assert [entry[:2] for entry in by_id(items)] == [entry[:2] for entry in by_id(mixed)]
    assert by_id(items) == by_id(mixed)
