"""A clip file holds exactly the frames of its span, at their times, looking as the source looks."""

import hashlib
import io
import json
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from curate.errors import CurateError, DecodeError
from curate.media.decode import iter_frames
from curate.media.encode import EncodeOptions, encoder_version, extract_clip
from curate.media.facts import read_facts
from curate.media.geometry import Crop, geometry_of
from curate.records import Clip, Span
from curate.testing.footage import letterbox, moving_texture, write_video

W, H, N = 160, 96, 40
QUICK = EncodeOptions(preset="ultrafast", crf=12)
AUTO = EncodeOptions(mode="auto", preset="ultrafast", crf=12)
X265 = "log-level=error:pools=none"


def scene(n=N, width=W, height=H):
    return moving_texture(n, width, height, velocity_px=(2, 1), seed=3)


VFR_PTS = [int(t) for t in np.cumsum([0, *np.random.default_rng(1).integers(1500, 9000, N - 1)])]

SOURCES = {
    "plain": {"fps": Fraction(24)},
    "ntsc": {"fps": Fraction(30000, 1001), "gop": 10},
    "b_frames": {"options": {"bf": "3", "preset": "fast", "crf": "12"}, "gop": 12},
    "open_gop": {"options": {"preset": "fast", "bf": "3", "crf": "12", "x264-params": "open-gop=1"}, "gop": 12},
    "vfr": {"pts": VFR_PTS},
    "rotated_90": {"rotation_deg": 90},
    "rotated_180": {"rotation_deg": 180},
    "rotated_270": {"rotation_deg": 270},
    "sar_2_1": {"sar": Fraction(2)},
    "hevc_10_bit": {"codec": "libx265", "pix_fmt": "yuv420p10le", "options": {"crf": "14", "x265-params": X265}},
    "yuv444": {"pix_fmt": "yuv444p"},
    "vp9_mkv": {"codec": "libvpx-vp9", "suffix": ".mkv"},
}


@pytest.fixture(scope="module")
def make(tmp_path_factory):
    folder, made = tmp_path_factory.mktemp("sources"), {}

    def build(name):
        if name not in made:
            more = dict(SOURCES[name])
            path = folder / f"{name}{more.pop('suffix', '.mp4')}"
            write_video(path, scene(), **more)
            made[name] = (str(path), read_facts(str(path)))
        return made[name]

    return build


def all_pts(path, facts):
    with iter_frames(path, facts) as frames:
        return [frame.pts for frame in frames]


def clip_of(facts, start_pts, end_pts):
    return Clip.of_span("0" * 64, facts.stream, facts.time_base_fraction, Span(start_pts, end_pts))


def middle_clip(path, facts, first=7, last=31):
    """Frames first <= i < last, neither end a key frame."""
    pts = all_pts(path, facts)
    return clip_of(facts, pts[first], pts[last]), pts[first:last]


def read_clip(data):
    """(seconds, RGB picture, RGB reader frame) of each frame of a file, by a plain reader."""
    with av.open(io.BytesIO(data)) as container:
        return [(f.pts * f.time_base, f.to_ndarray(format="rgb24"), f) for f in container.decode(video=0)]


def truth(path, facts, clip):
    """RGB pictures of the span as a player shows them: turned upright, pixels stretched to squares."""
    turns = {0: 0, 90: 3, 180: 2, 270: 1}[facts.rotation_deg]
    pictures = []
    with iter_frames(path, facts, start_pts=clip.start_pts, end_pts=clip.end_pts) as frames:
        for frame in frames:
            sar = Fraction(facts.sar)
            picture = frame.av_frame.reformat(width=round(facts.coded_width_px * sar), format="rgb24").to_ndarray()
            pictures.append(np.rot90(picture, turns))
    return pictures


def psnr_db(a, b):
    return 10 * np.log10(255**2 / np.mean((a.astype(float) - b.astype(float)) ** 2))


@pytest.mark.parametrize("name", SOURCES)
def test_reencoded_clip_holds_exactly_its_span_and_looks_like_the_source(make, name):
    path, facts = make(name)
    clip, pts = middle_clip(path, facts)
    file = extract_clip(path, facts, clip, QUICK)
    frames = read_clip(file.data)
    assert [when for when, _, _ in frames] == [(p - pts[0]) * clip.time_base for p in pts]
    assert (file.n_frames, file.mode, file.codec) == (len(pts), "encode", "h264")
    assert file.fps == pytest.approx(len(pts) / float(clip.duration_s))
    for (_, picture, _), wanted in zip(frames, truth(path, facts, clip), strict=True):
        assert picture.shape == wanted.shape == (file.height_px, file.width_px, 3)
        assert psnr_db(picture, wanted) > 30


@pytest.mark.parametrize("name", ["plain", "vfr", "rotated_90", "sar_2_1", "hevc_10_bit"])
def test_file_is_upright_square_8_bit_and_without_reordering(make, name):
    path, facts = make(name)
    clip, _ = middle_clip(path, facts)
    data = extract_clip(path, facts, clip, QUICK).data
    assert data.index(b"moov") < data.index(b"mdat")
    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert stream.codec_context.sample_aspect_ratio in (None, 1)
        packets = [p for p in container.demux(stream) if p.size]
        assert all(p.pts == p.dts for p in packets)
        assert packets[0].pts == 0
        container.seek(0)
        assert {f.rotation for f in container.decode(stream)} == {0}
        assert stream.duration * stream.time_base == clip.duration_s


def test_whole_source_is_a_clip_and_its_last_frame_keeps_its_length(make):
    path, facts = make("vfr")
    clip = clip_of(facts, facts.start_pts, facts.end_pts)
    file = extract_clip(path, facts, clip, QUICK)
    assert file.n_frames == N
    with av.open(io.BytesIO(file.data)) as container:
        stream = container.streams.video[0]
        assert stream.duration * stream.time_base == clip.duration_s


@pytest.mark.parametrize("name", ["b_frames", "hevc_10_bit", "rotated_90"])
def test_same_clip_gives_the_same_bytes_wherever_the_file_lies(make, name, tmp_path):
    path, facts = make(name)
    clip, _ = middle_clip(path, facts)
    elsewhere = tmp_path / f"another name{path[-4:]}"
    elsewhere.write_bytes(Path(path).read_bytes())
    digests = {
        hashlib.sha256(extract_clip(p, facts, clip, QUICK).data).hexdigest() for p in (path, str(elsewhere), path)
    }
    assert len(digests) == 1


def test_nothing_of_the_host_or_the_library_is_in_the_container(make):
    path, facts = make("plain")
    clip, _ = middle_clip(path, facts)
    data = extract_clip(path, facts, clip, QUICK).data
    assert b"Lavf" not in data and b"curate" not in data
    assert encoder_version().startswith("libx264 core ")


def test_frames_of_a_stream_without_time_stamps_are_counted(tmp_path):
    path = tmp_path / "raw.h264"
    write_video(path, scene(), fps=Fraction(25), options={"bf": "0"})
    facts = read_facts(str(path))
    assert not facts.has_pts
    file = extract_clip(str(path), facts, clip_of(facts, 5, 15), QUICK)
    assert [when for when, _, _ in read_clip(file.data)] == [i / Fraction(facts.rate) for i in range(10)]


def test_full_range_and_matrix_tags_survive(tmp_path):
    path = tmp_path / "full.mp4"
    write_video(path, scene(), pix_fmt="yuvj420p", options={"colorspace": "bt709", "color_range": "pc"})
    facts = read_facts(str(path))
    clip, _ = middle_clip(str(path), facts)
    frames = read_clip(extract_clip(str(path), facts, clip, QUICK).data)
    source = truth(str(path), facts, clip)
    assert {(f.color_range, f.colorspace) for _, _, f in frames} == {(2, 1)}
    assert psnr_db(frames[0][1], source[0]) > 30


def test_odd_sizes_lose_their_last_row_and_column(tmp_path):
    path = tmp_path / "odd.mp4"
    write_video(path, scene(20, 97, 55), pix_fmt="yuv444p")
    facts = read_facts(str(path))
    clip = clip_of(facts, facts.start_pts, facts.end_pts)
    file = extract_clip(str(path), facts, clip, QUICK)
    assert (file.width_px, file.height_px) == (96, 54)
    assert psnr_db(read_clip(file.data)[3][1], truth(str(path), facts, clip)[3][:54, :96]) > 30


@pytest.mark.parametrize("rotation_deg", [0, 90])
def test_crop_cuts_the_bars_off(tmp_path, rotation_deg):
    path = tmp_path / "bars.mp4"
    write_video(path, letterbox(scene(20), 16), rotation_deg=rotation_deg)
    facts = read_facts(str(path))
    clip = clip_of(facts, facts.start_pts, facts.end_pts)
    crop = Crop(0, 16, W, H - 32) if not rotation_deg else Crop(16, 0, H - 32, W)
    file = extract_clip(str(path), facts, clip, QUICK, crop)
    assert (file.width_px, file.height_px) == (crop.width_px, crop.height_px)
    wanted = truth(str(path), facts, clip)[5]
    wanted = wanted[crop.y_px : crop.y_px + crop.height_px, crop.x_px : crop.x_px + crop.width_px]
    assert psnr_db(read_clip(file.data)[5][1], wanted) > 30


def test_crop_keeps_to_whole_chroma_samples_inside_it(make):
    _, facts = make("plain")
    geometry = geometry_of(facts, Crop(3, 5, 51, 40))
    assert (geometry.x_px, geometry.y_px, geometry.out_width_px, geometry.out_height_px) == (4, 6, 50, 38)
    assert geometry_of(facts, Crop(-10, 0, 1000, 1000)) == geometry_of(facts)


def test_crop_that_leaves_nothing_is_an_error(make):
    path, facts = make("plain")
    with pytest.raises(DecodeError, match="nothing is left"):
        extract_clip(path, facts, middle_clip(path, facts)[0], QUICK, Crop(10, 10, 0, 0))


@pytest.mark.parametrize("name", ["plain", "vfr", "rotated_90", "sar_2_1"])
def test_a_smaller_copy_holds_the_same_span_and_nothing_is_enlarged(make, name):
    path, facts = make(name)
    clip, pts = middle_clip(path, facts)
    file = extract_clip(path, facts, clip, EncodeOptions(mode="auto", preset="ultrafast", crf=10), None, 40)
    size, whole = (file.width_px, file.height_px), (facts.width_px, facts.height_px)
    assert (min(size), size[0] % 2, size[1] % 2, file.mode) == (40, 0, 0, "encode")
    assert max(size) == pytest.approx(max(whole) * 40 / min(whole), abs=2)
    frames = read_clip(file.data)
    assert [when for when, _, _ in frames] == [(p - pts[0]) * clip.time_base for p in pts]
    wanted = cv2.resize(truth(path, facts, clip)[5], size, interpolation=cv2.INTER_AREA)
    assert psnr_db(frames[5][1], wanted) > 24
    assert geometry_of(facts, None, 4000) == geometry_of(facts)


def test_span_without_frames_is_an_error(make):
    path, facts = make("plain")
    with pytest.raises(CurateError):
        extract_clip(path, facts, clip_of(facts, facts.end_pts + 100_000, facts.end_pts + 200_000), QUICK)


@pytest.mark.parametrize("name", ["ntsc", "b_frames", "rotated_gop", "sar_gop"])
def test_auto_copies_between_closed_key_frames(make, tmp_path, name):
    extra = {"rotated_gop": {"rotation_deg": 90, "gop": 10}, "sar_gop": {"sar": Fraction(2), "gop": 10}}
    if name in extra:
        path = str(tmp_path / f"{name}.mp4")
        write_video(path, scene(), **extra[name])
        facts = read_facts(path)
    else:
        path, facts = make(name)
    keys = facts.key_frames_pts
    clip = clip_of(facts, keys[1], keys[3])
    file = extract_clip(path, facts, clip, AUTO)
    pts = [p for p in all_pts(path, facts) if keys[1] <= p < keys[3]]
    assert file.mode == "copy"
    assert [when for when, _, _ in read_clip(file.data)] == [(p - pts[0]) * clip.time_base for p in pts]
    target = tmp_path / "copy.mp4"
    target.write_bytes(file.data)
    copied = read_facts(str(target))
    assert (copied.rotation_deg, copied.sar, copied.codec) == (facts.rotation_deg, facts.sar, facts.codec)
    assert (copied.width_px, copied.height_px) == (file.width_px, file.height_px)
    with iter_frames(path, facts, start_pts=clip.start_pts, end_pts=clip.end_pts) as frames:
        wanted = [frame.av_frame.to_ndarray() for frame in frames]
    assert all(np.array_equal(f.to_ndarray(), w) for (_, _, f), w in zip(read_clip(file.data), wanted, strict=True))


def test_auto_copies_up_to_the_end_of_the_source(make):
    path, facts = make("b_frames")
    file = extract_clip(path, facts, clip_of(facts, facts.key_frames_pts[1], facts.end_pts), AUTO)
    assert (file.mode, file.n_frames) == ("copy", N - 12)


def test_auto_encodes_when_an_end_is_open_or_the_picture_is_cropped(make):
    path, facts = make("b_frames")
    keys = facts.key_frames_pts
    inside, _ = middle_clip(path, facts)
    assert extract_clip(path, facts, inside, AUTO).mode == "encode"
    assert extract_clip(path, facts, clip_of(facts, keys[0], keys[1]), AUTO, Crop(0, 0, 80, 48)).mode == "encode"
    path, facts = make("open_gop")
    assert False in facts.key_frames_closed
    at = facts.key_frames_closed.index(False)
    clip = clip_of(facts, facts.key_frames_pts[at], facts.end_pts)
    file = extract_clip(path, facts, clip, AUTO)
    assert (file.mode, file.n_frames) == ("encode", sum(p >= clip.start_pts for p in all_pts(path, facts)))


ONSET_S = 2.0


@pytest.fixture(scope="module")
def beep(tmp_path_factory):
    """A 4 s film that is silent until ONSET_S."""
    path = tmp_path_factory.mktemp("sound") / "beep.mp4"
    silent, rate_hz = path.with_name("silent.mp4"), 44_100
    write_video(silent, scene(100), Fraction(25))
    with av.open(str(silent)) as pictures, av.open(str(path), "w") as out:
        video = out.add_stream_from_template(pictures.streams.video[0], opaque=True)
        sound = out.add_stream("aac", rate=rate_hz)
        for packet in pictures.demux(video=0):
            if packet.size:
                packet.stream = video
                out.mux(packet)
        times_s = np.arange(4 * rate_hz) / rate_hz
        wave = (0.2 * np.sin(2 * np.pi * 440 * times_s) * (times_s >= ONSET_S)).astype(np.float32)
        for start in range(0, len(wave), 1024):
            frame = av.AudioFrame.from_ndarray(np.stack([wave[start : start + 1024]] * 2), "fltp", "stereo")
            frame.sample_rate, frame.pts, frame.time_base = rate_hz, start, Fraction(1, rate_hz)
            out.mux(sound.encode(frame))
        out.mux(sound.encode(None))
    return str(path)


def read_sound(data):
    """(start in seconds, end in seconds, samples of the left channel, rate) of a file's sound."""
    with av.open(io.BytesIO(data)) as container:
        frames = list(container.decode(audio=0))
    last = frames[-1]
    end_s = float(last.pts * last.time_base) + last.samples / last.sample_rate
    wave = np.concatenate([frame.to_ndarray()[0] for frame in frames])
    return float(frames[0].pts * frames[0].time_base), end_s, wave, last.sample_rate


@pytest.mark.parametrize(("mode", "first", "last"), [("encode", 30, 70), ("encode", 37, 99), ("auto", 0, 100)])
def test_sound_is_cut_to_the_span_within_40_ms(beep, mode, first, last):
    facts = read_facts(beep)
    pts = [*all_pts(beep, facts), facts.end_pts]
    clip = clip_of(facts, pts[first], pts[last])
    options = EncodeOptions(mode=mode, preset="ultrafast", audio=True)
    file = extract_clip(beep, facts, clip, options)
    assert (file.has_audio, file.mode) == (True, "copy" if mode == "auto" else "encode")
    start_s, end_s, wave, rate_hz = read_sound(file.data)
    assert abs(start_s) <= 0.04
    assert abs(end_s - float(clip.duration_s)) <= 0.04
    onset_s = start_s + np.argmax(np.abs(wave) > 0.1) / rate_hz
    assert abs(onset_s - (ONSET_S - float(clip.start_s))) <= 0.04
    assert extract_clip(beep, facts, clip, options).data == file.data


def test_sound_is_off_by_default_and_its_lack_no_error(beep, make):
    facts = read_facts(beep)
    pts = all_pts(beep, facts)
    assert not extract_clip(beep, facts, clip_of(facts, pts[3], pts[20]), QUICK).has_audio
    path, facts = make("plain")
    file = extract_clip(path, facts, middle_clip(path, facts)[0], QUICK.model_copy(update={"audio": True}))
    assert not file.has_audio


@pytest.mark.parametrize(("name", "rate_hz"), [("start.avi", 44_100), ("start.flv", 44_100), ("rate.mkv", 6_000)])
def test_sound_of_demuxers_that_do_not_seek_before_the_start_and_of_rates_that_aac_lacks(tmp_path, name, rate_hz):
    path = str(tmp_path / name)
    with av.open(path, "w") as container:
        video = container.add_stream("flv1" if name.endswith("flv") else "mpeg4", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        sound = container.add_stream("pcm_s16le", rate=rate_hz, layout="stereo")
        for pixels in moving_texture(50, 64, 48, (1, 0), seed=1):
            container.mux(video.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(video.encode(None))
        wave = np.sin(np.arange(4 * rate_hz) * 0.3) * 9000
        beat = av.AudioFrame.from_ndarray(wave.astype(np.int16)[None], format="s16", layout="stereo")
        beat.sample_rate, beat.pts = rate_hz, 0
        container.mux([*sound.encode(beat), *sound.encode(None)])
    facts = read_facts(path)
    file = extract_clip(
        path, facts, clip_of(facts, facts.start_pts, facts.end_pts), QUICK.model_copy(update={"audio": True})
    )
    start_s, end_s, wave, _ = read_sound(file.data)
    assert file.has_audio and np.abs(wave).max() > 0.1
    assert abs(start_s) <= 0.04 and abs(end_s - 2.0) <= 0.08


def test_options_refuse_what_they_do_not_know():
    with pytest.raises(ValueError, match="crf"):
        EncodeOptions(crf=70)
    with pytest.raises(ValueError, match="bitrate"):
        EncodeOptions(bitrate=1)
    assert json.loads(EncodeOptions().model_dump_json())["mode"] == "encode"
