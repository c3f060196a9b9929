"""The surface of the command line: what there is, and that each piece explains itself."""

from __future__ import annotations

import re

import pytest
import typer
from cli_kit import curate

from curate.cli.main import app

OPTIONS = {
    "": {"--version", "--install-completion", "--show-completion"},
    "plan": {
        "SOURCE", "--recipe", "--set", "--stages", "--sample", "--seed", "--engine", "--address", "--nodes", "--cpus",
        "--gpus", "--memory-gb", "--device-speed", "--keep", "--save", "--json", "--follow-links",
    },
    "run": {
        "SOURCE", "--out", "--recipe", "--set", "--stages", "--where", "--limit", "--sample", "--seed", "--engine",
        "--address", "--wait-for", "--strict", "--follow-links", "--no-export", "--no-report", "--max-failures",
        "--decode-memory-gb", "--decode-s", "--log-json", "--metrics-port", "--metrics-host",
    },
    "select": {"CORPUS", "--recipe", "--set", "--name", "--like", "--run"},
    "export": {"CORPUS", "--selection", "--recipe", "--set", "--engine", "--address"},
    "train": {
        "RECIPE", "--data", "--out", "--init", "--encoders", "--latents", "--set", "--device", "--plan", "--world",
        "--device-kind",
    },
    "unpack": {"SHARDS", "--out", "--bucket"},
    "compact": {"CORPUS", "--dry-run"},
    "verify": {"CORPUS", "SHARDS", "--deep", "--clean"},
    "forget": {"CORPUS", "URI", "--reason"},
    "stats": {"CORPUS", "--run", "--selection", "--json", "--time", "--plan"},
    "show": {"CORPUS", "CLIP_ID", "--run", "--png"},
    "report": {"CORPUS", "--run", "--selection", "--out", "--pictures"},
    "diff": {"A", "B", "--json", "--html", "--pictures"},
    "view": {"CORPUS", "--run", "--port", "--host", "--token", "--no-open"},
    "status": {"CORPUS", "--run", "--watch", "--json"},
    "failures": {"CORPUS", "--run", "--all", "--stage", "--class", "--examples", "--traceback", "--json"},
    "retry": {
        "CORPUS", "--run", "--stage", "--class", "--engine", "--address", "--decode-memory-gb", "--decode-s",
    },
    "latents": {"SHARDS", "--recipe", "--set", "--encoders", "--out", "--what", "--dtype", "--device"},
    "sample": {
        "CHECKPOINT", "--image", "--out", "--fps", "--motion", "--motion-score", "--frames", "--width", "--height",
        "--seed", "--steps", "--guidance", "--augmentation", "--decode-chunk", "--chain", "--device",
    },
    "doctor": set(),
    "models": set(),
    "models list": set(),
    "models fetch": {"NAME", "--recipe", "--all", "--from", "--mirror"},
    "models verify": {"NAME", "--recipe"},
    "models bundle": {"FOLDER", "NAME", "--recipe", "--all", "--mirror"},
    "recipes": set(),
    "recipes list": set(),
    "recipes show": {"RECIPE", "--set"},
    "recipes validate": {"RECIPE", "--set"},
}  # fmt: skip
"""Every option and argument that there may be. A new one is a decision: most knobs belong into a recipe."""


def commands(group, name=""):
    yield name, group
    for child, command in getattr(group, "commands", {}).items():
        yield from commands(command, f"{name} {child}".strip())


FOUND = dict(commands(typer.main.get_command(app)))


def names(command):
    for param in command.params:
        option = next((opt for opt in param.opts if opt.startswith("--")), "")
        yield option or re.search(r"[A-Z_]+", (param.metavar or param.name or "").upper())[0]


@pytest.mark.parametrize("name", sorted({*OPTIONS, *FOUND}))
def test_no_option_comes_or_goes_unnoticed(name):
    assert set(names(FOUND[name])) - {"--help"} == OPTIONS[name]


@pytest.mark.parametrize("name", sorted(FOUND))
def test_every_command_explains_itself_with_an_example(name):
    for flag in ("--help", "-h"):
        ended = curate(*name.split(), flag)
        assert ended.status == 0
        assert f"Usage: curate {name}".strip() in ended.out
    if name in {"models", "recipes"}:
        return
    command = f"curate {name}".strip()
    assert "Example" in ended.out
    assert re.search(rf"{command}( |$)(?!\[OPTIONS)", ended.out.replace("Usage: ", "").replace("│", ""), re.MULTILINE)


def test_run_tells_its_exit_statuses():
    text = " ".join(curate("run", "--help").out.split())
    told = re.search(r"Exit status: (.*)", text)[1]
    for status, words in [(0, "complete"), (1, "could not"), (2, "wrong usage"), (3, "--strict"), (4, "stopped")]:
        assert re.search(rf"\b{status} [^0-9]*{words}", told)


def test_examples_use_options_that_there_are():
    for name, command in FOUND.items():
        texts = [command.help or "", command.epilog or ""]
        for example in re.findall(r"`(curate [^`]+)`", "\n".join(texts)):
            words = example.split()[1:]
            owner = " ".join(words[:2]) if " ".join(words[:2]) in FOUND else words[0]
            assert {word for word in words if word.startswith("--")} <= OPTIONS[owner], (name, example)


def test_the_version_and_no_command_at_all():
    assert re.fullmatch(r"curate \d+\.\d+\.\d+\n", curate("--version").out)
    assert "Usage: curate" in curate().out + curate().err
    assert curate("rum").status == 2
