"""`curate run`: its options, its exit statuses, what it prints."""

from __future__ import annotations

import json
import re

import pyarrow.parquet as pq
import pytest
from cli_kit import RECIPE, curate, files_below, good_video, run_args, tables, verdicts, write_recipe

MOTION = RECIPE.replace("quality]", "quality, motion]")


def test_a_run_says_what_became_of_everything_and_where_it_is(made):
    corpus, ended = made
    assert ended.status == 0
    assert ended.err == ""
    assert re.search(r"^inputs +5 +3 +0 +1 +1$", ended.out, re.MULTILINE)
    assert re.search(r"^clips +4 +4 +0 +0 *$", ended.out, re.MULTILINE)
    assert f"{corpus}/shards/small: 4 clips in" in ended.out
    for command in ("stats", "failures", "verify"):
        assert re.search(rf"^  curate {command} +{corpus} ", ended.out, re.MULTILINE)
    assert verdicts(corpus)["a.mp4"] == ("kept", "")
    assert verdicts(corpus)["broken.mp4"][0] == "failed"
    assert verdicts(corpus)["notes.txt"] == ("skipped", "not a video file name (.txt)")


def test_the_video_row_is_the_time_of_all_clips(made):
    """Regression: the hours found were counted twice."""
    corpus, ended = made
    hours = json.loads((corpus / "selections/small/funnel.json").read_text())["hours"]
    line = next(line for line in ended.out.splitlines() if line.startswith("video"))
    assert line.split()[1] == line.split()[2] == f"{3600 * hours['kept']:.1f}s"


def test_a_log_has_one_line_per_state(made):
    """Regression: in a file of 80 columns the line was broken in two."""
    lines = [line for line in made[1].out.splitlines() if line.startswith("sources ")]
    assert re.fullmatch(
        r"sources 4/4 \| clips 4 \| [\d.]+ clips/s \| [\d.]+ video-hours/hour \| ETA 0.0s \| "
        r"failed 1 sources, 0 cells \| slowest \w+ \(\d+% of the work\)",
        lines[-1],
    )


def test_the_same_command_again_computes_nothing(corpus, bucket, recipe):
    before = files_below(corpus / "tables")
    ended = curate("run", bucket, *run_args(recipe, corpus))
    assert ended.status == 0
    assert "sources to read" not in ended.out
    assert "(unchanged)" in ended.out
    assert files_below(corpus / "tables") == before


def test_strict_ends_with_3_when_something_failed(corpus, bucket, recipe):
    assert curate("run", bucket, *run_args(recipe, corpus), "--strict").status == 3
    assert curate("run", bucket / "a.mp4", *run_args(recipe, corpus), "--strict").status == 0


def test_no_export_stops_after_the_selection(bucket, recipe, tmp_path):
    ended = curate("run", bucket / "a.mp4", *run_args(recipe, tmp_path / "c"), "--no-export")
    assert ended.status == 0
    assert (tmp_path / "c/selections/small/selection.parquet").exists()
    assert not (tmp_path / "c/shards").exists()
    assert f"curate export    {tmp_path / 'c'}" in ended.out


def test_limit_takes_the_first_and_sample_a_share_by_seed(bucket, recipe, tmp_path):
    def names(*options):
        out = tmp_path / "-".join(map(str, options)).strip("-")
        curate("run", bucket, *run_args(recipe, out), "--no-export", *options)
        return sorted(verdicts(out))

    assert names("--limit", 1) == ["a.mp4"]
    drawn = names("--sample", 0.6, "--seed", 5)
    assert len(drawn) == 3
    assert drawn == names("--sample", 0.6, "--seed", "5")
    assert any(names("--sample", 0.6, "--seed", seed) != drawn for seed in (6, 7, 8))


def test_set_changes_a_key_of_a_stage(bucket, recipe, tmp_path):
    out = tmp_path / "c"
    ended = curate("run", bucket / "a.mp4", *run_args(recipe, out), "--set", "cut.max_len_s=1", "--no-export")
    assert ended.status == 0
    assert len(pq.read_table(out / "selections/small/selection.parquet")) == 2
    (run,) = (out / "runs").iterdir()
    assert "max_len_s: 1" in (run / "recipe.yaml").read_text()


def test_stages_then_where_computes_the_rest_for_kept_clips_only(bucket, tmp_path):
    recipe, out = write_recipe(tmp_path, MOTION), tmp_path / "c"
    args = [bucket, *run_args(recipe, out), "--set", "select.conditions.contrast.min=0.2"]
    first = curate("run", *args, "--stages", "qual*", "--no-export")
    assert first.status == 0
    kept = {row["clip_id"] for row in selection(out) if row["verdict"] == "kept"}
    assert 0 < len(kept) < len(selection(out))
    assert tables(out, MOTION)["motion"] == []
    second = curate("run", *args, "--stages", "motion", "--where", "small")
    assert second.status == 0
    assert {row[0] for row in tables(out, MOTION)["motion"]} == kept


def selection(out):
    return pq.read_table(out / "selections/small/selection.parquet").to_pylist()


def test_a_link_that_leaves_the_folder_is_taken_when_asked(bucket, recipe, tmp_path):
    folder = tmp_path / "links"
    folder.mkdir()
    (folder / "far.mp4").symlink_to(bucket / "a.mp4")
    ended = curate("run", folder, *run_args(recipe, tmp_path / "c"), "--no-export")
    assert (ended.status, "link that leaves the source folder" in ended.err) == (2, True)
    ended = curate("run", folder, *run_args(recipe, tmp_path / "c"), "--no-export", "--follow-links")
    assert ended.status == 0
    assert verdicts(tmp_path / "c")["far.mp4"] == ("kept", "")


USAGE = {
    "no sources": ([], "no sources given"),
    "no such file": (["nowhere.mp4"], "nowhere.mp4: does not exist"),
    "no such recipe": (["BUCKET", "--recipe", "embeded"], "no recipe is called 'embeded', did you mean 'embedded'?"),
    "no such recipe file": (["BUCKET", "--recipe", "mine.yaml"], "mine.yaml: no such recipe file"),
    "no such stage": (["BUCKET", "--stages", "qualty"], "no stage is called 'qualty', did you mean 'quality'?"),
    "no such selection": (["BUCKET", "--where", "best"], "no selection is called 'best'"),
    "no such option": (["BUCKET", "--strickt"], "--strict"),
    "no such engine": (["BUCKET", "--engine", "spark"], "'ray', 'inline'"),
    "room without a cluster": (["BUCKET", "--wait-for", "CPU=4"], "--wait-for"),
    "room of nothing": (["BUCKET", "--address", "auto", "--wait-for", "4"], "Say `CPU=64,GPU=2`"),
    "limit of nought": (["BUCKET", "--limit", "0"], "--limit"),
    "share above one": (["BUCKET", "--sample", "2"], "--sample"),
    "set without a value": (["BUCKET", "--set", "cut.max_len_s"], "not of the form key=value"),
}


@pytest.mark.parametrize("case", USAGE)
def test_wrong_usage_ends_with_2_and_says_what_is_wrong(case, bucket, recipe, tmp_path):
    args, said = USAGE[case]
    given = [bucket if arg == "BUCKET" else arg for arg in args]
    ended = curate("run", *run_args(recipe, tmp_path / "c"), *given)
    assert ended.status == 2
    assert said in ended.err
    assert "Traceback" not in ended.err
    assert not (tmp_path / "c/tables").exists()


def test_the_place_of_the_corpus_must_be_given(bucket):
    ended = curate("run", bucket)
    assert ended.status == 2
    assert "--out" in ended.err


def test_missing_weights_are_said_before_a_video_is_read(bucket, tmp_path, monkeypatch):
    monkeypatch.setenv("CURATE_MODELS", str(tmp_path / "none"))
    ended = curate("run", bucket, "--out", tmp_path / "c", "--engine", "inline")
    assert ended.status == 2
    assert ended.err == (
        "Error weights are not on this machine: efficientnet-lite0 (stage features), pp-ocr-det (stage text). "
        "Run `curate models fetch efficientnet-lite0 pp-ocr-det`\n"
    )
    assert not (tmp_path / "c").exists()


def test_stages_that_need_no_weights_run_without_them(bucket, tmp_path, monkeypatch):
    monkeypatch.setenv("CURATE_MODELS", str(tmp_path / "none"))
    args = ["--out", tmp_path / "c", "--engine", "inline", "--stages", "quality", "--no-export"]
    ended = curate("run", bucket / "a.mp4", *args, "--set", "select.conditions=[]", "--set", "select.dedup.method=none")
    assert ended.status == 0


def test_a_run_of_which_nothing_came_is_no_success(bucket, recipe, tmp_path):
    """With or without --strict, and again where nothing is left to do."""
    (tmp_path / "bad").mkdir()
    for name in ("one.mp4", "two.mp4"):
        (tmp_path / "bad" / name).write_text(f"{name} is no video" * 99)
    (tmp_path / "bad" / "notes.txt").touch()
    out = tmp_path / "c"
    for more in ([], [], ["--strict"]):
        ended = curate("run", tmp_path / "bad", *run_args(recipe, out), *more)
        assert ended.status == 3
        assert (
            ended.err == f"Error nothing could be read: every input failed (2). See why with `curate failures {out}`\n"
        )
    ended = curate("run", tmp_path / "bad", bucket / "a.mp4", *run_args(recipe, out))
    assert (ended.status, ended.err) == (0, "")


def test_clips_that_could_not_be_judged_are_no_success_either(tmp_path, recipe):
    """Each is a single frame long, too short for `motion`."""
    (tmp_path / "short").mkdir()
    good_video(tmp_path / "short" / "a.mp4", frames=4)
    text = MOTION.replace("min_len_s: 0.5", "min_len_s: 0.01").replace(
        "conditions: [", "conditions: [{column: motion.freeze_ratio, max: 1}, "
    )
    mine, out = write_recipe(tmp_path, text), tmp_path / "c"
    ended = curate("run", tmp_path / "short", *run_args(mine, out), "--no-export")
    assert ended.err == f"Error nothing could be judged: every clip failed (1). See why with `curate failures {out}`\n"
    assert ended.status == 3
    kept = text.replace("max: 1}", "max: 1, on_failed: keep}")
    ended = curate("run", tmp_path / "short", *run_args(write_recipe(tmp_path, kept), out), "--no-export")
    assert (ended.status, ended.err) == (0, "")


def test_a_run_in_which_all_was_dropped_is_one(tmp_path, bucket, recipe):
    args = [*run_args(recipe, tmp_path / "c"), "--set", "select.conditions.contrast.min=2", "--no-export"]
    ended = curate("run", bucket / "a.mp4", *args)
    assert (ended.status, ended.err) == (0, "")
