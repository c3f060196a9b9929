"""The commands of docs/deploy.md, which no Docker, kubectl or sbatch can run here: their files, images and options."""

from __future__ import annotations

import re
import shlex

import pytest
import typer
import yaml
from dockerfile_kit import ROOT

from curate.cli.main import app
from curate.engine.room import Room

PAGE = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```console\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
COMMANDS = [line for block in BLOCKS for line in block.replace("\\\n", " ").splitlines()]
IMAGES = set(re.findall(r"--tag (\S+)", PAGE))


def test_there_are_commands_of_all_three():
    assert {shlex.split(line)[0] for line in COMMANDS} == {"docker", "kubectl", "mkdir", "sbatch"}


def test_folders_that_a_container_writes_into_are_made_before():
    """Docker makes those that are missing itself, as root's."""
    run = next(line for line in COMMANDS if line.startswith("docker run"))
    folders = re.findall(r"\$PWD/(\w+):/\w+(?!:ro)\b(?!:)", run)
    assert folders and {f"mkdir -p {folder}" for folder in folders} <= set(COMMANDS[: COMMANDS.index(run)])


def test_pods_are_those_of_the_cluster_that_was_made():
    (cluster,) = yaml.safe_load_all((ROOT / "docker" / "kuberay" / "raycluster.yaml").read_text(encoding="utf-8"))
    selectors = re.findall(r"--selector (\S+)", PAGE)
    assert selectors and all(f"ray.io/cluster={cluster['metadata']['name']}" in each.split(",") for each in selectors)


@pytest.mark.parametrize("line", COMMANDS)
def test_files_and_images_that_commands_name_are_there(line):
    words = shlex.split(line, comments=True)
    for word in words:
        assert not word.startswith("docker/") or (ROOT / word).is_file()
        assert not word.startswith("curate:") or word in IMAGES


RUNS = [line for line in COMMANDS if re.search(r"\b(curate:cpu|curate|curate\.sbatch) (run|s3:)", line)]


@pytest.mark.parametrize("line", RUNS)
def test_runs_are_called_as_curate_is(line):
    after = re.split(r"curate\.sbatch |\bcurate(?::cpu)? run ", line)[1]
    args = [*shlex.split(after), *(["--address", "10.0.0.5:20000"] if "sbatch" in line else [])]
    with typer.main.get_command(app).commands["run"].make_context("run", args) as context:
        given = context.params
    assert given["sources"] and given["corpus"]
    assert not given["wait_for"] or Room.parse(given["wait_for"]).cpus


def test_all_three_ways_of_running_are_looked_at():
    assert [shlex.split(line)[0] for line in RUNS] == ["docker", "kubectl", "sbatch"]
