from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.errors import DecodeError, EmptyFileError, NotMediaError, NoVideoStreamError, StorageError
from curate.media.facts import read_facts, recover_rate
from curate.records import SourceFacts
from curate.testing.footage import Track, moving_texture, write_tone, write_tracks, write_video

NTSC = Fraction(30000, 1001)
OPEN_GOP = {
    "x264-params": "open-gop=1:bframes=3:keyint=12:min-keyint=12:scenecut=0:b-adapt=0",
    "bf": "3",
}


def scene(n=24, width=160, height=90, seed=1):
    return moving_texture(n, width, height, (3, 1), seed)


def facts_of(path: Path) -> SourceFacts:
    return read_facts(str(path))


def test_plain_file(tmp_path):
    path = tmp_path / "a.mp4"
    write_video(path, scene(50), Fraction(25), gop=10)
    facts = facts_of(path)
    assert (facts.codec, facts.pix_fmt, facts.bit_depth, facts.sar) == ("h264", "yuv420p", 8, "1/1")
    assert (facts.width_px, facts.height_px, facts.rotation_deg) == (160, 90, 0)
    assert (facts.rate, facts.vfr, facts.has_pts, facts.n_frames) == ("25/1", False, True, 50)
    assert facts.duration_s == 2.0
    ticks = facts.time_base_fraction
    assert [pts * ticks for pts in facts.key_frames_pts] == [Fraction(10 * i, 25) for i in range(5)]
    assert all(facts.key_frames_closed)
    assert SourceFacts.from_cell(facts.to_cell()) == facts


def test_largest_stream_wins_over_the_first_and_the_longer(tmp_path):
    path = tmp_path / "two.mp4"
    small = Track(scene(60, 96, 54), Fraction(25))
    large = Track(scene(30, 160, 90), NTSC)
    write_tracks(path, [small, large], tone_s=1.0)
    facts = facts_of(path)
    assert (facts.stream, facts.width_px, facts.rate) == (1, 160, "30000/1001")
    assert '"size":"96x54"' in facts.streams_json and '"type":"audio"' in facts.streams_json


def test_longer_stream_wins_at_equal_area_then_the_lower_index(tmp_path):
    path = tmp_path / "longer.mp4"
    write_tracks(path, [Track(scene(10)), Track(scene(20)), Track(scene(20))])
    assert facts_of(path).stream == 1


def test_cover_picture_is_no_video(tmp_path):
    path = tmp_path / "cover.mp4"
    with av.open(str(path), "w") as container:
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 320, 320, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        video = container.add_stream("libx264", rate=10)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        for stream, n in ((cover, 1), (video, 5)):
            for i in range(n):
                frame = av.VideoFrame(stream.width, stream.height, stream.pix_fmt)
                frame.pts = i
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    assert facts_of(path).width_px == 64


@pytest.mark.parametrize("rotation_deg", [0, 90, 180, 270])
def test_rotation_and_pixel_aspect_make_the_displayed_size(tmp_path, rotation_deg):
    path = tmp_path / "r.mp4"
    write_video(path, scene(5), rotation_deg=rotation_deg, sar=Fraction(2))
    facts = facts_of(path)
    assert facts.rotation_deg == rotation_deg
    assert (facts.coded_width_px, facts.coded_height_px, facts.sar) == (160, 90, "2/1")
    assert (facts.width_px, facts.height_px) == ((320, 90) if rotation_deg % 180 == 0 else (90, 320))


@pytest.mark.parametrize("suffix", ["mkv", "mp4", "ts"])
@pytest.mark.parametrize("rate", [NTSC, Fraction(24000, 1001), Fraction(25), Fraction(30), Fraction(60000, 1001)])
def test_exact_rate_is_recovered(tmp_path, suffix, rate):
    path = tmp_path / f"a.{suffix}"
    write_video(path, scene(40, 64, 48), rate)
    facts = facts_of(path)
    assert (Fraction(facts.rate), facts.vfr) == (rate, False)


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
def test_varying_rate_is_seen(tmp_path, suffix):
    path = tmp_path / f"v.{suffix}"
    pts = list(np.cumsum([0, *[3000, 3000, 6000, 1500] * 8]))
    write_video(path, scene(len(pts)), pts=[int(p) for p in pts])
    facts = facts_of(path)
    assert facts.vfr and facts.n_frames == 33
    assert abs(facts.rate_fps - 32 / (pts[-1] / 90_000)) < 0.1


def test_rate_of_a_frame_every_hour_is_not_none():
    assert recover_rate(np.array([0, 3_000_000, 9_000_000]), Fraction(1, 1000), []) == (Fraction(1, 4500), True)


@given(
    rate=st.sampled_from([Fraction(24), Fraction(25), NTSC, Fraction(24000, 1001), Fraction(50), Fraction(25, 2)]),
    ticks=st.sampled_from([1000, 12800, 90000, 30000]),
    n=st.integers(2, 400),
    start=st.integers(-1000, 10**7),
    floor=st.booleans(),
)
def test_rounded_time_stamps_of_a_constant_rate_give_that_rate(rate, ticks, n, start, floor):
    exact = [i * ticks / rate for i in range(n)]
    pts = np.array([start + (int(t) if floor else round(t)) for t in exact], dtype=np.int64)
    found, vfr = recover_rate(pts, Fraction(1, ticks), [rate])
    assert (found, vfr) == (rate, False)


def test_open_gop_key_frames_are_not_closed(tmp_path):
    path = tmp_path / "open.mp4"
    write_video(path, scene(60), Fraction(25), gop=12, options=OPEN_GOP)
    facts = facts_of(path)
    assert len(facts.key_frames_pts) >= 4
    assert facts.key_frames_closed == [True] + [False] * (len(facts.key_frames_pts) - 1)


def test_key_frames_that_only_begin_a_refresh_are_not_closed(tmp_path):
    path = tmp_path / "refresh.mkv"
    write_video(path, scene(48), Fraction(25), options={"x264-params": "intra-refresh=1:keyint=12:bframes=0"})
    closed = facts_of(path).key_frames_closed
    assert len(closed) > 1 and not any(closed[1:])


@pytest.mark.parametrize(("name", "codec"), [("raw.h264", "libx264"), ("raw.hevc", "libx265"), ("b.avi", "libx264")])
def test_streams_without_time_stamps_count_frames(tmp_path, name, codec):
    path = tmp_path / name
    write_video(path, scene(30), Fraction(25), codec, options={"bf": "3"})
    facts = facts_of(path)
    assert (facts.has_pts, facts.time_base, facts.n_frames) == (False, "1/25", 30)
    assert (facts.start_pts, facts.end_pts, facts.key_frames_pts, facts.key_frames_closed) == (0, 30, [0], [True])


def test_hidden_reference_frames_of_vp8_do_not_count(tmp_path):
    path = tmp_path / "a.webm"
    options = {"auto-alt-ref": "1", "lag-in-frames": "16", "b": "300k"}
    write_video(path, scene(60), Fraction(25), "libvpx", gop=30, options=options)
    facts = facts_of(path)
    assert (facts.n_frames, facts.vfr, facts.rate) == (60, False, "25/1")


def test_empty_file(tmp_path):
    path = tmp_path / "empty.mp4"
    path.touch()
    with pytest.raises(EmptyFileError):
        facts_of(path)


def test_absent_file(tmp_path):
    with pytest.raises(StorageError):
        facts_of(tmp_path / "none.mp4")


def test_text_is_not_media(tmp_path):
    path = tmp_path / "notes.mp4"
    path.write_text("dear diary, " * 100)
    with pytest.raises(NotMediaError, match="no video demuxer"):
        facts_of(path)


def test_sound_only_says_what_was_found(tmp_path):
    path = tmp_path / "tone.m4a"
    write_tone(path, 0.5)
    with pytest.raises(NoVideoStreamError, match=r"found audio \(aac\)"):
        facts_of(path)


def test_mp4_without_its_index_looks_truncated(tmp_path):
    whole, cut = tmp_path / "a.mp4", tmp_path / "b.mp4"
    write_video(whole, scene(60))
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(NotMediaError, match="truncated or incomplete"):
        facts_of(cut)


@pytest.mark.parametrize(("suffix", "options"), [("mp4", {"movflags": "faststart"}), ("mkv", {}), ("avi", {})])
def test_file_shorter_than_its_container_says_is_truncated(tmp_path, suffix, options):
    whole, cut = tmp_path / f"a.{suffix}", tmp_path / f"b.{suffix}"
    write_tracks(whole, [Track(scene(60), codec="mpeg4")], container_options=options)
    facts_of(whole)
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 6 // 10])
    with pytest.raises(DecodeError, match=r"truncated.*Replace or re-download"):
        facts_of(cut)


PLAYLISTS = {
    "list.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{target}\n#EXT-X-ENDLIST\n",
    "list.mp4": "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{target}\n#EXT-X-ENDLIST\n",
    "list.ffconcat": "ffconcat version 1.0\nfile '{target}'\n",
    "list.mpd": '<MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period><BaseURL>{target}</BaseURL></Period></MPD>',
    "list.sdp": "v=0\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n",
}


@pytest.mark.parametrize("name", PLAYLISTS)
def test_playlists_are_refused_and_never_followed(tmp_path, name):
    target = tmp_path / "target.ts"
    write_video(target, scene(10))
    path = tmp_path / name
    path.write_text(PLAYLISTS[name].format(target=target))
    with pytest.raises(NotMediaError, match="is a playlist"):
        facts_of(path)


def test_a_name_is_never_a_pattern_or_a_protocol(tmp_path, monkeypatch):
    write_video(tmp_path / "a.ts", scene(10))
    monkeypatch.chdir(tmp_path)
    for name in ("concat:a.ts|a.ts", "f%03d.png"):
        (tmp_path / name).write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(64))
        with pytest.raises(NotMediaError):
            read_facts(name)
    (tmp_path / "data:x.mp4").write_bytes((tmp_path / "a.ts").read_bytes())
    assert read_facts("data:x.mp4").n_frames == 10


def test_a_recording_joined_from_two_falls_back_to_counting(tmp_path):
    parts = []
    for i in range(2):
        path = tmp_path / f"{i}.ts"
        write_video(path, scene(75, seed=i), Fraction(25))
        parts.append(path.read_bytes())
    joined = tmp_path / "joined.ts"
    joined.write_bytes(parts[0] + parts[1])
    facts = facts_of(joined)
    assert not facts.has_pts and facts.n_frames == 150
