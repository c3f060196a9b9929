"""Which clips a stage takes: every clip of the set has a bucket or a counted reason, and no bucket is empty unseen."""

from fractions import Fraction

import export_kit
import pytest
from clips_kit import CAPTIONS, SMALL, SVD_CAPTIONS, Spec, clip_id, make_set, small, usual
from export_kit import ExportKit

from curate.errors import ConfigError, CorpusError, StorageError
from curate.export import export
from curate.shards.buckets import Bucket, BucketsConfig, bucket_of
from curate.shards.reader import ShardSet, read_samples
from curate.storage import Place
from curate.testing.footage import moving_texture, write_video
from curate.train.data.catalogue import Catalogue, bucket_for, strides_of
from curate.train.data.clip import read_clip
from curate.train.data.config import DataConfig
from curate.train.data.loader import Loader

TEXT = dict.fromkeys(CAPTIONS, "words")
MIXED = [
    Spec(captions=TEXT),
    Spec(captions=TEXT),
    Spec(captions=TEXT, frames=3),
    Spec(captions=TEXT, width_px=48, height_px=28),
    Spec(captions=TEXT, width_px=70, height_px=124),
    Spec(captions=TEXT, fps=Fraction(4)),
    Spec(captions=TEXT, motion=None),
    Spec(captions=dict.fromkeys(CAPTIONS)),
    Spec(captions={**dict.fromkeys(CAPTIONS), CAPTIONS[2]: "the only one"}),
]


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    return make_set(str(tmp_path_factory.mktemp("set")), MIXED, tmp_path_factory.mktemp("scratch"))


def test_what_no_bucket_takes_is_counted_by_reason(mixed):
    catalogue = Catalogue.read(mixed, small())
    assert catalogue.counts() == {"64x32x4": 3}
    assert catalogue.left_out == {
        "bucket: shorter than 4 frames": 1,
        "bucket: smaller than 32 px on a side": 1,
        "crop: less than 50% of the picture would be left": 1,
        "fps: no stride gives 5 to 30.5 frames/s": 1,
        "motion: no score": 1,
        "caption: none": 1,
    }
    assert catalogue.motion_scores().tolist() == [1.0] * 3
    assert catalogue.n_clips + sum(catalogue.left_out.values()) == mixed.index.n_clips == len(MIXED)


def test_what_a_stage_does_not_want_no_clip_needs(mixed):
    config = small(captions={}, motion="", fps=(1, 60), min_kept_share=0)
    catalogue = Catalogue.read(mixed, config)
    assert catalogue.n_clips == len(MIXED) - 2
    assert set(catalogue.left_out) == {"bucket: shorter than 4 frames", "bucket: smaller than 32 px on a side"}
    batch = next(Loader(catalogue, config))
    assert batch.captions == ["", ""]
    assert batch.motion.isnan().all()


def test_single_frames_have_no_rate(mixed):
    config = small(buckets={**SMALL, "frames": (1,)})
    catalogue = Catalogue.read(mixed, config)
    assert not {reason for reason in catalogue.left_out if reason.startswith(("fps", "bucket: shorter"))}
    batch = next(Loader(catalogue, config))
    assert batch.video.shape == (2, 1, 32, 64, 3)


def test_refs_lead_to_what_the_tar_holds(mixed):
    catalogue = Catalogue.read(mixed, small())
    samples = {s.clip_id: s for entry in mixed.index.shards for s in read_samples(mixed.place(entry.path))}
    for row in range(catalogue.n_clips):
        ref = catalogue.ref(row)
        stored = read_clip(mixed.place(catalogue.entries[ref.shard].path), ref)
        assert stored == (samples[ref.clip_id].video, samples[ref.clip_id].facts)
        assert ref.closed


@pytest.mark.parametrize("width_px", [100, 300, 1000])
@pytest.mark.parametrize("height_px", [60, 170, 1100])
@pytest.mark.parametrize("n_frames", [3, 8, 30])
def test_the_bucket_is_that_of_the_exporter(width_px, height_px, n_frames):
    buckets = BucketsConfig(short_sides_px=(64, 128), frames=(4, 8))
    config = DataConfig(buckets=buckets, min_kept_share=0)
    assert bucket_for(width_px, height_px, n_frames, 24.0, config) == bucket_of(width_px, height_px, n_frames, buckets)


def test_frames_are_counted_at_the_smallest_stride_that_is_slow_enough():
    config = DataConfig(buckets=BucketsConfig(short_sides_px=(64,), frames=(8,)), fps=(5, 15))
    assert bucket_for(128, 72, 16, 30.0, config)[1] == ""
    assert bucket_for(128, 72, 15, 30.0, config)[1] == ""  # frames 0, 2, ... 14
    assert bucket_for(128, 72, 14, 30.0, config)[1] == "bucket: shorter than 8 frames"


@pytest.mark.parametrize(
    ("fps", "n_frames", "strides"),
    [
        (30.0, 100, [1, 2, 3, 4, 5, 6]),
        (30.0, 27, [1, 2]),
        (60.0, 100, [2, 3, 4, 5, 6, 7]),
        (4.0, 100, []),
        (5, 14, [1]),
    ],
)
def test_strides_give_rates_within_the_limits(fps, n_frames, strides):
    assert strides_of(fps, n_frames, 14, (5.0, 30.5)) == strides


def test_an_empty_bucket_is_an_error_that_says_what_there_was(mixed):
    wide = {**SMALL, "short_sides_px": (32, 64)}
    with pytest.raises(ConfigError, match=r"112x64x4 has 0.*caption: none \(1\)"):
        Catalogue.read(mixed, small(buckets=wide))
    catalogue = Catalogue.read(mixed, small(buckets=wide, on_empty="report"))
    assert catalogue.buckets == (Bucket(64, 32, 4),)
    assert catalogue.unfilled == {"112x64x4": 0}


def test_a_bucket_without_a_whole_batch_is_an_error_or_counted(mixed):
    with pytest.raises(ConfigError, match="64x32x4 has 3"):
        Catalogue.read(mixed, small(batch=4, on_empty="report"))
    both = {**SMALL, "frames": (3, 4)}
    catalogue = Catalogue.read(mixed, small(buckets=both, on_empty="report"))
    assert catalogue.counts() == {"64x32x4": 3}
    assert catalogue.unfilled == {"64x32x3": 1}
    assert catalogue.left_out["batch: bucket 64x32x3 has fewer than 2 clips"] == 1


def test_held_out_films_are_trained_on_by_no_stage(tmp_path):
    specs = [*usual(4, source="a", frames=9), *usual(4, source="b"), *usual(4, source="c")]
    shards = make_set(str(tmp_path / "set"), specs, tmp_path)
    seen = []
    for frames in (4, 12):
        config = small(hold_out_sources=1, buckets={**SMALL, "frames": (frames,)})
        parts = [Catalogue.read(shards, config, held_out=held_out) for held_out in (False, True)]
        trained, held = ({part.ref(row).clip_id for rows in part.rows for row in rows} for part in parts)
        assert not trained & held
        assert parts[0].left_out["held out: for validation"] == len(held) == 4
        assert parts[1].left_out["held out: not"] == len(trained)
        assert parts[0].digest != parts[1].digest
        seen.append(held)
    assert seen[0] == seen[1]
    assert len({int(clip) // 4 for clip in range(12) if clip_id(clip) in seen[0]}) == 1


def test_batches_never_mix_shapes(tmp_path):
    shapes = [(96, 54), (54, 96), (64, 64)]
    specs = [
        Spec(captions=TEXT, width_px=w, height_px=h, frames=n) for w, h in shapes for n in (5, 9) for _ in range(3)
    ]
    config = small(buckets={**SMALL, "aspects": ("16:9", "9:16", "1:1"), "frames": (4, 8)})
    loader = Loader(Catalogue.read(make_set(str(tmp_path / "set"), specs, tmp_path), config), config)
    seen = [next(loader) for _ in range(loader.batches_per_epoch)]
    assert len({batch.bucket for batch in seen}) == 6
    for batch in seen:
        assert batch.video.shape == (2, batch.bucket.frames, batch.bucket.height_px, batch.bucket.width_px, 3)


def test_captions_are_drawn_by_their_weights_and_the_missing_ones_never(mixed):
    config = small(captions=SVD_CAPTIONS)
    batches = [next(loader) for loader in [Loader(Catalogue.read(mixed, config), config)] for _ in range(12)]
    found = {(clip, text) for batch in batches for clip, text in zip(batch.clip_ids, batch.captions, strict=True)}
    assert found == {(clip_id(0), "words"), (clip_id(1), "words"), (clip_id(8), "the only one")}


def test_a_column_that_is_not_there_is_named_with_the_nearest_one(mixed):
    with pytest.raises(ConfigError, match=r"no column 'caption.cocoa.caption', did you mean 'caption.coca.caption'"):
        Catalogue.read(mixed, small(captions={"caption.cocoa.caption": 1}))
    with pytest.raises(ConfigError, match=r"data.motion.*no column 'motion.raft'"):
        Catalogue.read(mixed, small(motion="motion.raft"))


def test_a_sidecar_that_does_not_fit_is_refused(tmp_path):
    shards = make_set(str(tmp_path / "set"), usual(4), tmp_path, per_shard=2)
    second = tmp_path / "set" / shards.index.shards[1].sidecar
    second.write_bytes(b"nothing")
    with pytest.raises(CorpusError, match=r"000001\.parquet: is not Parquet"):
        Catalogue.read(shards, small())
    second.unlink()
    with pytest.raises(StorageError, match=r"000001\.parquet: does not exist"):
        Catalogue.read(shards, small())
    larger = make_set(str(tmp_path / "larger"), usual(4, frames=30), tmp_path, per_shard=2)
    second.write_bytes((tmp_path / "larger" / larger.index.shards[1].sidecar).read_bytes())
    with pytest.raises(CorpusError, match=r"000001\.parquet: does not fit its shard"):
        Catalogue.read(shards, small())


def test_an_exported_set_is_trained_on_as_it_is(tmp_path):
    path = tmp_path / "a.mp4"
    write_video(path, moving_texture(60, 192, 108, (2, 1), 1))
    kit = ExportKit(tmp_path / "corpus")
    kit.film(path, [0, 20, 40, 60])
    corpus = kit.finish()
    export(corpus, "best", export_kit.config())
    column = "caption.template.caption"
    config = small(
        buckets={**export_kit.SMALL, "aspects": ("16:9",)},
        captions={column: 1.0},
        batch=3,
        motion="motion.v2d_px16",
        on_empty="report",
    )
    batch = next(Loader(Catalogue.read(ShardSet.open(Place(corpus.shards("best").uri)), config), config))
    by_clip = dict(zip(batch.clip_ids, zip(batch.captions, batch.motion.tolist(), strict=True), strict=True))
    assert by_clip == {clip: (f"clip {n}: a täxture", 0.5 * n) for n, clip in enumerate(kit.clip_ids)}
    assert batch.video.shape == (3, 16, 96, 160, 3)
    assert batch.fps.tolist() == [30.0] * 3
