"""Faults around a run's passes: what is lost, what is blamed, what is counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from engine_kit import (
    Listening,
    Luma,
    LumaConfig,
    Picky,
    PickyConfig,
    StrideConfig,
    StrideCut,
    all_cells,
    pipeline,
    run,
)

from curate.bulk import inline_map
from curate.config import Config
from curate.engine.inline import InlineEngine
from curate.engine.pipeline import build_pipeline
from curate.engine.run import RunRequest, execute
from curate.errors import ClusterError, TransientStorageError
from curate.ingest.listing import list_inputs
from curate.query import cells_sql, connect, parts
from curate.records import SourceFacts
from curate.stage import Resources
from curate.stages.probe import Probe
from curate.tables import Corpus, cell_schema, read_parquet


def ended(out: Path, run_id: str) -> dict[str, tuple[str, str]]:
    rows = read_parquet(Corpus(str(out)).runs().child(run_id, "inputs.parquet")).to_pylist()
    return {Path(row["uri"]).stem: (row["outcome"], row["cause"]) for row in rows}


def test_a_file_that_goes_after_its_digest_was_taken_fails_alone_and_is_read_when_it_is_back(tmp_path, bucket):
    """Its content is known by then, but nothing else is; the run must not wait for it pass after pass."""
    folder, out = tmp_path / "bucket", tmp_path / "c"
    folder.mkdir()
    for name, source in (("a", "a"), ("a_again", "a"), ("b", "b")):
        (folder / f"{name}.mp4").write_bytes((bucket / f"{source}.mp4").read_bytes())
    content = (folder / "a.mp4").read_bytes()
    pipe, corpus = pipeline(Luma(LumaConfig())), Corpus(str(out))
    corpus.create()

    def hash_then_lose(function: Any, items: Any) -> Any:
        yield from inline_map(function, items)
        (folder / "a.mp4").rename(tmp_path / "away.mp4")

    request = RunRequest(corpus, pipe, list_inputs([str(folder)]), "test", "name: test\n")
    result = execute(request, InlineEngine(tmp_path), hash_then_lose, tmp_path, Listening())
    first = ended(out, result.run_id)
    assert first["a"] == ("failed", first["a"][1]) and "gone since it was listed" in first["a"][1]
    assert first["b"] == ("ok", "")
    (tmp_path / "away.mp4").rename(folder / "a.mp4")
    assert (folder / "a.mp4").read_bytes() == content
    again, _ = run(out, folder, pipe)
    assert ended(out, again.run_id)["a"] == ("ok", "")
    assert len(all_cells(out, pipe)["luma"]) == 5


class NoDetector(StrideCut):
    """A plug-in whose detector cannot be made for one film."""

    def detector(self, facts: SourceFacts) -> Any:
        if facts.n_frames == 75:
            raise RuntimeError("no such detector")
        return super().detector(facts)


def test_a_detector_that_cannot_be_made_fails_its_source_alone(tmp_path, bucket):
    pipe = build_pipeline([Probe(Config()), NoDetector(StrideConfig()), Luma(LumaConfig())])
    result, heard = run(tmp_path / "c", bucket, pipe)
    assert ended(tmp_path / "c", result.run_id) == {"a": ("failed", "no such detector"), "b": ("ok", "")}
    assert len(heard.plans) == 1


class PooledBusy(Picky):
    """An endpoint in workers of its own that never answers for some clips."""

    name = "busy"
    resources = Resources(cpus=0.5, pool=True)

    def score(self, item: Any) -> Any:
        if float(item.clip.start_s) > self.config.fails_above:
            raise TransientStorageError("busy")
        return super().score(item)


def test_attempts_are_counted_in_workers_of_their_own_too(tmp_path, bucket):
    pipe = pipeline(Luma(LumaConfig()), PooledBusy(PickyConfig(fails_above=1.5)))
    _, heard = run(tmp_path / "c", bucket, pipe)
    assert len(heard.plans) == 3
    step = pipe.steps[1]
    with connect() as con:
        cells = cells_sql(con, Corpus(str(tmp_path / "c")), "busy", step.fingerprint, cell_schema(step.stage))
        assert con.sql(f"select attempt from ({cells}) where outcome = 'failed'").fetchall() == [(3,)]


def test_failed_cells_of_a_run_count_whenever_they_were_computed(tmp_path, bucket):
    """`--strict` asks whether anything failed, not whether it failed just now."""
    pipe = pipeline(Luma(LumaConfig()), Picky(PickyConfig(fails_above=0.5)))
    first, _ = run(tmp_path / "c", bucket, pipe)
    again, heard = run(tmp_path / "c", bucket, pipe)
    assert heard.plans == []
    assert first.counts["cells_failed"] == again.counts["cells_failed"] == 3
    one = frozenset(row[0] for row in all_cells(tmp_path / "c", pipe)["picky"] if row[2] == "failed")
    some, _ = run(tmp_path / "c", bucket, pipe, only=frozenset(sorted(one)[:1]))
    assert some.counts["cells_failed"] == 1
    without, _ = run(
        tmp_path / "c", bucket, pipeline(Luma(LumaConfig()), Picky(PickyConfig(fails_above=0.5)), only=("luma",))
    )
    assert without.counts["cells_failed"] == 0


def test_a_cell_that_fails_in_every_pass_counts_once(tmp_path, bucket):
    pipe = pipeline(Luma(LumaConfig()), PooledBusy(PickyConfig(fails_above=1.5)))
    result, heard = run(tmp_path / "c", bucket, pipe)
    assert len(heard.plans) == 3
    assert result.counts["cells_failed"] == 1


def test_a_cluster_that_is_too_small_is_said_at_once(tmp_path, bucket):
    class Small(InlineEngine):
        def run_pass(self, corpus, pipeline, works, *, run_id, single):
            raise ClusterError("stage 'x' needs 1 GPU, there are 0")
            yield

    heard: list[int] = []

    class Counting(Small):
        def open(self) -> None:
            heard.append(1)

    with pytest.raises(ClusterError, match="needs 1 GPU"):
        run(tmp_path / "c", bucket, pipeline(Luma(LumaConfig())), Counting(tmp_path))
    assert heard == [1]


def test_a_part_that_vanishes_while_a_run_plans_is_looked_for_again(tmp_path, bucket, monkeypatch):
    """Compaction goes on beside runs: it removes parts that were listed a moment ago."""
    pipe = pipeline(Luma(LumaConfig()), Picky(PickyConfig()))
    run(tmp_path / "c", bucket, pipe)
    listed, list_parts = set(), parts.list_parts

    def stale(folder: Any) -> list[str]:
        found = list_parts(folder)
        again = folder.uri in listed or "/cells/" not in folder.uri
        listed.add(folder.uri)
        return found if again else [*found, found[0].replace("part-", "gone-")]

    monkeypatch.setattr(parts, "list_parts", stale)
    result, heard = run(tmp_path / "c", bucket, pipe)
    assert (result.counts["inputs"], heard.plans) == ({"ok": 2}, [])
    assert len(listed) >= 4
