import math
from fractions import Fraction

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.errors import StageError
from curate.media.decode import Frame, iter_frames
from curate.media.facts import read_facts
from curate.media.pixels import Scaler, plane_view
from curate.media.views import ViewSampler, estimated_bytes, sample_spans, view_digest, windows_of
from curate.records import Clip, SourceFacts, Span
from curate.testing.footage import moving_texture, write_video
from curate.view import ViewSpec

SPECS = {
    "points": ViewSpec(points=(0.0, 0.5, 1.0), short_side_px=40),
    "square": ViewSpec(points=(0.5,), size_px=(32, 32)),
    "every": ViewSpec(sampling="every", every_s=0.5, short_side_px=40, pixels="luma"),
    "windows": ViewSpec(sampling="windows", windows=2, window_s=0.3),
}
X264_OPEN = {"x264-params": "open-gop=1:bframes=3:ref=4:keyint=12:min-keyint=12:scenecut=0:b-adapt=0", "bf": "3"}
FILES = {
    "open.mp4": {"codec": "libx264", "options": X264_OPEN},
    "vp9.webm": {"codec": "libvpx-vp9"},
    "hevc.mkv": {"codec": "libx265", "pix_fmt": "yuv420p10le"},
    "mpeg4.avi": {"codec": "mpeg4", "options": {"bf": "2", "qscale": "3"}},
    "raw.h264": {"codec": "libx264", "options": {"bf": "3"}},
    "ntsc.mkv": {"codec": "libx264", "fps": Fraction(30000, 1001)},
}


def clip_of(facts: SourceFacts, start_pts: int, end_pts: int) -> Clip:
    return Clip.of_span("digest", facts.stream, facts.time_base_fraction, Span(start_pts, end_pts))


def digests(views) -> dict[str, str]:
    return {name: view_digest(view) for name, view in views.items()}


def streamed(path, facts, clips, specs):
    """Views the way a run takes them: one decode of everything, clips taken as they end."""
    sampler, waiting, found = ViewSampler(facts, specs), sorted(clips, key=lambda c: c.end_pts), {}
    for frame in iter_frames(path, facts):
        while waiting and waiting[0].end_pts <= frame.pts:
            clip = waiting.pop(0)
            found[clip.clip_id] = digests(sampler.take(clip))
            sampler.forget_before(min([c.start_pts for c in waiting], default=frame.pts))
        if frame.reference:
            sampler.push(frame, frame.thumb(64) if len(found) % 2 else None)
    return found | {clip.clip_id: digests(sampler.take(clip)) for clip in waiting}


@pytest.mark.parametrize("name", FILES)
def test_views_do_not_depend_on_where_decoding_began(tmp_path, name):
    path = str(tmp_path / name)
    write_video(path, moving_texture(150, 96, 54, (3, 1), 1), **{"fps": Fraction(25), "gop": 12, **FILES[name]})
    facts = read_facts(path)
    stamps = [frame.pts for frame in iter_frames(path, facts)]
    clips = [clip_of(facts, stamps[a], stamps[b]) for a, b in ((0, 31), (7, 40), (40, 66), (101, 127), (127, 149))]
    whole = streamed(path, facts, clips, SPECS)
    spans = {clip.clip_id: digests(views) for clip, views in sample_spans(path, facts, clips, SPECS)}
    assert spans == whole
    alone = {clip.clip_id: digests(v) for c in clips for clip, v in sample_spans(path, facts, [c], SPECS)}
    assert alone == whole
    for spec_name, spec in SPECS.items():
        lone = streamed(path, facts, clips, {spec_name: spec})
        assert all(lone[clip_id][spec_name] == whole[clip_id][spec_name] for clip_id in whole)


def bare_facts(time_base=Fraction(1, 1000), **changes) -> SourceFacts:
    values = {
        "stream": 0, "container": "", "codec": "", "pix_fmt": "yuv420p", "bit_depth": 8, "sar": "1/1",
        "coded_width_px": 16, "coded_height_px": 16, "width_px": 16, "height_px": 16, "rotation_deg": 0,
        "rate": "25/1", "rate_fps": 25.0, "vfr": True, "has_pts": True, "n_frames": 1, "bit_rate_bps": 0,
        "time_base": f"{time_base.numerator}/{time_base.denominator}", "start_pts": 0, "end_pts": 10**6,
        "duration_s": 1000.0, "key_frames_pts": [0], "key_frames_closed": [True], "streams_json": "[]",
    }  # fmt: skip
    return SourceFacts(**{**values, **changes})


def pushed(facts, stamps, specs) -> ViewSampler:
    sampler, scaler = ViewSampler(facts, specs), Scaler()
    for pts in stamps:
        frame = av.VideoFrame(16, 16, "yuv420p")
        for plane in frame.planes:
            plane_view(plane)[:] = pts % 251
        sampler.push(Frame(pts, frame, scaler))
    return sampler


@st.composite
def timelines(draw):
    """Rising time stamps in milliseconds, and a clip that begins and ends on two of them."""
    steps = draw(st.lists(st.integers(1, 700), min_size=2, max_size=60))
    stamps = list(np.cumsum([draw(st.integers(-500, 5000)), *steps]))
    first = draw(st.integers(0, len(stamps) - 2))
    last = draw(st.integers(first + 1, len(stamps) - 1))
    return [int(s) for s in stamps], first, last


def grid_members(stamps, start, end):
    """The rule of the grid, word by word: {candidate: its grid points}, grid points before the clip left out."""
    members: dict[int, list[int]] = {}
    for k in range(math.ceil(start / 250), math.floor(end / 250) + 1):
        candidate = next((pts for pts in stamps if pts >= 250 * k), None)
        if candidate is not None and start <= candidate < end:
            members.setdefault(candidate, []).append(k)
    return members


@settings(max_examples=150, deadline=None)
@given(timelines())
def test_grid_rule_follows_from_the_span_alone(timeline):
    stamps, first, last = timeline
    start, end = stamps[first], stamps[last]
    specs = {
        "p": ViewSpec(points=(0.0, 0.3, 1.0), short_side_px=16),
        "e": ViewSpec(sampling="every", every_s=0.5, short_side_px=16),
    }
    facts = bare_facts()
    clip = clip_of(facts, start, end)
    members = grid_members(stamps, start, end)
    from_start, from_clip = pushed(facts, stamps, specs), pushed(facts, stamps[first:last], specs)
    if not members:
        for sampler in (from_start, from_clip):
            with pytest.raises(StageError, match="too short for the frame rate"):
                sampler.take(clip)
        return
    views = from_start.take(clip)
    assert digests(views) == digests(from_clip.take(clip))
    targets = [start + Fraction(p) * (end - start) for p in ("0", "0.3", "1")]
    assert list(views["p"].pts) == [min(members, key=lambda c, t=t: (abs(c - t), c)) for t in targets]
    even = [c for c, ks in members.items() if any(k % 2 == 0 for k in ks)]
    assert list(views["e"].pts) == (even or list(members)[:1])


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10**5), st.integers(1, 20_000), st.integers(1, 5), st.sampled_from(["0.25", "0.5", "1", "2.2"]))
def test_windows_lie_in_the_clip_and_never_overlap(start, length, n, window_s):
    clip = clip_of(bare_facts(), start, start + length)
    windows = windows_of(clip, n, Fraction(window_s))
    assert len(windows) == n
    edges = [edge for window in windows for edge in window]
    assert edges == sorted(edges)
    assert clip.start_s <= edges[0] and edges[-1] <= clip.end_s
    assert all(end - begin <= Fraction(window_s) for begin, end in windows)
    if clip.duration_s >= n * (Fraction(window_s) + Fraction(1, 4)):
        assert all(end - begin == Fraction(window_s) for begin, end in windows)


def test_window_views_hold_every_frame_of_their_windows():
    facts = bare_facts(width_px=160, height_px=320, coded_width_px=320, coded_height_px=160, rotation_deg=90)
    sampler, scaler = ViewSampler(facts, {"w": SPECS["windows"]}), Scaler()
    stamps = range(0, 8000, 40)
    for pts in stamps:
        frame = av.VideoFrame(320, 160, "yuv420p")
        plane_view(frame.planes[0])[:] = 16
        plane_view(frame.planes[0])[:, :160] = 235
        sampler.push(Frame(pts, frame, scaler))
    view = sampler.take(clip_of(facts, 1000, 5000))["w"]
    # Centres 2 s and 4 s, begins 1.85 and 3.85 snapped down to the grid.
    assert list(view.pts[view.groups == 0]) == [pts for pts in stamps if 1750 <= pts < 2050]
    assert list(view.pts[view.groups == 1]) == [pts for pts in stamps if 3750 <= pts < 4050]
    assert (view.frames.shape[1:], view.frames.dtype) == ((64, 32), np.uint8)
    assert view.px_scale == (5.0, 5.0)
    assert (view.frames[:, :30] == 255).all() and (view.frames[:, 34:] == 0).all()  # the left half is now on top


def test_windows_between_rare_reference_frames_show_the_clips_first():
    facts = bare_facts()
    stamps = [0, 900, 1100, 2900]
    view = pushed(facts, stamps, SPECS).take(clip_of(facts, 900, 3000))["windows"]
    assert list(view.pts) == [900]
    with pytest.raises(StageError, match="no frame"):
        pushed(facts, stamps, {"windows": SPECS["windows"]}).take(clip_of(facts, 1200, 2800))


def test_a_given_thumb_and_an_own_one_make_the_same_window():
    facts = bare_facts(width_px=480, height_px=270, coded_width_px=480, coded_height_px=270)
    samplers, scaler = [ViewSampler(facts, {"w": SPECS["windows"]}) for _ in range(2)], Scaler()
    for i, picture in enumerate(moving_texture(20, 480, 270, (3, 1))):
        frame = Frame(40 * i, av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p"), scaler)
        samplers[0].push(frame)
        samplers[1].push(frame, frame.thumb(64))
    first, second = (digests(sampler.take(clip_of(facts, 0, 800))) for sampler in samplers)
    assert first == second


COLOURS = [(220, 30, 40), (30, 200, 60), (40, 60, 220), (128, 128, 128)]
KR_KB = {1: (0.2126, 0.0722), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}


def yuv_planes(width, height, matrix, full, depth):
    """Four colour patches as Y, U, V planes (4:2:0), straight from the definition of the matrix and the range."""
    kr, kb = KR_KB[matrix]
    planes = [np.zeros((height // s, width // s), np.uint16) for s in (1, 2, 2)]
    for i, rgb in enumerate(COLOURS):
        r, g, b = (c / 255 for c in rgb)
        y = kr * r + (1 - kr - kb) * g + kb * b
        chroma = ((b - y) / (2 - 2 * kb), (r - y) / (2 - 2 * kr))
        unit = 2 ** (depth - 8)
        top = 2**depth - 1
        coded = [y * top if full else (16 + 219 * y) * unit]
        coded += [2 ** (depth - 1) + c * (top if full else 224 * unit) for c in chroma]
        for plane, value in zip(planes, coded, strict=True):
            h, w = plane.shape
            plane[i // 2 * h // 2 : (i // 2 + 1) * h // 2, i % 2 * w // 2 : (i % 2 + 1) * w // 2] = round(value)
    return planes


def write_patches(path, width, height, *, matrix, told=True, full=False, depth=8, sar=None, rotation_deg=0):
    """Six frames of the patches, coded as good as losslessly, tagged with matrix and range if ``told``."""
    pix_fmt = "yuv420p10le" if depth == 10 else "yuv420p"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx265" if depth == 10 else "libx264", rate=6)
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        quiet = {"x265-params": "log-level=error:pools=none:qp=4"}
        stream.codec_context.options = quiet if depth == 10 else {"qp": "4", "preset": "ultrafast"}
        if told:
            stream.codec_context.colorspace = matrix
            stream.codec_context.color_range = 2 if full else 1
        if sar:
            stream.codec_context.sample_aspect_ratio = sar
        if rotation_deg:
            stream.set_display_rotation(-rotation_deg)
        planes = yuv_planes(width, height, matrix, full, depth)
        for i in range(6):
            frame = av.VideoFrame(width, height, pix_fmt)
            for target, values in zip(frame.planes, planes, strict=True):
                dtype = np.uint16 if depth == 10 else np.uint8
                plane_view(target, dtype)[:] = values
            frame.pts = i
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


PATCHES = {
    "bt601_untold": {"width": 320, "height": 180, "matrix": 6, "told": False},
    "bt709_untold_hd": {"width": 1280, "height": 720, "matrix": 1, "told": False},
    "bt709_told_small": {"width": 320, "height": 180, "matrix": 1},
    "bt601_told_hd": {"width": 1280, "height": 720, "matrix": 6},
    "full_range": {"width": 320, "height": 180, "matrix": 6, "full": True},
    "full_range_709_large": {"width": 1280, "height": 720, "matrix": 1, "full": True},
    "ten_bit": {"width": 320, "height": 180, "matrix": 1, "depth": 10},
    "ten_bit_2020_large": {"width": 1280, "height": 720, "matrix": 9, "depth": 10},
    "anamorphic": {"width": 160, "height": 180, "matrix": 6, "sar": Fraction(2)},
    "turned": {"width": 320, "height": 180, "matrix": 6, "rotation_deg": 90},
    "turned_back_anamorphic": {"width": 160, "height": 180, "matrix": 6, "rotation_deg": 270, "sar": Fraction(2)},
    "upside_down": {"width": 320, "height": 180, "matrix": 6, "rotation_deg": 180},
}


@pytest.mark.parametrize("name", PATCHES)
def test_known_colours_come_back_upright(tmp_path, name):
    path = tmp_path / "patches.mp4"
    write_patches(path, **PATCHES[name])
    facts = read_facts(str(path))
    specs = {
        "rgb": ViewSpec(points=(0.0,), short_side_px=90),
        "square": ViewSpec(points=(0.0,), size_px=(64, 64)),
        "luma": ViewSpec(points=(0.0,), short_side_px=90, pixels="luma"),
    }
    clip = clip_of(facts, facts.start_pts, facts.end_pts)
    ((_, views),) = sample_spans(str(path), facts, [clip], specs)
    turns = PATCHES[name].get("rotation_deg", 0) // 90
    upright = np.rot90(np.array(COLOURS, int).reshape(2, 2, 3), -turns)
    assert views["rgb"].frames.shape[1:3] == ((90, 160) if turns % 2 == 0 else (160, 90))
    assert views["square"].frames.shape == (1, 64, 64, 3)
    for view in (views["rgb"], views["square"]):
        assert np.abs(quarters(view.frames[0]) - upright).max() <= 3
    assert views["rgb"].px_scale == (
        facts.width_px / views["rgb"].frames.shape[2],
        facts.height_px / views["rgb"].frames.shape[1],
    )
    kr, kb = KR_KB[PATCHES[name]["matrix"]]
    grey = upright @ np.array([kr, 1 - kr - kb, kb])
    assert np.abs(quarters(views["luma"].frames[0]) - grey).max() <= 3


def quarters(picture):
    h, w = picture.shape[:2]
    return picture[np.ix_([h // 4, 3 * h // 4], [w // 4, 3 * w // 4])].astype(int)


def test_small_sources_are_not_enlarged(tmp_path):
    path = tmp_path / "a.mp4"
    write_video(path, moving_texture(10, 96, 54, (2, 0)))
    facts = read_facts(str(path))
    spec = {"v": ViewSpec(points=(0.5,), short_side_px=224)}
    ((_, views),) = sample_spans(str(path), facts, [clip_of(facts, 0, facts.end_pts)], spec)
    assert views["v"].frames.shape == (1, 54, 96, 3) and views["v"].px_scale == (1.0, 1.0)


def test_a_clip_without_a_grid_frame_fails_alone(tmp_path):
    path = tmp_path / "slow.mp4"
    write_video(path, moving_texture(12, 96, 54, (2, 0)), Fraction(2))
    facts = read_facts(str(path))
    tick = facts.end_pts // 12
    long, short = clip_of(facts, 0, 4 * tick), clip_of(facts, 4 * tick + 1, 5 * tick)
    failed = []
    found = [
        clip
        for clip, _ in sample_spans(str(path), facts, [long, short], SPECS, on_error=lambda c, e: failed.append((c, e)))
    ]
    assert found == [long]
    assert [(clip, error.subject) for clip, error in failed] == [(short, short.clip_id)]
    with pytest.raises(StageError):
        list(sample_spans(str(path), facts, [long, short], SPECS))


def test_what_is_held_stays_under_the_estimate_and_is_forgotten(tmp_path):
    path = tmp_path / "a.mp4"
    write_video(path, moving_texture(75, 320, 180, (2, 0)), Fraction(25))
    facts = read_facts(str(path))
    sampler, most = ViewSampler(facts, SPECS), 0
    for frame in iter_frames(str(path), facts):
        sampler.push(frame)
        sampler.forget_before(frame.pts - facts.end_pts // 3)
        most = max(most, sampler.held_bytes)
    assert 0 < most <= estimated_bytes(facts, SPECS, 1.0) < estimated_bytes(facts, SPECS, 2.0)
    sampler.forget_before(facts.end_pts)
    assert sampler.held_bytes == 0
    assert estimated_bytes(facts, {}, 10.0) == 0
    assert estimated_bytes(None, SPECS, 1.0) > estimated_bytes(facts, SPECS, 1.0)
    assert estimated_bytes(None, SPECS, math.inf) > 2**40 > estimated_bytes(facts, SPECS, math.inf)


def test_long_gaps_are_sought_over(tmp_path):
    path = tmp_path / "a.mp4"
    write_video(path, moving_texture(120, 96, 54, (2, 0)), Fraction(25), "mpeg4", gop=12)
    facts = read_facts(str(path))
    tick = facts.end_pts // 120
    clips = [clip_of(facts, 0, 12 * tick), clip_of(facts, 96 * tick, 120 * tick)]
    whole = [digests(views) for _, views in sample_spans(str(path), facts, clips, SPECS)]
    with av.open(str(path)) as container:
        middle = [bytes(packet) for packet in container.demux(video=0) if packet.size][50]
    data = path.read_bytes()
    path.write_bytes(data.replace(middle, b"\0" * len(middle)))
    assert [digests(views) for _, views in sample_spans(str(path), facts, clips, SPECS)] == whole
