"""Stage after stage from folder to folder: what each starts from, leaves behind, and refuses."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from clips_kit import make_set, usual
from diffusers import AutoencoderKL, StableVideoDiffusionPipeline, UNetSpatioTemporalConditionModel
from safetensors.torch import load_file
from train_kit import diffusers_folder, drawn_by_diffusers, drawn_here, image_unet, small_recipe, smallest_model

from curate.errors import ConfigError, ModelFileError, TrainingError, UsageError
from curate.train.encoders import Encoders
from curate.train.folders import resolve_model
from curate.train.logs import read_lines
from curate.train.motion import MotionCalibration
from curate.train.parts import network_config, start
from curate.train.recipe import TrainRecipe, load_train_recipe, parse_train_recipe
from curate.train.recompute import compile_units, recompute_units
from curate.train.run import Finished, Job, train
from curate.train.sampler import Sampling


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("set")
    make_set(str(folder / "set"), usual(9, frames=6), folder)
    smallest_model(folder / "init")
    return str(folder / "set")


def recipe(kind: str = "image-to-video", **more: Any) -> TrainRecipe:
    return parse_train_recipe(yaml.safe_dump(small_recipe(kind, **more)), "test")


def job(stage: TrainRecipe, data: str, out: Path, *, init: str | None = None, **more: Any) -> Job:
    """A stage on a CPU; from the smallest network where nothing is said."""
    return Job(stage, data, out, str(Path(data).with_name("init")) if init is None else init, device="cpu", **more)


def trained(out: Path, data: str, kind: str, *, init: str | None = None, **more: Any) -> Finished:
    return train(job(recipe(kind, **more), data, out, init=init))


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory, data: str) -> Path:
    """All three stages in their order, each from the one before."""
    folder = tmp_path_factory.mktemp("stages")
    trained(folder / "image", data, "image", init="")
    trained(folder / "video", data, "video", init=str(folder / "image"))
    sampled = {"every_steps": 2, "sigmas": [1.0], "clips": 2, "samples": 1, "motions": [20], "sampling_steps": 2}
    trained(folder / "i2v", data, "image-to-video", init=str(folder / "video"), run={"validation": sampled})
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, data: str) -> Path:
    """A finished run of two steps from the smallest network. Nobody may change it."""
    out = tmp_path_factory.mktemp("finished") / "run"
    trained(out, data, "image-to-video")
    return out


def test_every_stage_ends_as_a_folder_that_plain_diffusers_opens(stages):
    for name, channels in (("image", 4), ("video", 4)):
        unet = UNetSpatioTemporalConditionModel.from_pretrained(stages / name / "model" / "unet")
        assert unet.config["in_channels"] == channels
    pipeline = StableVideoDiffusionPipeline.from_pretrained(stages / "i2v" / "model")
    assert pipeline.unet.config["in_channels"] == 8
    assert pipeline.unet.config["num_frames"] == 2


def test_the_calibration_goes_from_stage_to_stage(stages):
    texts = [(stages / name / "model" / "motion.json").read_text() for name in ("video", "i2v")]
    assert texts[0] == texts[1]
    assert MotionCalibration.from_json(texts[0]).column == "motion_score"
    assert not (stages / "image" / "model" / "motion.json").exists()


def test_a_model_says_what_it_was_trained_on(stages):
    about = json.loads((stages / "i2v" / "model" / "train.json").read_text())
    assert (about["width_px"], about["height_px"], about["frames"], about["step"]) == (16, 16, 2, 2)
    assert about["recipe"]["optimiser"]["lr"] == 1e-3


def test_single_pictures_leave_the_layers_over_time_as_they_were(stages):
    before = start(recipe("image")).unet.state_dict()
    after = UNetSpatioTemporalConditionModel.from_pretrained(stages / "image" / "model" / "unet").state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert not [name for name in changed if "temporal" in name or "time_pos_embed" in name or "time_mixer" in name]


def test_the_log_has_what_a_person_looks_for(stages):
    rows = read_lines(stages / "i2v" / "log.jsonl")
    assert [row["step"] for row in rows] == [0, 1, 2, 2]
    names = {
        "loss",
        "loss/fifth_3",
        "gradient",
        "gradient/temporal",
        "lr",
        "clips_per_s",
        "stall_share",
        "memory_bytes",
    }
    assert names <= set().union(*rows)
    judged = [row for row in rows if "held_out/mean" in row]
    assert [row["step"] for row in judged] == [0, 2]
    assert judged[0]["held_out/sigma_1"] != judged[1]["held_out/sigma_1"]
    assert judged[1]["sample/0-motion-20/flow_width_s"] >= 0
    assert list((stages / "i2v" / "tensorboard").iterdir())


def test_validation_clips_are_films_beside_their_first_frame(stages):
    import av

    (path,) = (stages / "i2v" / "samples" / "step-00000002").iterdir()
    with av.open(str(path)) as film:
        frames = list(film.decode(video=0))
    assert len(frames) == 2
    assert frames[0].width > 2 * 16 > frames[0].height


def test_a_finished_run_is_not_trained_again_and_a_longer_one_goes_on(data, tmp_path):
    """And old checkpoints go."""
    seen: list[int] = []
    note = lambda step, *_: seen.append(step)  # noqa: E731
    often = {"checkpoint": {"every_steps": 1, "keep": 2}}
    first = job(recipe("video", run=often), data, tmp_path, on_step=note)
    assert train(first) == train(first) == Finished(2, stopped=False, model=tmp_path / "model")
    assert train(job(recipe("video", steps=3, run=often), data, tmp_path, on_step=note)).step == 3
    assert seen == [1, 2, 3]
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step-00000002", "step-00000003"]


def test_another_recipe_does_not_go_on_with_a_run(data, finished, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run")
    with pytest.raises(ConfigError, match="another recipe or start: optimiser differs"):
        trained(run, data, "image-to-video", optimiser={"lr": 2e-3})


def test_ctrl_c_ends_after_a_step_that_is_kept(data, tmp_path):
    def press(step: int, *_: object) -> None:
        if step == 1:
            signal.raise_signal(signal.SIGINT)

    usual_handler = signal.getsignal(signal.SIGINT)
    pressed = job(recipe("image-to-video"), data, tmp_path, on_step=press)
    assert train(pressed) == Finished(1, stopped=True, model=None)
    assert signal.getsignal(signal.SIGINT) is usual_handler
    assert train(pressed).step == 2


def test_a_loss_that_is_not_finite_stops_before_anything_changes(data, tmp_path):
    kept: dict[str, torch.Tensor] = {}

    def poison(step: int, _report: object, state: Any) -> None:
        if step == 1:
            with torch.no_grad():
                state.network.conv_out.bias[0] = float("nan")
            kept.update({name: value.clone() for name, value in state.network.state_dict().items()})
            kept.update({f"average {name}": value.clone() for name, value in state.average.tensors.items()})
            states.append(state)

    states: list[Any] = []
    with pytest.raises(TrainingError, match=r"step 1: loss nan, .*clips: [0-9a-f]{32} \(level"):
        train(job(recipe("image-to-video"), data, tmp_path, on_step=poison))
    assert read_lines(tmp_path / "log.jsonl")[-1]["step"] == 1
    assert (tmp_path / "checkpoints" / "step-00000001" / "trainer.json").is_file()
    now = states[0].network.state_dict() | {f"average {n}": v for n, v in states[0].average.tensors.items()}
    assert all(torch.equal(now[name].nan_to_num(), value.nan_to_num()) for name, value in kept.items())


@pytest.fixture(scope="module")
def latents(tmp_path_factory: pytest.TempPathFactory, data: str) -> str:
    """All that a text or image-to-video stage is told of the clips, encoded."""
    from curate.shards.reader import ShardSet
    from curate.storage import Place
    from curate.train.latents import Work, all_clips, precompute, precompute_texts

    encoders, clips = Encoders.tiny(), all_clips(ShardSet.open(Place(data)), recipe("video").data)
    store = Place(str(tmp_path_factory.mktemp("latents")))
    precompute(clips, encoders.codec, store, Work(dtype="float32"))
    precompute(clips, encoders.image, store, Work(dtype="float32"))
    precompute_texts(clips, encoders.text, ["caption.coca.caption"], store, Work(dtype="float32"))
    return store.uri


@pytest.mark.parametrize("kind", ["video", "image-to-video"])
def test_training_on_latents_is_training_on_the_films(data, latents, tmp_path, kind):
    stage = recipe(kind)
    losses: dict[str, list[float]] = {"": [], latents: []}
    for place, found in losses.items():
        noted = lambda _, report, __, found=found: found.append(report.loss)  # noqa: E731
        train(job(stage, data, tmp_path / f"out{len(place)}", latents=place, on_step=noted))
    assert losses[""] == pytest.approx(losses[latents], rel=1e-5)
    with pytest.raises(ConfigError, match="holds nothing of this run's encoders"):
        train(job(stage, data, tmp_path / "other", latents=str(tmp_path)))


def test_a_run_that_goes_on_has_no_finished_model_and_no_leftovers(data, finished, tmp_path):
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    (tmp_path / "checkpoints" / ".step-00000009.unfinished").mkdir()

    def look(step: int, *_: object) -> None:
        assert not (tmp_path / "model").exists()
        assert resolve_model(tmp_path) == tmp_path / "checkpoints" / "step-00000002" / "model"

    assert train(job(recipe(steps=3), data, tmp_path, on_step=look)).model == tmp_path / "model"
    assert not list((tmp_path / "checkpoints").glob(".*"))


def test_a_model_is_copied_where_there_are_no_links(data, tmp_path, monkeypatch):
    def refused(*_: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refused)
    finished = trained(tmp_path, data, "video")
    assert finished.model
    UNetSpatioTemporalConditionModel.from_pretrained(finished.model / "unet")


def test_half_precision_on_a_cpu_is_refused(data, tmp_path):
    with pytest.raises(ConfigError, match="Use --set precision=float32"):
        trained(tmp_path, data, "image-to-video", precision="bfloat16")


def test_workers_live_through_a_signal_to_the_whole_group(data, tmp_path):
    def press(step: int, *_: object) -> None:
        if step == 2:
            for child in multiprocessing.active_children():
                os.kill(child.pid, signal.SIGINT)
                os.kill(child.pid, signal.SIGTERM)
            signal.raise_signal(signal.SIGINT)

    pressed = job(recipe(steps=6, run={"workers": 1}), data, tmp_path, on_step=press)
    assert train(pressed) == Finished(2, stopped=True, model=None)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # PyTorch's own, in compiling
@pytest.mark.parametrize(("checkpointing", "more_than"), [(False, 8), (True, 2)])
def test_every_unit_is_compiled(data, checkpointing, more_than, caplog):
    graphs: list[Any] = []

    def count(graph: Any, _: object) -> Any:
        graphs.append(graph)
        return graph.forward

    unet = start(recipe(), str(Path(data).with_name("init")) if checkpointing else "").unet.train()
    torch.manual_seed(0)
    given = torch.randn(1, 2, 8, 8, 8), torch.zeros(1), torch.randn(1, 1, 32), torch.zeros(1, 3)
    plain = unet(*given, return_dict=False)[0].sum()
    torch.compiler.reset()
    compile_units(unet, count)
    if checkpointing:
        recompute_units(unet)
    found = unet(*given, return_dict=False)[0].sum()
    found.backward()
    assert len(graphs) > more_than  # 8 is PyTorch's own limit; units of one shape share a graph
    assert "recompile_limit" not in caplog.text
    assert found.item() == pytest.approx(plain.item(), rel=1e-4)


def test_a_pipeline_of_plain_diffusers_trains_and_draws(data, tmp_path):
    """Written by diffusers, trained here, drawn by diffusers again: exactly what is drawn here."""
    diffusers_folder(tmp_path / "svd")
    model = trained(tmp_path / "run", data, "image-to-video", init=str(tmp_path / "svd")).model
    assert model
    settings = Sampling(steps=2)
    before, found, wanted = (
        draw(folder, settings, seed=1, num_frames=2)
        for draw, folder in ((drawn_here, tmp_path / "svd"), (drawn_here, model), (drawn_by_diffusers, model))
    )
    assert torch.equal(found, wanted)
    assert not torch.equal(found, before)
    for part in ("vae", "image_encoder"):  # which do not learn
        given, kept = (next((folder / part).glob("*.safetensors")) for folder in (tmp_path / "svd", model))
        stored = load_file(kept)
        assert all(torch.equal(value, stored[name]) for name, value in load_file(given).items())


@pytest.fixture(scope="module")
def stable_diffusion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder laid out as Stable Diffusion 2.1's, small."""
    folder = tmp_path_factory.mktemp("sd")
    image_unet().save_pretrained(folder / "unet")
    torch.manual_seed(0)
    AutoencoderKL(block_out_channels=(32, 32), down_block_types=("DownEncoderBlock2D",) * 2,
                  up_block_types=("UpDecoderBlock2D",) * 2).save_pretrained(folder / "vae")  # fmt: skip
    text = Encoders.tiny().text
    assert text is not None
    text.model.save_pretrained(folder / "text_encoder")
    text.tokenizer.save_pretrained(folder / "tokenizer")
    return folder


def test_stable_diffusion_is_inflated_and_trains(stable_diffusion, data, tmp_path):
    finished = trained(tmp_path, data, "image", init=str(stable_diffusion), trainable="time_embedding")
    unet = UNetSpatioTemporalConditionModel.from_pretrained(finished.model / "unet").state_dict()
    before = image_unet().state_dict()
    assert torch.equal(unet["conv_in.weight"], before["conv_in.weight"])
    assert not torch.equal(unet["time_embedding.linear_1.weight"], before["time_embedding.linear_1.weight"])


@pytest.mark.parametrize(
    ("kind", "init", "encoders", "error", "words"),
    [
        ("video", "sd", "", ConfigError, "starts from an image stage"),
        ("image-to-video", "image", "sd", ConfigError, "autoencoder with a temporal decoder"),
        ("video", "i2v", "", ConfigError, "is of an image-to-video stage"),
        ("video", "nothing", "", UsageError, "no such folder"),
        ("video", "empty", "", UsageError, "holds no such model"),
    ],
)
def test_what_does_not_fit_is_said(stages, stable_diffusion, tmp_path, kind, init, encoders, error, words):
    (tmp_path / "empty").mkdir()
    places = {"sd": stable_diffusion, "image": stages / "image", "i2v": stages / "i2v", "": ""}
    named = [str(places.get(name, tmp_path / name)) for name in (init, encoders)]
    with pytest.raises(error, match=words):
        start(recipe(kind), *named)


def test_a_real_size_without_encoders_is_refused():
    with pytest.raises(ConfigError, match="needs encoders"):
        start(recipe("video", network="svd"))


@pytest.mark.parametrize("name", ["image", "video", "i2v"])
def test_the_plan_knows_the_network_without_loading_it(stages, name):
    kind = {"i2v": "image-to-video"}.get(name, name)
    for init in ("", str(stages / name)):
        told, real = network_config(recipe(kind), init), start(recipe(kind), init).unet.config
        assert {
            key: list(v) if isinstance(v, tuple) else v for key, v in told.items() if key != "num_frames"
        }.items() <= {key: list(v) if isinstance(v, tuple) else v for key, v in real.items()}.items()


def test_a_broken_checkpoint_is_named(data, finished, tmp_path):
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    (tmp_path / "checkpoints" / "step-00000002" / "model" / "unet" / "config.json").write_text("{")
    with pytest.raises(ModelFileError, match="'unet' cannot be read"):
        trained(tmp_path, data, "image-to-video", steps=3)


def test_attention_that_is_not_there_is_said(data, tmp_path):
    with pytest.raises(ConfigError, match="xformers needs its package and a GPU"):
        trained(tmp_path, data, "image-to-video", run={"attention": "xformers"})


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("data.buckets.frames=[2]", "reads single frames"),
        ("trainable=all", "Use spatial or time_embedding"),
        ("data.captions={}", "needs captions"),
        ("optimiser.learning=1", "unknown key 'recipe.optimiser.learning'"),
        ("steps=0", "greater than or equal to 1"),
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused(override, words):
    with pytest.raises(ConfigError, match=words):
        load_train_recipe("tiny-image", [override])


def test_the_rate_rises_and_stays():
    rates = [recipe(optimiser={"lr": 1.0, "warmup_steps": 3}).optimiser.lr_at(step) for step in range(6)]
    assert rates == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
