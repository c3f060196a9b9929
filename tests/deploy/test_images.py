"""The Dockerfiles: what a linter says of them, what they copy, pin and start. `make docker-check` carries them out."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from dockerfile_kit import DOCKERFILES, ROOT, Copy, Stage, parse_env, parse_exec, sent, stages

CPU, CUDA = map(stages, DOCKERFILES)
BOTH = pytest.mark.parametrize("found", [CPU, CUDA], ids=[path.name for path in DOCKERFILES])
IGNORE = (ROOT / ".dockerignore").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def lint(command: str, *args: object, stdin: str = "") -> str:
    """What a linter says, one line a finding; "" for nothing."""
    found = shutil.which(command, path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert found, f"{command} is not installed"
    words = [found, *map(str, args)]
    return subprocess.run(words, input=stdin, capture_output=True, text=True, check=False).stdout


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_hadolint_finds_nothing(path):
    assert lint("hadolint", path) == ""


def test_hadolint_would_find_something():
    text = DOCKERFILES[0].read_text().replace("USER 1000:1000", "USER root").replace("# hadolint ignore", "# ignore")
    assert {"DL3002", "DL3008"} <= set(re.findall(r"DL\d+", lint("hadolint", "-", stdin=text)))


@pytest.mark.parametrize("path", sorted((ROOT / "docker").rglob("*.sbatch")), ids=lambda path: path.name)
def test_shellcheck_finds_nothing(path):
    assert lint("shellcheck", path) == ""


def test_shellcheck_would_find_something():
    assert "SC2086" in lint("shellcheck", "--shell=bash", "-", stdin="rm $1\n")


def test_docker_is_sent_the_package_and_nothing_else():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
    own = {"LICENSE", "README.md", "constraints.txt", "pyproject.toml"}
    folders = ("curate/", "models/", "pipelines/")
    wanted = {name for name in listed if name in own or name.startswith(folders)}
    lying_about = {
        ".git/config", ".venv/bin/python", "demo/bucket/a.mp4", "demo/corpus/corpus.json", ".env", "key.pem",
        "curate/__pycache__/errors.cpython-311.pyc", "curate/engine/pack.pyc", "models.bak/x", ".cache/x", "tests/x.py",
    }  # fmt: skip
    assert sent({*listed, *lying_about}, IGNORE) == wanted


@BOTH
def test_what_is_copied_is_there(found):
    names = {stage.name for stage in found}
    for copy in (copy for stage in found for copy in stage.copies()):
        if copy.of:
            assert copy.of in names
        else:
            assert all(any(of_context(source)) for source in copy.sources)


def of_context(source: str) -> set[str]:
    """Files of the context that are this one or lie below it. The rest of the folder, which may hold environments of
    100,000 files, is not looked through."""
    place = ROOT / source
    files = place.rglob("*") if place.is_dir() else [place]
    names = {str(path.relative_to(ROOT)) for path in files if path.is_file()}
    return {name for name in sent(names, IGNORE) if name == source or name.startswith(f"{source}/")}


@BOTH
def test_what_is_installed_is_an_extra_of_the_project_and_pinned(found):
    run = " ".join(rest for stage in found for rest in stage.all("RUN"))
    extras = re.findall(r"--extra (\w+)", run)
    assert set(extras) <= set(PROJECT["optional-dependencies"])
    assert {"s3", "gcs", "http", "cluster", "metrics"} <= set(extras)
    assert {"svd", "train"} <= set(extras) or found is CPU
    pinned = set((ROOT / "constraints.txt").read_text().split())
    assert {"ray", "uv"} <= {pin.split("==")[0] for pin in pinned}
    installed = re.findall(r"\b\w+==[\d.]+", run)
    assert installed and set(installed) <= pinned
    assert run.count("--constraint constraints.txt") == run.count("--constraints constraints.txt") == 1
    assert "--build-constraints constraints.txt" in run


@BOTH
def test_the_last_stage_starts_curate_as_nobody_special(found):
    last = found[-1]
    assert last.all("USER") == ["1000:1000"]
    (entry,) = parse_exec(last.all("ENTRYPOINT")[0])
    assert entry in PROJECT["scripts"]
    env = parse_env(last.all("ENV")[0])
    copied = {copy.target for copy in last.copies()}
    assert env["PATH"].split(":")[0] == "/app/curate/bin" and "/app/curate" in copied and env["CURATE_MODELS"] in copied
    assert all(copy.of for copy in last.copies()), "nothing but what was built, in layers of its own"
    assert last.copies()[-1] == Copy(["/app/package"], "/app/curate", "package"), "what changes most comes last"
    assert not {name for name in env if re.search("KEY|SECRET|TOKEN|PASS", name)}


def test_both_images_have_one_base_and_are_built_alike():
    texts = [path.read_text(encoding="utf-8") for path in DOCKERFILES]
    bases = [re.search(r"^ARG BASE=(\S+)$", text, re.MULTILINE)[1] for text in texts]
    assert bases[0] == bases[1] and re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", bases[0])
    assert [(stage.name, stage.base) for stage in CPU] == [(stage.name, stage.base) for stage in CUDA]
    assert steps(CPU) == steps(CUDA)


def steps(found: list[Stage]) -> list[tuple[str, str]]:
    """All instructions but the environment, without the packages that only the larger image has."""
    every = [step for stage in found for step in stage.instructions if step[0] != "ENV"]
    return [(word, " ".join(re.sub(r"--extra (svd|train)", "", rest).split())) for word, rest in every]
