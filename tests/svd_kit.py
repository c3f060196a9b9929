"""The paper's recipe on small checkpoints in the real formats, under the names that its stages have as defaults."""

from __future__ import annotations

import itertools
import json
import math
import os
import pickle
import signal
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from cli_kit import curate, start
from clip_kit import OPENAI_LIKE, add_head, add_open_clip, kit_beside, mlp_head
from model_kit import ModelKit
from tiny_llm import tiny_llm
from tiny_models import COCA_SETTINGS, VBLIP_SETTINGS, tiny_coca, tiny_vblip

from curate.engine.analyse import Analyser, GroupScorer
from curate.engine.inline import InlineEngine
from curate.engine.pack import Packing, pack
from curate.engine.pipeline import Pipeline
from curate.engine.work import Bundle, SourceWork, Summary, TableBundle
from curate.engine.writer import write_bundle
from curate.recipe import build, load_recipe
from curate.tables import Corpus
from curate.testing.footage import moving_texture, text_card, write_video

REAL = ("craft", "efficientnet-lite0", "pp-ocr-det", "transnetv2")
"""Cards whose files a package index carries: these are the real ones."""
EMBEDDING = OPENAI_LIKE["model_cfg"]["embed_dim"]
TEXT = {"much text", "text above 7 %"}
AXES = {"little motion", "low aesthetics", "caption does not fit", *TEXT}
"""Conditions of the recipe; the two on text are one axis of the paper."""
CAPTIONERS = ("caption.coca", "caption.vblip")
SMALL = ["cut.min_len_s=1.0", "text.craft.canvas_px=96", "clip.similarity.batch_size=4"]
"""Films of two seconds, and a canvas at which CRAFT takes a tenth of a second a frame."""
CLIPS_A_FILM = 2
TEXT_FILM = 7
ONE_GPU = {"CPU": 8.0, "GPU": 1.0, "memory": 64e9, "object_store_memory": 16e9}
"""A node as Ray describes it."""


def small_models(folder: Path, patch: pytest.MonkeyPatch) -> ModelKit:
    """Every card that `svd` and `svd-small` name: real where it is small, with random weights where not."""
    kit = kit_beside(folder / "kit", patch, REAL)
    add_open_clip(kit, "openclip-vit-l-14", OPENAI_LIKE, folder / "clip")
    settings = {"head": "mlp", "embedding": EMBEDDING, "family": "kit"}
    add_head(kit, "laion-aesthetic-sac-logos-ava1-l14", mlp_head(EMBEDDING), folder / "head", **settings)
    for card in ("coca-vit-l-14", "coca-vit-b-32"):
        kit.add(card, tiny_coca(folder / card), COCA_SETTINGS)
    # Readier to end, some of its sentences would end before they begin.
    kit.add("videoblip-opt-2.7b", tiny_vblip(folder / "vblip", end_gain=0.75), VBLIP_SETTINGS)
    kit.add("smollm2-135m-instruct", tiny_llm(folder / "llm"))
    return kit


def write_films(folder: Path, numbers: Iterable[int]) -> Path:
    """Films of two shots each, named by their numbers; one shows text."""
    for number in numbers:
        write_video(folder / f"{number}.mp4", itertools.chain(*shots_of(number)))
    return folder


def shots_of(number: int) -> list[Iterable[np.ndarray]]:
    """Of the film of this number."""
    shots: list[Iterable[np.ndarray]] = [
        moving_texture(36, 128, 96, (number / 2, 0), seed=20 + 10 * number + shot) for shot in range(CLIPS_A_FILM)
    ]
    if number == TEXT_FILM:
        shots[1] = text_card(36, 128, 96, "MUCH TEXT\nIS HERE")
    return shots


def pipeline(settings: Sequence[str]) -> Pipeline:
    """The stages of `svd` with these settings."""
    return build(load_recipe("svd", settings))


def options(out: Path, engine: str, settings: Sequence[str], recipe: str = "svd") -> list[object]:
    """What `curate run BUCKET` is told."""
    sets = itertools.chain.from_iterable(("--set", setting) for setting in settings)
    return ["--recipe", recipe, "--out", out, "--engine", engine, "--no-export", "--no-report", *sets]


def made(bucket: Path, out: Path, engine: str, settings: Sequence[str], recipe: str = "svd") -> Path:
    """A corpus of a bucket."""
    ended = curate("run", bucket, *options(out, engine, settings, recipe))
    assert ended.status == 0, ended.out + ended.err
    return out


def killed(bucket: Path, out: Path, settings: Sequence[str]) -> None:
    """A run that dies (SIGKILL, its decoding process with it) once the second film has a fused caption."""
    process = start("run", bucket, *options(out, "inline", settings), env=dict(os.environ), start_new_session=True)
    while process.poll() is None and len(list(out.glob("tables/cells/caption.fused/*/*.parquet"))) < 2:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    said = process.communicate()
    assert process.returncode == -signal.SIGKILL, said


def manifest_of(out: Path) -> dict:
    """Of the last run."""
    return json.loads(max(out.glob("runs/*/manifest.json")).read_text())


def rows_of(paths: Iterable[Path]) -> list[dict]:
    """Of Parquet files."""
    return [row for path in sorted(paths) for row in pq.read_table(path).to_pylist()]


def written(out: Path, stage: str) -> list[dict]:
    """Every row that any run wrote for a stage."""
    return rows_of(out.glob(f"tables/cells/{stage}/*/*.parquet"))


def cells_of(out: Path, stage: str) -> dict[str, dict]:
    """Cells with values, by clip."""
    return {row["key"]: row for row in written(out, stage) if row["outcome"] == "ok"}


def cells_by_stage(out: Path, settings: Sequence[str]) -> dict[str, int]:
    """Number of clips that have a cell, by clip stage."""
    return {step.stage.name: len(cells_of(out, step.stage.name)) for step in pipeline(settings).steps}


def computed_twice(out: Path, settings: Sequence[str]) -> Counter[str]:
    """Cells that more than one run wrote, by the digest of their film."""
    film = {row["clip_id"]: row["source_digest"] for row in rows_of(out.glob("tables/clips/*/*.parquet"))}
    times = Counter(
        (step.stage.name, row["key"]) for step in pipeline(settings).steps for row in written(out, step.stage.name)
    )
    return Counter(film[key] for (_, key), n in times.items() if n > 1)


def unfit_captions(out: Path) -> list[str]:
    """Clips whose chosen caption is not the single one that fits best, in the place of a fusion that invents."""
    rows = {stage: cells_of(out, stage) for stage in CAPTIONERS}
    scores = cells_of(out, "clip.similarity")
    wrong = []
    for clip, chosen in cells_of(out, "caption.chosen").items():
        mean = {name: sum(scores[clip][name.rpartition(".")[2]]) for name in CAPTIONERS}
        name = max(mean, key=mean.__getitem__)
        best = (name, rows[name][clip]["caption"], rows[name][clip]["frames"], True)
        if (f"caption.{chosen['source']}", chosen["caption"], chosen["frames"], chosen["replaced"]) != best:
            wrong.append(clip)
    return wrong


def funnel_of(out: Path) -> dict:
    """What the selection wrote about itself."""
    return json.loads((out / "selections/svd/funnel.json").read_text())


def kept_and_expected(out: Path) -> tuple[float, float]:
    """Share of the clips that pass every axis, and the product of the shares that pass each, from the selection."""
    rows = rows_of([out / "selections/svd/selection.parquet"])
    axes = [{axis} for axis in sorted(AXES - TEXT)] + [TEXT]
    passing = [sum(not set(row["failing"]) & axis for row in rows) / len(rows) for axis in axes]
    return sum(not AXES & set(row["failing"]) for row in rows) / len(rows), math.prod(passing)


def arrived(found: object) -> object:
    """As it is in another process."""
    return pickle.loads(pickle.dumps(found, protocol=5))


class OneGpu(InlineEngine):
    """Ray's chain on a node with one GPU, worker by worker in this process, where no network finds such a thing.

    Every worker has a pipeline of its own, and what one gives to the next is pickled, as there. What reaches a pool
    last is done first.
    """

    packing: Packing

    def run_pass(
        self, corpus: Corpus, pipeline: Pipeline, works: Sequence[SourceWork], *, run_id: str, single: bool
    ) -> Iterator[Summary]:
        """As any engine's."""
        self.packing = pack(pipeline, [ONE_GPU], len(works), single=single)
        bundles = [*self._decoded(pipeline, works, run_id)]
        for group, pool in enumerate(self.packing.pools, 1):
            workers = [GroupScorer(arrived(pipeline), group, host="", run_id=run_id) for _ in range(pool.workers)]
            turns = itertools.cycle(workers)
            bundles = [one for each in reversed(bundles) for one in self._passed(next(turns), each)]
        for bundle in bundles:
            assert isinstance(bundle, TableBundle), "clips that no pool takes"
            yield write_bundle(corpus, bundle)

    def _decoded(self, pipeline: Pipeline, works: Sequence[SourceWork], run_id: str) -> Iterator[Bundle]:
        size, pixels = self.packing.sources_per_block, self.packing.bundle_bytes
        for block in (works[first : first + size] for first in range(0, len(works), size)):
            worker = Analyser(arrived(pipeline), self._scratch, host="", run_id=run_id, bundle_bytes=pixels)
            yield from map(arrived, worker.analyse(block))
            worker.close()

    @staticmethod
    def _passed(worker: GroupScorer, bundle: Bundle) -> list[Bundle]:
        return [bundle] if isinstance(bundle, TableBundle) else [arrived(each) for each in worker.process(bundle)]
