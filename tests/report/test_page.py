"""The report in a browser: opened from disk with networking off, full of text that would like to be more than text."""

from __future__ import annotations

import json
import random
import re
import shlex
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from browser_kit import opened
from facts_kit import HOSTILE, Made, make_facts
from playwright.sync_api import Page, expect
from report_kit import make as make_corpus

from curate.config import parse_config
from curate.recipe import parse_recipe
from curate.report import write_report
from curate.report.html import render
from curate.select import SelectConfig, select


@pytest.fixture(scope="module")
def made() -> Made:
    made = make_facts()
    made.facts = json.loads(json.dumps(made.facts, default=float))
    return made


@pytest.fixture(scope="module")
def url(made, tmp_path_factory) -> str:
    return write(tmp_path_factory.mktemp("report") / "a report of #1.html", made.facts)


def write(path: Path, facts: dict[str, Any]) -> str:
    path.write_text(render(facts), encoding="utf-8")
    return path.as_uri()


@pytest.fixture
def page(offline, url):
    with offline.visit(url) as page:
        page.evaluate("thresholdsSection.ready")
        yield page


def move(page: Page, stops: dict[int, int]) -> dict[str, Any]:
    """Put sliders at these stops (-1: off) as a hand would; what is kept then."""
    return page.evaluate(
        """async (stops) => {
        const thresholds = await thresholdsSection.ready;
        for (const [i, stop] of Object.entries(stops)) {
            const slider = document.getElementById(`axis-${i}`);
            slider.value = placeOf(thresholds.axes[i], stop);
            slider.dispatchEvent(new Event("input"));
        }
        await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
        const { n, ms } = thresholds.counted;
        return { n, ms, shown: document.querySelector(".kept-now").textContent };
    }""",
        {str(i): stop for i, stop in stops.items()},
    )


def position(axis: dict[str, Any], stop: int) -> int:
    return stop if stop < 0 or axis["side"] == "min" else len(axis["stops"]) - 1 - stop


def test_text_of_strangers_stays_text(page):
    assert page.evaluate("typeof owned") == "undefined"
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    for button in page.locator("button.more").all():
        button.click()
    page.locator("#random button.clip").first.click()
    expect(page.locator("dialog")).to_be_visible()
    text = page.evaluate("document.body.innerText")
    for hostile in (HOSTILE[0], HOSTILE[3], "<!--<script>owned=1</script>--> ]]> {{facts}} {{script}} ${owned=1}"):
        assert hostile in text
    assert "\u202e" not in text and "⟨U+202E⟩" in text and "\x1b" not in text and "⟨U+001B⟩" in text
    assert "word " * 1999 in page.evaluate("document.body.textContent")
    names = "(one) => [one.localName, ...one.getAttributeNames()]"
    nodes = page.evaluate(f"Array.from(document.querySelectorAll('*'), {names})")
    assert {node[0] for node in nodes} & {"iframe", "object", "embed", "link", "base", "form"} == set()
    assert [node for node in nodes if any(name.startswith("on") for name in node[1:])] == []
    assert sum(node[0] == "script" for node in nodes) == 2
    assert page.evaluate("Array.from(document.images).every((one) => one.src.startsWith('data:image/jpeg'))")
    assert page.evaluate("typeof owned") == "undefined"


def test_the_policy_forbids_what_the_page_does_not_do(browser, url):
    context = browser.new_context(offline=False)
    page, failed, finished = context.new_page(), [], []
    page.on("requestfailed", lambda request: failed.append((request.url, request.failure)))
    page.on("requestfinished", lambda request: finished.append(request.url))
    page.goto(url)
    broken = page.evaluate(
        """async () => {
        const broken = [];
        document.addEventListener("securitypolicyviolation", (event) => broken.push(event.effectiveDirective));
        const script = document.createElement("script");
        script.textContent = "window.owned = 1";
        document.body.append(script);
        document.body.insertAdjacentHTML("beforeend", '<img src="http://127.0.0.1:9/a.png" onerror="window.owned=1">');
        const style = document.createElement("style");
        style.textContent = "body { color: red }";
        document.body.append(style);
        await fetch("http://127.0.0.1:9/").catch(() => {});
        for (let i = 0; broken.length < 5 && i < 1000; i++) await new Promise((done) => setTimeout(done, 20));
        return broken;
    }"""
    )
    assert set(broken) == {"script-src-elem", "script-src-attr", "img-src", "style-src-elem", "connect-src"}
    assert page.evaluate("typeof owned") == "undefined"
    assert (failed, finished) == ([("http://127.0.0.1:9/a.png", "csp")], [url])
    context.close()


def test_the_first_counts_are_the_recipes(page, made):
    n, hours = made.kept({})
    shown = move(page, {})
    assert (shown["n"], shown["ms"] / 3.6e6) == (n, pytest.approx(hours))
    assert shown["shown"].startswith(f"{n:,} clips · {hours:.1f} h · ")
    for i, axis in enumerate(made.facts["axes"]):
        alone = made.stands & (made.coordinates[:, i] > position(axis, axis["start"]))
        assert page.locator(f"#axis-{i}-numbers dd").first.text_content().startswith(f"{alone.sum():,} · ")


def test_sliders_count_what_the_clips_say(page, made):
    draw = random.Random(7)
    axes = made.facts["axes"]
    for _ in range(20):
        stops = {i: draw.randrange(-1, len(axes[i]["stops"])) for i in made.free}
        found = move(page, stops)
        n, hours = made.kept({i: position(axes[i], stop) for i, stop in stops.items()})
        assert (found["n"], found["ms"] / 3.6e6) == (n, pytest.approx(hours))
        assert found["shown"].startswith(f"{n:,} clip")


def test_what_only_one_condition_drops(page, made):
    axes = made.facts["axes"]
    move(page, {0: 5, 2: 3})
    at = {0: position(axes[0], 5), 2: position(axes[2], 3)}
    for i in made.free:
        n = made.kept(at | {i: -1})[0] - made.kept(at)[0]
        assert f"Dropped by this only{n:,} · " in page.locator(f"#axis-{i}-numbers").text_content()


def test_a_slider_by_the_keyboard(page, made):
    axis = made.facts["axes"][2]
    assert axis["side"] == "max"
    slider = page.get_by_role("slider", name=axis["label"])
    slider.focus()
    page.keyboard.press("ArrowLeft")
    stop = axis["start"] - 1
    n, _ = made.kept({2: position(axis, stop)})
    expect(page.locator(".kept-now")).to_contain_text(f"{n:,} clips")
    said = float(slider.get_attribute("aria-valuetext").removeprefix("≤ "))
    assert said == pytest.approx(axis["stops"][stop], rel=1e-3)
    expect(page.locator("#announcements")).to_have_text(re.compile(f"^Kept together: {n:,} clips, "))
    page.keyboard.press("End")
    n, _ = made.kept({2: -1})
    expect(page.locator(".kept-now")).to_contain_text(f"{n:,} clips")
    assert slider.get_attribute("aria-valuetext") == "off"
    page.keyboard.press("Home")
    assert move(page, {})["n"] == made.kept({2: position(axis, 0)})[0]
    page.get_by_role("button", name="Back to the recipe").click()
    assert move(page, {})["n"] == made.kept({})[0]
    expect(page.get_by_role("button", name="Back to the recipe")).to_be_disabled()


def test_a_slider_that_is_not_counted_with_the_others_counts_alone(page, made):
    (i,) = set(range(len(made.facts["axes"]))) - set(made.free)
    axis = made.facts["axes"][i]
    assert move(page, {i: 9})["n"] == made.kept({})[0]
    alone = made.stands & (made.coordinates[:, i] > position(axis, 9))
    assert page.locator(f"#axis-{i}-numbers dd").first.text_content().startswith(f"{alone.sum():,} · ")
    assert f"{axis['label']}, min: 12" in page.locator("#export-recipe").text_content()


def test_a_press_on_a_histogram_takes_the_nearest_stop(page, made):
    axis = made.facts["axes"][1]
    plot = page.locator("#threshold-1 .plot")
    plot.click(position={"x": plot.bounding_box()["width"] / 2, "y": 60})
    middle = (axis["edges"][0] + axis["edges"][-1]) / 2
    nearest = min(range(len(axis["stops"])), key=lambda k: abs(axis["stops"][k] - middle))
    assert move(page, {})["n"] == made.kept({1: position(axis, nearest)})[0]


@pytest.mark.parametrize("stops", [{}, {0: 3}, {0: 2, 2: 4, 4: 1}, {1: -1, 3: 0}, {2: -1}, {0: -1, 1: -1, 2: -1}])
def test_what_is_taken_away_means_what_the_sliders_say(page, made, stops):
    move(page, stops)
    text = yaml.safe_dump(
        {"name": "svd-small", "stages": ["probe"], "select": {"conditions": made.facts["conditions"]}}
    )
    program, *words = shlex.split(page.locator("#export-command").text_content().replace("\\\n", ""))
    assert [program, *words[:4]] == ["curate", "select", "s3://bucket/corpus", "--name", "mine"]
    assert words[4::2] == ["--set"] * len(words[5::2])
    sets = [word if word.startswith("select.") else f"select.conditions.{word}" for word in words[5::2]]
    found = parse_recipe(text, "test", sets).select.conditions
    snippet = yaml.safe_load(page.locator("#export-recipe").text_content())["select"]
    assert parse_config(SelectConfig, snippet, "select").conditions == found
    wanted = []
    for i, condition in enumerate(made.facts["conditions"]):
        axis = made.facts["axes"][i] if i < len(made.facts["axes"]) else {"start": None}
        stop = stops.get(i, axis["start"])
        if stop == axis["start"]:
            wanted.append(condition)
        elif stop >= 0:
            kept = {key: value for key, value in condition.items() if not key.startswith("drop_")}
            wanted.append(kept | {axis["side"]: axis["stops"][stop]})
    assert found == parse_config(SelectConfig, {"conditions": wanted}, "select").conditions


@pytest.mark.parametrize("leave", [True, False])
def test_copying(browser, url, leave):
    with opened(browser, url, offline=True, permissions=["clipboard-read", "clipboard-write"]) as page:
        if not leave:
            page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(new Error('no leave')); }")
        page.get_by_role("button", name="Copy: As a command").click()
        expect(page.locator("#announcements")).to_have_text("As a command copied")
        assert page.evaluate("navigator.clipboard.readText()") == page.locator("#export-command").text_content()


def test_a_histogram_that_cannot_be_read_is_told_and_the_rest_stands(offline, made, tmp_path):
    facts = made.facts | {"joint": made.facts["joint"] | {"data": made.facts["joint"]["data"][:400]}}
    with offline.visit(write(tmp_path / "broken.html", facts)) as page:
        expect(page.locator("#thresholds .note.bad")).to_contain_text("cannot be read in this browser")
        expect(page.locator("#provenance h2")).to_have_text("Recipe")
        expect(page.locator(".kept-now")).to_have_text("not counted")
        page.get_by_role("slider").first.press("End")
        expect(page.locator("#axis-0-numbers dd").first).to_contain_text(" · ")


EMPTY = {
    "clips": dict.fromkeys(("found", "kept", "dropped", "failed"), 0),
    "hours": dict.fromkeys(("found", "kept", "dropped", "failed"), 0),
    "funnel": {"steps": [], "input_reasons": [], "clip_reasons": []},
    "buckets": {"rows": [], "none": []},
    "duplicates": {"n": 0, "pairs": []},
    **dict.fromkeys(("retention", "bottleneck")),
    **{name: [] for name in ("fixed", "random", "captions", "scores", "categories", "distributions")},
    **{name: [] for name in ("failures", "stages", "other_scores", "partial_scores")},
    **{name: {} for name in ("stand_ins", "lacks", "clip_facts", "pictures", "models")},
}  # fmt: skip


def test_a_corpus_in_which_there_is_nothing(offline, made, tmp_path):
    bare = made.facts["axes"][0]
    unknown = {"edges": [], "counts": [], "median": None, "n": 0, "near": [], "best": [], "worst": []}
    none = {"alone_n": [0] * len(bare["alone_n"]), "alone_hours": [0] * len(bare["alone_n"]), "never_n": 0}
    joint = {"axes": [], "cells": 0, "data": "AwA="}
    facts = made.facts | EMPTY | {"axes": [bare | unknown | none], "conditions": [], "joint": joint}
    with offline.visit(write(tmp_path / "empty.html", facts)) as page:
        expect(page.locator(".kept-now")).to_have_text("0 clips · 0 h · –")
        page.get_by_role("slider").press("Home")
        expect(page.locator("#failures")).to_have_text("FailuresNothing failed.")
        expect(page.locator("#duplicates p")).to_have_text("No near-duplicates were removed.")
        assert not re.search("NaN|undefined", page.locator("main").inner_text())
    with offline.visit(write(tmp_path / "bare.html", facts | {"axes": []})) as page:
        expect(page.locator("#thresholds p")).to_have_text("The selection has no conditions on numbers.")


@pytest.mark.parametrize("width", [320, 360, 768, 1280])
def test_nothing_is_wider_than_the_screen(offline, url, width):
    with offline.visit(url, size={"width": width, "height": 700}) as page:
        page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_page_is_whole_without_eyes(page):
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    for role in ("banner", "navigation", "main"):
        expect(page.get_by_role(role)).to_have_count(1)
    levels = page.evaluate("Array.from(document.querySelectorAll('h1, h2, h3, h4'), (one) => Number(one.localName[1]))")
    assert levels[0] == 1 and all(b - a <= 1 for a, b in pairwise(levels))
    bare = "Array.from(document.querySelectorAll({0}), (one) => one.outerHTML.slice(0, 200))"
    for selector in (
        "'table:not(:has(caption))', 'img:not([alt])', 'th:not([scope])'",
        "'svg:not(:has(title)), input:not([id]):not([type=checkbox])'",
        "'button button, a button, button a'",
    ):
        assert page.evaluate(bare.replace("{0}", selector)) == []
    ids = page.evaluate("Array.from(document.querySelectorAll('[id]'), (one) => one.id)")
    assert len(ids) == len(set(ids))
    for name in page.evaluate("Array.from(document.querySelectorAll('nav a'), (one) => one.hash)"):
        expect(page.locator(name)).to_have_count(1)


def test_light_and_dark(browser, url):
    ground = "getComputedStyle(document.body).backgroundColor"
    with opened(browser, url, offline=True, color_scheme="dark") as page:
        dark = page.evaluate(ground)
        page.get_by_role("button", name="Theme").click()
        light = page.evaluate(ground)
        page.get_by_role("button", name="Theme").click()
        assert page.evaluate(ground) == dark
    with opened(browser, url, offline=True, color_scheme="light") as page:
        assert page.evaluate(ground) == light != dark


def test_numbers_and_text_in_words(page):
    cases = {
        "count(1234567)": "1,234,567",
        "value(0.00001234)": "1.23e-5",
        "value(0.123456)": "0.1235",
        "value(12345.6)": "12,346",
        "value(null)": "–",
        "hours(0)": "0 h",
        "hours(0.001)": "3.6 s",
        "hours(0.5)": "30.0 min",
        "hours(12.34)": "12.3 h",
        "hours(1234.5)": "1,235 h",
        "seconds(0.0123)": "12.3 ms",
        "clock(3.2)": "3.20 s",
        "clock(3723.5)": "1:02:03.5",
        "clock(119.99)": "2:00.0",
        "percent(1, 3)": "33.3 %",
        "percent(1, 100000)": "<0.1 %",
        "percent(99999, 100000)": ">99.9 %",
        "percent(0, 5)": "0 %",
        "percent(5, 5)": "100 %",
        "signed(-3)": "−3",
        "yamlNumber(1e-7)": "1.0e-7",
        "yamlValue('no')": '"no"',
        "yamlValue('a b.c')": "a b.c",
        "yamlValue('it: x')": '"it: x"',
        'shellWord("it\'s")': "'it'\\''s'",
        "shellWord('a\\u001bb')": "$'a\\u001bb'",
        "baseName('s3://a/b/c.mp4')": "c.mp4",
        "visible('a\\u202eb\\u0007')": "a⟨U+202E⟩b⟨U+0007⟩",
        "visible('\\ud83d \\ud83d\\ude00')": "⟨U+D83D⟩ 😀",
    }
    assert {code: page.evaluate(code) for code in cases} == cases


def test_sliders_over_a_corpus_keep_what_select_keeps(offline, tmp_path):
    corpus = make_corpus(tmp_path, 12)
    written = write_report(corpus, pictures=0)
    draw = random.Random(3)
    with offline.visit(Path(written.uri).as_uri()) as page:
        axes = page.evaluate("thresholdsSection.ready.then((found) => found.axes)")
        free = page.evaluate("thresholdsSection.ready.then((found) => found.free)")
        assert len(free) == len(axes) > 5
        low, high = (i for i in free if axes[i]["column"] == "quality.sharpness")
        expect(page.locator("#export .note.warn")).to_be_hidden()
        move(page, {low: len(axes[low]["stops"]) - 1, high: 0})
        expect(page.locator("#export .note.warn")).to_contain_text("quality.sharpness: selecting refuses that")
        for round_ in range(6):
            stops = {i: draw.randrange(-1 if round_ % 2 else 0, len(axes[i]["stops"])) for i in free}
            if min(stops[low], stops[high]) >= 0 and axes[low]["stops"][stops[low]] > axes[high]["stops"][stops[high]]:
                stops[low] = -1
            found = move(page, stops)
            snippet = yaml.safe_load(page.locator("#export-recipe").text_content())["select"]
            rule = {"name": "asked", "dedup": {"method": "none"}, **snippet}
            funnel = select(corpus, parse_config(SelectConfig, rule, "select"))
            assert (found["n"], found["ms"] / 3.6e6) == (
                funnel.clips.kept,
                pytest.approx(funnel.hours.get("kept", 0), abs=1e-6),
            )


def test_what_is_outdated_stands_first_with_the_way_out(offline, made, tmp_path):
    again = "curate select s3://bucket/corpus --name svd-small"
    facts = {**made.facts, "judged_otherwise": 3, "commands": {"again": again}}
    with offline.visit(write(tmp_path / "old.html", facts)) as page:
        note = page.locator("#overview > .note").first
        expect(note).to_contain_text("3 clips would be judged otherwise now")
        expect(note.locator("code")).to_have_text(again)
        assert page.locator("#export-command").count() == 0 and page.locator("#export-recipe").count() == 1


def test_a_slider_says_that_it_goes_by_rank(page, made):
    axis = made.facts["axes"][0]
    move(page, {0: 2})
    control = page.locator("#threshold-0 .axis-control")
    expect(control).to_contain_text(f"stop 3 of {len(axis['stops'])}")
    first, middle, last = control.locator(".stops span").all()
    assert float(first.text_content()) == pytest.approx(axis["stops"][0], rel=1e-3)
    assert float(last.text_content()) == pytest.approx(axis["stops"][-1], rel=1e-3)
    assert first.bounding_box()["x"] < middle.bounding_box()["x"] < last.bounding_box()["x"]
    expect(control).to_contain_text("The slider goes by rank")
    assert page.evaluate("[value(-0), value(0), value(-0.5)]") == ["0", "0", "-0.5"]


def test_on_a_telephone_wide_tables_become_blocks_and_others_show_that_they_scroll(page):
    page.set_viewport_size({"width": 360, "height": 800})
    for section in ("#funnel .funnel", "#time"):
        scroll = page.locator(f"{section} .scroll").first
        assert scroll.evaluate("(one) => one.scrollWidth <= one.clientWidth")
    cell = page.locator("#funnel .funnel tbody tr").nth(1).get_by_role("cell").filter(has_text="").nth(0)
    assert cell.evaluate("(one) => getComputedStyle(one, '::before').content") == '"Drops here"'
    assert page.locator("#funnel .funnel").get_by_role("row").count() > 3
    shade = "(one) => getComputedStyle(one).backgroundImage.split('linear-gradient').length - 1"
    assert page.locator("#funnel .reasons .scroll").first.evaluate(shade) == 4
