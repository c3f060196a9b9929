"""Scores of which the selection asks nothing: a slider each, counted exactly, taken away as a further condition."""

from __future__ import annotations

import json
import random
import re
import shlex
from pathlib import Path

import pytest
import yaml
from cli_kit import curate
from corpus_kit import CorpusKit
from facts_kit import HOSTILE, make_facts
from playwright.sync_api import expect
from report_kit import CONDITIONS, STAGES, facts_of, make, write_recipe

from curate.config import parse_config
from curate.errors import CorpusError
from curate.query import RunTables, connect
from curate.report import write_report
from curate.report.axes import FEWEST_STOPS
from curate.report.html import render
from curate.select import SelectConfig, load_funnel, select


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return make(tmp_path_factory.mktemp("scores"), 20)


@pytest.fixture(scope="module")
def facts(corpus):
    return facts_of(corpus)


def selected(corpus, conditions, name="asked"):
    rule = {"name": name, "conditions": conditions, "dedup": {"method": "none"}}
    return select(corpus, parse_config(SelectConfig, rule, "select"))


def test_every_score_has_a_slider_of_one_kind(facts):
    measures = [axis["measure"] for axis in facts["axes"]]
    others = [score["measure"] for score in facts["other_scores"]]
    assert len(set(others)) == len(others) and not set(others) & set(measures)
    stages = {"probe": "source"}
    known = {f"{stages.get(s['stage'], s['stage'])}.{s['column']}" for s in facts["scores"] if s["stage"] != "cut"}
    told = {re.sub(r"^mean of (.*)", r"\1 (mean)", measure) for measure in [*measures, *others]}
    assert told - {"last of aesthetic.scores"} == known and "aesthetic.crops (mean)" in known
    assert facts["partial_scores"] == []


def test_stops_and_counts_of_a_score(corpus, facts):
    found = {score["measure"]: score for score in facts["other_scores"]}
    with connect() as con:
        wide = RunTables(con, corpus, "run-1").wide_sql(["clip.similarity.disagreement"])
        values = con.sql(f'SELECT "clip.similarity.disagreement" FROM ({wide})').fetchall()
    known = {value for (value,) in values if value is not None}
    score = found["clip.similarity.disagreement"]
    assert set(score["stops"]) <= known and len(score["stops"]) >= FEWEST_STOPS and score["n"] == len(known)
    for each in found.values():
        totals = {sum(counts["alone_n"]) for counts in each["sides"].values()}
        assert totals == {sum(facts["axes"][0]["alone_n"])}
        assert {sum(counts["with_n"]) for counts in each["sides"].values()} == {facts["clips"]["kept"]}
        assert sum(each["counts"]) == each["n"] and each["stops"] == sorted(set(each["stops"]))
    assert found["quality.contrast"]["never_n"] > 0


def test_a_name_that_a_condition_has_is_not_taken_twice(corpus):
    taken = [
        {"column": "aesthetic.crops", "aggregate": "last", "max": 0.5},
        {"column": "motion.camera", "not_in": ["roll"], "name": "quality.contrast"},
    ]
    try:
        selected(corpus, taken, "taken")
        facts = facts_of(corpus)
        scores = {score["measure"]: score["asked"] for score in facts["other_scores"]}
        assert scores["mean of aesthetic.crops"]["name"] == "mean of aesthetic.crops"
        assert scores["quality.contrast"] == {"column": "quality.contrast", "name": "quality.contrast too"}
        added = [{**scores[name], "min": 0.0} for name in ("mean of aesthetic.crops", "quality.contrast")]
        assert selected(corpus, [*facts["conditions"], *added], "taken").clips.kept > 0
    finally:
        for file in ("funnel.json", "selection.parquet"):
            corpus.selections().child("taken", file).remove()


def test_scores_that_not_all_clips_have_are_named_instead(tmp_path):
    kit = CorpusKit(
        tmp_path / "corpus", STAGES, gates=[{"after_index": 2, "column": "motion.freeze_ratio", "max": 0.5}]
    )
    clips = kit.source("a.mp4", [2.0] * 4)
    for i, clip in enumerate(clips):
        kit.cell("motion", clip, v2d_px16=float(i), freeze_ratio=0.9 if i == 3 else 0.1)
        if i < 3:  # the gate explains the last one
            kit.cell("quality", clip, sharpness=0.5, contrast=i / 10)
        if i < 2:
            kit.cell("text", clip, area_max=0.1)
    corpus = kit.write()
    write_recipe(corpus, {"name": "sel"})
    selected(corpus, [])
    facts = facts_of(corpus)
    assert facts["partial_scores"] == [{"column": "text.area_max", "measure": "text.area_max", "n": 1}]
    assert {"quality.contrast", "motion.v2d_px16"} <= {score["column"] for score in facts["other_scores"]}
    with pytest.raises(CorpusError, match="1 clips have no cell of 'text'"):
        selected(corpus, [{"column": "text.area_max", "max": 1.0}])


@pytest.fixture(scope="module")
def report(corpus, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    written = write_report(corpus, selection="sel", pictures=0, out=str(path))
    return Path(written.uri).as_uri()


def card_of(page, column):
    """The number of a score's card."""
    return page.evaluate(
        "async (column) => (await thresholdsSection.ready).others.findIndex((one) => one.score.measure === column)",
        column,
    )


def test_a_card_is_opened_and_moved_and_its_command_selects_that(offline, corpus, report):
    with offline.visit(report) as page:
        i = card_of(page, "quality.contrast")
        expect(page.locator(f"#score-{i}-card > *")).to_have_count(1)  # nothing is drawn before it is opened
        page.locator(f"#score-{i}-card summary").focus()
        page.keyboard.press("Enter")
        slider = page.get_by_role("slider", name="quality.contrast")
        assert slider.get_attribute("aria-valuetext") == "off"
        page.get_by_label("Keep clips with").select_option("at most")
        slider.focus()
        for _ in range(4):
            page.keyboard.press("ArrowLeft")
        score = page.evaluate(f"thresholdsSection.ready.then((found) => found.others[{i}].condition)")
        assert set(score) == {"column", "max"}
        expect(page.locator(f"#score-{i}-card summary .tag")).to_contain_text("≤ ")
        n = page.evaluate("thresholdsSection.ready.then((found) => keptTogether(found).most.n)")
        expect(page.locator("#announcements")).to_have_text(re.compile(f"^Kept together: {n} clips?, "))
        expect(page.locator(".kept-now")).to_contain_text(f"{n} clip")
        expect(page.locator(f"#score-{i}-numbers dd").nth(1)).to_have_text(re.compile(f"^{n} · "))
        alone = page.locator(f"#score-{i}-numbers dd").first.text_content()
        program, *words = shlex.split(page.locator("#export-command").text_content().replace("\\\n", ""))
        snippet = yaml.safe_load(page.locator("#export-recipe").text_content())["select"]["conditions"]
    with connect() as con:
        columns = ["quality.contrast", "quality.outcome", "motion.freeze_ratio"]
        wide = RunTables(con, corpus, "run-1").wide_sql(columns)
        ((count,),) = con.sql(
            f"""SELECT count(*) FROM ({wide}) WHERE "motion.freeze_ratio" <= 0.9 AND "quality.outcome" = 'ok'
            AND "quality.contrast" <= {score["max"]!r}"""
        ).fetchall()
    assert alone.startswith(f"{count} · ")
    assert program == "curate" and snippet == [*CONDITIONS, score]
    ended = curate(*words)
    assert ended.status == 0, ended.err
    funnel = load_funnel(corpus, "mine")
    assert funnel.clips.kept == n > 0
    asked = parse_config(SelectConfig, {"conditions": [*CONDITIONS, score]}, "select").conditions
    assert parse_config(SelectConfig, funnel.config, "select").conditions == asked
    corpus.selections().child("mine", "funnel.json").remove()


PLACE = """async ([scores, axes]) => {
    const thresholds = await thresholdsSection.ready;
    thresholds.reset();
    for (const [i, side, stop] of scores) thresholds.moveOther(thresholds.others[i], stop, side);
    for (const [i, stop] of axes) thresholds.move(i, stop);
    await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
    return { ...keptTogether(thresholds), shown: document.querySelector(".kept-now").textContent };
}"""


def test_of_several_sliders_the_bounds_are_told(offline, corpus, facts, report):
    """Of one such score what is told is exact; of more, what selecting keeps lies between the numbers."""
    draw = random.Random(2)
    with offline.visit(report) as page:
        for round_ in range(8):
            chosen = draw.sample(range(len(facts["other_scores"])), 1 + round_ % 3)
            scores = [
                (i, draw.choice(["min", "max"]), draw.randrange(len(facts["other_scores"][i]["stops"]))) for i in chosen
            ]
            shifted = draw.sample(range(len(facts["axes"])), (0, 0, 1, 2)[round_ % 4])
            axes = [(i, draw.randrange(-1, len(facts["axes"][i]["stops"]))) for i in shifted if i not in {5, 6}]
            found = page.evaluate(PLACE, [scores, axes])
            conditions = yaml.safe_load(page.locator("#export-recipe").text_content())["select"]["conditions"]
            funnel = selected(corpus, conditions, "several")
            n, hours = funnel.clips.kept, funnel.hours.get("kept", 0)
            assert found["least"]["n"] <= n <= found["most"]["n"]
            assert found["least"]["hours"] - 1e-6 <= hours <= found["most"]["hours"] + 1e-6
            if len(scores) == 1 and not axes:
                assert found["exact"] and found["least"]["n"] == n
                assert found["shown"].startswith(f"{n} clip")
        page.get_by_role("button", name="Back to the recipe").click()
        expect(page.locator(".kept-now")).to_contain_text(f"{facts['clips']['kept']} clips")
        expect(page.locator("#export-recipe")).not_to_contain_text("clip.similarity")
    corpus.selections().child("several", "funnel.json").remove()


def test_a_selection_that_asks_nothing_has_all_scores_to_try(offline, tmp_path):
    corpus = make(tmp_path, 4)
    selected(corpus, [], "nothing")
    written = write_report(corpus, selection="nothing", pictures=0)
    with offline.visit(Path(written.uri).as_uri()) as page:
        i = card_of(page, "text.area_max")
        found = page.evaluate(PLACE, [[[i, "max", 3]], []])
        condition = page.evaluate(f"thresholdsSection.ready.then((found) => found.others[{i}].condition)")
        assert page.locator(".axis").count() == 0
    assert found["exact"] and found["least"]["n"] == selected(corpus, [condition]).clips.kept


def test_hostile_names_of_scores_and_the_other_side(offline, tmp_path):
    made = make_facts()
    path = tmp_path / "hostile.html"
    path.write_text(render(json.loads(json.dumps(made.facts, default=float))), encoding="utf-8")
    with offline.visit(path.as_uri()) as page:
        note = page.locator(".note", has_text="Not done of the recipe that this one follows")
        expect(note.get_by_role("listitem")).to_contain_text("by another model")
        i = next(i for i, score in enumerate(made.facts["other_scores"]) if score["label"] == HOSTILE[0])
        page.locator(f"#score-{i}-card summary").click()
        slider = page.get_by_role("slider", name=HOSTILE[0])
        slider.press("Home")
        slider.press("ArrowRight")
        least = made.facts["other_scores"][i]["stops"][0]
        expect(slider).to_have_attribute("aria-valuetext", re.compile("^≥ "))
        page.locator(f"#score-{i}-side").select_option("max")
        expect(page.locator(f"#score-{i}")).to_have_attribute("aria-valuetext", re.compile("^≤ "))
        snippet = yaml.safe_load(page.locator("#export-recipe").text_content())["select"]["conditions"]
        assert snippet[-1] == {"column": "quality.contrast", "name": HOSTILE[0], "max": pytest.approx(least)}
        page.locator(f"#score-{i}-card").get_by_role("button", name=re.compile("^Off")).click()
        expect(page.locator("#export-recipe")).not_to_contain_text("script")
        assert page.evaluate("typeof owned") == "undefined"
        page.evaluate("document.querySelectorAll('.score').forEach((one) => { one.open = true; })")
        expect(page.locator(".score select")).to_have_count(len(made.facts["other_scores"]))
        for nameless in ("svg:not(:has(title))", "input:not([aria-labelledby])", "select:not([id])"):
            assert page.locator("#other-scores").locator(nameless).count() == 0
        ids = page.evaluate("Array.from(document.querySelectorAll('[id]'), (one) => one.id)")
        assert len(ids) == len(set(ids))
