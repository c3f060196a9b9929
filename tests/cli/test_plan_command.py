"""`curate plan`, and `curate stats --time` after the run."""

from __future__ import annotations

import io
import json
import re
import shutil
from pathlib import Path

import pytest
from cli_kit import curate
from rich.console import Console

from curate.cli.forecasts import print_compared, print_forecast, print_taken
from curate.estimate.compare import Compared, Taken
from curate.estimate.forecast import Forecast
from curate.estimate.ratios import Estimate


@pytest.fixture(scope="module")
def planned(bucket, recipe, tmp_path_factory):
    """(how a plan from two of three sources ended, the file it was saved to)."""
    file = tmp_path_factory.mktemp("plan") / "plan.json"
    return curate("plan", bucket, "--recipe", recipe, "--engine", "inline", "--sample", "2", "--save", file), file


def test_a_plan_tells_hours_stages_funnel_and_storage(planned, recipe):
    ended, file = planned
    assert (ended.status, ended.err) == (0, "")
    assert re.search(r"^Plan of recipe small: 2 of 3 sources tried \(.* in .* with inline$", ended.out, re.MULTILINE)
    for line in (
        r"on the clock +\S+", r"CPU-hours at work +\S+", r"this process \(1\): \S+ on the clock",
        r"  quality +\d+ +\d+ ms", r"Holds the rest up \w+ takes \d+% of the time of this process",
        r"inputs failed +1 +1 to 2 *$", r"clips found +\d", r"clips kept +\d", r"contrast +100\.0%",
        r"tables +\S+ [KM]iB", r"Note Too few to be sure: 2 sources say little of 3", r"Plan .*plan\.json$",
    ):  # fmt: skip
        assert re.search(f"^{line}", ended.out, re.MULTILINE), line
    assert json.loads(file.read_text())["recipe"] == "small"


def test_a_run_beside_its_plan(planned, made):
    plan = planned[1]
    ended = curate("stats", made[0], "--time", "--plan", plan)
    assert ended.status == 0
    assert re.search(
        r"^Run \S+ took \S+ on the clock: scoring \S+, selecting \S+, writing \S+$", ended.out, re.MULTILINE
    )
    assert re.search(r"^clips found +\d+ .* 4 +\d\.\d\d +", ended.out, re.MULTILINE)
    assert re.search(r"^inputs failed +1 +1 to 2 +1 +1\.00 +yes *$", ended.out, re.MULTILINE)
    found = json.loads(curate("stats", made[0], "--plan", plan, "--json").out)
    rows = {row["name"]: row for row in found["compared"]}
    assert rows["clips kept"]["found"] == 4
    assert rows["retention"]["ratio"] == pytest.approx(1)
    assert rows["CPUs at work"]["found"] > 0


def test_times_without_a_plan(made):
    out = curate("stats", made[0], "--time").out
    assert "on the clock" in out and "quality" in out
    assert "foretold" not in out and "Funnel" not in out
    assert json.loads(curate("stats", made[0], "--time", "--json").out)["compared"] == []


def test_times_of_a_run_that_kept_none(made, tmp_path):
    """As runs of earlier versions."""
    corpus = shutil.copytree(made[0], tmp_path / "corpus")
    (run,) = (corpus / "runs").iterdir()
    (run / "times.json").unlink()
    assert re.search(r"on the clock: scoring \S+$", curate("stats", corpus, "--time").out, re.MULTILINE)


def test_a_percentile_of_what_no_source_of_the_sample_has_lets_all_pass(bucket, recipe, tmp_path):
    """As it does in the run."""
    (tmp_path / "list.csv").write_text(f"path,views\n{bucket / 'a.mp4'},unknown\n")
    views = "select.conditions=[{column: user.views, drop_lowest: 0.25, name: views}]"
    ended = curate("plan", tmp_path / "list.csv", "--recipe", recipe, "--engine", "inline", "--set", views, "--json")
    assert (ended.status, json.loads(ended.out)["clips"]["dropped"]["value"]) == (0, 0), ended.err


def test_json_alone_goes_to_standard_output(bucket, recipe):
    ended = curate("plan", bucket / "a.mp4", "--recipe", recipe, "--engine", "inline", "--json", "--nodes", "2")
    assert ended.status == 0
    found = json.loads(ended.out)
    assert (found["tried"]["n_sources"], found["cluster"]["nodes"]) == (1, 2)
    assert "Trying 1 of 1 sources" in ended.err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--sample", "200%"], "--sample: '200%' is neither"),
        (["--device-speed", "text"], "--device-speed: 'text' is no stage with its speed"),
        (["--device-speed", "text=0"], "--device-speed: 'text=0' is no stage with its speed"),
        (["--address", "auto"], "--address: does not tell which machines to plan for"),
        (["--address", "auto", "--nodes", "2"], "--address: does not tell where the sample's corpus may lie"),
        (["--recipe", "nothing"], "nothing"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(bucket, options, words):
    ended = curate("plan", bucket, *options)
    assert ended.status == 2
    assert words in ended.err and ended.err.count("\n") == 1


def test_a_file_that_is_no_plan(made, recipe):
    ended = curate("stats", made[0], "--time", "--plan", recipe)
    assert ended.status == 2
    assert "small.yaml: is not a forecast. Name a file that `curate plan --save` wrote" in ended.err
    assert curate("stats", made[0], "--plan", "nowhere.json").status != 0


def test_what_the_page_shows_is_what_is_printed():
    """Of a plan and its run that were kept: what was measured then, as it is printed now."""
    root = Path(__file__).parents[2]
    kept = json.loads((root / "tests" / "data" / "plan_example.json").read_text(encoding="utf-8"))
    page = (root / "docs" / "plan.md").read_text(encoding="utf-8")
    planned, ran = (block.splitlines() for block in re.findall(r"^```text\n(.*?)^```", page, re.MULTILINE | re.DOTALL))
    assert printed(print_forecast, Forecast.from_json(json.dumps(kept["forecast"]), "kept")) == planned
    taken = kept["taken"]
    assert printed(print_taken, Taken(taken["run_id"], taken["wall_s"], (), all_there=False))[0] == ran[0]
    rows = [
        Compared(row["name"], row["unit"], row["foretold"] and Estimate(**row["foretold"]), row["found"])
        for row in taken["compared"]
    ]
    assert printed(print_compared, rows) == ran[1:]
    assert max(map(len, ran[1:])) <= 80, "nothing is cut off on a narrow terminal"


def printed(show, found) -> list[str]:
    console = Console(file=io.StringIO(), width=110, highlight=False, emoji=False)
    show(console, found)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]
