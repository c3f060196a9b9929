"""A small corpus in which everything that a report counts occurs: failed cells, missing and odd values, ties, a gate,
lists, scores of which nothing is asked, percentiles, two conditions on one column, a condition of two limits, words,
names that are hard to address."""

from __future__ import annotations

import math
import random
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import yaml
from corpus_kit import CorpusKit, digest_of

from curate.config import parse_config
from curate.query import TOMBSTONES
from curate.report.facts import build_facts, chosen_selection
from curate.select import SelectConfig, select
from curate.tables import Corpus, rows_table, write_part

HASHES = {f"phash_{at}": pa.uint64() for at in ("first", "middle", "last")}
STAGES = {
    "motion": {"v2d_px16": pa.float64(), "freeze_ratio": pa.float32(), "camera": pa.string()},
    "quality": {"sharpness": pa.float32(), "contrast": pa.float64()},
    "text": {"area_max": pa.float64()},
    "features": {**HASHES, "phash_flat": pa.bool_()},
    "aesthetic": {"scores": pa.list_(pa.float64()), "crops": pa.list_(pa.float64())},
    "caption.coca": {"caption": pa.string()},
    "caption.chosen": {"caption": pa.string()},
    "clip.similarity": {"coca": pa.list_(pa.float64()), "disagreement": pa.float64()},
}
GATE = {"after_index": 2, "column": "motion.freeze_ratio", "max": 0.9}
CONDITIONS: list[dict[str, Any]] = [
    {"column": "motion.v2d_px16", "drop_lowest": 0.25, "name": "little motion"},
    {"column": "text.area_max", "drop_highest": 0.1, "population": "after_gate", "on_failed": "keep",
     "name": "much.text=1"},
    {"column": "text.area_max", "max": 0.5, "on_failed": "drop"},
    {"column": "aesthetic.scores", "aggregate": "mean", "min": 3.0, "on_failed": "drop"},
    {"column": "aesthetic.scores", "aggregate": "last", "max": 9.5, "name": "the last"},
    {"column": "quality.sharpness", "min": 0.1, "max": 0.9, "on_failed": "keep"},
    {"column": "motion.camera", "not_in": ["roll"]},
    {"column": "clip.duration_s", "min": 1.5},
]  # fmt: skip
ODD = (math.nan, math.inf, -math.inf, -0.0, 0.0, 1e-9)


def make(path: Path, n_sources: int = 30, seed: int = 1, name: str = "sel", **dedup: Any) -> Corpus:
    """The corpus with its selection. What is asked for again is only written again."""
    for below, data in _files(n_sources, seed, name, tuple(dedup.items())).items():
        file = path / below
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    return Corpus(str(path / "corpus"))


@cache
def _files(n_sources: int, seed: int, name: str, dedup: tuple[tuple[str, Any], ...]) -> dict[str, bytes]:
    with TemporaryDirectory() as folder:
        path = Path(folder)
        _make(path, n_sources, seed, name, dict(dedup))
        return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def _make(path: Path, n_sources: int, seed: int, name: str, dedup: dict[str, Any]) -> None:
    draw = random.Random(seed)
    kit = CorpusKit(path / "corpus", STAGES, gates=[GATE])
    for number in range(n_sources):
        lengths = [draw.choice([1.0, 1.5, 2.0, 2.345]) for _ in range(draw.randint(1, 20))]
        sizes = draw.choice([(1280, 720, 25.0), (640, 480, 29.97), (90, 160, 30.0), (720, 1280, 50.0)])
        facts = dict(zip(("width_px", "height_px", "rate_fps"), sizes, strict=True))
        for clip in kit.source(f"bucket/{number % 3}/{number}.mp4", lengths, **facts):
            fill(kit, clip, draw)
    kit.input("bucket/notes.txt", "skipped", "not a video name")
    kit.input("bucket/broken.mp4", "failed", "has no bytes")
    corpus = kit.write()
    rule = {"name": name, "conditions": CONDITIONS, "dedup": {"method": "none", **dedup}}
    write_recipe(corpus, rule)
    select(corpus, parse_config(SelectConfig, rule, "select"))


def write_recipe(corpus: Corpus, rule: dict[str, Any], run_id: str = "run-1") -> None:
    """The recipe that the run followed, with this selection."""
    recipe = {"name": "kit", "stages": ["probe", "cut", "motion", "quality", "text"], "select": rule}
    corpus.runs().child(run_id, "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))


def fill(kit: CorpusKit, clip: str, draw: random.Random) -> None:
    """Cells of one clip; some failed, some without a value, none below the gate where it does not pass."""

    def cell(stage: str, more: dict[str, Any] | None = None, **values: Any) -> None:
        if draw.random() < 0.05:
            kit.failed(stage, clip)
        else:
            known = {key: None if draw.random() < 0.05 else value for key, value in values.items()}
            kit.cell(stage, clip, **known, **(more or {}))

    unasked = random.Random(clip)  # what no condition names
    contrast = unasked.choice([None, *(number(unasked, 1) for _ in range(9))])
    crops = unasked.choice([None, [], *([number(unasked, 1), None, number(unasked, 2)][: k % 4] for k in range(8))])
    freeze = draw.choice([0.0, 0.0, 0.2, 0.95])
    if draw.random() < 0.04:
        kit.failed("motion", clip)
        return
    kit.cell(
        "motion", clip, v2d_px16=number(draw, 1), freeze_ratio=freeze, camera=draw.choice(["pan left", "roll", None])
    )
    if freeze > 0.9:
        return
    cell("quality", {"contrast": contrast}, sharpness=round(draw.random(), 1))
    cell("text", area_max=number(draw, 2))
    cell("aesthetic", {"crops": crops}, scores=[draw.uniform(0, 10) for _ in range(draw.randint(0, 3))])
    cell("caption.coca", caption=draw.choice(["a cat", "<b>a dog</b>", "a " + "very " * 300 + "long one"]))
    cell("caption.chosen", caption="a cat sits")
    cell("clip.similarity", coca=[0.1, 0.2, 0.3], disagreement=draw.random())
    if draw.random() < 0.05:
        kit.failed("features", clip)
    else:
        kit.cell("features", clip, **dict.fromkeys(HASHES, draw.choice([5, 7, 1 << 40])), phash_flat=False)


def number(draw: random.Random, digits: int) -> float:
    """With ties, and now and then nothing that one could count with."""
    return draw.choice(ODD) if draw.random() < 0.1 else round(draw.random(), digits)


def take_down(corpus: Corpus, uri: str) -> None:
    """As `curate forget` leaves it."""
    row = {"source_digest": digest_of(uri), "uri": uri, "reason": "asked to"}
    write_part(corpus.root.child("tables", "tombstones"), rows_table(TOMBSTONES, [row]))


def facts_of(corpus: Corpus, **options: Any) -> dict[str, Any]:
    """The facts of the latest selection, without pictures."""
    return build_facts(corpus, chosen_selection(corpus, None, None), pictures=0, **options).facts
