"""`curate retry`: what failed is computed again, and selections made afterwards see it."""

from __future__ import annotations

import json
import re
import shutil

import pyarrow.parquet as pq
import pytest
from cli_kit import RECIPE, curate, good_video, run_args, tables, verdicts, write_recipe

from curate.errors import DecodeError
from curate.stages.motion.stage import Motion
from curate.stages.quality import Quality


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "bucket"
    folder.mkdir()
    good_video(folder / "good.mp4", seed=1)
    return folder


def broken(stage, monkeypatch, *, breaks: bool):
    """A bug of a stage, and a version that has none: nothing of it is in the fingerprint."""

    def score(self, item):
        raise DecodeError("a bug of ours")

    monkeypatch.undo()
    if breaks:
        monkeypatch.setattr(stage, "score", score)


def outcomes(corpus, *options):
    return {
        (g["stage"], g["error_class"]): g["n"] for g in json.loads(curate("failures", corpus, "--json", *options).out)
    }


def test_a_lasting_failure_is_repaired_and_later_selections_see_it(folder, tmp_path, monkeypatch):
    recipe, out = write_recipe(tmp_path), tmp_path / "c"
    broken(Quality, monkeypatch, breaks=True)
    curate("run", folder, *run_args(recipe, out))
    assert verdicts(out)["good.mp4"][0] == "failed"
    broken(Quality, monkeypatch, breaks=False)
    curate("run", folder, *run_args(recipe, out))
    assert outcomes(out) == {("quality", "DecodeError"): 1}, "a lasting failure is not tried again by itself"
    ended = curate("retry", out, "--stage", "quality", "--engine", "inline")
    assert ended.status == 0, ended.err
    assert "Tried again 1: 1 went well, 0 failed again." in ended.out
    assert outcomes(out) == {}
    assert curate("select", out).status == 0
    assert verdicts(out)["good.mp4"] == ("kept", "")
    assert "1 clips in 1 shards" in curate("export", out).out


def test_what_fails_again_counts_up_and_can_be_tried_again(folder, tmp_path, monkeypatch):
    recipe, out = write_recipe(tmp_path), tmp_path / "c"
    broken(Quality, monkeypatch, breaks=True)
    curate("run", folder, *run_args(recipe, out), "--no-export")
    for attempt in (2, 3):
        ended = curate("retry", out, "--engine", "inline")
        assert ended.status == 3
        assert "Tried again 1: 0 went well, 1 failed again." in ended.out
        (group,) = json.loads(curate("failures", out, "--json").out)
        assert group["examples"][0]["attempt"] == attempt


def test_a_file_that_was_replaced_meanwhile_is_read_as_it_is_now(folder, tmp_path):
    recipe, out = write_recipe(tmp_path), tmp_path / "c"
    good = (folder / "good.mp4").read_bytes()
    (folder / "torn.mp4").write_bytes(good[:999])
    (folder / "empty.mp4").touch()
    curate("run", folder, *run_args(recipe, out), "--no-export")
    assert len(outcomes(out)) == 2
    good_video(folder / "torn.mp4", seed=5)
    ended = curate("retry", out, "--engine", "inline")
    assert "Tried again 2: 1 went well, 1 failed again." in ended.out
    assert outcomes(out) == {("input", "EmptyFileError"): 1}
    curate("select", out)
    assert verdicts(out)["torn.mp4"] == ("kept", "")


def test_only_what_matches_is_tried(made, tmp_path):
    out = shutil.copytree(made[0], tmp_path / "c")
    for options in (["--class", "DecodeError"], ["--stage", "quality"]):
        ended = curate("retry", out, *options, "--engine", "inline")
        assert (ended.status, ended.out) == (0, "Nothing that failed in this run matches.\n")
    assert len(list((out / "runs").iterdir())) == 1
    assert curate("retry", out, "--stage", "qualty").status == 2
    assert curate("retry", out, "--run", "yesterday").status == 2
    ended = curate("retry", out, "--stage", "probe", "--engine", "inline")
    assert "Tried again 1: 0 went well, 1 failed again." in ended.out
    assert re.search(rf"^  curate failures  {out} ", ended.out, re.MULTILINE)


def test_a_retry_of_a_run_over_a_selection_keeps_to_it(folder, tmp_path, monkeypatch):
    """Clips that the run was not asked about are no business of its retry."""
    text = RECIPE.replace("quality]", "quality, motion]").replace("max_len_s: 20", "max_len_s: 1")
    recipe, out = write_recipe(tmp_path, text), tmp_path / "c"
    args = [folder, *run_args(recipe, out)]
    first = "select.conditions=[{column: clip.start_s, max: 0.5}]"
    curate("run", *args, "--stages", "quality", "--no-export", "--set", first)
    assert len(tables(out, text)["quality"]) == 2
    broken(Motion, monkeypatch, breaks=True)
    curate("run", *args, "--stages", "motion", "--where", "small")
    assert outcomes(out) == {("motion", "DecodeError"): 1}
    broken(Motion, monkeypatch, breaks=False)
    assert "1 went well, 0 failed" in curate("retry", out, "--engine", "inline").out
    assert len(tables(out, text)["motion"]) == 1


@pytest.mark.parametrize(("policy", "verdict"), [("failed", "failed"), ("drop", "dropped"), ("keep", "kept")])
def test_a_condition_says_what_a_failure_means_for_a_clip(folder, tmp_path, monkeypatch, policy, verdict):
    recipe, out = write_recipe(tmp_path), tmp_path / "c"
    broken(Quality, monkeypatch, breaks=True)
    ended = curate("run", folder, *run_args(recipe, out), "--no-export", "--set", "select.conditions.contrast.min=0.1")
    assert ended.status == 3
    curate("select", out, "--set", f"contrast.on_failed={policy}")
    (row,) = pq.read_table(out / "selections/small/selection.parquet").to_pylist()
    assert row["verdict"] == verdict
    assert (row["reason"] or "").endswith("" if policy == "keep" else "quality could not be measured")


def test_limits_that_were_not_the_usual_are_part_of_the_command_that_repeats_a_failure(folder, tmp_path):
    recipe, out = write_recipe(tmp_path), tmp_path / "c"
    (folder / "empty.mp4").touch()
    curate("run", folder, *run_args(recipe, out), "--no-export", "--decode-memory-gb", 2.5, "--decode-s", 90)
    assert "--decode-memory-gb 2.5 --decode-s 90" in curate("failures", out).out
    curate("retry", out, "--engine", "inline")
    assert "--decode" not in curate("failures", out).out
