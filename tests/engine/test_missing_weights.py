"""A worker without weights: the machine is at fault, not the clips."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

from engine_kit import Luma, LumaConfig, all_cells, pipeline, run

from curate.errors import MissingModelError
from curate.testing.footage import write_video
from curate.testing.scenes import moving_texture


class Weighed(Luma):
    """Needs a file on its machine."""

    name = "weighed"
    weights = Path()

    def setup(self) -> None:
        if not self.weights.exists():
            raise MissingModelError("the weights are not on this machine", fix="Fetch them")


def test_clips_are_scored_by_the_next_run_once_the_weights_are_there(tmp_path, monkeypatch):
    bucket, out = tmp_path / "bucket", tmp_path / "corpus"
    bucket.mkdir()
    write_video(bucket / "a.mp4", moving_texture(48, 96, 64, (1, 0), seed=1), Fraction(24))
    monkeypatch.setattr(Weighed, "weights", tmp_path / "weights")
    pipe = pipeline(Luma(LumaConfig()), Weighed(LumaConfig()))
    run(out, bucket, pipe)
    assert {row[2] for row in all_cells(out, pipe)["weighed"]} == {"failed"}
    assert {row[2] for row in all_cells(out, pipe)["luma"]} == {"ok"}
    (tmp_path / "weights").touch()
    run(out, bucket, pipe)
    assert {row[2] for row in all_cells(out, pipe)["weighed"]} == {"ok"}
