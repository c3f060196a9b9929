"""`curate report`, and the report at the end of `curate run`."""

from __future__ import annotations

import json
import re
from pathlib import Path

from cli_kit import curate, run_args, write_recipe


def facts_in(path: Path):
    text = path.read_text()
    return json.loads(re.search(r'<script type="application/json" id="facts">(.*?)</script>', text, re.DOTALL)[1])


def test_a_report_is_written_into_the_corpus(corpus):
    ended = curate("report", corpus)
    assert ended.status == 0
    path = corpus / "reports" / "small.html"
    assert re.search(
        rf"^Report {re.escape(str(path))}: [\d.]+ KiB, 4 clips, 4 with a picture$", ended.out, re.MULTILINE
    )
    assert "Counting clips ..." in ended.out and "Taking pictures ..." in ended.out
    facts = facts_in(path)
    assert (facts["selection"], facts["clips"]["found"], facts["inputs"]["found"]) == ("small", 4, 5)
    assert sum("src" in picture for picture in facts["pictures"].values()) == 4


def test_another_selection_goes_into_a_file_of_ones_own(corpus, tmp_path):
    curate("select", corpus, "--name", "strict", "--set", "contrast.min=0.2")
    target = tmp_path / "deep" / "my.html"
    assert curate("report", corpus, "--selection", "strict", "--out", target, "--pictures", 0).status == 0
    facts = facts_in(target)
    assert facts["selection"] == "strict" and facts["axes"][0]["stops"][facts["axes"][0]["start"]] == 0.2
    assert {tuple(picture) for picture in facts["pictures"].values()} == {("missing",)}
    run = next((corpus / "runs").iterdir()).name
    assert curate("report", corpus, "--run", run, "--out", tmp_path / "latest.html", "--pictures", 0).status == 0
    assert facts_in(tmp_path / "latest.html")["selection"] == "strict"
    command = facts["commands"]["select"]
    assert f"curate select {corpus}" in command and command.endswith("--name NAME")


def test_what_cannot_be_reported_says_what_to_do(corpus, tmp_path):
    ended = curate("report", corpus, "--selection", "smal")
    assert ended.status == 2 and "did you mean 'small'" in ended.err
    assert curate("report", corpus, "--out", tmp_path).status == 1
    assert curate("report", tmp_path).status == 1
    for path in (corpus / "selections/small").iterdir():
        path.unlink()
    ended = curate("report", corpus)
    assert ended.status == 2 and "`curate select " in ended.err


def test_a_run_ends_with_its_report(bucket, tmp_path):
    recipe = write_recipe(tmp_path)
    ended = curate("run", bucket, *run_args(recipe, tmp_path / "corpus", report=True), "--no-export")
    path = tmp_path / "corpus" / "reports" / "small.html"
    assert ended.status == 0 and f"Report {path}: " in ended.out
    places = [
        ended.out.index(text)
        for text in (" is complete after ", "Funnel of selection", "Taking pictures ...", "Report /")
    ]
    assert places == sorted(places)
    assert facts_in(path)["clips"]["found"] == 4
    path.unlink()
    ended = curate("run", bucket, *run_args(recipe, tmp_path / "corpus", report=True), "--no-export", "--no-report")
    assert ended.status == 0 and "Report " not in ended.out and not path.exists()


def test_a_report_that_cannot_be_written_fails_no_run(bucket, tmp_path):
    recipe = write_recipe(tmp_path)
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "reports").write_text("in the way")
    ended = curate("run", bucket, *run_args(recipe, tmp_path / "corpus", report=True), "--no-export")
    assert ended.status == 0
    assert "The report could not be written: " in ended.err and "curate report" in ended.err
