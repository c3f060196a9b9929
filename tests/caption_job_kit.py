"""Jobs whose captions come from an endpoint: films that each show a number, which an answer names."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import cv2
from endpoint_kit import drawn, number_in, pictures_of, texts_of

from curate.query import connect
from curate.recipe import Recipe, parse_recipe
from curate.tables import Corpus
from curate.testing.footage import write_video

KEY = "sk-very-secret-0123456789"
NUMBERS = (3, 77, 1000, 40000, 65535)


def write_films(folder: Path) -> Path:
    """Films of two seconds, each named after the number that it shows."""
    for number in NUMBERS:
        frame = cv2.resize(drawn(number), (256, 256), interpolation=cv2.INTER_NEAREST)
        write_video(folder / f"{number}.mp4", (frame for _ in range(48)), Fraction(24))
    return folder


def recipe(url: str) -> Recipe:
    """Asks this endpoint."""
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


def answer(asked) -> str:
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
    """AssertionError unless each clip has its own caption."""
    for number, row in cells(out, "caption.vlm").items():
        assert row["outcome"] == "failed" or row["caption"] == f"number {number}"
    for number, row in cells(out, "caption.chosen").items():
        assert row["outcome"] == "failed" or row["caption"] == f"number {number}"
        assert row["outcome"] == "failed" or row["replaced"] == (number > 2000)


def check_key_is_nowhere(out: Path) -> None:
    """AssertionError where a file of the corpus has the key."""
    found = [path for path in out.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]
    assert found == []
    assert any("CAPTION_KEY" in path.read_text() for path in out.rglob("recipe.yaml"))
    for path in out.rglob("*.parquet"):
        assert KEY not in repr(connect().sql(f"select * from read_parquet('{path}')").fetchall())
