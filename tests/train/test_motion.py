"""The calibration is monotone, invertible, the same after storing, and gives each bucket its share of the clips."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.errors import ConfigError
from curate.storage import Place
from curate.train.motion import KNOTS, MotionCalibration

SKEWED = np.random.default_rng(0).lognormal(0.0, 1.0, 20_000)
scores = st.lists(st.floats(0, 1e3, allow_subnormal=False), min_size=2, max_size=60).filter(
    lambda values: max(values) - min(values) > 1e-6
)


def made(values=SKEWED, **more):
    return MotionCalibration.of_scores(values, "motion.v2d_px16", **more)


def test_buckets_are_quantiles():
    calibration = made()
    assert (calibration.n_clips, len(calibration.scores)) == (20_000, KNOTS)
    for share in (0.0, 0.1, 0.25, 0.5, 0.9, 1.0):
        assert calibration.bucket(np.quantile(SKEWED, share)) == pytest.approx(255 * share, abs=0.5)
    counts = np.histogram(calibration.bucket(SKEWED), bins=10, range=(0, 255))[0]
    assert counts.tolist() == pytest.approx([2000] * 10, abs=100)


@given(scores, st.lists(st.floats(0, 255), min_size=2, max_size=20))
def test_a_bucket_has_one_score_and_back(values, buckets):
    calibration = made(values)
    wanted = np.sort(np.asarray(buckets))
    found = calibration.score(wanted)
    assert (np.diff(found) >= 0).all()
    assert calibration.bucket(found) == pytest.approx(wanted, abs=1e-3)
    assert (np.diff(calibration.scores) > 0).all()
    assert calibration.scores[-1] == pytest.approx(max(values))
    assert calibration.scores[0] == pytest.approx(min(values))


@given(scores)
def test_scores_inside_the_range_come_back(values):
    calibration = made(values)
    inside = np.asarray(calibration.scores)
    assert calibration.score(calibration.bucket(inside)) == pytest.approx(inside, rel=1e-9, abs=1e-9)


def test_scores_beyond_the_table_get_the_first_and_the_last_bucket():
    calibration = made()
    assert calibration.bucket([-1.0, 1e9]).tolist() == [0, 255]
    assert np.isnan(calibration.bucket(float("nan")))


def test_scores_of_another_unit_are_refused_and_those_beyond_are_counted():
    calibration = made(np.linspace(0, 1.6, 50))
    calibration.check_unit("motion.v2d_px16")
    with pytest.raises(ConfigError, match=r"the shards hold motion\.speed, .* calibrated on motion\.v2d_px16"):
        calibration.check_unit("motion.speed")
    assert calibration.share_outside([0.0, 0.5, 1.6, float("nan")]) == 0
    assert calibration.share_outside([-0.1, 0.5, 1.7, 90.0, float("nan")]) == 0.75


def test_much_still_footage_leaves_the_rest_in_order():
    values = np.concatenate([np.zeros(500), np.linspace(1, 2, 500)])
    calibration = made(values)
    assert calibration.bucket(0.0) == 0
    assert 126 <= calibration.bucket(1.0) <= 129
    assert calibration.bucket(1.5) == pytest.approx(191, abs=1)
    assert (np.diff(calibration.scores) > 0).all()


def test_it_is_stored_to_the_last_bit(tmp_path):
    calibration = made()
    place = Place(str(tmp_path / "motion.json"))
    place.write_text(calibration.to_json())
    again = MotionCalibration.read(place)
    assert again == calibration
    assert (again.bucket(SKEWED) == calibration.bucket(SKEWED)).all()
    assert json.loads(calibration.to_json())["column"] == "motion.v2d_px16"


@pytest.mark.parametrize("values", [[], [float("nan")] * 3, [2.0, 2.0]])
def test_clips_without_different_scores_are_refused(values):
    with pytest.raises(ConfigError, match=r"motion\.v2d_px16"):
        made(values)


@pytest.mark.parametrize("bucket", [-0.1, 255.5])
def test_a_bucket_outside_is_refused(bucket):
    with pytest.raises(ConfigError, match="between 0 and 255"):
        made().score(bucket)


@pytest.mark.parametrize(
    "text",
    ["", "[]", '{"format": 1}', '{"format": 2}', '{"format": 2, "scores": [2, 1], "column": "a", "n_clips": 2}'],
)
def test_what_is_no_calibration_is_refused(text):
    with pytest.raises(ConfigError):
        MotionCalibration.from_json(text)
