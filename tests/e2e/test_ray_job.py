"""The whole embedded job through Ray gives what the inline engine gives: tables, selection, shards."""

from __future__ import annotations

import pytest
from engine_kit import all_cells
from model_kit import fetch_packaged

from curate.job import JobOptions, run_job
from curate.recipe import build, load_recipe
from curate.tables import Corpus, read_parquet
from curate.testing.footage import crossfade, moving_texture, text_card, write_video
from curate.watch.listener import JobListener

pytestmark = pytest.mark.ray


class Quiet(JobListener):
    """Cares for nothing."""


def test_ray_and_inline_do_the_same_job(tmp_path):
    fetch_packaged()
    bucket = tmp_path / "bucket"
    bucket.mkdir()
    write_video(bucket / "pan.mp4", moving_texture(75, 320, 192, (2, 0), seed=1))
    write_video(bucket / "again.mp4", moving_texture(75, 320, 192, (2, 0), seed=1), options={"crf": "30"})
    a, b = (list(moving_texture(45, 320, 192, (0, n), seed=n)) for n in (2, 3))
    write_video(bucket / "dissolve.mp4", [*crossfade(a, b, 12)])
    write_video(bucket / "card.mp4", text_card(45, 320, 192, "TOO MUCH TEXT\nIN THIS PICTURE\nTO TRAIN ON IT"))
    (bucket / "broken.mp4").write_bytes(b"no video")
    recipe = load_recipe("embedded")
    out = {engine: tmp_path / engine for engine in ("inline", "ray")}
    done = {name: run_job([str(bucket)], recipe, JobOptions(str(path), name), Quiet()) for name, path in out.items()}
    pipeline = build(recipe)
    assert all_cells(out["ray"], pipeline) == all_cells(out["inline"], pipeline)
    assert done["ray"].funnel.inputs == done["inline"].funnel.inputs
    assert done["ray"].funnel.clips == done["inline"].funnel.clips
    assert done["ray"].funnel.clips.kept
    chosen = [
        read_parquet(Corpus(str(path)).selections().child("embedded", "selection.parquet")) for path in out.values()
    ]
    assert chosen[0].sort_by("clip_id").equals(chosen[1].sort_by("clip_id"))
    files = [
        {file.relative_to(path): file.read_bytes() for file in (path / "shards").rglob("*.*") if file.suffix != ".json"}
        for path in out.values()
    ]
    assert files[0] == files[1]
    assert files[0]
