"""What a run wants of this machine: packages, GPUs, keys. Said before a video is read, with what fixes it."""

from __future__ import annotations

import importlib.metadata
import re
import sys
import tomllib
from pathlib import Path

import pytest
from engine_kit import Luma, LumaConfig, pipeline
from job_kit import do

from curate.engine.pack import pack
from curate.engine.ready import check_gpus, check_packages, check_ready
from curate.errors import ClusterError, ConfigError, MissingModelError
from curate.packages import Package, needed
from curate.recipe import Recipe, build, load_recipe, parse_recipe
from curate.stage import Resources
from curate.stages.registry import BUILT_IN, stage_class
from curate.testing.footage import write_video
from curate.testing.scenes import moving_texture
from curate.weights import sources

ROOT = Path(__file__).parents[2]
ENDPOINT = {"url": "http://127.0.0.1:9/v1", "model": "m", "api_key_env": "CAPTION_KEY"}


def recipe(*stages: str) -> Recipe:
    select = "select: {name: x, dedup: {method: none}}\nexport: {caption: ''}"
    return parse_recipe(f"name: x\nstages: [probe, cut, {', '.join(stages)}]\n{select}", "test")


def asking() -> Recipe:
    return recipe(f"caption.vlm: {{endpoint: {ENDPOINT}}}")


def without(monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    """As where these were never installed."""
    for name in modules:
        monkeypatch.setitem(sys.modules, name, None)


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("footage") / "a.mp4"
    write_video(path, moving_texture(30, 96, 64, (1, 0), seed=1))
    return path


def test_all_packages_that_are_missing_are_told_at_once_with_one_command(monkeypatch, video, tmp_path):
    without(monkeypatch, "open_clip", "transformers", "gguf", "easyocr")
    with pytest.raises(MissingModelError) as caught:
        do([video], tmp_path / "corpus", load_recipe("svd"))
    assert caught.value.message == (
        "packages are not installed: easyocr (stage text), gguf (stage caption.fused), "
        "open_clip (stage clip, stage caption.coca, stage clip.similarity), transformers (stage caption.vblip), "
        "transformers (stage caption.fused)"
    )
    assert caught.value.fix == (
        "Run `pip install 'curate-video[captions]' 'curate-video[clip]' 'curate-video[craft]' 'curate-video[llm]'`"
    )
    assert not (tmp_path / "corpus").exists()


@pytest.mark.parametrize(
    ("module", "stage", "extra"),
    [
        ("openai", f"caption.vlm: {{endpoint: {ENDPOINT}}}", "endpoint"),
        ("easyocr", "text: {detector: craft}", "craft"),
        ("open_clip", "clip", "clip"),
        ("open_clip", "caption.coca", "clip"),
        ("transformers", "caption.vblip", "captions"),
    ],
)
def test_a_package_that_is_missing_is_told_with_its_extra(monkeypatch, module, stage, extra):
    pipe = build(recipe(stage))
    check_packages(pipe)
    without(monkeypatch, module)
    with pytest.raises(MissingModelError, match=rf"{module} \(stage .*'curate-video\[{extra}\]'`$"):
        check_packages(pipe)


def test_packages_of_stages_that_do_not_run_are_not_missed(monkeypatch):
    without(monkeypatch, "open_clip", "transformers", "gguf", "easyocr", "openai")
    check_packages(build(load_recipe("svd"), ["motion"]))
    check_packages(build(recipe("text: {detector: ppocr}")))


def test_a_fused_caption_needs_the_client_or_the_language_model(monkeypatch):
    local = build(recipe("caption.coca", "caption.fused: {captions: [caption.coca]}"))
    asked = build(recipe("caption.coca", f"caption.fused: {{captions: [caption.coca], endpoint: {ENDPOINT}}}"))
    without(monkeypatch, "gguf")
    check_packages(asked)
    with pytest.raises(MissingModelError, match=r"gguf \(stage caption\.fused\)"):
        check_packages(local)
    without(monkeypatch, "openai")
    with pytest.raises(MissingModelError, match=r"openai \(stage caption\.fused\)"):
        check_packages(asked)


def test_a_plug_in_says_what_pip_is_to_be_asked_for():
    class Odd(Luma):
        name = "odd"
        packages = (Package("no_such_module_here", "odd-package>=2"),)

    with pytest.raises(MissingModelError, match=r"no_such_module_here \(stage odd\)\. Run `pip install 'odd-"):
        check_packages(pipeline(Odd(LumaConfig())))
    with pytest.raises(MissingModelError, match=r"No module named 'no_such_module_here'.*'odd-package>=2'"):
        needed(*Odd.packages)


def declared() -> set[Package]:
    """Every package that a stage, or the fetching of models, may ask for."""
    others = [build(recipe("text: {detector: craft}")), build(load_recipe("svd")), build(asking())]
    found = {package for pipe in others for _, stage, _ in pipe.stages() for package in stage.packages}
    return found | {package for name in BUILT_IN for package in stage_class(name).packages} | {sources._HUB}


def test_every_extra_that_is_told_brings_the_module():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    distributions = importlib.metadata.packages_distributions()

    def brought(extra: str) -> set[str]:
        inner = [re.fullmatch(r"curate-video\[(.*)\]", each) for each in extras[extra]]
        nested = {name for each in inner if each for part in each[1].split(",") for name in brought(part)}
        return nested | {re.split(r"[<>=\[ ]", each)[0].lower() for each in extras[extra]}

    assert len(declared()) >= 7
    for package in declared():
        extra = re.fullmatch(r"curate-video\[(\w+)\]", package.requirement)[1]
        assert {name.lower() for name in distributions[package.module]} & brought(extra), package


def test_no_extra_repeats_another():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    lists = [tuple(sorted(extra)) for extra in extras.values()]
    assert len(set(lists)) == len(lists)
    assert {"clip", "captions", "craft", "llm", "endpoint", "svd", "hf"} <= set(extras)


class Heavy(Luma):
    """Cannot do without a GPU, whatever its recipe says."""

    name = "heavy"
    resources = Resources(gpus=0.5)


@pytest.mark.parametrize(
    ("pipe", "words"),
    [
        (
            lambda: build(recipe("clip: {device: cuda}")),
            r"^clip\.device: needs a GPU.*\(stage clip\)\. Set clip\.dev",
        ),
        (
            lambda: build(recipe("text: {detector: craft, craft: {device: cuda}}")),
            r"^text\.craft\.device: needs a GPU.* Set text\.craft\.device=auto, or run on a cluster with GPUs",
        ),
        (lambda: pipeline(Heavy(LumaConfig())), r"^stages\.heavy: needs a GPU.*\. Run on a cluster with GPUs"),
    ],
)
def test_a_gpu_that_is_asked_for_at_any_price_and_is_not_there(monkeypatch, pipe, words):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    with pytest.raises(ConfigError, match=words):
        check_gpus(pipe())
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    check_gpus(pipe())


def test_a_cluster_without_gpus_says_the_same_once_it_is_joined():
    with pytest.raises(
        ClusterError, match=r"stage 'clip' needs 0\.25 GPU, there are 0\. Set clip\.device=auto, run on a"
    ):
        pack(build(recipe("clip: {device: cuda}")), [{"CPU": 8.0}], 1, single=False)


@pytest.mark.parametrize("stage", ["clip", "clip: {device: cpu}", "text: {craft: {device: cuda}}"])
def test_a_gpu_that_nobody_insists_on_is_not_looked_for(monkeypatch, stage):
    monkeypatch.setattr("torch.cuda.device_count", lambda: pytest.fail("looked for"))
    check_gpus(build(recipe(stage)))
    check_gpus(build(recipe("motion", "clip: {device: cuda}"), ["motion"]))


@pytest.mark.parametrize(
    ("pipe", "key"),
    [
        (lambda: build(asking()), "caption.vlm.endpoint.api_key_env"),
        (
            lambda: build(recipe("caption.vlm: {endpoint: {url: 'http://host/v1', model: m}}", "caption.fused: "
                                 f"{{captions: [caption.vlm], endpoint: {ENDPOINT}}}")),
            "caption.fused.endpoint.api_key_env",
        ),
    ],
)  # fmt: skip
def test_a_key_that_is_named_and_not_set(monkeypatch, pipe, key):
    monkeypatch.delenv("CAPTION_KEY", raising=False)
    with pytest.raises(ConfigError, match=f"^{re.escape(key)}: the environment variable CAPTION_KEY is not set"):
        check_ready(pipe(), here=True)
    check_ready(pipe(), here=False)  # the workers of a cluster have an environment of their own
    monkeypatch.setenv("CAPTION_KEY", "secret")
    check_ready(pipe(), here=True)


@pytest.mark.parametrize("engine", ["inline", "ray"])
def test_a_key_that_is_not_set_ends_a_job_before_a_video_is_read(monkeypatch, video, tmp_path, engine):
    monkeypatch.delenv("CAPTION_KEY", raising=False)
    with pytest.raises(ConfigError, match="CAPTION_KEY"):
        do([video], tmp_path / "corpus", asking(), engine=engine)
    assert not (tmp_path / "corpus").exists()
