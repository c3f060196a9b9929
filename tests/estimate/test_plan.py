"""A plan of a small bucket by the real job, beside the run that follows; and what a plan refuses."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import job_kit
import numpy as np
import pytest
from cli_kit import RECIPE, flat_video, good_video
from job_kit import Heard

from curate.engine.run import RunResult
from curate.engine.work import Use
from curate.errors import ConfigError, InputError, UsageError
from curate.estimate import Cluster, Estimate, Forecast, PlanOptions, SampleSize, make_plan
from curate.estimate.cluster import Lane, Layout
from curate.estimate.compare import compare, taken
from curate.estimate.expect import Expectation, hours, lanes
from curate.estimate.measure import Measured, Shards, measure
from curate.estimate.ratios import Bucket, Family, totals
from curate.estimate.survey import Survey
from curate.estimate.trial import Costs
from curate.job import JobResult, run_job
from curate.recipe import Recipe, build, parse_recipe
from curate.records import InputRef
from curate.select import Condition, DedupConfig, SelectConfig, select
from curate.tables import Corpus
from curate.testing.footage import moving_texture, write_video


def recipe(*overrides: str) -> Recipe:
    return parse_recipe(RECIPE, "test", overrides)


def plan(*sources: Path, heard: Heard | None = None, chosen: Recipe | None = None, **options) -> Forecast:
    options = {"sample": SampleSize(count=8), "engine": "inline", **options}
    heard = heard or Heard()
    counted: list[tuple[int, int]] = []
    forecast = make_plan(
        [str(each) for each in sources], chosen or recipe(), PlanOptions(**options), heard, lambda *n: counted.append(n)
    )
    heard.steps.append(f"read through {counted[-1]}")
    return forecast


@pytest.fixture(scope="module")
def bucket(tmp_path_factory) -> Path:
    """Nine films of one shot, 1 to 2 s; one twice; one flat; two that cannot be read; a note."""
    folder = tmp_path_factory.mktemp("bucket")
    for number in range(9):
        good_video(folder / f"v{number:02d}.mp4", seed=number, frames=25 + 3 * number)
    shutil.copy(folder / "v03.mp4", folder / "twin.mp4")
    flat_video(folder / "flat.mp4")
    (folder / "broken.mp4").write_bytes(b"no video at all, whatever the name says" * 9)
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "notes.txt").write_text("a note")
    return folder


@pytest.fixture(scope="module")
def few(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("few")
    for number in range(3):
        good_video(folder / f"{number}.mp4", seed=number, frames=25)
    return folder


@pytest.fixture(scope="module")
def whole(few) -> Forecast:
    """Of all of few films, for four machines."""
    return plan(few, sample=SampleSize(share=1.0), cluster=Cluster(4, 8, gpus=1, memory_bytes=64 << 30))


@pytest.fixture(scope="module")
def planned(bucket, tmp_path_factory):
    """(forecast from 8 of 10 sources, the corpus of that sample, what was heard)."""
    keep, heard = tmp_path_factory.mktemp("kept") / "corpus", Heard()
    return plan(bucket, heard=heard, keep=str(keep), chosen=recipe("select.conditions.contrast.min=0.1")), keep, heard


@pytest.fixture(scope="module")
def ran(bucket, tmp_path_factory) -> Corpus:
    out = tmp_path_factory.mktemp("ran") / "corpus"
    job_kit.do([bucket], out, recipe("select.conditions.contrast.min=0.1"))
    return Corpus(str(out))


def test_a_plan_knows_the_bucket_from_reading_it_through(planned):
    forecast, _, heard = planned
    tried = forecast.tried
    assert (tried.n_inputs, tried.n_sources, tried.n_sample, tried.sample_clips) == (14, 10, 8, 8)
    assert tried.failed == {"NotMediaError": 1, "EmptyFileError": 1}
    assert tried.skipped == {"not a video file name (.txt)": 1, "same content as another": 1}
    assert tried.video_s == pytest.approx(sum(25 + 3 * n for n in range(9)) / 25 + 2)
    steps = ["Listing", "Trying 8 of 10 sources", "Selecting", "Writing shards", "read through (13, 13)"]
    assert heard.steps == steps


def test_what_was_foretold_is_what_came(planned, ran):
    """Counts go with the number of sources and seconds with their pixels, so both are exact here."""
    forecast, _, _ = planned
    found = {row.name: row for row in compare(ran, ran.run_ids()[-1], forecast)}
    for name, n in {"inputs ok": 10, "inputs failed": 2, "clips found": 10, "clips failed": 0}.items():
        assert (found[name].found, found[name].foretold.value) == (n, pytest.approx(n))
    assert found["video found"].ratio == pytest.approx(1, abs=0.02)
    assert found["clips kept"].found == 9
    assert 7 <= found["clips kept"].foretold.value <= 10
    assert found["shards"].ratio == pytest.approx(1, abs=0.25)
    assert found["tables"].ratio == pytest.approx(1, abs=0.25)
    assert (found["tables"].inside, forecast.storage.tables.low) == (None, None), "its spread is not known"
    assert found["clips failed"].foretold.high > 0, "2 of 10 sources were not tried"
    assert {"on the clock", "scoring", "writing shards", "CPUs at work", "stage cut"} <= set(found)
    assert all(row.foretold.value > 0 for name, row in found.items() if row.unit == "s")


@pytest.mark.parametrize("end", ["drop_lowest", "drop_highest"])
def test_a_percentile_drops_its_share_of_the_bucket_and_not_of_the_sample(ran, bucket, end, tmp_path):
    """By length, with chances that go with it: the sample's own half is far from half of what it stands for."""
    condition = Condition(column="clip.duration_s", name="length", **{end: 0.5})
    config = SelectConfig(name=f"own-{end}", conditions=[condition], dedup=DedupConfig(method="none"))
    corpus = Corpus(str(shutil.copytree(ran.uri, tmp_path / "corpus")))
    own = select(corpus, config)
    names = [*("twin" if n == 3 else f"v{n:02d}" for n in range(9)), "flat"]
    uris = [str(bucket / f"{name}.mp4") for name in names]
    chances = np.array([0.08 + 0.1 * n for n in range(9)] + [0.98])
    done = JobResult(RunResult(corpus.run_ids()[-1], {}, 0.0, {}, {}), own, None)
    found = measure(corpus, done, uris, (), chances)
    clips = next(each.quantities for each in found.families if "clips/found" in each.quantities)
    fails = next(values for name, values in clips.items() if name.startswith("clips/fails/"))
    stand_for = 1 / chances
    share = (stand_for * fails).sum() / (stand_for * clips["clips/found"]).sum()
    assert clips["clips/found"].sum() == 10 and own.clips.dropped == 5
    assert share == pytest.approx(0.5, abs=stand_for.max() / stand_for.sum() / 2)
    (text,) = found.judges.values()
    assert "50 %" in text and "of selection" not in text


def test_what_the_sample_computed_is_not_computed_again(planned, bucket, tmp_path):
    _, keep, _ = planned
    corpus = shutil.copytree(keep, tmp_path / "corpus")
    _, heard = job_kit.do([bucket], corpus, recipe("select.conditions.contrast.min=0.1"))
    assert len(heard.works) == 10 - 8 + 2
    with pytest.raises(UsageError, match="holds a run already"):
        plan(bucket, keep=str(corpus))


def test_a_sample_of_everything_is_a_measurement(whole):
    assert whole.tried.is_whole
    assert whole.clips["kept"] == Estimate(3.0, 3.0, 3.0)
    assert whole.cautions[0] == "All 3 sources were tried: these are measurements, not estimates"
    work = whole.hours.cpu_work
    assert work.low == work.value == work.high > 0


def test_a_plan_for_other_machines_takes_their_workers(whole):
    (lane,) = whole.lanes
    assert (lane.name, lane.workers) == ("decoders", 3)
    assert whole.hours.cpu_held.value == pytest.approx(32 * whole.hours.wall.value)
    assert (whole.hours.gpu_work.value, whole.hours.gpu_held.value) == (0, pytest.approx(4 * whole.hours.wall.value))
    assert lane.busy_s.value == pytest.approx(sum(stage.busy_s.value for stage in whole.stages))
    assert lane.wall_s >= lane.busy_s.value / 3


def test_a_worker_takes_its_part_of_the_work_and_all_of_the_loading():
    """By made-up costs: 6 sources of 10 s, 2 s to load, half a second between sources, three workers."""
    six, pipeline = np.ones(6), build(recipe())
    refs = tuple(InputRef(f"{n}.mp4") for n in range(6))
    bucket = Bucket({"number": six}, np.arange(6), six)
    families = [
        Family({f"seconds/{name}": seconds * six}) for name, seconds in (("probe", 1), ("cut", 4), ("quality", 5))
    ]
    measured = Measured(tuple(families), {"quality": Use(load_s=4.0, loads=2)}, {}, Shards(), {}, 6, 0.0)
    lane = Lane("decoders", 3, ("probe", "cut", "quality"), reads=True)
    expected = Expectation(
        pipeline,
        Survey(refs, bucket.predictors),
        bucket,
        totals(bucket, families),
        measured,
        Costs(start_s=7.0, end_s=3.0, selecting_s=1.0, each_s=0.5, cpu_share=1.0),
        Cluster(3, 1),
        Layout((lane,), 1, 3),
        shard_bytes=1 << 30,
    )
    (told,) = lanes(expected)
    assert told.busy_s.value == pytest.approx(60)
    assert told.wall_s == pytest.approx(60 / 3 + 2 + 6 * 0.5 / 3)
    uneven = replace(expected, layout=Layout((replace(lane, workers=4),), 1, 4))
    assert lanes(uneven)[0].wall_s == pytest.approx(20 + 2 + 6 * 0.5 / 4), "two of four workers have two sources"
    assert hours(expected).scoring.value == pytest.approx(told.wall_s + 7 + 3)


def test_a_plan_is_kept_and_read_again(planned, tmp_path):
    forecast, _, _ = planned
    assert Forecast.from_json(forecast.to_json(), "plan.json") == forecast
    for text in ("", "[]", "{}", '{"format": 1}', json.dumps({**forecast.to_dict(), "format": 99})):
        with pytest.raises(ConfigError, match=r"^plan\.json: is (not a forecast|a forecast of another format)"):
            Forecast.from_json(text, "plan.json")


def test_the_stage_that_holds_the_rest_up_is_named(planned):
    forecast, _, _ = planned
    busy = {stage.name: stage.busy_s.value for stage in forecast.stages}
    assert set(busy) == {"reading", "probe", "cut", "quality"}
    assert forecast.holds_up == max(busy, key=busy.__getitem__)


def test_a_part_of_a_recipe_by_a_single_source(few):
    """Times and no funnel; and that one source says nothing of the spread."""
    chosen = parse_recipe(RECIPE.replace("quality]", "quality, motion]"), "test")
    forecast = plan(few, chosen=chosen, sample=SampleSize(count=1), only_stages=("motion",))
    assert forecast.clips["found"].value == pytest.approx(3) and forecast.clips["found"].low is None
    assert forecast.cautions[0].startswith("Too few to be sure: 1 source says little of 3")
    assert "motion" in {stage.name for stage in forecast.stages}
    assert set(forecast.clips) == {"found"} and forecast.retention is None
    assert any("Stages left out: quality" in text for text in forecast.cautions)


def test_speeds_from_elsewhere_take_the_place_of_what_was_measured(few):
    forecast = plan(few, sample=SampleSize(count=2), speeds={"quality": 0.5})
    assert forecast.cautions[0].startswith("Too few to be sure: 2 sources say little of 3")
    stage = next(stage for stage in forecast.stages if stage.name == "quality")
    assert (stage.s_per_cell, forecast.holds_up) == (pytest.approx(2.0), "quality")
    with pytest.raises(UsageError, match="did you mean 'quality'"):
        plan(few, speeds={"qualty": 1.0})


def test_a_bucket_of_nothing_readable_is_refused(tmp_path):
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).write_text("no video " * 50 + name)
    with pytest.raises(InputError, match="none of 2 inputs can be read"):
        plan(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no video to read"):
        plan(tmp_path / "empty")


def test_a_sample_of_failing_sources_alone_foretells_nothing(tmp_path):
    """Files whose packets can be counted and whose frames cannot be decoded: it shows only in the job itself."""
    for number in range(2):
        path = tmp_path / f"{number}.mp4"
        write_video(path, moving_texture(30, 96, 64, (1, 0), number), Fraction(25))
        data = bytearray(path.read_bytes())
        at = data.index(b"mdat") + 4
        size = int.from_bytes(data[at - 8 : at - 4], "big")
        data[at : at + size - 8] = bytes(size - 8)
        path.write_bytes(data)
    with pytest.raises(InputError, match=r"none of (the 2 sources of the sample could|2 inputs can) be read"):
        plan(tmp_path)


def test_a_run_says_what_it_took(ran):
    found = taken(ran, ran.run_ids()[-1])
    assert set(found.wall_s) == {"scoring", "selecting", "writing"}
    assert all(seconds > 0 for seconds in found.wall_s.values())
    assert {stage.stage for stage in found.stages} == {"probe", "cut", "quality"}
    assert not found.all_there


def test_a_run_that_found_all_there_says_so(ran, bucket, tmp_path):
    corpus = Corpus(str(shutil.copytree(ran.uri, tmp_path / "again")))
    run_job([str(bucket)], recipe(), job_kit.JobOptions(corpus.uri, engine="inline"), Heard())
    assert taken(corpus, corpus.run_ids()[-1]).all_there
