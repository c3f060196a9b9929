from __future__ import annotations

from engine_kit import Double, Luma, LumaConfig, pipeline, run

from curate.config import Config
from curate.engine.on_demand import RayOnDemand
from curate.testing.footage import write_video
from curate.testing.scenes import moving_texture


def test_a_run_with_nothing_to_do_starts_no_ray(tmp_path):
    bucket = tmp_path / "bucket"
    bucket.mkdir()
    write_video(bucket / "a.mp4", moving_texture(40, 96, 64, (1, 0), seed=1))
    pipe = pipeline(Luma(LumaConfig()), Double(Config()))
    run(tmp_path / "c", bucket, pipe)
    starts: list[str] = []
    engine = RayOnDemand(None, lambda: starts.append("ray"))
    result, heard = run(tmp_path / "c", bucket, pipe, engine)
    assert list(engine.map(str, [])) == []
    engine.close()
    assert result.counts["inputs"] == {"ok": 1}
    assert heard.plans == []
    assert starts == []
