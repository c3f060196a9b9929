"""`curate failures`: what is shown, and that the command it prints fails in the same way."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest
from cli_kit import RECIPE, curate, good_video, run_args, write_recipe

from curate.failures import failures
from curate.tables import Corpus
from curate.testing.footage import moving_texture, write_video

SHORT = RECIPE.replace("min_len_s: 0.5", "min_len_s: 0.1").replace("quality]", "quality, motion]")
"""Takes clips that are too short for `motion`."""


def short_video(path):
    write_video(path, islice(moving_texture(50, 160, 90, (1.0, 0.0), 3), 8))
    return path


def words(command: str) -> list[str]:
    """The command as bash understands it."""
    done = subprocess.run(["bash", "-c", f"printf '%s\\0' {command}"], check=True, capture_output=True)
    return done.stdout.decode().split("\0")[:-1]


def repeat(command: str) -> dict[str, list[tuple[str, str]]]:
    """What fails in the corpus that a printed command makes: (class, message) by stage."""
    name, *args = words(command)
    assert name == "curate"
    ended = curate(*args)
    assert ended.status == 3, ended.err
    groups = failures(Corpus(args[args.index("--out") + 1]))
    return {group.stage: [(group.error_class, e.message) for e in group.examples] for group in groups}


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """A corpus of one good file and one for each stage that can fail, under names that a shell minds."""
    folder = tmp_path_factory.mktemp("it's a $(bucket)") / "b c"
    folder.mkdir()
    good_video(folder / "good.mp4")
    short_video(folder / "short; 'quoted'.mp4")
    (folder / "empty & \u202egone.mp4").touch()
    (folder / "no\tvideo `here`.mp4").write_bytes(b"no video at all" * 99)
    recipe = write_recipe(folder.parent, SHORT)
    out = folder.parent / "my corpus"
    assert curate("run", folder, *run_args(recipe, out), "--no-export").status == 0
    return out


def groups(corpus, *options):
    return {group["stage"]: group for group in json.loads(curate("failures", corpus, "--json", *options).out)}


def test_failures_are_shown_by_stage_and_class_with_names_messages_and_a_command(broken):
    out = curate("failures", broken, "--stage", "input").out
    assert out.splitlines()[0] == "1 x EmptyFileError in input"
    assert out.splitlines()[1].endswith("/empty & \N{REPLACEMENT CHARACTER}gone.mp4")
    assert out.splitlines()[2:4] == ["    has no bytes", "  It alone:"]
    assert out.splitlines()[4].startswith("    curate run $'")
    assert re.search(r"^Compute them again: curate retry '.*my corpus'$", out, re.MULTILINE)
    assert "Traceback" not in out


@pytest.mark.parametrize("stage", ["input", "probe", "motion"])
def test_the_printed_command_fails_in_the_same_way(broken, stage):
    group = groups(broken)[stage]
    (example,) = group["examples"]
    again = repeat(example["command"])
    assert again == {stage: [(group["error_class"], example["message"])]}


def test_bash_runs_the_printed_command_as_it_stands(broken):
    command = groups(broken)["probe"]["examples"][0]["command"]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # as in an environment that was entered
    surroundings = {**os.environ, "PATH": path}
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, env=surroundings)
    assert done.returncode == 3, done.stderr
    assert re.search(r"^probe +NotMediaError +1 ", done.stdout, re.MULTILINE)


def test_a_recipe_that_reads_columns_of_a_list_is_repeated_without_them(tmp_path):
    recipe = write_recipe(tmp_path, SHORT.replace("name: contrast}", "name: contrast}, {column: user.id, min: 1}"))
    short_video(tmp_path / "short.mp4")
    (tmp_path / "list.csv").write_text(f"url,id\n{tmp_path / 'short.mp4'},5\n")
    assert curate("run", tmp_path / "list.csv", *run_args(recipe, tmp_path / "c"), "--no-export").status == 0
    command = groups(tmp_path / "c")["motion"]["examples"][0]["command"]
    assert set(repeat(command)) == {"motion"}


def test_details_are_shown_when_asked_for(broken):
    out = curate("failures", broken, "--traceback", "--stage", "input").out
    assert re.search(r"^    attempt 1 on \S+, after [\d.]+s, peak memory [\d.]+ \w+, in run \S+$", out, re.MULTILINE)
    assert "      Traceback (most recent call last):" in out
    assert "curate.errors.EmptyFileError" in out


def test_one_class_alone(broken):
    assert curate("failures", broken, "--class", "NotMediaError").out.startswith("1 x NotMediaError in probe")
    ended = curate("failures", broken, "--class", "NotMediaErr")
    assert (ended.status, "Nothing failed as NotMediaErr; there are EmptyFileError, " in ended.out) == (0, True)
    assert curate("failures", broken, "--stage", "prob").status == 2


def test_as_json_everything_is_there(broken):
    example = groups(broken)["motion"]["examples"][0]
    assert {"key", "uri", "message", "traceback", "attempt", "seconds", "host", "run_id", "command"} < set(example)
    assert example["peak_memory_bytes"] > 1 << 20
    assert len(example["key"]) == 32


def test_as_many_examples_as_asked(recipe, tmp_path):
    folder = tmp_path / "bad"
    folder.mkdir()
    good_video(folder / "good.mp4")
    for name in "abcd":
        (folder / f"{name}.mp4").write_bytes(f"no video {name}".encode() * 99)
    curate("run", folder, *run_args(recipe, tmp_path / "c"), "--no-export")
    out = curate("failures", tmp_path / "c", "--examples", 2).out
    assert [name for name in "abcd" if f"{name}.mp4\n" in out] == ["a", "b"]
    assert "  and 2 more\n  The first one alone:\n" in out


def test_nothing_failed(bucket, recipe, tmp_path):
    curate("run", bucket / "a.mp4", *run_args(recipe, tmp_path / "c"), "--no-export")
    assert curate("failures", tmp_path / "c").out == "Nothing failed.\n"
    assert json.loads(curate("failures", tmp_path / "c", "--json").out) == []
    assert curate("failures", tmp_path / "c", "--all", "--run", "x").status == 2


def test_a_run_shows_what_failed_at_its_end(made):
    assert re.search(r"^probe +NotMediaError +1 +broken.mp4: no video demuxer", made[1].out, re.MULTILINE)


def test_more_failures_than_allowed_end_the_run_and_can_be_looked_into(bucket, recipe, tmp_path):
    """Whatever the run did not complete: its recipe is there, and the tables."""
    ended = curate("run", bucket, *run_args(recipe, tmp_path / "c"), "--max-failures", 0)
    assert ended.status == 1
    said = re.fullmatch(
        r"Error 1 of \d sources failed, more than --max-failures 0 allows; 1 x NotMediaError, for example: no video "
        rf"demuxer .*\. See all with `curate failures {tmp_path}/c --all`\. What is finished is kept, .*\n",
        ended.err,
    )
    assert said, ended.err
    shown = curate("failures", tmp_path / "c")
    assert shown.out == curate("failures", tmp_path / "c", "--all").out + shown.out.splitlines()[-1] + "\n"
    assert repeat(groups(tmp_path / "c")["probe"]["examples"][0]["command"]).keys() == {"probe"}
    assert curate("run", bucket, *run_args(recipe, tmp_path / "c"), "--max-failures", "1").status == 0


def test_a_first_run_of_nothing_but_garbage_can_be_looked_into(recipe, tmp_path):
    """Regression: without any clip the command that the error names ended in a traceback."""
    (tmp_path / "bad").mkdir()
    for name in "abc":
        (tmp_path / "bad" / f"{name}.mp4").write_bytes(f"no video {name}".encode() * 99)
    ended = curate("run", tmp_path / "bad", *run_args(recipe, tmp_path / "c"), "--max-failures", 1)
    assert (ended.status, f"`curate failures {tmp_path}/c --all`" in ended.err) == (1, True)
    for options in (["--all"], []):
        assert " x NotMediaError in probe\n" in curate("failures", tmp_path / "c", *options).out


@pytest.mark.parametrize("text", ["many", "-1", "5 percent", "101%", "0.5"])
def test_a_limit_that_is_none_is_refused(bucket, recipe, tmp_path, text):
    ended = curate("run", bucket, *run_args(recipe, tmp_path / "c"), f"--max-failures={text}")
    assert ended.status == 2
    assert f"--max-failures: '{text}' is neither a number nor a share. Say `20` or `5%`" in ended.err
    assert not (tmp_path / "c").exists()
