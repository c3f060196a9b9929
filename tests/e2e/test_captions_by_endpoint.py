"""Captions by an endpoint in whole runs: each clip its own, none asked twice, the key nowhere."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import cv2
import pytest
from endpoint_kit import Script, drawn, number_in, pictures_of, served, texts_of
from job_kit import do

from curate.query import connect
from curate.recipe import parse_recipe
from curate.tables import Corpus
from curate.testing.footage import write_video

KEY = "sk-very-secret-0123456789"
NUMBERS = (3, 77, 1000, 40000, 65535)


@pytest.fixture(scope="module")
def films(tmp_path_factory) -> Path:
    """Films of two seconds, each named after the number that it shows."""
    folder = tmp_path_factory.mktemp("films")
    for number in NUMBERS:
        frame = cv2.resize(drawn(number), (256, 256), interpolation=cv2.INTER_NEAREST)
        write_video(folder / f"{number}.mp4", (frame for _ in range(48)), Fraction(24))
    return folder


def recipe(url: str):
    endpoint = {"url": url, "model": "m", "api_key_env": "CAPTION_KEY", "retries": 0, "timeout_s": 20.0}
    return parse_recipe(
        f"""
        name: asks
        stages:
          - probe
          - cut
          - caption.vlm: {{endpoint: {endpoint}, frames: 2, short_side_px: 64}}
          - caption.fused: {{endpoint: {endpoint}, captions: [caption.vlm]}}
          - caption.chosen: {{captions: [caption.vlm], similarity: null}}
        select: {{name: asks, dedup: {{method: none}}}}
        export: {{caption: caption.chosen.caption}}
        """,
        "test",
    )


def answer(asked):
    """Describes pictures; to fuse them it repeats the caption, with a unicorn where the number is large."""
    if pictures := pictures_of(asked):
        numbers = {number_in(picture) for picture in pictures}
        return f"number {' and '.join(map(str, numbers))}"
    caption = texts_of(asked)[-1].removeprefix("1. ")
    return f"{caption} with a unicorn" if int(caption.split()[1]) > 2000 else caption


def cells(out: Path, stage: str) -> dict[int, dict]:
    """Rows of a stage's table by the number that the film shows."""
    corpus = Corpus(str(out))
    parts = f"{out}/tables/cells/{stage}/*/*.parquet"
    clips = f"{out}/tables/clips/*/*.parquet"
    sql = f"""
        select s.uri, c.* from read_parquet('{parts}') c join read_parquet('{clips}') on key = clip_id
        join read_parquet('{corpus.sources().uri}/*.parquet') s using (source_digest) order by c.attempt
    """
    rows = connect().sql(sql).fetch_arrow_table().to_pylist()
    return {int(Path(row["uri"]).stem): row for row in rows}


def check_integrity(out: Path) -> None:
    for number, row in cells(out, "caption.vlm").items():
        assert row["outcome"] == "failed" or row["caption"] == f"number {number}"
    for number, row in cells(out, "caption.chosen").items():
        assert row["outcome"] == "failed" or row["caption"] == f"number {number}"
        assert row["outcome"] == "failed" or row["replaced"] == (number > 2000)


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


def check_key_is_nowhere(out: Path) -> None:
    found = [path for path in out.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]
    assert found == []
    assert any("CAPTION_KEY" in path.read_text() for path in out.rglob("recipe.yaml"))
    for path in out.rglob("*.parquet"):
        assert KEY not in repr(connect().sql(f"select * from read_parquet('{path}')").fetchall())


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


@pytest.mark.ray
def test_through_ray_the_next_pass_asks_for_what_failed_alone(films, tmp_path, monkeypatch):
    out = tmp_path / "corpus"
    monkeypatch.setenv("CAPTION_KEY", KEY)
    script = Script(answer, key=KEY, delay_s=lambda text, attempt: 0.02 * (len(text) % 4))
    script.faults = lambda text, attempt: "busy" if text == "number 1000" and not attempt else ""
    with served(script) as url:
        do([films], out, recipe(url), engine="ray", export=False)
    attempts = {number: row["attempt"] for number, row in cells(out, "caption.vlm").items()}
    assert attempts == {number: 2 if number == 1000 else 1 for number in NUMBERS}
    assert script.attempts["number 3"] == script.attempts["number 77"] == 2  # once to see, once to fuse
    assert script.attempts["number 1000"] == 3
    assert {row["outcome"] for row in cells(out, "caption.chosen").values()} == {"ok"}
    check_integrity(out)
    check_key_is_nowhere(out)
