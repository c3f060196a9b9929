"""One decode for cuts and views: what is skipped changes nothing that is seen."""

import pytest
from media_kit import X264_OPEN, X265_OPEN

from curate.engine.detect import Detection
from curate.media import looks
from curate.media.decode import iter_frames
from curate.media.facts import read_facts
from curate.media.packets import Depth
from curate.media.views import ViewSampler, sample_spans, view_digest
from curate.records import Clip
from curate.stages.cut import Cut, CutConfig
from curate.testing.footage import moving_texture, write_video
from curate.view import ViewSpec

N, CUTS = 150, (52, 101)
SPECS = {
    "ends": ViewSpec(points=(0.0, 0.5, 1.0), short_side_px=48),
    "every": ViewSpec(sampling="every", every_s=0.25, short_side_px=32, pixels="luma"),
    "windows": ViewSpec(sampling="windows", windows=2, window_s=0.5, pixels="luma"),
}
CODECS = {
    "h264.mp4": {"codec": "libx264", "options": {"bf": "3", "sc_threshold": "0"}},
    "open.mkv": {"codec": "libx264", "options": X264_OPEN},
    "plain.mp4": {"codec": "libx264", "options": {"bf": "0"}},
    "hevc.mp4": {"codec": "libx265", "options": X265_OPEN},
    "vp9.webm": {"codec": "libvpx-vp9"},
    "av1.mp4": {"codec": "libsvtav1"},
    "mpeg4.mp4": {"codec": "mpeg4", "options": {"bf": "2", "qscale": "3"}},
    "mpeg2.ts": {"codec": "mpeg2video", "options": {"bf": "2", "b": "2M"}},
}


@pytest.fixture(scope="module", params=CODECS)
def film(request, tmp_path_factory):
    path = str(tmp_path_factory.mktemp("film") / request.param)
    bounds = (0, *CUTS, N)
    frames = [f for i in range(3) for f in moving_texture(bounds[i + 1] - bounds[i], 160, 90, (1, 0), i)]
    write_video(path, frames, fps=30, **CODECS[request.param])
    return path, read_facts(path)


def found(path, facts, **config):
    """Clips and the digests of their views, from the one decode."""
    cut = Cut(CutConfig.model_validate({"min_len_s": 0, "max_len_s": 0, **config}))
    sampler = ViewSampler(facts, SPECS)
    clips = {}
    for spans in Detection(path, facts, cut, sampler).spans():
        for span in spans:
            clip = Clip.of_span("0" * 64, facts.stream, facts.time_base_fraction, span)
            clips[clip] = {name: view_digest(view) for name, view in sampler.take(clip).items()}
    return clips


def test_cuts_are_placed_to_the_frame_whatever_is_skipped(film):
    path, facts = film
    stamps = [frame.pts for frame in iter_frames(path, facts)]
    clips = list(found(path, facts))
    assert [(clip.start_pts, clip.end_pts) for clip in clips] == [
        (facts.start_pts, stamps[CUTS[0]]),
        (stamps[CUTS[0]], stamps[CUTS[1]]),
        (stamps[CUTS[1]], facts.end_pts),
    ]
    assert [clip.n_frames for clip in clips] == [CUTS[0], CUTS[1] - CUTS[0], N - CUTS[1]]


def test_a_stage_that_is_run_again_alone_sees_the_same_pixels(film):
    path, facts = film
    first = found(path, facts)
    again = {
        clip: {name: view_digest(view) for name, view in views.items()}
        for clip, views in sample_spans(path, facts, list(first), SPECS)
    }
    assert again == first
    for clip in first:
        ((_, alone),) = sample_spans(path, facts, [clip], SPECS)
        assert {name: view_digest(view) for name, view in alone.items()} == first[clip]


def test_a_method_that_sees_every_frame_changes_no_view(film):
    path, facts = film
    ours = {(clip.start_pts, clip.end_pts): views for clip, views in found(path, facts).items()}
    theirs = found(path, facts, method="pyscenedetect-content")
    common = {
        (clip.start_pts, clip.end_pts): views
        for clip, views in theirs.items()
        if (clip.start_pts, clip.end_pts) in ours
    }
    assert common == {span: ours[span] for span in common} and common


def test_going_over_to_every_frame_changes_no_clip_and_no_view(film, monkeypatch):
    path, facts = film
    before = found(path, facts)
    monkeypatch.setattr(looks, "AGAIN_FRAMES", -1)
    monkeypatch.setattr(looks, "AGAIN_SHARE", -1.0)
    assert found(path, facts) == before


def test_few_frames_that_nothing_needs_are_decoded(film):
    path, facts = film
    with iter_frames(path, facts, depth=Depth.LIKELY) as frames:
        decoded = list(frames)
    references = sum(frame.reference for frame in decoded)
    assert len(decoded) - references <= 0.35 * (N - references)
