"""Every command, program and output in the documentation, run and compared."""

from __future__ import annotations

import os
from collections import Counter

import pytest
from docs_kit import NOT_RUN, PAGES, ROOT, RUN_LANGUAGES, blocks, differs, page_notes
from docs_run import check_options

LONG = bool(os.environ.get("DOCS_LONG"))
"""Whether blocks of some minutes are run too: `make docs-check`."""

AT_MOST = {"cluster": 5, "no cluster": 4, "hub weights": 7, "minutes": 3, "installs": 2, "another machine": 1}
"""How many blocks are not run, by reason. One more is a decision."""

FOLLOWED = [page for page in PAGES if any(block.language in RUN_LANGUAGES for block in blocks(page))]
HERE = [page for page in FOLLOWED if "checked by" not in page_notes(page)]


def name_of(page):
    return str(page.relative_to(ROOT))


def is_run(block):
    reason = block.notes.get("not run")
    does = block.language in RUN_LANGUAGES or "file" in block.notes
    return does and (reason is None or (LONG and reason == "minutes"))


@pytest.mark.parametrize("page", [page for page in HERE if any(map(is_run, blocks(page)))], ids=name_of)
def test_a_page_does_what_it_says(page, sandbox, reader):
    somebody = reader(sandbox(page_notes(page).get("sandbox", "two")))
    for block in filter(is_run, blocks(page)):
        somebody.follow(block)


@pytest.mark.parametrize("page", FOLLOWED, ids=name_of)
def test_options_of_commands_are_real_whether_they_are_run_or_not(page):
    for block in blocks(page):
        for command in block.commands() if block.language == "console" else ():
            check_options(command)


def test_what_is_not_run_has_a_reason_and_no_more_comes_unnoticed():
    reasons = Counter(block.notes["not run"] for page in PAGES for block in blocks(page) if "not run" in block.notes)
    assert set(AT_MOST) <= set(NOT_RUN)
    assert {reason: n for reason, n in reasons.items() if n > AT_MOST.get(reason, 0)} == {}


@pytest.mark.parametrize("page", [page for page in FOLLOWED if page not in HERE], ids=name_of)
def test_a_page_with_a_test_of_its_own_is_named_there(page):
    test = ROOT / page_notes(page)["checked by"]
    name = page.parent.name if page.name == "README.md" else page.name
    assert name in test.read_text()


def test_outputs_are_compared():
    said = "Run 20261122T031304.379994Z-16c269 is complete after 23 s.\n...\nclips  29  19\nshare 0.251 of 1.0 MiB\n"
    got = "Run 20270101T031304.379994Z-ffc269 is complete after 1 min 3 s.\nx\nclips   29 19\nshare 0.26 of 12 bytes\n"
    assert differs(said, got) == ""
    assert differs(said, got.replace("19", "20"))
    assert differs(said, got.replace("0.26", "0.36"))
    assert differs(said, got.replace("is complete", "has ended"))
    assert differs(said, got + "more\n")
    assert differs("a … c\n...\n", "a b c\nd\n") == "" and differs("a … c\n", "a b d\n")
