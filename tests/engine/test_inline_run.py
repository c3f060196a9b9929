from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path

import pytest
from engine_kit import Double, Luma, LumaConfig, Picky, PickyConfig, PooledDouble, all_cells, gate, pipeline, run

from curate.config import Config
from curate.query import last_run
from curate.stats import corpus_stats
from curate.tables import Corpus, read_parquet
from curate.testing.footage import write_video
from curate.testing.scenes import moving_texture


@pytest.fixture(scope="session")
def bucket(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bucket")
    write_video(folder / "a.mp4", moving_texture(75, 96, 64, (1, 0), seed=1))
    write_video(folder / "b.mp4", moving_texture(45, 96, 64, (0, 1), seed=2))
    (folder / "c_copy_of_a.mp4").write_bytes((folder / "a.mp4").read_bytes())
    (folder / "broken.mp4").write_bytes(b"not a video at all")
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "notes.txt").write_text("no video")
    return folder


def stages(gain: float = 1.0):
    return Luma(LumaConfig(gain=gain)), Double(Config())


def test_every_input_is_accounted_for(tmp_path, bucket):
    result, heard = run(tmp_path / "c", bucket, pipeline(*stages()))
    corpus = Corpus(str(tmp_path / "c"))
    rows = read_parquet(corpus.runs().child(last_run(corpus), "inputs.parquet")).to_pylist()
    ended = {Path(row["uri"]).name: (row["outcome"], row["cause"]) for row in rows}
    assert {name: outcome for name, (outcome, _) in ended.items()} == {
        "a.mp4": "ok",
        "b.mp4": "ok",
        "broken.mp4": "failed",
        "c_copy_of_a.mp4": "skipped",
        "empty.mp4": "failed",
        "notes.txt": "skipped",
    }
    assert "same content as" in ended["c_copy_of_a.mp4"][1]
    assert all(cause for outcome, cause in ended.values() if outcome != "ok")
    assert result.counts["inputs"] == {"ok": 2, "failed": 2, "skipped": 2}
    assert len(all_cells(tmp_path / "c", pipeline(*stages()))["luma"]) == 3 + 2
    assert heard.total.clips == 5


def test_a_second_run_computes_nothing(tmp_path, bucket):
    run(tmp_path / "c", bucket, pipeline(*stages()))
    _, heard = run(tmp_path / "c", bucket, pipeline(*stages()))
    assert heard.plans == []


def test_adding_a_stage_computes_only_that_stage(tmp_path, bucket):
    luma, double = stages()
    run(tmp_path / "c", bucket, pipeline(luma))
    _, heard = run(tmp_path / "c", bucket, pipeline(luma, double))
    assert {name for work in heard.plans[0] for clip in work.clips for name in clip.missing} == {"double"}
    assert set(heard.total.stage_seconds) == {"double"}
    cells = all_cells(tmp_path / "c", pipeline(luma, double))
    luma_by_key = {row[0]: row[1] for row in cells["luma"]}
    assert {row[0]: row[1] for row in cells["double"]} == {key: 2 * mean for key, mean in luma_by_key.items()}


def test_stages_tell_how_many_clips_they_scored_and_how_long_they_waited(tmp_path, bucket):
    began = time.perf_counter()
    _, heard = run(tmp_path / "c", bucket, pipeline(*stages(), PooledDouble(Config())))
    seconds = time.perf_counter() - began
    use = heard.total.stage_use
    assert {name: each.items for name, each in use.items()} == {"luma": 5, "double": 5, "pooled": 5}
    assert all(
        each.busy_s > 0 and each.waited_s >= 0 and each.busy_s + each.waited_s < seconds for each in use.values()
    )
    (manifest,) = (tmp_path / "c/runs").glob("*/manifest.json")
    assert json.loads(manifest.read_text())["stage_use"]["luma"] == asdict(use["luma"])
    found = {entry.stage: entry for entry in corpus_stats(Corpus(str(tmp_path / "c"))).seconds}
    assert found["luma"].clips_per_s == pytest.approx(5 / use["luma"].busy_s)
    assert 0 < found["luma"].waited < 1
    assert found["cut"].waited is None


def test_changing_a_parameter_recomputes_the_stage_and_its_readers(tmp_path, bucket):
    picky = Picky(PickyConfig())
    run(tmp_path / "c", bucket, pipeline(*stages(), picky))
    _, heard = run(tmp_path / "c", bucket, pipeline(*stages(gain=2.0), picky))
    assert set(heard.total.stage_seconds) == {"luma", "double"}


def test_views_are_the_same_alone_and_in_the_first_pass(tmp_path, bucket):
    alone = pipeline(Luma(LumaConfig()))
    run(tmp_path / "together", bucket, pipeline(*stages()))
    run(tmp_path / "later", bucket, pipeline(Picky(PickyConfig())))
    run(tmp_path / "later", bucket, pipeline(Picky(PickyConfig()), Luma(LumaConfig())))
    assert all_cells(tmp_path / "together", alone)["luma"] == all_cells(tmp_path / "later", alone)["luma"]


def test_a_gate_skips_and_loosening_it_computes_only_what_it_opened(tmp_path, bucket):
    luma, picky = Luma(LumaConfig()), Picky(PickyConfig())
    first = all_cells_after(tmp_path / "c", bucket, pipeline(luma, picky))
    means = sorted(row[1] for row in first["luma"])
    limit = (means[1] + means[2]) / 2
    tight = pipeline(luma, gate("luma", "mean", max=limit), Double(Config()))
    _, heard = run(tmp_path / "c", bucket, tight)
    assert len(all_cells(tmp_path / "c", tight)["double"]) == 2
    _, again = run(tmp_path / "c", bucket, tight)
    assert again.plans == []
    _, heard = run(tmp_path / "c", bucket, pipeline(luma, gate("luma", "mean", max=1e9), Double(Config())))
    assert sum(len(work.clips) for work in heard.plans[0]) == 3
    assert len(all_cells(tmp_path / "c", tight)["double"]) == 5


def all_cells_after(out, bucket, pipe):
    run(out, bucket, pipe)
    return all_cells(out, pipe)


def test_a_failing_clip_fails_alone_and_is_not_tried_again(tmp_path, bucket):
    pipe = pipeline(Picky(PickyConfig(fails_above=0.5)))
    result, _ = run(tmp_path / "c", bucket, pipe)
    rows = all_cells(tmp_path / "c", pipe)["picky"]
    assert sorted(row[2] for row in rows) == ["failed"] * 3 + ["ok"] * 2
    assert all(row[3] == "StageError" and "too late" in row[4] for row in rows if row[2] == "failed")
    assert result.counts["cells_failed"] == 3
    _, heard = run(tmp_path / "c", bucket, pipe)
    assert heard.plans == []


def test_pools_and_stages_beside_the_decoder_give_the_same(tmp_path, bucket):
    luma = Luma(LumaConfig())
    run(tmp_path / "beside", bucket, pipeline(luma, Double(Config())))
    run(tmp_path / "pool", bucket, pipeline(luma, PooledDouble(Config())))
    beside = all_cells(tmp_path / "beside", pipeline(luma, Double(Config())))["double"]
    pooled = all_cells(tmp_path / "pool", pipeline(luma, PooledDouble(Config())))["pooled"]
    assert beside == pooled


def test_a_changed_file_is_read_again_and_a_touched_one_is_not(tmp_path, bucket):
    folder = tmp_path / "bucket"
    folder.mkdir()
    (folder / "a.mp4").write_bytes((bucket / "a.mp4").read_bytes())
    pipe = pipeline(*stages())
    run(tmp_path / "c", folder, pipe)
    (folder / "a.mp4").touch()
    _, touched = run(tmp_path / "c", folder, pipe)
    assert touched.plans == []
    write_video(folder / "a.mp4", moving_texture(40, 96, 64, (1, 1), seed=9))
    _, changed = run(tmp_path / "c", folder, pipe)
    assert len(changed.plans[0]) == 1


def test_only_the_clips_of_a_selection(tmp_path, bucket):
    luma, double = stages()
    run(tmp_path / "c", bucket, pipeline(luma))
    chosen = all_cells(tmp_path / "c", pipeline(luma))["luma"][0][0]
    _, _heard = run(tmp_path / "c", bucket, pipeline(luma, double), only=frozenset({chosen}))
    assert [row[0] for row in all_cells(tmp_path / "c", pipeline(luma, double))["double"]] == [chosen]
