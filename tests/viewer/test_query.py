"""Questions of the page: every one answered as plain Python answers it, and nothing but values gets into the SQL."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from view_kit import HOSTILE

from curate.config import parse_config
from curate.errors import ConfigError
from curate.viewer.query import Ask

TEXTS = [
    "clip 0: a täxture",
    "clip 1: a täxture",
    "clip 2: a täxture",
    "clip 3: a täxture",
    "clip 4: a täxture",
    HOSTILE,
]
WORDS = [["EXIT"], [], ["Exit 7"], [], [], [HOSTILE, "SALE"]]
CAPTION, AREA, SEEN, ALIKE = "caption.template.caption", "text.area_max", "text.words", "similarity.all"


def rows(made):
    """What the kit wrote, clip by clip; the clip whose film is gone has no text cell."""
    found = {clip: {AREA: 0.01 * n, SEEN: WORDS[n], CAPTION: TEXTS[n]} for n, clip in enumerate([*made.a, made.odd])}
    found = {clip: {**row, ALIKE: (0.1 * n + 0.3) / 2} for n, (clip, row) in enumerate(found.items())}
    return {**found, made.gone: {AREA: None, SEEN: None, CAPTION: "clip 0: a täxture", ALIKE: None}}


def ask(view, **question):
    answer = view.get("/api/clips", params={"q": json.dumps(question)})
    assert answer.status_code == 200, answer.text
    return answer.json()


def ids(view, **question):
    return [clip["clip_id"] for clip in ask(view, **question)["clips"]]


bounds = st.sampled_from([0.0, 0.01, 0.02, 0.024, 0.05, 1.0, -1.0])
filters = st.one_of(
    st.builds(lambda low: {"column": AREA, "min": low}, bounds),
    st.builds(lambda low, high: {"column": AREA, "min": min(low, high), "max": max(low, high)}, bounds, bounds),
    st.builds(lambda high: {"column": ALIKE, "max": 5 * high}, bounds),
    st.builds(lambda has: {"column": AREA, "has": has}, st.booleans()),
    st.builds(lambda has: {"column": SEEN, "has": has}, st.booleans()),
    st.builds(lambda text: {"column": CAPTION, "contains": text}, st.sampled_from(["TÄX", "clip 1", "'", "%", "<IMG"])),
    st.builds(lambda text: {"column": SEEN, "contains": text}, st.sampled_from(["exit", "7", "OR 1=1", "_"])),
    st.builds(lambda which: {"column": SEEN, "in": which}, st.sampled_from([["EXIT"], ["SALE", "x"], [HOSTILE]])),
    st.builds(lambda which: {"column": CAPTION, "not_in": which}, st.sampled_from([TEXTS[:2], [HOSTILE], ["x"]])),
)


def passes(row, f):
    got = row[f["column"]]
    if "has" in f:
        return (got not in (None, [])) == f["has"]
    if "contains" in f:
        texts = got if isinstance(got, list) else [got] if got else []
        return any(f["contains"].lower() in text.lower() for text in texts)
    if "in" in f:
        return bool(set(got if isinstance(got, list) else [got]) & set(f["in"])) if got else False
    if "not_in" in f:
        return got not in f["not_in"]
    return got is not None and f.get("min", -math.inf) <= got <= f.get("max", math.inf)


@settings(max_examples=40)
@given(
    st.lists(filters, max_size=3),
    st.sampled_from(["", "exit", "clip täxture", "TÄXTURE 3", "sale", "1=1 pwned", "nothing like it"]),
    st.sampled_from(["", AREA, ALIKE, CAPTION]),
    st.booleans(),
)
def test_every_answer_is_that_of_plain_python(made, view, asked, search, sort, descending):
    known = rows(made)

    def said(row):
        text = " ".join([row[CAPTION], *(row[SEEN] or [])]).lower()
        return all(word in text for word in search.lower().split())

    wanted = {clip for clip, row in known.items() if all(passes(row, f) for f in asked) and said(row)}
    found = ask(view, filters=asked, search=search, sort=sort, descending=descending)
    order = [clip["clip_id"] for clip in found["clips"]]
    assert (set(order), found["n"]) == (wanted, len(wanted))
    if sort:
        values = [known[clip][sort] for clip in order]
        some = [value for value in values if value is not None]
        assert values == sorted(some, reverse=descending) + [None] * (len(values) - len(some))


def test_pages_follow_each_other_without_gap(made, view):
    whole = ids(view, sort=AREA)
    assert sorted(whole) == sorted(made.ids)
    assert [clip for at in range(0, 7, 3) for clip in ids(view, sort=AREA, offset=at, limit=3)] == whole
    assert ids(view, offset=100) == []


def test_verdicts_of_a_selection_are_columns(made, view):
    found = ask(view, selection="strict", filters=[{"column": "selection.strict", "in": ["kept"]}])
    assert {clip["clip_id"] for clip in found["clips"]} == set(made.a[:3])
    assert {clip["selection.strict"] for clip in found["clips"]} == {"kept"}
    (failed,) = ask(view, filters=[{"column": "reason.strict", "contains": "could not be measured"}])["clips"]
    assert failed["clip_id"] == made.gone
    assert ids(view, filters=[{"column": "text.outcome", "in": ["failed"]}]) == [made.gone]


BAD = [
    {"filters": [{"column": "text.area_max; DROP TABLE clips", "min": 0}]},
    {"filters": [{"column": 'text.area_max" OR 1=1 --', "min": 0}]},
    {"filters": [{"column": "clip", "has": True}]},
    {"filters": [{"column": AREA}]},
    {"filters": [{"column": AREA, "min": 0, "has": True}]},
    {"filters": [{"column": AREA, "min": 2, "max": 1}]},
    {"filters": [{"column": AREA, "min": "0) OR (1=1"}]},
    {"filters": [{"column": AREA, "contains": "1"}]},
    {"filters": [{"column": CAPTION, "min": 1}]},
    {"filters": [{"column": AREA, "in": ["x"]}]},
    {"filters": [{"column": AREA, "in": []}]},
    {"filters": [{"column": AREA, "has": True}] * 33},
    {"sort": "clip_id DESC"},
    {"sort": "similarity.embeddin"},
    {"sort": SEEN},
    {"show": ["nothing.here"]},
    {"selection": "../../x"},
    {"limit": 0},
    {"limit": 201},
    {"offset": -1},
    {"offset": 1 << 63},
    {"search": "x" * 301},
    {"search": "a\0b"},
    {"sql": "SELECT 1"},
]


@pytest.mark.parametrize("question", BAD, ids=lambda question: json.dumps(question)[:60])
def test_nonsense_is_refused_in_words(view, question):
    answer = view.get("/api/clips", params={"q": json.dumps(question)})
    assert answer.status_code == 400
    assert answer.json()["error"]


@pytest.mark.parametrize("text", ["", "[1]", "{", "nan", '{"search": "\\ud800"}', "[" * 5000, '{"offset": 1e999}'])
def test_what_is_no_question_is_refused(view, text):
    assert view.get("/api/clips", params={"q": text}).status_code == 400


def test_text_that_looks_like_sql_is_only_text(made, view):
    for text in ("'", "''", "\\", "--", "%", "*", "$1", "?", "{0}", "\n"):
        answer = ask(view, filters=[{"column": CAPTION, "contains": text}])
        assert {clip["clip_id"] for clip in answer["clips"]} == ({made.odd} if text in HOSTILE else set())
    assert view.get("/api/clips").json()["n"] == len(made.ids)


def test_values_to_choose_from(view):
    area = view.get("/api/values", params={"column": AREA}).json()
    assert (area["n"], area["none"], area["min"], area["max"]) == (6, 1, 0.0, 0.05)
    seen = view.get("/api/values", params={"column": SEEN}).json()
    assert sorted(map(tuple, seen["top"])) == sorted([("EXIT", 1), ("Exit 7", 1), ("SALE", 1), (HOSTILE, 1)])
    assert view.get("/api/values", params={"column": "nothing"}).status_code == 400


def test_a_question_names_the_columns_it_needs():
    with pytest.raises(ConfigError, match="did you mean 'search'"):
        parse_config(Ask, {"serch": "x"}, "q")
