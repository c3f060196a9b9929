"""The whole default recipe over the sample bucket: every input accounted for, every shard readable by plain tools."""

from __future__ import annotations

import io
import json
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import cv2
import duckdb
import numpy as np
import pytest
import webdataset as wds
from job_kit import do, table_files
from model_kit import fetch_packaged

from curate.job import JobResult, export_again, select_again
from curate.query import RunTables, connect
from curate.recipe import load_recipe
from curate.tables import Corpus
from curate.testing.bucket import EXPECTED, make_sample_bucket
from curate.verify import verify

RATE_FPS = 25
"""Of the generated films, but those that are about rates."""


@pytest.fixture(scope="session")
def bucket(sample_bucket, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sample") / "bucket"
    shutil.copytree(sample_bucket, folder)
    make_sample_bucket(folder)
    return folder


@dataclass(frozen=True)
class Story:
    """The one run of this module. ``clips``: a row a clip by full column names, in the order of sources and time."""

    bucket: Path
    corpus: Corpus
    result: JobResult
    clips: list[dict[str, Any]]

    @property
    def folder(self) -> Path:
        return Path(self.corpus.uri)

    @property
    def shards(self) -> Path:
        return self.folder / "shards" / "embedded"

    def of(self, name: str) -> list[dict[str, Any]]:
        """Clips of one file of the bucket."""
        return [row for row in self.clips if Path(row["source.uri"]).name == name]

    def frames(self, name: str) -> list[tuple[int, int]]:
        """First frame, and first frame outside, of the clips of a film at RATE_FPS."""
        return [(round(r["clip.start_s"] * RATE_FPS), round(r["clip.end_s"] * RATE_FPS)) for r in self.of(name)]


@pytest.fixture(scope="module")
def story(bucket, tmp_path_factory) -> Story:
    fetch_packaged()
    out = tmp_path_factory.mktemp("story") / "corpus"
    result, _ = do([bucket], out, load_recipe("embedded"))
    corpus = Corpus(str(out))
    with connect() as con:
        tables = RunTables(con, corpus, result.run.run_id)
        rows = con.sql(tables.wide_sql(tables.column_names())).to_arrow_table().to_pylist()
    verdicts = dict(plain_sql(f"select clip_id, verdict from '{out}/selections/embedded/selection.parquet'"))
    for row in rows:
        row["verdict"] = verdicts[row["clip_id"]]
    return Story(bucket, corpus, result, sorted(rows, key=lambda row: (row["source.uri"], row["clip.start_pts"])))


@pytest.fixture
def copied(story, tmp_path) -> Story:
    """The same corpus, to be changed."""
    shutil.copytree(story.folder, tmp_path / "corpus")
    return Story(story.bucket, Corpus(str(tmp_path / "corpus")), story.result, story.clips)


def plain_sql(sql: str) -> list[tuple[Any, ...]]:
    """What any DuckDB says, without this project's reading rules."""
    with duckdb.connect() as con:
        return con.sql(sql).fetchall()


# --- Every input is accounted for -------------------------------------------------------------------------------------


def test_every_input_ends_as_it_must_with_a_reason(story):
    run = story.folder / "runs" / story.result.run.run_id
    rows = plain_sql(f"select uri, outcome, cause from '{run}/inputs.parquet'")
    failed = plain_sql(
        f"select uri, error_class from '{story.folder}/tables/sources/*.parquet' where outcome = 'failed'"
    )
    classes = {Path(uri).name: error_class for uri, error_class in failed}
    ended = {Path(uri).name: (outcome, cause) for uri, outcome, cause in rows}
    assert {name: outcome for name, (outcome, _) in ended.items()} == {n: e.outcome for n, e in EXPECTED.items()}
    for name, expected in EXPECTED.items():
        assert classes.get(name, "") == expected.error_class, name
        assert ended[name][1].startswith(expected.cause), name
        assert bool(ended[name][1]) == (expected.outcome != "ok"), name
    assert "hard_cuts.mp4" in ended["same_as_hard_cuts.mp4"][1]


def test_all_counts_add_up(story):
    funnel, export = story.result.funnel, story.result.export
    for counts in (funnel.inputs, funnel.clips):
        assert counts.found == counts.kept + counts.dropped + counts.failed + counts.skipped
    assert funnel.inputs.found == len(EXPECTED)
    assert funnel.clips.found == len(story.clips) and funnel.clips.failed == 0
    for reasons, counts in ((funnel.input_reasons, funnel.inputs), (funnel.clip_reasons, funnel.clips)):
        told = Counter[str]()
        for reason in reasons:
            assert reason.reason
            told[reason.verdict] += reason.n
        assert told == {v: n for v in ("dropped", "failed", "skipped") if (n := getattr(counts, v))}
    assert Counter(row["verdict"] for row in story.clips) == {
        "kept": funnel.clips.kept,
        "dropped": funnel.clips.dropped,
    }
    assert export.kept == funnel.clips.kept == export.n_clips + len(export.holes) + sum(export.left_out.values())


def test_every_clip_has_a_cell_of_every_stage(story):
    manifest = story.corpus.manifest(story.result.run.run_id)
    for stage in manifest["stages"][2:]:
        parts = f"{story.folder}/tables/cells/{stage['name']}/{stage['fingerprint']}/*.parquet"
        rows = plain_sql(f"select key, outcome from '{parts}'")
        assert sorted(rows) == sorted((clip["clip_id"], "ok") for clip in story.clips), stage["name"]


# --- The shards hold what they say ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def samples(story) -> dict[str, dict[str, Any]]:
    """All samples of all shards by key, as plain `webdataset` gives them."""
    tars = sorted(map(str, story.shards.rglob("*.tar")))
    found = list(wds.WebDataset(tars, shardshuffle=False, empty_check=False))
    assert len({sample["__key__"] for sample in found}) == len(found)
    return {sample["__key__"]: sample for sample in found}


def test_plain_webdataset_gives_video_facts_and_caption_of_each_kept_clip(story, samples):
    kept = {row["clip_id"]: row for row in story.clips if row["verdict"] == "kept"}
    assert set(samples) == set(kept)
    for key, sample in samples.items():
        assert {name for name in sample if not name.startswith("__")} == {"mp4", "json", "txt"}
        facts = json.loads(sample["json"])
        assert facts["clip_id"] == key
        assert sample["txt"].decode() == facts["caption"] == kept[key]["caption.template.caption"]
        assert facts["caption"] and facts["motion_score"] == kept[key]["motion.v2d_px16"]


def test_plain_duckdb_reads_sidecars_that_match_the_shards(story, samples):
    columns = 'clip_id, video_offset_bytes, video_bytes, caption, bucket, "motion.camera", filename'
    rows = plain_sql(f"select {columns} from read_parquet('{story.shards}/*/*.parquet', filename = true)")
    assert sorted(row[0] for row in rows) == sorted(samples)
    for clip_id, offset_bytes, size_bytes, caption, bucket, camera, name in rows:
        tar = Path(name).with_suffix(".tar")
        assert tar.parent.name == bucket and camera
        assert tar.read_bytes()[offset_bytes : offset_bytes + size_bytes] == samples[clip_id]["mp4"]
        assert caption == samples[clip_id]["txt"].decode()


def thumb(frame: av.VideoFrame) -> np.ndarray:
    """A small picture of a frame's luma, 8 bits a level, as it is shown upright."""
    luma = frame.to_ndarray()[: frame.height].astype(np.float32) / 2 ** (frame.format.components[0].bits - 8)
    upright = np.ascontiguousarray(np.rot90(luma, round(frame.rotation / 90)))
    return cv2.resize(upright, (32, 32), interpolation=cv2.INTER_AREA)


def source_frames(path: Path, stream: int) -> list[tuple[int, np.ndarray]]:
    with av.open(str(path)) as container:
        return [(frame.pts, thumb(frame)) for frame in container.decode(container.streams[stream])]


def exported_frames(data: bytes) -> list[tuple[Fraction, np.ndarray]]:
    with av.open(io.BytesIO(data)) as container:
        return [(frame.pts * frame.time_base, thumb(frame)) for frame in container.decode(video=0)]


@pytest.mark.parametrize("name", sorted(name for name, expected in EXPECTED.items() if expected.outcome == "ok"))
def test_every_exported_clip_holds_exactly_its_span(story, samples, name):
    """Number, times and pictures of the frames, against the source decoded by plain PyAV."""
    rows = [row for row in story.of(name) if row["verdict"] == "kept"]
    source = source_frames(story.bucket / name, story.of(name)[0]["source.stream"])
    for row in rows:
        inside = [(pts, grey) for pts, grey in source if row["clip.start_pts"] <= pts < row["clip.end_pts"]]
        base = Fraction(row["clip.time_base"])
        found = exported_frames(samples[row["clip_id"]]["mp4"])
        assert [time for time, _ in found] == [(pts - inside[0][0]) * base for pts, _ in inside]
        worst = max(float(np.abs(a - b).mean()) for (_, a), (_, b) in zip(found, inside, strict=True))
        assert worst < 1, f"a frame differs by {worst:.1f} levels"
        assert json.loads(samples[row["clip_id"]]["json"])["n_frames"] == len(inside)
    assert bool(rows) == (name not in {"heavy_text.mp4", "slideshow.mp4"})


def test_verify_finds_nothing_wrong(story):
    assert verify(story.corpus, "embedded", deep=True) == []


# --- What was generated is what was found -----------------------------------------------------------------------------


def test_a_static_shot_is_static(story):
    (row,) = story.of("static_shot.mp4")
    assert row["motion.camera"] == "static"
    assert 0 < row["motion.object_speed_width_s"] < 0.02
    assert row["motion.freeze_ratio"] == 0, "noise and a moving thing are no still picture"
    assert row["verdict"] == "kept"


def test_pans_and_zoom_are_named(story):
    assert {row["motion.camera"] for name in ("letterbox.mp4", "av1.mp4", "vp9.webm") for row in story.of(name)} == {
        "pan_right"
    }
    (row,) = story.of("zoom.mp4")
    assert row["motion.camera"] == "zoom_in"
    assert row["motion.camera_zoom_per_s"] == pytest.approx(0.006 * RATE_FPS, rel=0.1)
    (row,) = story.of("letterbox.mp4")
    assert row["motion.camera_pan_width_s"] == pytest.approx(RATE_FPS / 250, rel=0.1)


def test_the_picture_inside_the_letterbox_is_found(story):
    (row,) = story.of("letterbox.mp4")
    assert [row[f"quality.active_{side}_px"] for side in "xywh"] == [0, 24, 320, 132]
    assert row["quality.bar_area_share"] == pytest.approx(48 / 180)


def reasons(story: Story, name: str) -> set[str]:
    path = f"{story.folder}/selections/embedded/selection.parquet"
    ids = ", ".join(repr(row["clip_id"]) for row in story.of(name))
    return {reason for (reason,) in plain_sql(f"select reason from '{path}' where clip_id in ({ids})")}


def test_heavy_text_and_slides_are_dropped_with_their_reason(story):
    (row,) = story.of("heavy_text.mp4")
    assert row["text.area_max"] > 0.2
    assert reasons(story, "heavy_text.mp4") == {"text.area_max above 0.07"}
    assert story.frames("slideshow.mp4") == [(0, 50), (50, 100), (100, 150)]
    assert all("frozen picture" in reason or "slideshow" in reason for reason in reasons(story, "slideshow.mp4"))
    assert {row["verdict"] for row in story.of("slideshow.mp4")} == {"dropped"}


def test_no_film_without_text_is_said_to_have_any(story):
    generated = set(EXPECTED) - {"heavy_text.mp4", "bikes.mp4", "bigbuckbunny.mp4", "carphone_pristine.mp4"}
    assert {row["text.area_max"] for row in story.clips if Path(row["source.uri"]).name in generated} == {0.0}


def test_hard_cuts_are_cut_at_the_frame(story):
    assert story.frames("hard_cuts.mp4") == [(0, 60), (60, 120), (120, 180)]
    assert [row["motion.camera"] for row in story.of("hard_cuts.mp4")] == ["pan_right", "static", "tilt_up"]
    kinds = [(row["clip.start_kind"], row["clip.end_kind"]) for row in story.of("hard_cuts.mp4")]
    assert kinds == [("source_start", "hard"), ("hard", "hard"), ("hard", "source_end")]


@pytest.mark.parametrize(
    ("name", "kind", "first", "last"), [("dissolve.mp4", "dissolve", 65, 84), ("fade.mp4", "fade", 56, 93)]
)
def test_no_frame_of_a_dissolve_or_fade_is_in_a_clip(story, name, kind, first, last):
    """``first`` and ``last`` are the frames that were mixed or darkened."""
    (before, after), (left, right) = story.frames(name), story.of(name)
    assert before[0] == 0 and first - 10 <= before[1] <= first
    assert last < after[0] <= last + 10 and after[1] == 150
    assert (left["clip.end_kind"], right["clip.start_kind"]) == (kind, kind)


def test_flashes_are_no_cuts(story):
    assert story.frames("flashes.mp4") == [(0, 125)]
    (row,) = story.of("flashes.mp4")
    assert (row["cut.n_cuts"], row["cut.n_flashes"]) == (0, 2)
    assert row["quality.n_flashes"] >= 1


def exported_px(story: Story, samples: Mapping[str, Any], name: str) -> set[tuple[int, int]]:
    """Size of the stored picture of exported clips, which must need no turning and no stretching."""
    found = set()
    for row in story.of(name):
        with av.open(io.BytesIO(samples[row["clip_id"]]["mp4"])) as container:
            stream = container.streams.video[0]
            frame = next(container.decode(stream))
            assert frame.rotation == 0 and (stream.sample_aspect_ratio or 1) == 1
            found.add((frame.width, frame.height))
    return found


def test_pictures_are_exported_as_they_are_to_be_seen(story, samples):
    assert exported_px(story, samples, "rotated_phone.mp4") == {(180, 320)}
    assert exported_px(story, samples, "anamorphic.mp4") == {(320, 180)}
    assert exported_px(story, samples, "hevc_10bit.mp4") == {(320, 180)}
    (row,) = story.of("rotated_phone.mp4")
    assert (row["source.width_px"], row["source.height_px"]) == (180, 320)
    assert row["motion.camera"] == "pan_right", "as seen upright"


def test_the_better_of_two_streams_is_taken(story, samples):
    (row,) = story.of("two_streams.mp4")
    assert (row["source.stream"], row["source.width_px"]) == (1, 320)
    assert exported_px(story, samples, "two_streams.mp4") == {(320, 180)}


def test_a_varying_rate_stays_what_it_was(story, samples):
    (row,) = story.of("variable_rate.mp4")
    assert row["source.vfr"]
    times = [time for time, _ in exported_frames(samples[row["clip_id"]]["mp4"])]
    steps_ms = {round(1000 * (b - a)) for a, b in pairwise(times)}
    assert min(steps_ms) < 36 and max(steps_ms) > 60


def test_real_films_come_apart_sensibly(story):
    assert [len(story.of(name)) for name in ("bigbuckbunny.mp4", "carphone_pristine.mp4")] == [1, 1]
    assert len(story.of("bikes.mp4")) >= 5
    assert all(row["verdict"] == "kept" for name in ("bigbuckbunny.mp4", "bikes.mp4") for row in story.of(name))


# --- Nothing is computed twice ----------------------------------------------------------------------------------------


def tars(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.tar"))}


def test_a_second_run_computes_nothing_and_leaves_the_shards(copied):
    before, shards = table_files(copied.folder), tars(copied.shards)
    result, heard = do([copied.bucket], copied.folder, load_recipe("embedded"))
    assert heard.works == []
    assert table_files(copied.folder) == before
    assert result.export.reused and tars(copied.shards) == shards
    assert result.funnel.clips == copied.result.funnel.clips


def test_another_threshold_computes_no_cell(copied):
    before = table_files(copied.folder)
    strict = select_again(copied.corpus, "", ["text.area_max.max=0.03"], name="strict")
    text = [row["text.area_max"] for row in copied.clips if row["verdict"] == "kept"]
    assert strict.clips.kept == sum(area <= 0.03 for area in text) < copied.result.funnel.clips.kept
    result, heard = do(
        [copied.bucket], copied.folder, load_recipe("embedded", ["select.conditions.text.area_max.max=1"])
    )
    assert heard.works == [] and result.funnel.clips.found == copied.result.funnel.clips.found
    assert table_files(copied.folder) == before


def test_exporting_again_gives_the_same_bytes(copied):
    before = tars(copied.shards)
    report = export_again(copied.corpus, "embedded", "", ["export.name=again"], engine="inline", address=None)
    assert not report.reused and report.n_clips == len([row for row in copied.clips if row["verdict"] == "kept"])
    assert tars(copied.folder / "shards" / "again") == before
