"""One HTML file out of the page's parts and the facts: nothing is loaded from anywhere, and no fact can become markup.

``page/report.html`` says which parts it wants (``<!-- styles: a.css b.css -->``, ``<!-- scripts: a.js b.js -->``) and
where: ``{{policy}}``, ``{{style}}``, ``{{facts}}`` and ``{{script}}`` stand in it once each. The policy
(Content-Security-Policy) forbids every request, and every style and script but those whose digests it names.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import Any

from curate.errors import StorageError

_MARK = re.compile(r"\{\{(policy|style|facts|script)\}\}")
_WANTED = re.compile(r"<!-- (styles|scripts): ([\w. -]+) -->\n?")
_ESCAPES = {ord(sign): f"\\u{ord(sign):04x}" for sign in "<>&\u2028\u2029"}

Read = Callable[[str], str]
"""The text of a part by its name."""


def page_part(name: str) -> str:
    """A part of the page that this package carries; StorageError where it lacks it."""
    try:
        return files("curate.report").joinpath("page", name).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        fix = "Install curate-video again"
        raise StorageError("this installation lacks a part of its reports", subject=name, fix=fix) from error


def render(facts: Mapping[str, Any], read: Read = page_part) -> str:
    """The report as the text of one HTML file. StorageError where the page is not whole."""
    page = read("report.html")
    wanted = {kind: names.split() for kind, names in _WANTED.findall(page)}
    style = "\n".join(map(read, wanted.get("styles", [])))
    script = "\n".join(map(read, wanted.get("scripts", [])))
    pieces = {"policy": _policy(style, script), "style": style, "facts": json_text(facts), "script": script}
    parts = _MARK.split(_WANTED.sub("", page))
    if sorted(parts[1::2]) != sorted(pieces):
        raise StorageError("the page of reports is not whole", fix="Install curate-video again")
    return "".join(pieces[part] if i % 2 else part for i, part in enumerate(parts))


def _policy(style: str, script: str) -> str:
    rules = {
        "default-src": "'none'",
        "img-src": "data:",
        "style-src": f"'{_digest(style)}'",
        "script-src": f"'{_digest(script)}'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    return "; ".join(f"{rule} {value}" for rule, value in rules.items())


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def json_text(facts: Mapping[str, Any]) -> str:
    """JSON in which nothing can end the element that holds it; no NaN, no infinity, no half of a character."""
    text = json.dumps(facts, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode("utf-8", "backslashreplace").decode().translate(_ESCAPES)
