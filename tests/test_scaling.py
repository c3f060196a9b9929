"""The page on scale shows what its model computes, and the model says how things grow as it should."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "tests" / "bench" / "cost_model.py"


@pytest.fixture(scope="module")
def model():
    spec = importlib.util.spec_from_file_location("cost_model", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SCRIPT.parent)
        spec.loader.exec_module(module)
    return module


def test_every_table_of_the_page_is_the_models(model):
    page = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
    told = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True, check=True).stdout
    tables = [table() for table in model.TABLES.values()]
    assert [table for table in tables if table not in page or table not in told] == []
    in_page = [line for line in page.splitlines() if line.startswith("|")]
    assert in_page == [line for table in tables for line in table.splitlines()]


def test_a_line_goes_through_what_was_measured(model):
    for step, found in model.MEASURED.items():
        for n in sorted(found)[-2:]:
            cpu_s, gib = model.at(step, n)
            assert cpu_s == pytest.approx(found[n][0])
            assert gib == pytest.approx(found[n][1])


def test_the_line_of_memory_reaches_the_limit_where_it_says(model):
    for step in model.CHANGES:
        most = model.most_clips(step, 64)
        seen = model.OBSERVED.get(step, float("inf"))
        reached = model.at(step, model.paper_clips(step, most))[1]
        assert most in (float("inf"), seen) or reached == pytest.approx(64)
        assert most <= seen and reached <= 64.001


def test_a_step_that_was_seen_to_give_up_comes_first_whatever_the_memory(model):
    assert model.most_clips("stats", 64) == model.most_clips("stats", 4096) == 30e6
    first = model.breaking().splitlines()[2]
    assert first.startswith("| `stats`, `report` |")


def test_export_planning_goes_with_the_share_that_is_kept(model):
    """A fifth in the bench, 152 of 577 million in the paper."""
    assert model.paper_clips("export-plan", 577e6) == pytest.approx(5 * 152e6)
    assert model.paper_clips("select", 577e6) == 577e6


def test_what_grew_faster_than_the_rows_is_a_lower_bound(model):
    for step, found in model.MEASURED.items():
        (n1, (cpu1, _)), (n2, (cpu2, _)) = sorted(found.items())[-2:]
        row = [line for line in model.work().splitlines() if line.startswith(f"| `{step}`")]
        if row and n2 == 10**7:
            assert ("at least" in row[0]) == (cpu2 / cpu1 > 1.15 * n2 / n1), step


@pytest.mark.parametrize(
    ("value", "text"), [(2.087e15, "2.09 P"), (5.77e8, "577 M"), (76_912, "76,900"), (10, "10"), (0.0451, "0.045")]
)
def test_numbers_have_three_digits(model, value, text):
    assert model.number(value) == text
