"""The codec's motion vectors: what they are of each codec, what asking for them changes, and the two measures."""

from __future__ import annotations

import gc
import tracemalloc
from dataclasses import replace
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from media_kit import FILES, digest, small

from curate.errors import NoMotionVectorsError, StageError
from curate.media.decode import iter_frames
from curate.media.facts import read_facts
from curate.media.packets import Depth
from curate.media.vectors import cells_px, vector_cells
from curate.media.views import ViewSampler, estimated_bytes, sample_spans, view_digest
from curate.records import Clip, Outcome, Span
from curate.stage import ClipItem
from curate.stages.motion.vectors import WITH_VECTORS, MotionVectors, VectorsConfig
from curate.testing.footage import moving_object, moving_texture, static_texture, write_video
from curate.view import NO_VECTOR, View, ViewSpec

SPEC = ViewSpec(sampling="every", every_s=0.5, pixels="vectors")
PIXELS = {
    "points": ViewSpec(points=(0.0, 0.5, 1.0), short_side_px=40),
    "windows": ViewSpec(sampling="windows", windows=2, window_s=0.3),
}
MORE_FILES = {
    "flash3.flv": {"codec": "flv"}, "old.avi": {"codec": "msmpeg4"}, "wmv.asf": {"codec": "wmv2"},
    "mpeg1.mpg": {"codec": "mpeg1video"}, "mjpeg.avi": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
    "prores.mov": {"codec": "prores_ks", "pix_fmt": "yuv422p10le"}, "ffv1.mkv": {"codec": "ffv1"},
}  # fmt: skip
W, H = 320, 256
X264 = {"options": {"preset": "ultrafast", "bf": "0"}}


def whole(path, facts):
    """The clip that is all of a source."""
    return Clip.of_span(str(path), facts.stream, facts.time_base_fraction, Span(facts.start_pts, facts.end_pts))


def cell_of(path, frames, fps=Fraction(24), codec="libx264", config=None, **more):
    """The cell of a video that is one clip, by real decoding."""
    write_video(path, frames, fps, codec, **more)
    facts = read_facts(str(path))
    stage = MotionVectors(config or VectorsConfig())
    ((clip, views),) = sample_spans(str(path), facts, [whole(path, facts)], stage.views())
    (cell,) = stage.process([ClipItem(clip, facts, views)])
    return cell


@pytest.mark.parametrize("name", [*FILES, *MORE_FILES])
def test_asking_for_vectors_changes_no_pixel(tmp_path, name):
    path, facts = small(tmp_path / name, n=30, **{**FILES, **MORE_FILES}[name])
    without = [(frame.pts, digest(frame)) for frame in iter_frames(path, facts)]
    asked = list(iter_frames(path, facts, vectors=True))
    assert [(frame.pts, digest(frame)) for frame in asked] == without
    found = [(vector_cells(frame.av_frame, (96, 54))[..., 0] != NO_VECTOR).any() for frame in asked]
    assert any(found) == (facts.codec in WITH_VECTORS)


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.avi", "h263"), ("a.rm", "rv10"), ("a.rm", "rv20"), ("a.avi", "msmpeg4v2"), ("a.asf", "wmv1")],
)
def test_old_codecs_of_few_sizes_have_vectors_too(tmp_path, name, codec):
    path = str(tmp_path / name)
    write_video(path, moving_texture(12, 176, 144, (3, 1)), Fraction(25), codec)
    facts = read_facts(path)
    assert facts.codec == codec and codec in WITH_VECTORS
    asked = list(iter_frames(path, facts, vectors=True))
    assert any((vector_cells(frame.av_frame, (176, 144)) != NO_VECTOR).any() for frame in asked)
    assert [digest(frame) for frame in asked] == [digest(frame) for frame in iter_frames(path, facts)]


def test_views_of_others_do_not_change_with_vectors_beside_them(tmp_path):
    path, facts = small(tmp_path / "a.mp4", n=60, **FILES["open.mp4"])
    clip = whole(path, facts)
    ((_, alone),) = sample_spans(path, facts, [clip], PIXELS)
    ((_, beside),) = sample_spans(path, facts, [clip], {**PIXELS, "vectors": SPEC})
    ((_, lone),) = sample_spans(path, facts, [clip], {"vectors": SPEC})
    assert {name: view_digest(beside[name]) for name in PIXELS} == {n: view_digest(v) for n, v in alone.items()}
    assert view_digest(lone["vectors"]) == view_digest(beside["vectors"])


def test_vectors_are_those_of_frames_that_are_always_decoded(tmp_path):
    """Frames that no other needs are left out; whether they are must not change what is sampled."""
    path, facts = small(tmp_path / "a.mp4", n=100, **FILES["closed.mp4"])
    found = []
    for depth in (Depth.REFERENCE, Depth.EVERY):
        sampler, n_frames = ViewSampler(facts, {"v": SPEC}), 0
        for frame in iter_frames(path, facts, depth=depth, vectors=sampler.wants_vectors):
            n_frames += 1
            if frame.reference:
                sampler.push(frame)
        found.append((n_frames, view_digest(sampler.take(whole(path, facts))["v"])))
    assert found[0][0] < found[1][0] == 100
    references = [f.pts for f in iter_frames(path, facts, depth=Depth.REFERENCE)]
    ((_, views),) = sample_spans(path, facts, [whole(path, facts)], {"v": SPEC})
    assert set(views["v"].pts.tolist()) <= set(references)


def test_blocks_become_squares_and_the_last_named_stays(monkeypatch):
    kinds = [(n, "i4" if n in {"motion_x", "motion_y"} else "i2") for n in ("dst_x", "dst_y", "motion_x", "motion_y")]
    dtype = np.dtype([*kinds, ("w", "u1"), ("h", "u1"), ("motion_scale", "u2")])
    blocks = np.array(
        [(8, 8, -8, 4, 16, 16, 4), (20, 12, 3, 0, 8, 8, 2), (8, 8, 40, 0, 16, 16, 4), (40, 8, 1, 1, 16, 8, 4)], dtype
    )

    monkeypatch.setattr("curate.media.vectors._listed", lambda frame: blocks)
    cells = vector_cells(av.VideoFrame(36, 20, "yuv420p"), (36, 20))
    assert (cells.shape, cells.dtype) == ((3, 5, 2), np.int16)
    assert cells[0:2, 0:2].tolist() == [[[40, 0]] * 2] * 2, "a second prediction of a block replaces the first"
    assert cells[1, 2].tolist() == [6, 0], "half pixels in quarters"
    assert cells[0, 4].tolist() == [1, 1], "what lies beyond the picture is left out"
    assert (cells[2] == NO_VECTOR).all()


def test_a_camera_that_stands_gives_nothing_and_one_that_moves_what_it_moves_by(tmp_path):
    still = cell_of(tmp_path / "s.mp4", static_texture(72, W, H, 1), **X264)
    moving = cell_of(tmp_path / "m.mp4", moving_texture(72, W, H, (3, 0), 1), **X264)
    assert still.values["global_mean"] == still.values["patch_min"] == 0
    assert still.values["n_frames"] == 5 and still.values["covered_share"] == 1.0
    assert moving.values["global_mean"] == pytest.approx(3 / (W + H), rel=0.15)
    assert moving.values["patch_min"] == pytest.approx(3 / (W + H), rel=0.15)


def test_a_standing_place_shows_in_the_least_patch_alone(tmp_path):
    """The upper half of a picture of two patches by two moves, the lower one stands."""
    frames = (np.vstack([f, g]) for f, g in zip(
        moving_texture(72, 512, 256, (4, 0), 1), static_texture(72, 512, 256, 2), strict=True
    ))  # fmt: skip
    cell = cell_of(tmp_path / "a.mp4", frames, **X264)
    assert cell.values["global_mean"] > 0.00098
    assert cell.values["patch_min"] < 1e-6


def peers(frames, width, height, patch_px):
    """The two measures over whole pictures, as they are defined, without squares."""
    pictures = []
    for frame in frames:
        has = frame[..., 0] != NO_VECTOR
        if has.any():
            length = np.where(has, np.hypot(frame[..., 0] / 4.0, frame[..., 1] / 4.0), 0) / (width + height)
            pictures.append(np.kron(length, np.ones((8, 8)))[:height, :width])
    mean = np.mean(pictures, axis=0)
    return mean.mean(), cv2.resize(mean, None, fx=1 / patch_px, fy=1 / patch_px).min()


@pytest.mark.parametrize("size_px", [(256, 256), (320, 270), (853, 480), (1920, 1080), (645, 391)])
def test_the_measures_are_those_of_whole_pictures(clip_item, size_px):
    rng = np.random.default_rng(0)
    columns, rows = cells_px(*size_px)
    frames = rng.integers(-40, 40, (5, rows, columns, 2)).astype(np.int16)
    frames[rng.random((5, rows, columns)) < 0.4] = NO_VECTOR
    frames[2] = NO_VECTOR
    item = clip_item()
    facts = replace(item.facts, coded_width_px=size_px[0], coded_height_px=size_px[1])
    view = View(frames, np.arange(5), Fraction(1, 2), np.zeros(5, np.int64), (8.0, 8.0))
    for patch_px in (64, 256):
        stage = MotionVectors(VectorsConfig(patch_px=patch_px))
        values = stage.score(replace(item, facts=facts, views={"vectors": view}))
        expected = peers(frames, *size_px, patch_px)
        assert (values["global_mean"], values["patch_min"]) == pytest.approx(expected, rel=1e-9)
        assert values["n_frames"] == 4


@pytest.mark.parametrize(
    ("codec", "name", "more", "words"),
    [
        ("libvpx-vp9", "a.webm", {}, "the decoder of vp9 gives no motion vectors"),
        ("libsvtav1", "a.mp4", {}, "the decoder of av1 gives no motion vectors"),
        ("libx265", "a.mp4", {}, "the decoder of hevc gives no motion vectors"),
        ("mjpeg", "a.avi", {"pix_fmt": "yuvj420p"}, "the decoder of mjpeg gives no motion vectors"),
        ("libx264", "a.mp4", {"gop": 1}, "the stream is made of key frames"),
    ],
)
def test_a_stream_without_vectors_fails_and_is_no_still_clip(tmp_path, codec, name, more, words):
    cell = cell_of(tmp_path / name, moving_texture(30, W, H, (3, 0), 1), codec=codec, **more)
    assert cell.outcome is Outcome.FAILED and cell.values == {}
    assert cell.failure.error_class == NoMotionVectorsError.__name__
    assert words in cell.failure.message and "stage `motion`" in cell.failure.message


def test_a_picture_smaller_than_a_patch_fails(tmp_path):
    cell = cell_of(tmp_path / "a.mp4", moving_texture(30, 320, 180, (3, 0), 1), **X264)
    assert cell.failure.error_class == StageError.__name__ and "320x180" in cell.failure.message


def test_a_clip_is_looked_at_to_its_end_whatever_the_clock(tmp_path):
    """A tick is a fraction of a second: counted in whole seconds it is none, and with it the length of a stream."""
    for name, fps in (("a.mp4", Fraction(24)), ("a.mkv", Fraction(30000, 1001)), ("a.h264", Fraction(24))):
        cell = cell_of(tmp_path / name, moving_texture(140, W, H, (3, 0), 1), fps, **X264, gop=200)
        assert int(read_facts(str(tmp_path / name)).time_base_fraction) == 0
        expected = int(140 / fps / Fraction(1, 2)) + 1 - 1  # of every half second one, the key frame has none
        assert abs(cell.values["n_frames"] - expected) <= 1, name


def test_vectors_of_large_pictures_take_little_memory(clip_item):
    """256 frames of 3840 x 2160 as numbers for every pixel would take 17 GB."""
    item = clip_item()
    facts = replace(item.facts, coded_width_px=3840, coded_height_px=2160, width_px=3840, height_px=2160)
    columns, rows = cells_px(3840, 2160)
    frames = np.zeros((64, rows, columns, 2), np.int16)
    view = View(frames, np.arange(64), Fraction(1, 2), np.zeros(64, np.int64), (8.0, 8.0))
    tracemalloc.start()
    MotionVectors(VectorsConfig()).score(replace(item, facts=facts, views={"vectors": view}))
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 12 << 20
    assert estimated_bytes(facts, {"v": SPEC}, 10.0) < 45 << 20


def test_frames_that_gave_their_vectors_are_freed_at_once(tmp_path):
    """Regression: each refers to itself once PyAV's own property was asked; only the collector of rings frees it."""
    path, facts = small(tmp_path / "a.mp4", n=48, **FILES["closed.mp4"])
    gc.collect()
    gc.freeze()  # only what comes from now on is looked through
    gc.disable()
    try:
        found = [vector_cells(frame.av_frame, (96, 54)).max() for frame in iter_frames(path, facts, vectors=True)]
        assert max(found) > 0 and gc.collect() == 0
    finally:
        gc.enable()
        gc.unfreeze()


def test_side_data_of_an_unknown_kind_is_no_end_of_the_source(monkeypatch):
    """PyAV raises for kinds that it has no name for, such as those of stereo films."""

    def unknown(frame):
        raise ValueError("1234 is not a valid Type")

    monkeypatch.setattr("curate.media.vectors.SideDataContainer", unknown)
    cells = vector_cells(av.VideoFrame(32, 32, "yuv420p"), (32, 32))
    assert (cells == NO_VECTOR).all()


def test_what_is_held_stays_under_the_estimate(tmp_path):
    path = tmp_path / "a.mp4"
    write_video(path, moving_object(75, 320, 180, (2, 1)), Fraction(25))
    facts, specs = read_facts(str(path)), {**PIXELS, "vectors": SPEC}
    sampler, most = ViewSampler(facts, specs), 0
    for frame in iter_frames(str(path), facts, vectors=True):
        sampler.push(frame)
        sampler.forget_before(frame.pts - facts.end_pts // 3)
        most = max(most, sampler.held_bytes)
    assert 0 < most <= estimated_bytes(facts, specs, 1.0)
    assert estimated_bytes(facts, specs, 1.0) > estimated_bytes(facts, PIXELS, 1.0)


def test_a_view_of_vectors_has_no_size_and_no_windows():
    for wrong in ({"short_side_px": 90}, {"size_px": (8, 8)}, {"sampling": "windows", "windows": 1, "window_s": 1.0}):
        with pytest.raises(StageError, match="impossible view"):
            ViewSpec(**{"sampling": "every", "every_s": 0.5, "pixels": "vectors", **wrong})
