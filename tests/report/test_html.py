"""The page and the facts become one file in which nothing but the page is markup or program."""

from __future__ import annotations

import base64
import hashlib
import json
import re

import pytest

from curate.errors import StorageError
from curate.report.html import json_text, page_part, render

PARTS = {
    "report.html": """<!doctype html>
<meta http-equiv="Content-Security-Policy" content="{{policy}}">
<!-- styles: a.css b.css -->
<style>{{style}}</style>
<script type="application/json" id="facts">{{facts}}</script>
<!-- scripts: a.js b.js -->
<script>{{script}}</script>
""",
    "a.css": "p { color: red }",
    "b.css": "q { color: blue }",
    "a.js": 'const a = "{{facts}}";',
    "b.js": "go(a);",
}
HOSTILE = {
    "name": "</script><script>alert(1)</script><!--<script>",
    "mark": "{{script}} {{policy}} & &lt; \u2028 \u2029 ]]>",
    "half": "\ud83d and \U0001f600",
    "number": 0.1,
}


def test_facts_come_back_as_they_were_and_end_nothing():
    page = render(HOSTILE, PARTS.__getitem__)
    data = re.search(r'<script type="application/json" id="facts">(.*?)</script>', page, re.DOTALL)[1]
    assert json.loads(data) == HOSTILE
    assert not set("<>&\u2028\u2029") & set(data)
    assert page.count("<script") == 2 and page.count("</script>") == 2 and "<!--" not in page
    page.encode()


def test_the_policy_names_the_only_style_and_the_only_script():
    page = render(HOSTILE, PARTS.__getitem__)
    policy = re.search(r'content="([^"]*)"', page)[1]
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == "'none'" and rules["img-src"] == "data:"
    for kind, tag in (("style-src", "style"), ("script-src", "script")):
        body = re.search(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)[1]
        digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
        assert rules[kind] == f"'sha256-{digest}'"
    assert 'const a = "{{facts}}";\ngo(a);' in page


def test_numbers_that_json_does_not_know_are_refused():
    with pytest.raises(ValueError, match="not JSON compliant"):
        json_text({"x": float("nan")})


@pytest.mark.parametrize("missing", ["{{facts}}", "{{policy}}"])
def test_a_page_without_a_place_for_something_is_refused(missing):
    parts = {**PARTS, "report.html": PARTS["report.html"].replace(missing, "")}
    with pytest.raises(StorageError, match="not whole"):
        render({}, parts.__getitem__)


def test_the_page_of_this_package_is_whole():
    page = render({"a": 1})
    assert "{{" not in re.sub(r"<script>.*</script>", "", page, flags=re.DOTALL) and page.startswith("<!doctype html>")
    with pytest.raises(StorageError, match=r"nothing\.js"):
        page_part("nothing.js")
