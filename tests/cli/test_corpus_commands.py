"""`curate select`, `export`, `verify`, `forget`."""

from __future__ import annotations

import json

import pyarrow.parquet as pq
import pytest
from cli_kit import curate, files_below, verdicts


def kept(corpus, name):
    rows = pq.read_table(corpus / f"selections/{name}/selection.parquet").to_pylist()
    return {row["clip_id"] for row in rows if row["verdict"] == "kept"}


def index(corpus, name):
    return json.loads((corpus / f"shards/{name}/index.json").read_text())


def strict(corpus, *more):
    return curate("select", corpus, "--name", "strict", "--set", "contrast.min=0.2", *more)


def test_a_new_threshold_computes_no_cell(corpus):
    cells, runs = files_below(corpus / "tables"), sorted((corpus / "runs").iterdir())
    ended = strict(corpus)
    assert ended.status == 0
    assert "quality.contrast below 0.2" in ended.out
    assert kept(corpus, "strict") < kept(corpus, "small")
    assert verdicts(corpus, "strict")["flat.mp4"][0] == "dropped"
    assert files_below(corpus / "tables") == cells
    assert sorted((corpus / "runs").iterdir()) == runs


def test_a_condition_is_named_by_its_name_or_its_column(corpus):
    strict(corpus)
    assert curate("select", corpus, "--name", "same", "--set", "quality.contrast.min=0.2").status == 0
    assert kept(corpus, "same") == kept(corpus, "strict")


def test_thresholds_of_an_earlier_selection_are_taken_over(corpus):
    share = "select.conditions=[{column: quality.contrast, drop_lowest: 0.5}]"
    first = curate("select", corpus, "--name", "first", "--set", share)
    second = curate("select", corpus, "--name", "second", "--like", "first", "--set", share)
    assert (first.status, second.status) == (0, 0)
    assert "drop_lowest 0.5 of 4 is " in first.out
    assert kept(corpus, "second") == kept(corpus, "first")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--set", "sharp.min=2"], "'select.conditions.sharp.min': no entry 'sharp' in that list"),
        (["--set", "contrast.minimum=2"], "unknown key 'recipe.select.conditions.0.minimum', did you mean 'min'?"),
        (["--set", "select.conditions=[{column: quality.contrst, min: 0}]"], "did you mean 'quality.contrast'"),
        (["--like", "best"], "no selection is called 'best'"),
        (["--run", "yesterday"], "no run is called 'yesterday'"),
        (["--recipe", "embeded"], "did you mean 'embedded'?"),
    ],
)
def test_select_says_what_it_cannot_do(corpus, args, said):
    ended = curate("select", corpus, *args)
    assert ended.status == 2
    assert said in ended.err


def test_export_writes_a_selection_and_again_changes_nothing(corpus):
    strict(corpus)
    ended = curate("export", corpus, "--selection", "strict", "--set", "export.seed=7")
    assert ended.status == 0
    assert sum(shard["count"] for shard in index(corpus, "strict")["shards"]) == len(kept(corpus, "strict"))
    assert index(corpus, "strict")["export"]["seed"] == 7
    before = files_below(corpus / "shards")
    again = curate("export", corpus, "--selection", "strict", "--set", "export.seed=7")
    assert "(unchanged)" in again.out
    assert files_below(corpus / "shards") == before


def test_export_says_what_no_bucket_takes(corpus):
    big = "export.buckets={short_sides_px: [512], multiple_px: 64, frames: [8]}"
    ended = curate("export", corpus, "--set", big, "--set", "export.name=big")
    assert ended.status == 0
    assert "0 clips in 0 shards" in ended.out
    assert "4 kept clips in no bucket:" in ended.out


def test_export_names_a_clip_whose_source_is_gone(corpus, tmp_path, bucket):
    strict(corpus)
    (bucket / "a.mp4").rename(bucket / "elsewhere.mp4")
    try:
        ended = curate("export", corpus, "--selection", "strict")
    finally:
        (bucket / "elsewhere.mp4").rename(bucket / "a.mp4")
    assert ended.status == 0
    (hole,) = index(corpus, "strict")["holes"]
    assert f"hole {hole['clip_id']}: TransientStorageError: is gone since it was listed" in ended.out
    assert "hole" not in curate("export", corpus, "--selection", "strict").out


def test_export_of_a_selection_that_is_not_there(corpus):
    ended = curate("export", corpus, "--selection", "smal")
    assert (ended.status, "no selection is called 'smal', did you mean 'small'?" in ended.err) == (2, True)


def test_verify_passes_whole_shards(corpus):
    assert curate("verify", corpus).out.endswith("small: whole, a sample decoded\n")
    assert curate("verify", corpus, "small", "--deep").out == "small: whole, every clip decoded\n"


def test_verify_ends_with_1_on_a_damaged_shard_and_names_it(corpus):
    shard = corpus / "shards/small" / index(corpus, "small")["shards"][0]["path"]
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    ended = curate("verify", corpus)
    assert ended.status == 1
    assert f"file {shard.relative_to(corpus / 'shards/small')}: has other bytes than the index says" in ended.out
    assert "small: 1 problems" in ended.out


def test_verify_without_shards_and_with_a_wrong_name(corpus):
    assert curate("verify", corpus, "smal").status == 1
    for path in (corpus / "shards").iterdir():
        path.rename(corpus / f"gone-{path.name}")
    ended = curate("verify", corpus)
    assert (ended.status, "There are no shards yet" in ended.out) == (0, True)


def test_a_forgotten_source_is_dropped_and_named_until_exported_again(corpus, bucket):
    ended = curate("forget", corpus, bucket / "a.mp4", "--reason", "take-down 17")
    assert ended.status == 0
    assert "Still in shards small" in ended.out
    told = curate("verify", corpus)
    assert (told.status, "its source was taken down: take-down 17" in told.out) == (1, True)
    assert curate("select", corpus).status == 0
    assert verdicts(corpus)["a.mp4"] == ("dropped", "forgotten")
    assert verdicts(corpus)["b.mp4"] == ("kept", "")
    assert curate("export", corpus).status == 0
    assert curate("verify", corpus, "--deep").status == 0


def test_forget_needs_a_known_source_and_a_reason(corpus, bucket):
    assert curate("forget", corpus, bucket / "a.mp4").status == 2
    unknown = curate("forget", corpus, "nowhere.mp4", "--reason", "x")
    assert (unknown.status, "the corpus knows no such source" in unknown.err) == (2, True)
    assert curate("forget", corpus, bucket / "a.mp4", "--reason", " ").status == 2


@pytest.mark.parametrize("command", ["select", "export", "verify", "stats", "failures"])
def test_a_folder_that_is_no_corpus_says_so(command, tmp_path):
    ended = curate(command, tmp_path)
    assert ended.status == 1
    assert ended.err == f"Error {tmp_path}: is not a corpus (no corpus.json). `curate run SOURCE --out` makes one\n"
    assert list(tmp_path.iterdir()) == []
