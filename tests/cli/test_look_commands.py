"""`curate stats`, `show`, `failures`."""

from __future__ import annotations

import json
import re

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from cli_kit import curate, good_video, run_args, tables


@pytest.fixture
def clip_ids(made):
    return sorted(pq.read_table(made[0] / "selections/small/selection.parquet")["clip_id"].to_pylist())


def test_stats_shows_funnel_scores_failures_and_time(made):
    ended = curate("stats", made[0])
    assert ended.status == 0
    assert re.search(r"^Run \S+: 4 sources, 4 clips, \d", ended.out)
    assert re.search(r"^inputs +5 +3 +0 +1 +1$", ended.out, re.MULTILINE)
    assert re.search(r"^  contrast +4 +", ended.out, re.MULTILINE)
    assert re.search(r"^probe +NotMediaError +1 +broken.mp4: ", ended.out, re.MULTILINE)
    assert re.search(r"^quality +4 +[\d.]+ ?m?s +\d+% ", ended.out, re.MULTILINE)
    assert ended.out.index("  duration_s") < ended.out.index("  contrast") < ended.out.index("cut of each source")


def test_stats_as_json_is_the_same_in_numbers(made):
    found = json.loads(curate("stats", made[0], "--json").out)
    assert (found["n_sources"], found["n_clips"]) == (4, 4)
    contrast = next(entry for entry in found["numbers"] if entry["column"] == "contrast")
    assert contrast["n"] == 4
    assert sum(contrast["counts"]) == 4
    assert found["funnel"]["name"] == "small"
    assert found["failures"][0]["error_class"] == "NotMediaError"


def test_stats_of_one_selection_and_of_one_run(corpus):
    curate("select", corpus, "--name", "strict", "--set", "contrast.min=0.2")
    assert "of selection strict over" in curate("stats", corpus).out
    assert "of selection small over" in curate("stats", corpus, "--selection", "small").out
    run = next((corpus / "runs").iterdir()).name
    assert f"Run {run}:" in curate("stats", corpus, "--run", run).out
    assert curate("stats", corpus, "--run", "never").status == 2
    assert curate("stats", corpus, "--selection", "smal").status == 2


def test_stats_without_a_selection_says_what_became_of_the_inputs(corpus, bucket):
    for path in (corpus / "selections/small").iterdir():
        path.unlink()
    out = curate("stats", corpus).out
    assert re.search(r"^failed +no video demuxer reads it .* 1$", out, re.MULTILINE)
    assert re.search(r"^skipped +not a video file name \(.txt\) +1$", out, re.MULTILINE)


def test_show_prints_all_cells_and_writes_a_picture(made, clip_ids, tmp_path, bucket):
    png = tmp_path / "clip.png"
    ended = curate("show", made[0], clip_ids[0], "--png", png)
    assert ended.status == 0
    assert f"Clip {clip_ids[0]}" in ended.out
    assert f"  of {bucket}/" in ended.out
    assert "  selection small: kept" in ended.out
    values = dict(re.findall(r"^  (\w+) +(\S+)", ended.out, re.MULTILINE))
    row = next(row for row in tables(made[0])["quality"] if row[0] == clip_ids[0])
    assert float(values["sharpness"]) == pytest.approx(row[1], rel=1e-4)
    picture = cv2.imdecode(np.frombuffer(png.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape[0] > 90
    assert picture.shape[1] > 160


def test_show_takes_the_beginning_of_an_id(made, clip_ids, tmp_path):
    short = clip_ids[0][:6]
    assert sum(clip.startswith(short) for clip in clip_ids) == 1
    ended = curate("show", made[0], short, "--png", tmp_path / "x.png")
    assert f"Clip {clip_ids[0]}" in ended.out


def test_show_writes_the_picture_under_the_whole_id_by_default(made, clip_ids, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert curate("show", made[0], clip_ids[0]).status == 0
    assert (tmp_path / f"{clip_ids[0]}.png").exists()


def test_an_ambiguous_beginning_names_what_it_may_be(recipe, tmp_path, bucket):
    args = run_args(recipe, tmp_path / "c")
    strides = ["--set", "cut.method=fixed", "--set", "cut.fixed_s=0.1", "--set", "cut.min_len_s=0.04"]
    assert curate("run", bucket / "a.mp4", *args, *strides, "--no-export").status == 0
    ids = sorted(pq.read_table(tmp_path / "c/selections/small/selection.parquet")["clip_id"].to_pylist())
    twice = next(a[0] for a in ids if sum(b[0] == a[0] for b in ids) > 1)
    ended = curate("show", tmp_path / "c", twice)
    assert ended.status == 2
    candidates = [clip for clip in ids if clip[0] == twice]
    assert f"{len(candidates)} clips of run " in ended.err
    assert all(clip in ended.err for clip in candidates[:3])
    assert "Give more digits" in ended.err


@pytest.mark.parametrize(("clip", "said"), [("0" * 31, "no clip of run"), ("clip-7", "up to 32 hex digits")])
def test_show_says_what_it_does_not_find(made, clip, said):
    ended = curate("show", made[0], clip)
    assert (ended.status, said in ended.err) == (2, True)


def test_show_finds_the_source_under_its_other_name(recipe, tmp_path):
    """Regression: only the first of several names was tried."""
    folder = tmp_path / "twins"
    folder.mkdir()
    good_video(folder / "a.mp4")
    (folder / "b.mp4").write_bytes((folder / "a.mp4").read_bytes())
    curate("run", folder, *run_args(recipe, tmp_path / "c"), "--no-export")
    (clip,) = pq.read_table(tmp_path / "c/selections/small/selection.parquet")["clip_id"].to_pylist()
    (folder / "a.mp4").unlink()
    assert curate("show", tmp_path / "c", clip, "--png", tmp_path / "x.png").status == 0
    (folder / "b.mp4").unlink()
    ended = curate("show", tmp_path / "c", clip, "--png", tmp_path / "y.png")
    assert ended.status == 1
    assert "sharpness" in ended.out
    assert ended.err == f"Error {folder / 'a.mp4'}: does not exist. Check the spelling\n"
