"""Whole jobs on Ray: what they give is what the inline engine gives. They share one, for starting it takes as long as a
job."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

import pytest
import ray
from caption_job_kit import KEY, NUMBERS, answer, cells, check_integrity, check_key_is_nowhere
from caption_job_kit import recipe as caption_recipe
from caption_job_kit import write_films as write_caption_films
from endpoint_kit import Script, served
from engine_kit import all_cells
from job_kit import do
from model_kit import fetch_packaged
from model_stages_kit import check_refused, planned_recipe, two_machines
from svd_kit import CLIPS_A_FILM, SMALL, TEXT_FILM, made, pipeline, shots_of, small_models

from curate.job import JobOptions, open_engine, run_job
from curate.recipe import build, load_recipe
from curate.tables import Corpus, read_parquet
from curate.testing.footage import crossfade, moving_texture, text_card, write_video
from curate.watch.listener import JobListener
from curate.weights.store import model_dir

pytestmark = pytest.mark.ray


class Quiet(JobListener):
    """Cares for nothing."""


@pytest.fixture(scope="module")
def kit_of_workers(tmp_path_factory) -> Iterator[Path]:
    """Ray, started and stopped as by a job. Its workers have the environment in which it was started: their cards and
    models lie behind a link, and so where each test has it point."""
    link, said = tmp_path_factory.mktemp("ray") / "kit", list[str]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CURATE_CARDS", str(link / "cards"))
        patch.setenv("CURATE_MODELS", str(link / "models"))
        patch.setenv("CAPTION_KEY", KEY)
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[1]), prepend=os.pathsep)
        engine, _ = open_engine("ray", None, said.append)
        assert not ray.is_initialized()
        engine.open()
    assert len(said) == 1 and said[0].startswith("Starting Ray")
    assert len(ray.nodes()) == 1
    yield link
    engine.close()
    assert not ray.is_initialized()


@pytest.fixture
def workers_use(kit_of_workers) -> Iterator[Callable[[Path], None]]:
    """Give Ray's workers the cards and models of this folder."""
    yield kit_of_workers.symlink_to
    kit_of_workers.unlink(missing_ok=True)
    assert ray.is_initialized(), "a job leaves the Ray that it found"


def what_we_have(folder: Path) -> Path:
    """The cards and models that whoever runs the tests has."""
    (folder / "cards").mkdir(parents=True)
    (folder / "models").symlink_to(model_dir())
    return folder


def test_ray_and_inline_do_the_same_job(tmp_path, workers_use):
    fetch_packaged()
    workers_use(what_we_have(tmp_path / "kit"))
    bucket = tmp_path / "bucket"
    bucket.mkdir()
    write_video(bucket / "pan.mp4", moving_texture(75, 320, 192, (2, 0), seed=1))
    write_video(bucket / "again.mp4", moving_texture(75, 320, 192, (2, 0), seed=1), options={"crf": "30"})
    a, b = (list(moving_texture(45, 320, 192, (0, n), seed=n)) for n in (2, 3))
    write_video(bucket / "dissolve.mp4", [*crossfade(a, b, 12)])
    write_video(bucket / "card.mp4", text_card(45, 320, 192, "TOO MUCH TEXT\nIN THIS PICTURE\nTO TRAIN ON IT"))
    (bucket / "broken.mp4").write_bytes(b"no video")
    recipe = load_recipe("embedded")
    out = {engine: tmp_path / engine for engine in ("inline", "ray")}
    done = {name: run_job([str(bucket)], recipe, JobOptions(str(path), name), Quiet()) for name, path in out.items()}
    pipeline = build(recipe)
    assert all_cells(out["ray"], pipeline) == all_cells(out["inline"], pipeline)
    assert done["ray"].funnel.inputs == done["inline"].funnel.inputs
    assert done["ray"].funnel.clips == done["inline"].funnel.clips
    assert done["ray"].funnel.clips.kept
    chosen = [
        read_parquet(Corpus(str(path)).selections().child("embedded", "selection.parquet")) for path in out.values()
    ]
    assert chosen[0].sort_by("clip_id").equals(chosen[1].sort_by("clip_id"))
    files = [
        {file.relative_to(path): file.read_bytes() for file in (path / "shards").rglob("*.*") if file.suffix != ".json"}
        for path in out.values()
    ]
    assert files[0] == files[1]
    assert files[0]


def test_the_recipe_of_the_paper_gives_the_same_cells(tmp_path, monkeypatch, workers_use):
    """Every stage runs its real code, as in test_svd; on one film, for each decoder loads all models."""
    small_models(tmp_path / "models", monkeypatch)
    workers_use(tmp_path / "models" / "kit")
    bucket = tmp_path / "bucket"
    bucket.mkdir()
    write_video(bucket / "all.mp4", chain.from_iterable(chain(*shots_of(number)) for number in (1, 3, 5, TEXT_FILM)))
    found = {engine: made(bucket, tmp_path / engine, engine, SMALL) for engine in ("inline", "ray")}
    tables = {engine: all_cells(out, pipeline(SMALL)) for engine, out in found.items()}
    assert tables["ray"] == tables["inline"]
    assert len(tables["ray"]["caption.chosen"]) == len(tables["ray"]["clips"]) == 4 * CLIPS_A_FILM


def test_the_next_pass_asks_for_what_failed_alone(tmp_path, monkeypatch, workers_use):
    (tmp_path / "films").mkdir()
    films, out = write_caption_films(tmp_path / "films"), tmp_path / "corpus"
    workers_use(what_we_have(tmp_path / "kit"))
    monkeypatch.setenv("CAPTION_KEY", KEY)
    script = Script(answer, key=KEY, delay_s=lambda text, attempt: 0.02 * (len(text) % 4))
    script.faults = lambda text, attempt: "busy" if text == "number 1000" and not attempt else ""
    with served(script) as url:
        do([films], out, caption_recipe(url), engine="ray", export=False)
    attempts = {number: row["attempt"] for number, row in cells(out, "caption.vlm").items()}
    assert attempts == {number: 2 if number == 1000 else 1 for number in NUMBERS}
    assert script.attempts["number 3"] == script.attempts["number 77"] == 2  # once to see, once to fuse
    assert script.attempts["number 1000"] == 3
    assert {row["outcome"] for row in cells(out, "caption.chosen").values()} == {"ok"}
    check_integrity(out)
    check_key_is_nowhere(out)


def test_nothing_is_written_under_a_fingerprint_of_another_model(tmp_path, monkeypatch, workers_use):
    worker, theirs, ours = two_machines(tmp_path, monkeypatch, "dimmer")
    workers_use(worker.cards.parent)
    write_video(tmp_path / "a.mp4", moving_texture(30, 96, 64, (1, 0), seed=1))
    options = JobOptions(str(tmp_path / "corpus"), "ray", export=False)
    run_job([str(tmp_path / "a.mp4")], planned_recipe(monkeypatch), options, Quiet())
    check_refused(tmp_path / "corpus", "dimmer", theirs, ours)
