"""The one bucket rule: never enlarge, never lose silently, larger clips never fall into smaller buckets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.config import parse_config
from curate.errors import ConfigError
from curate.shards.buckets import Bucket, BucketsConfig, bucket_of, buckets_filled_by

DEFAULT = BucketsConfig()
sizes = st.integers(1, 5000)
counts = st.integers(0, 300)
configs = st.builds(
    lambda sides, aspects, frames: BucketsConfig(
        short_sides_px=tuple(32 * side for side in sides), aspects=tuple(aspects), frames=tuple(frames), multiple_px=32
    ),
    st.sets(st.integers(1, 30), min_size=1, max_size=5),
    st.sets(st.sampled_from(["9:16", "3:4", "1:1", "4:3", "16:9", "21:9"]), min_size=1),
    st.sets(st.integers(1, 200), min_size=1, max_size=4),
)


@pytest.mark.parametrize(
    ("clip", "bucket"),
    [
        ((1920, 1080, 250), "1792x1024x97"),
        ((1280, 720, 250), "1280x704x97"),
        ((1024, 576, 25), "1024x576x25"),
        ((576, 320, 14), "576x320x14"),
        ((854, 480, 30), "768x448x25"),
        ((1080, 1920, 60), "1024x1792x49"),
        ((1440, 1080, 24), "1344x1024x14"),
        ((600, 600, 13), "576x576x8"),
        ((2560, 1080, 100), "1792x1024x97"),
        ((230, 128, 8), "192x128x8"),
    ],
)
def test_usual_footage(clip, bucket):
    assert bucket_of(*clip, DEFAULT) == (bucket, "")


@pytest.mark.parametrize(
    ("clip", "reason"),
    [
        ((1920, 1080, 7), "shorter than 8 frames"),
        ((160, 90, 100), "smaller than 128 px"),
        ((4000, 100, 100), "smaller than 128 px"),
        ((0, 100, 100), "nothing left"),
    ],
)
def test_what_no_bucket_takes_has_a_reason(clip, reason):
    name, why = bucket_of(*clip, DEFAULT)
    assert name is None
    assert reason in why


@given(sizes, sizes, counts, configs)
def test_a_bucket_or_a_reason_and_never_enlarged(width_px, height_px, frames, config):
    name, reason = bucket_of(width_px, height_px, frames, config)
    assert (name is None) == bool(reason)
    if name:
        bucket = Bucket.parse(name)
        assert bucket.width_px <= width_px
        assert bucket.height_px <= height_px
        assert bucket.frames <= frames
        assert bucket.name == name
    elif "shorter" in reason:
        assert frames < config.frames[0]


@given(sizes, sizes, counts, configs)
def test_a_reason_only_where_no_bucket_at_all_is_filled(width_px, height_px, frames, config):
    name, _ = bucket_of(width_px, height_px, frames, config)
    top = "x".join(str(value) for value in (width_px, height_px, frames))
    assert (name in buckets_filled_by(top, config)) if name else not buckets_filled_by(top, config)


@given(st.integers(1, 400), st.integers(1, 400), counts, st.integers(2, 12), st.integers(0, 50))
def test_a_larger_or_longer_clip_of_the_same_shape_never_gets_less(width_px, height_px, frames, times, more):
    small, _ = bucket_of(width_px, height_px, frames, DEFAULT)
    large, _ = bucket_of(width_px * times, height_px * times, frames + more, DEFAULT)
    if small:
        before, after = Bucket.parse(small), Bucket.parse(large)
        assert after.width_px * after.height_px >= before.width_px * before.height_px
        assert after.frames >= before.frames


@given(st.integers(128, 3000), st.integers(128, 3000))
def test_turning_a_picture_turns_its_bucket(width_px, height_px):
    name, _ = bucket_of(width_px, height_px, 25, DEFAULT)
    turned, _ = bucket_of(height_px, width_px, 25, DEFAULT)
    there, back = Bucket.parse(name), Bucket.parse(turned)
    if width_px * 16 != height_px * 9 and abs(width_px / height_px - (4 / 3) ** 0.5) > 0.01:
        assert sorted(there[:2]) == sorted(back[:2])


def test_clips_of_a_bucket_are_readable_for_smaller_stages():
    names = buckets_filled_by("1024x576x25", DEFAULT)
    assert {"1024x576x25", "576x320x14", "576x576x25", "256x448x8"} <= set(names)
    assert all(Bucket.parse(n).frames <= 25 for n in names)


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"short_sides_px": (100,)}, "multiple of multiple_px"),
        ({"aspects": ("wide",)}, "not W:H"),
        ({"frames": ()}, "at least one"),
        ({"frames": (8, 8)}, "each once"),
        ({"aspect": ("1:1",)}, "did you mean 'aspects'"),
    ],
)
def test_wrong_configuration_is_explained(wrong, match):
    with pytest.raises(ConfigError, match=match):
        parse_config(BucketsConfig, wrong, "export.buckets")
