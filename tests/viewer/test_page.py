"""The page in a real browser: it plays, filters, marks, and takes what strangers wrote for text."""

from __future__ import annotations

import json
import re
import signal
import time
from urllib.parse import urlencode

import duckdb
import pytest
from browser_kit import PATIENCE_MS, opened, tab
from cli_kit import curate, start
from view_kit import FILE_NAME, HOSTILE

from curate.marks import Mark, marks

READABLE = {"column": "text.outcome", "in": ["ok"]}
"""All clips but the one whose film is gone."""

NAMELESS = """[...document.querySelectorAll('button, input, select, a')].filter((one) => one.checkVisibility()
    && !(one.labels?.length || one.getAttribute('aria-label') || one.textContent.trim())).map((one) => one.outerHTML)"""


@pytest.fixture(scope="module")
def mine(made, tmp_path_factory):
    return made.copy(tmp_path_factory.mktemp("paged") / "corpus")


@pytest.fixture(scope="module")
def url(mine):
    """Where `curate view` serves the corpus, as a user starts and ends it."""
    process = start("view", mine.corpus.uri, "--port", 0, "--no-open")
    try:
        line = process.stdout.readline()
        yield re.search(r"http://[\d.]+:\d+/", line)[0]
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        assert "Ended" in process.stdout.read()
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def window(browser):
    """A tab in which tests load a page each."""
    with tab(browser) as found:
        yield found


def address(url, clip="", **question):
    asked = {"filters": [READABLE], **question}
    return f"{url}#{urlencode({'q': json.dumps(asked), **({'clip': clip} if clip else {})})}"


def shown(page):
    page.wait_for_selector("#clips:not([aria-busy])", state="attached")
    return [each.get_attribute("data-id") for each in page.query_selector_all("#clips .clip")]


def ask_for(page, act):
    """Do something that asks the server for clips, and wait until they are there."""
    with page.expect_response(lambda answer: "/api/clips?" in answer.url):
        act()
    page.wait_for_selector("#clips:not([aria-busy])", state="attached")


def box(label):
    """The choice of this label."""
    return f"label:has(> span:text-is('{label}')) select"


def until(page, script):
    """Ask until it is so: the page's policy lets nothing be evaluated inside it that could wait there."""
    end_s = time.monotonic() + PATIENCE_MS / 1e3
    while not page.evaluate(script):
        assert time.monotonic() < end_s, script
        page.wait_for_timeout(50)


def advances(page, video):
    """The width of a video that plays."""
    now = f"(document.querySelector({video!r})?.currentTime ?? 0)"
    until(page, f"{now} > 0.05")
    first = page.evaluate(now)
    until(page, f"{now} !== {first}")
    return page.evaluate(f"document.querySelector({video!r}).videoWidth")


def test_a_clip_plays_under_the_pointer_and_large(mine, url, window):
    with window.visit(address(url), allowed=url) as page:
        clip = mine.a[4]
        page.hover(f"#clip-{clip}")
        assert advances(page, f"#clip-{clip} video") == 160
        page.click(f"#clip-{clip}")
        assert advances(page, "#player") == 160
        page.focus(f"#clip-{clip}")
        page.keyboard.press("Space")
        assert page.evaluate("document.getElementById('player').paused")
        page.keyboard.press("Space")
        assert not page.evaluate("document.getElementById('player').paused")
        page.keyboard.press("Escape")
        assert page.is_hidden("aside")


def test_what_the_run_did_not_do_of_its_recipe_is_said(url, window):
    with window.visit(address(url), allowed=url) as page:
        shown(page)
        assert page.is_hidden("main .note")
        page.click("main summary:has-text('otherwise than its recipe')")
        said = page.inner_text("main .note")
        assert "Not done of the recipe" in said and "tracking: " in said


def test_where_motion_is_not_wanted_nothing_plays_by_itself(mine, url, browser):
    with opened(browser, address(url, clip=mine.a[4]), allowed=url, reduced_motion="reduce") as page:
        page.wait_for_selector(".marks")
        page.hover(f"#clip-{mine.a[3]}")
        page.wait_for_timeout(400)
        assert page.query_selector(".clip video") is None
        assert page.evaluate("document.getElementById('player').paused")


def test_marks_by_keys_are_in_the_corpus_and_selections_use_them(mine, url, window, tmp_path):
    with window.visit(address(url), allowed=url) as page:
        order = shown(page)
        page.focus(f"#clip-{order[0]}")
        for key in "jyjnjyu":
            answers = page.expect_response("**/api/marks") if key in "ynu" else None
            if answers:
                with answers:
                    page.keyboard.press(key)
            else:
                page.keyboard.press(key)
        page.keyboard.press("k")
        page.keyboard.press("k")
        assert page.evaluate("document.activeElement.dataset.id") == order[1]
        page.click(f"#clip-{order[1]}")
        page.fill("#note", "Grüße <i>")
        with page.expect_response("**/api/marks"):
            page.click("[data-mark=keep]")
        page.wait_for_selector("[data-mark=keep][aria-pressed=true]")
        assert "marked 1 keep, 1 drop" in page.inner_text("#masthead")
        assert page.inner_text(f"#clip-{order[2]} .badge") == "✕ drop"
    found = marks(mine.corpus)
    assert {clip: (mark.verdict, mark.note) for clip, mark in found.items()} == {
        order[1]: ("keep", "Grüße <i>"),
        order[2]: ("drop", ""),
    }
    assert isinstance(found[order[1]], Mark)
    recipe = tmp_path / "r.yaml"
    recipe.write_text("{name: r, stages: [probe, cut, motion, quality], select: {name: r, dedup: {method: none}}}")
    options = ["--recipe", recipe, "--name", "rest", "--set", "mark.verdict.not_in=[drop]"]
    ended = curate("select", mine.corpus.uri, *options)
    assert ended.status == 0, ended.err
    assert re.search(rf"clips +{len(mine.ids)} +{len(mine.ids) - 1} ", ended.out)
    assert "marked keep" in curate("show", mine.corpus.uri, order[1], "--png", tmp_path / "x.png").out


def test_what_strangers_wrote_is_text(mine, url, window):
    with window.visit(address(url, clip=mine.odd, show=[]), allowed=url) as page:
        page.wait_for_selector(".marks")
        panel = page.inner_text("aside")
        assert FILE_NAME in panel
        assert HOSTILE.replace("\u202e", "⟨U+202E⟩") in panel
        page.select_option(box("Filter by column"), "text.words")
        page.wait_for_selector(".values input")
        page.fill("#note", HOSTILE)
        with page.expect_response("**/api/marks"):
            page.click("[data-mark=drop]")
        page.wait_for_selector("[data-mark=drop][aria-pressed=true]")
        page.reload()
        page.wait_for_selector(".marks")
        assert page.input_value("#note") == HOSTILE
        assert page.evaluate("window.pwned") is None
        assert page.query_selector("img[src=x], svg[onload], main script") is None


def test_filters_search_and_order_agree_with_the_tables(mine, url, window):
    cells = f"read_parquet('{mine.corpus.root.path}/tables/cells/text/*/*.parquet')"
    sql = f"SELECT key FROM {cells} WHERE outcome = 'ok' AND area_max BETWEEN 0.01 AND 0.045 ORDER BY area_max DESC"
    wanted = [key for (key,) in duckdb.sql(sql).fetchall()]
    with window.visit(address(url), allowed=url) as page:
        shown(page)
        page.select_option(box("Filter by column"), "text.area_max")
        for label, text in (("at least", "0.01"), ("at most", "0.045")):
            limit = page.locator(f".filter label:has-text('{label}') input")
            limit.fill(text)
            ask_for(page, limit.blur)
        ask_for(page, lambda: page.select_option(box("Sort by"), "text.area_max"))
        ask_for(page, lambda: page.select_option(box("Order"), "down"))
        assert shown(page) == wanted
        assert page.inner_text("#count").startswith(f"{len(wanted)} clips of {len(mine.ids)}")
        ask_for(page, lambda: page.select_option(box("Selection"), "strict"))
        ask_for(page, lambda: page.select_option(box("Verdict"), "dropped"))
        assert shown(page) == wanted[:2]
        kept = page.url
        ask_for(page, lambda: page.fill("#search", "clip 3"))
        assert shown(page) == [mine.a[3]]
        ask_for(page, page.go_back)
        assert (shown(page), page.url) == (wanted[:2], kept)
        assert page.input_value(box("Verdict")) == "dropped"


def test_a_link_leads_to_a_clip_in_its_source(mine, url, window):
    with window.visit(address(url, clip=mine.a[2], selection="strict"), allowed=url) as page:
        page.wait_for_selector(".timeline")
        pieces = page.query_selector_all(".timeline .piece")
        assert [piece.get_attribute("aria-current") for piece in pieces] == [None, None, "true", None, None]
        assert "dropped" in pieces[4].get_attribute("aria-label")
        with page.expect_response(f"**/api/clips/{mine.a[3]}*"):
            page.click("text=after →")
        page.wait_for_selector("aside :text('text.area_max above 0.025')")
        assert mine.a[3] in page.url


def test_a_film_that_is_gone_says_so_in_its_place(mine, url, browser):
    page = browser.new_page()
    page.goto(f"{url}#{urlencode({'clip': mine.gone})}")
    for place in (f"#clip-{mine.gone} .no-picture", "aside > .no-picture"):
        assert "is gone" in page.wait_for_selector(place).inner_text()
    page.wait_for_selector(".timeline")
    assert "text could not be measured" in page.inner_text("aside")
    assert page.input_value(box("Selection")) == page.evaluate("state.facts.selections[0]") != ""
    ask_for(page, lambda: page.fill("#search", "nothing like it"))
    assert shown(page) == []
    ask_for(page, lambda: page.click("text=Clear all"))
    assert sorted(shown(page)) == sorted(mine.ids)
    page.close()


def test_it_fits_and_everything_has_a_name(mine, url, window):
    with window.visit(address(url, clip=mine.a[0]), allowed=url, size={"width": 360, "height": 740}) as page:
        page.wait_for_selector(".timeline")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert page.evaluate(NAMELESS) == []
        for scheme, color in (("dark", "rgb(18, 21, 24)"), ("light", "rgb(245, 246, 247)")):
            page.emulate_media(color_scheme=scheme)
            assert page.evaluate("getComputedStyle(document.body).backgroundColor") == color
        page.set_viewport_size({"width": 1280, "height": 720})
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert page.evaluate(NAMELESS) == []
