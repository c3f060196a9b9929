"""Runs the blocks of a page of the documentation in a folder, as its reader would."""

from __future__ import annotations

import contextlib
import io
import os
import re
import runpy
import subprocess
import sys
import tomllib
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import duckdb
import pytest
import typer
from cli_kit import Ended, curate
from docs_kit import ROOT, Block, differs, words

from curate.cli.main import app

WIDTH = 110
"""Columns of the terminal that outputs are shown for."""

INLINE = {"run", "export", "plan", "retry"}
"""Commands that would start a Ray, or could; here they compute in this process, which prints the same. Where a page
does not show what a run prints, it writes no report either: some seconds each."""

SHOWN_AS = "/srv"
"""What stands in the pages for the folder that they are run in."""


ENDPOINT = "endpoint.txt"
"""Where a sandbox says host and port of its endpoint."""


@dataclass
class Reader:
    """Somebody who follows a page in ``folder``; ``placeholders`` are what stands for CLIP_ID and the like."""

    folder: Path
    monkeypatch: pytest.MonkeyPatch
    placeholders: Callable[[Path], dict[str, str]]

    def follow(self, block: Block) -> None:
        """Run a block and compare what it prints. AssertionError names the block."""
        for command in block.first:
            ended = self._bash(command)
            assert ended.status == 0, f"{block.name}: {command}\n{ended.err}"
        if "file" in block.notes:
            (self.folder / block.notes["file"]).write_text(self._reached(block.text))
            return
        if block.language == "console":
            printed = self._console(block)
        else:
            printed = {"python": self._python, "sql": self._sql}[block.language](block.text)
        if block.output is not None:
            wrong = differs(block.output, printed.replace(str(self.folder), SHOWN_AS))
            assert not wrong, f"{block.name}: {wrong}"

    def _console(self, block: Block) -> str:
        *before, last = block.commands()
        printed = "".join(self._command(block, command, 0) for command in before)
        return printed + self._command(block, last, int(block.notes.get("exits", "0")))

    def _command(self, block: Block, command: str, status: int) -> str:
        split, into = words(command)
        given = [self._placed(word) for word in split]
        if given[0] == "pip" or given[:2] == ["curate", "view"] or any(map(_is_far, given)):
            check_options(command)
            return ""
        if given[0] == "curate":
            ended = self._curate(given[1:], shown=block.output is not None)
        elif given[:2] == ["python", "-m"]:
            ended = self._module(given[2:])
        else:
            ended = self._bash(command)
        assert ended.status == status, f"{block.name}: {command}\n{ended.out}{ended.err}"
        if into:
            (self.folder / into).write_text(ended.out)
        return "" if into else ended.out + ended.err

    def _reached(self, text: str) -> str:
        """A text with the address of the endpoint that there is in place of the page's."""
        real = self.folder / ENDPOINT
        return text.replace("127.0.0.1:8000", real.read_text()) if real.exists() else text

    def _placed(self, word: str) -> str:
        if not re.search(r"\b(CLIP_ID|RUN)\b", word):
            return word
        for name, value in self.placeholders(self.folder).items():
            word = re.sub(rf"\b{name}\b", value, word)
        return word

    def _curate(self, given: Sequence[str], *, shown: bool) -> Ended:
        inline = ["--engine", "inline"] if given[0] in INLINE and "--engine" not in given else []
        bare = ["--no-report"] if given[0] == "run" and not shown else []
        with contextlib.chdir(self.folder):
            return curate(*given, *inline, *bare, width=WIDTH)

    def _bash(self, command: str) -> Ended:
        """This Python's folder comes first on its path; names are sorted the same everywhere."""
        env = {
            **os.environ,
            "LC_ALL": "C.UTF-8",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }
        line = ["bash", "-ec", command]
        done = subprocess.run(line, cwd=self.folder, env=env, capture_output=True, text=True, check=False)
        return Ended(done.returncode, done.stdout, done.stderr)

    def _module(self, given: Sequence[str]) -> Ended:
        text = io.StringIO()
        self.monkeypatch.setattr(sys, "argv", list(given))
        with contextlib.chdir(self.folder), contextlib.redirect_stdout(text), warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # that this process has imported it already
            try:
                runpy.run_module(given[0], run_name="__main__")
            except SystemExit as ended:
                return Ended(int(ended.code or 0), text.getvalue(), "")
        return Ended(0, text.getvalue(), "")

    def _python(self, code: str) -> str:
        if "load_dataset" in code:  # which keeps what it read below the home directory
            return self._alone(code)
        text = io.StringIO()
        with contextlib.chdir(self.folder), contextlib.redirect_stdout(text):
            exec(compile(code, "docs", "exec"), {"__name__": "docs"})
        return text.getvalue()

    def _alone(self, code: str) -> str:
        env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(self.folder / "cache")}
        line = [sys.executable, "-c", code]
        done = subprocess.run(line, cwd=self.folder, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def _sql(self, sql: str) -> str:
        with contextlib.chdir(self.folder):
            found = duckdb.sql(sql)
            assert found.fetchall(), sql
            return str(found)


def _is_far(word: str) -> bool:
    """Whether it names a place on an object store, of which there is none here."""
    return word.startswith(("s3://", "gs://"))


def check_pip(given: Sequence[str]) -> None:
    """Files and extras that are named are there."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert given[0] in {"install", "wheel"}, given
    named = [word for before, word in pairwise(given) if not word.startswith("-") and before not in _NEW_FOLDERS]
    for word in named:
        name, _, extra = word.rstrip("]").partition("[")
        assert name in {"curate-video", "webdataset"} or (ROOT / name).exists(), word
        assert {each for each in extra.split(",") if each} <= extras.keys(), word


_NEW_FOLDERS = ("--wheel-dir", "--find-links")


def check_options(command: str) -> None:
    """A command that is not run is one that the command line takes; of others, what they name is there."""
    given, _ = words(command)
    if "-m" in given and given[given.index("-m") + 1] == "curate":
        given = ["curate", *given[given.index("-m") + 2 :]]
    if given[0] == "curate":
        _parse(typer.main.get_command(app), given[1:])
    elif given[0] == "pip":
        check_pip(given[1:])
    elif given[0] == "make":
        assert re.search(rf"^{given[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), command


def _parse(command: object, given: Sequence[str]) -> None:
    children = getattr(command, "commands", {})
    if children:
        assert given and given[0] in children, f"no such command: {given}"
        _parse(children[given[0]], given[1:])
        return
    command.make_context(command.name, [word for word in given if word != "..."])
