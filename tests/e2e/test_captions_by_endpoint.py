"""Captions by an endpoint in whole runs: each clip its own, none asked twice, the key nowhere. On Ray: test_ray_job."""

from __future__ import annotations

from pathlib import Path

import pytest
from caption_job_kit import KEY, answer, cells, check_integrity, check_key_is_nowhere, recipe, write_films
from endpoint_kit import Script, served
from job_kit import do


@pytest.fixture(scope="module")
def films(tmp_path_factory) -> Path:
    return write_films(tmp_path_factory.mktemp("films"))


def run_twice(films, out, monkeypatch):
    """A run in which one question is never answered, and one in which it is; gives how often each was asked."""
    monkeypatch.setenv("CAPTION_KEY", KEY)
    script = Script(answer, key=KEY, delay_s=lambda text, attempt: 0.02 * (len(text) % 4))
    script.faults = lambda text, attempt: "busy" if text == "number 1000" else ""
    with served(script) as url:
        do([films], out, recipe(url))
        first = dict(script.attempts)
        assert {number for number, row in cells(out, "caption.vlm").items() if row["outcome"] == "failed"} == {1000}
        check_integrity(out)
        script.faults = lambda text, attempt: ""
        script.attempts.clear()
        do([films], out, recipe(url))
    return first, dict(script.attempts)


def test_each_clip_gets_its_own_caption_and_only_what_failed_is_asked_again(films, tmp_path, monkeypatch):
    out = tmp_path / "corpus"
    first, second = run_twice(films, out, monkeypatch)
    assert {text: n for text, n in first.items() if text != "number 1000"} == {
        "number 3": 2, "number 77": 2, "number 40000": 1, "number 65535": 1,
        "number 40000 with a unicorn": 1, "number 65535 with a unicorn": 1,
    }  # fmt: skip
    assert second == {"number 1000": 2}
    assert {row["outcome"] for row in cells(out, "caption.chosen").values()} == {"ok"}
    check_integrity(out)
    check_key_is_nowhere(out)


def test_a_refused_key_is_told_and_not_shown(films, tmp_path, monkeypatch):
    out = tmp_path / "corpus"
    monkeypatch.setenv("CAPTION_KEY", KEY)
    script = Script(answer, key="another")
    with served(script) as url:
        do([films / "77.mp4"], out, recipe(url), export=False)
    (row,) = cells(out, "caption.vlm").values()
    assert row["error_class"] == "EndpointError"
    assert "answered 401" in row["error_message"] and "CAPTION_KEY" in row["error_message"]
    assert len(script.asked) == 1
    check_key_is_nowhere(out)
