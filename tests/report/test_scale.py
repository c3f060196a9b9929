"""A larger corpus, straight as parts: counting happens in DuckDB, within its memory, and the report stays small."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from curate.query import RunTables, connect
from curate.report import joint
from curate.report.facts import build_facts, chosen_selection
from curate.report.html import json_text
from curate.report.joint import kept_by, unpack
from curate.select import SelectConfig, select
from curate.tables import Corpus

N = 60_000
MEMORY_BYTES = 96 << 20


def bench(name):
    """A module of tests/bench."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parents[1] / "bench" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    made = Corpus(str(tmp_path_factory.mktemp("scale") / "corpus"))
    tables = bench("bench_select")
    tables.generate(made, N, 20_000, "lengths")
    conditions = tables.CONDITIONS
    select(made, SelectConfig.model_validate({"name": "sel", "conditions": conditions, "dedup": {"method": "none"}}))
    return made


def test_all_clips_are_counted_within_little_memory(corpus):
    facts = build_facts(corpus, chosen_selection(corpus, None, None), pictures=0, memory_bytes=MEMORY_BYTES).facts
    cells = unpack(facts["joint"]["data"])
    assert cells.n.sum() == N == facts["clips"]["found"]
    assert not any(axis["frozen"] for axis in facts["axes"])
    sizes = [len(axis["stops"]) + 1 for axis in facts["axes"]]
    start = [axis["start_position"] for axis in facts["axes"]]
    n, hours = kept_by(cells, sizes, start)
    assert n == facts["clips"]["kept"]
    assert hours == pytest.approx(facts["hours"]["kept"], rel=1e-5)
    # Another place of one slider, against the table itself.
    axis = facts["axes"][2]
    assert axis["column"] == "text.area_max" and axis["side"] == "max"
    limit = axis["stops"][len(axis["stops"]) // 2]
    loose = [-1, -1, len(axis["stops"]) - 1 - len(axis["stops"]) // 2, -1]
    with connect() as con:
        wide = RunTables(con, corpus, "r").wide_sql(["text.area_max", "text.outcome", "clip.duration_s"])
        ((count, seconds),) = con.sql(
            f"""SELECT count(*), sum("clip.duration_s") FROM ({wide})
            WHERE "text.outcome" = 'ok' AND "text.area_max" <= {limit!r}"""
        ).fetchall()
    n, hours = kept_by(cells, sizes, loose)
    assert (n, hours) == (count, pytest.approx(seconds / 3600, rel=1e-5))
    assert len(json_text(facts)) < 2_000_000


def test_more_cells_than_a_page_can_hold_get_fewer_stops(corpus, monkeypatch):
    monkeypatch.setattr(joint, "MOST_CELLS", 20_000)
    facts = build_facts(corpus, chosen_selection(corpus, None, None), pictures=0).facts
    assert 5_000 < facts["joint"]["cells"] <= 20_000
    assert [len(axis["stops"]) for axis in facts["axes"]] == [16] * 4
    assert not any(axis["frozen"] for axis in facts["axes"])


def test_text_that_is_too_long_gets_fewer_stops_too(corpus, monkeypatch):
    monkeypatch.setattr(joint, "MOST_TEXT_BYTES", 60_000)
    facts = build_facts(corpus, chosen_selection(corpus, None, None), pictures=0).facts
    assert 10_000 < len(facts["joint"]["data"]) <= 60_000


def test_the_benchmark_measures_a_report(corpus, capsys, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "bench"))
    bench("bench_report").measure(corpus.uri)
    found = json.loads(capsys.readouterr().out)
    assert found["size_mb"] < 3 and found["wall_s"] > 0
    assert (Path(corpus.uri) / "reports" / "sel.html").stat().st_size == pytest.approx(found["size_mb"] * 1e6, rel=0.1)
    sys.modules.pop("bench_select", None)
