"""The command line in this process, a quick recipe, and small buckets for it."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import typer.main
import typer.testing
from engine_kit import all_cells

from curate.cli import console
from curate.cli.main import app
from curate.recipe import build, parse_recipe
from curate.select.inputs import input_verdicts
from curate.tables import Corpus
from curate.testing.footage import moving_texture, static_texture, write_video

RECIPE = """\
name: small
stages: [probe, cut: {min_len_s: 0.5, max_len_s: 20}, quality]
select:
  name: small
  dedup: {method: none}
  conditions: [{column: quality.contrast, min: 0.0, name: contrast}]
export:
  {caption: "", motion: "", preset: ultrafast, buckets: {short_sides_px: [64, 96], multiple_px: 32, frames: [8]}}
"""
"""Scores by one stage that needs no weights; keeps everything."""

WIDTH = 300

# Typer makes all commands anew for every call: 30 ms, which the tests would take a thousand times.
typer.testing._get_command = functools.cache(typer.main.get_command)


@dataclass(frozen=True)
class Ended:
    """How a command ended: exit status and what it wrote."""

    status: int
    out: str
    err: str


def curate(*args: object, width: int = WIDTH) -> Ended:
    """Run `curate` with these arguments in this process, as on a wide terminal."""
    console.out.width = console.err.width = width
    env = {"COLUMNS": str(width), "TERMINAL_WIDTH": str(width)}
    result = typer.testing.CliRunner().invoke(app, [str(arg) for arg in args], env=env, catch_exceptions=False)
    return Ended(result.exit_code, result.stdout, result.stderr)


def start(*args: object, **more: object) -> subprocess.Popen[str]:
    """Start `curate` as a process of its own."""
    command = [sys.executable, "-m", "curate.cli.main", *map(str, args)]
    return subprocess.Popen(command, **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **more})


def run_args(recipe: Path, out: Path, *, report: bool = False) -> list[object]:
    """The options of a run with this recipe in this process."""
    return ["--recipe", recipe, "--out", out, "--engine", "inline", *([] if report else ["--no-report"])]


def good_video(path: Path, seed: int = 0, frames: int = 50) -> Path:
    """Two seconds of a camera pan, 160x90 at 25 frames/s."""
    write_video(path, moving_texture(frames, 160, 90, (-1.5, 0.0), seed), Fraction(25))
    return path


def flat_video(path: Path) -> Path:
    """The same of a picture with hardly any contrast."""
    write_video(path, (100 + frame // 32 for frame in static_texture(50, 160, 90, seed=7)), Fraction(25))
    return path


def write_recipe(folder: Path, text: str = RECIPE) -> Path:
    """The recipe as a file."""
    path = folder / "small.yaml"
    path.write_text(text)
    return path


def verdicts(corpus: Path, selection: str = "small") -> dict[str, tuple[str, str]]:
    """(verdict, reason) of every input by its file name."""
    found = input_verdicts(Corpus(str(corpus)), selection)
    return {os.path.basename(row.uri): (row.verdict, row.reason) for row in found}  # noqa: PTH119 - URIs too


def tables(corpus: Path, recipe: str = RECIPE) -> dict[str, object]:
    """What the tables say, read by their rules: equal for two corpora of the same content."""
    return all_cells(corpus, build(parse_recipe(recipe, "test")))


def files_below(folder: Path) -> dict[str, bytes]:
    """Every file below a folder by its path, hidden ones too."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
