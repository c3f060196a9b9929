"""What goes wrong around a run, and what it says then."""

from __future__ import annotations

import errno
import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint
import yaml
from clips_kit import make_set, usual
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from train_kit import image_unet, small_recipe, smallest_model

from curate.errors import ConfigError, CorpusError, StorageError, TrainingError, UsageError
from curate.shards.reader import ShardSet
from curate.storage import Place
from curate.train.data.catalogue import Catalogue
from curate.train.distributed import joined
from curate.train.encoders import Encoders
from curate.train.folders import resolved
from curate.train.latents import all_clips, precompute, precompute_texts
from curate.train.parts import start
from curate.train.recipe import TrainRecipe, parse_train_recipe
from curate.train.run import Job, train


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("set")
    make_set(str(folder / "set"), usual(9, frames=6), folder)
    return folder / "set"


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """A finished text stage of two steps."""
    folder = tmp_path_factory.mktemp("stage")
    often = recipe(run={"checkpoint": {"every_steps": 1, "keep": 2}})
    train(Job(often, str(data), folder / "run", smallest_model(folder / "init"), device="cpu"))
    return folder / "run"


def recipe(kind: str = "video", **more: Any) -> TrainRecipe:
    return parse_train_recipe(yaml.safe_dump(small_recipe(kind, **more)), "test")


class Begun(Exception):
    """The run has said what it starts with: enough has been seen."""


def begins(data: Path, out: Path, **more: Any) -> Mapping[str, Any]:
    """What a run says at its start."""
    told: list[Mapping[str, Any]] = []

    def note(facts: Mapping[str, Any]) -> None:
        told.append(facts)
        raise Begun

    with pytest.raises(Begun):
        train(Job(recipe(), str(data), out, device="cpu", on_start=note, **more))
    return told[0]


def test_a_stage_goes_on_with_motion_of_the_same_unit_alone(data, stage, tmp_path):
    """Shards of another measure are refused, and clips beyond the table are told of."""
    other = shutil.copytree(data, tmp_path / "other")
    index = json.loads((other / "index.json").read_text())
    (other / "index.json").write_text(json.dumps(index | {"export": {"motion": "motion.speed_width_s"}}))
    with pytest.raises(ConfigError, match=r"the shards hold motion\.speed_width_s, .* calibrated on motion_score"):
        begins(other, tmp_path / "refused", init=str(stage))
    assert begins(data, tmp_path / "same", init=str(stage))["warnings"] == []
    table = json.loads((stage / "model" / "motion.json").read_text())
    moved = shutil.copytree(stage / "model", tmp_path / "moved")
    slow = [score / 2 for score in table["scores"]]
    (moved / "motion.json").write_text(json.dumps(table | {"scores": slow}))
    (warning,) = begins(data, tmp_path / "warned", init=str(moved))["warnings"]
    assert warning.startswith("50% of the clips move less or more")


def test_memory_that_does_not_do_is_no_traceback(data, stage, tmp_path):
    """Also when it is a later step's, of which what is before it is kept."""

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    def fill(step: int, _report: object, state: Any) -> None:
        if step == 1:
            state.network.conv_in.register_forward_pre_hook(full)

    often = {"checkpoint": {"every_steps": 1, "keep": 2}, "micro_batch": 4}
    words = r"does not fit into the device's memory\. To need less: lower run\.micro_batch, set run\.gradient_check"
    with pytest.raises(UsageError, match=words):
        train(Job(recipe(run=often), str(data), tmp_path, str(stage), device="cpu", on_step=fill))
    assert (tmp_path / "checkpoints" / "step-00000001" / "trainer.json").is_file()


def test_a_damaged_state_is_named_and_the_checkpoint_before_goes_on(data, stage, tmp_path):
    folder = shutil.copytree(stage, tmp_path / "run")
    before, last = (folder / "checkpoints" / f"step-0000000{step}" for step in (1, 2))
    (part,) = (last / "state").glob("*.distcp")
    job = Job(recipe(), str(data), folder, device="cpu")
    for damage in (lambda: part.write_bytes(part.read_bytes()[:1000]), part.unlink):
        damage()
        with pytest.raises(CorpusError, match=r"step-00000002/state: cannot be read: .* Remove this checkpoint; the"):
            train(job)
    shutil.rmtree(last)
    seen: list[int] = []
    assert before.is_dir()
    train(replace(job, on_step=lambda step, *_: seen.append(step)))
    assert seen == [2]


def test_a_disk_that_is_full_when_a_checkpoint_is_written_is_said(data, stage, tmp_path, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch.distributed.checkpoint.FileSystemWriter, "write_data", full)
    with pytest.raises(StorageError, match=r"step-00000002.*: no space left on the device"):
        train(Job(recipe(), str(data), tmp_path, str(stage), device="cpu"))
    assert not list(tmp_path.glob("checkpoints/step-*"))


@pytest.mark.parametrize(("predicts", "fits"), [("v_prediction", True), ("epsilon", False), ("", False), (None, True)])
def test_an_image_network_that_predicts_noise_is_refused(tmp_path, predicts, fits):
    """Stable Diffusion 2.1-base; the first ones do not say it at all."""
    image_unet().save_pretrained(tmp_path / "unet")
    Encoders.tiny().save(tmp_path)
    if predicts is not None:
        DDIMScheduler(**({"prediction_type": predicts} if predicts else {})).save_pretrained(tmp_path / "scheduler")
        path = tmp_path / "scheduler" / "scheduler_config.json"
        said = json.loads(path.read_text())
        path.write_text(json.dumps(said if predicts else {k: v for k, v in said.items() if k != "prediction_type"}))
    if fits:
        start(recipe("image"), str(tmp_path))
        return
    with pytest.raises(ConfigError, match=r"its network predicts epsilon, .* 2\.1 of 768 pixels"):
        start(recipe("image"), str(tmp_path))


def test_what_is_not_encoded_beforehand_is_said(data, stage, tmp_path):
    """Texts alone, then latents too."""
    clips, encoders = all_clips(ShardSet.open(Place(str(data))), recipe().data), Encoders.tiny()
    store, column = Place(str(tmp_path / "latents")), "caption.coca.caption"
    precompute_texts(clips, encoders.text, [column], store)
    facts = begins(data, tmp_path / "texts", init=str(stage), latents=store.uri)
    assert facts["precomputed"] == ["embedded texts"]
    (warning,) = facts["warnings"]
    assert warning.startswith(f"{store.uri} holds no latents of this run's autoencoder")
    precompute(clips, encoders.codec, store)
    facts = begins(data, tmp_path / "both", init=str(stage), latents=store.uri)
    assert (facts["precomputed"], facts["warnings"]) == (["latents", "embedded texts"], [])


def test_a_start_is_the_same_however_it_is_spelled(data, stage, tmp_path, monkeypatch):
    """Two spellings of one folder go on with a run; another folder does not."""
    shutil.copytree(stage / "model", tmp_path / "svd")
    monkeypatch.chdir(tmp_path)
    job = Job(recipe(steps=1), str(data), tmp_path / "run", "svd", device="cpu")
    train(job)
    monkeypatch.chdir(data)
    assert train(replace(job, init="../" * 30 + str(tmp_path / "svd")[1:])).step == 1
    with pytest.raises(ConfigError, match=r"another recipe or start: --init differs"):
        train(replace(job, init=str(stage)))


@pytest.mark.parametrize(
    ("place", "same"),
    [("latents", "./latents"), ("latents/", "a/../latents"), ("s3://bucket/latents", "s3://bucket/latents/"), ("", "")],
)
def test_places_are_compared_by_what_they_mean(place, same):
    assert resolved(place) == resolved(same) != resolved("s3://bucket/other")


def test_a_batch_larger_than_the_set_says_which_would_fit(data):
    config, shards = recipe().data, ShardSet.open(Place(str(data)))
    with pytest.raises(ConfigError, match=r"fewer clips than a batch of 9: .* has 8; .* Use --set data\.batch=8, name"):
        Catalogue.read(shards, config.model_copy(update={"batch": 9}))
    none = config.model_copy(update={"hold_out_sources": 9})
    with pytest.raises(ConfigError, match=r"data\.hold_out_sources: the 9 films held out for validation are all that"):
        Catalogue.read(shards, none)


def test_where_nothing_can_be_written_is_said_before_anything_is_read(tmp_path):
    (tmp_path / "file").write_text("")
    job = Job(recipe(), str(tmp_path / "no shards"), tmp_path / "file" / "run", "no model", device="cpu")
    with pytest.raises(StorageError, match=r"file/run: cannot be written: Not a directory"):
        train(job)


def test_what_a_lost_process_left_to_say_is_readable(monkeypatch):
    """gloo's own words, without its source's path, cut between words."""
    said = (
        "[../third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:41234. "
        + "so " * 99
    )
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda *_, **__: None)
    monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda: None)
    for name, value in (("RANK", "1"), ("WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    with pytest.raises(TrainingError) as raised, joined("cpu"):
        raise RuntimeError(said)
    assert re.match(r"rank 1: another of the 2 .* \(Connection closed by peer \[127.*so \.\.\.\)", str(raised.value))
    assert "third_party" not in str(raised.value)
