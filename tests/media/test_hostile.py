"""Files whose headers and clocks lie: what the facts make of them, and that nothing grows without bound."""

from fractions import Fraction
from types import SimpleNamespace

import av
import numpy as np
import pytest
from media_kit import small

from curate.errors import DecodeError, NoVideoStreamError
from curate.media.bitstream import needed_bytes
from curate.media.decode import Frame, iter_frames
from curate.media.encode import EncodeOptions, extract_clip
from curate.media.facts import read_facts
from curate.media.geometry import Shaper, geometry_of
from curate.media.packets import MOST_SKIPPED, Depth, PacketFilter
from curate.media.pixels import MOST_THUMB_ROWS, Scaler
from curate.media.views import sample_spans
from curate.records import Clip, Span
from curate.testing.containers import (
    TRACK,
    block,
    element,
    encoded,
    ivf,
    matroska,
    patched,
    video_track,
    with_bits,
    y4m,
)
from curate.testing.footage import moving_texture, write_video
from curate.view import ViewSpec


@pytest.fixture(scope="module")
def vp8():
    return encoded("libvpx", 25, 64, 48, b="100k", g="10", deadline="realtime")


@pytest.fixture
def facts_of(tmp_path):
    def read(data, name="a.bin"):
        path = tmp_path / name
        path.write_bytes(data)
        return read_facts(str(path))

    return read


CLOCKS = {
    "far": range(1 << 61, (1 << 61) + 25),
    "too far for seconds": range(1 << 45, (1 << 45) + 25),
    "one stray": [*range(24), 1 << 60],
    "both ends": [-(1 << 62), *range(23), 1 << 62],
    "years": [*range(24), 25 * 10**9],
    "still": [3] * 25,
    "looping": [i % 5 for i in range(25)],
}


@pytest.mark.parametrize("pts", CLOCKS.values(), ids=list(CLOCKS))
def test_where_the_clock_is_nonsense_frames_are_counted(vp8, facts_of, pts):
    facts = facts_of(ivf(vp8, pts=pts))
    assert (facts.has_pts, facts.n_frames, facts.rate, facts.duration_s) == (False, 25, "25/1", 1.0)


@pytest.mark.parametrize("first", [-100, 1 << 33, 25 * 1_700_000_000])
def test_a_sound_clock_may_begin_anywhere(vp8, facts_of, first):
    facts = facts_of(ivf(vp8, pts=range(first, first + 25)))
    assert (facts.has_pts, facts.start_pts, facts.end_pts, facts.rate) == (True, first, first + 25, "25/1")


@pytest.mark.parametrize("rate", ["F1000000000:1", "F1:1000000000"])
def test_a_rate_of_nobody_is_not_believed(facts_of, rate):
    facts = facts_of(y4m(64, 48, 10, f"{rate} Ip A1:1 C420jpeg"))
    assert (facts.has_pts, facts.rate, facts.duration_s) == (False, "25/1", 0.4)


def test_high_and_low_rates_are(facts_of):
    assert facts_of(y4m(64, 48, 10, "F1000:1 Ip A1:1 C420jpeg")).rate == "1000/1"
    assert facts_of(y4m(64, 48, 10, "F1:3600 Ip A1:1 C420jpeg")).rate == "1/3600"


@pytest.mark.parametrize("sar", ["1:65535", "65535:1", "11:1", "0:0"])
def test_pixels_of_absurd_shape_count_as_square(facts_of, sar):
    facts = facts_of(y4m(64, 48, 5, f"F25:1 Ip A{sar} C420jpeg"))
    assert (facts.width_px, facts.height_px, facts.sar) == (64, 48, "1/1")


def test_a_display_matrix_of_zeros_turns_nothing(tmp_path, facts_of):
    small(tmp_path / "a.mp4")
    assert facts_of(patched((tmp_path / "a.mp4").read_bytes(), b"tkhd", 40, bytes(36))).rotation_deg == 0


def test_a_claim_of_many_frames_costs_nothing(vp8, facts_of):
    assert facts_of(ivf(vp8, claimed=10**9)).n_frames == 25


def test_a_container_that_breaks_off_is_a_decode_error(vp8, facts_of):
    good = ivf(vp8)
    with pytest.raises(DecodeError, match="cannot be read to its end"):
        facts_of(good + (0xFFFFFF00).to_bytes(4, "little") + bytes(100))


def test_streams_that_begin_later_change_nothing(tmp_path, facts_of):
    """An FLV file whose sound its header does not announce."""
    silent, loud = tmp_path / "silent.flv", tmp_path / "loud.flv"
    write_video(silent, moving_texture(10, 64, 48, (1, 0)), Fraction(25), "flv")
    with av.open(str(loud), "w") as container:
        sound = container.add_stream("mp3", rate=44_100)
        frame = av.AudioFrame.from_ndarray(np.zeros((2, 1152), np.float32), format="fltp", layout="stereo")
        frame.sample_rate, frame.pts = 44_100, 0
        container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
    header_bytes = 13
    data = silent.read_bytes() + loud.read_bytes()[header_bytes:] * 200
    path = tmp_path / "late.flv"
    path.write_bytes(data)
    facts = read_facts(str(path))
    assert facts.n_frames == 10
    assert len(list(iter_frames(str(path), facts))) == 10


@pytest.fixture(scope="module")
def giant_vp9():
    first, *others = encoded("libvpx-vp9", 3, 64, 48, deadline="realtime")
    return ivf([with_bits(with_bits(first, 36, 15_999, 16), 52, 15_999, 16), *others], fourcc=b"VP90")


def test_sound_that_no_decoder_reads_is_said(vp8, facts_of, tmp_path):
    """A clip without its sound would not be what was asked for."""
    parts = [element(0xD7, 2), element(0x73C5, 2), element(0x83, 2), element(0x86, b"A_NOBODY")]
    sound = element(TRACK, [*parts, element(0xE1, element(0x9F, 2))])
    blocks = [block(1, 40 * i, data, key=i % 10 == 0) for i, data in enumerate(vp8)]
    facts = facts_of(matroska([video_track(1, "V_VP8", (64, 48)), sound], blocks))
    clip = Clip.of_span("d", 0, facts.time_base_fraction, Span(facts.start_pts, facts.end_pts))
    with pytest.raises(DecodeError, match="no decoder reads it"):
        extract_clip(str(tmp_path / "a.bin"), facts, clip, EncodeOptions(audio=True))
    assert extract_clip(str(tmp_path / "a.bin"), facts, clip, EncodeOptions()).n_frames == 25


def test_giant_pictures_are_refused_before_they_are_decoded(giant_vp9, facts_of):
    with pytest.raises(NoVideoStreamError, match="above 128 Mi pixels"):
        facts_of(giant_vp9)


def test_pictures_may_not_be_larger_than_the_limit(monkeypatch, vp8, facts_of):
    monkeypatch.setattr("curate.media.facts.MOST_FRAME_PX", 64 * 48 - 1)
    with pytest.raises(DecodeError, match="pictures of 64x48, more than"):
        facts_of(ivf(vp8))


def test_giant_pictures_later_in_a_stream_are_refused(vp8, facts_of, tmp_path):
    side = (14_000).to_bytes(2, "little")
    later = [*vp8[:10], vp8[0][:6] + side + side + vp8[0][10:], *vp8[11:]]
    facts = facts_of(ivf(later))
    with pytest.raises(DecodeError, match="cannot be decoded"):
        list(iter_frames(str(tmp_path / "a.bin"), facts))


def test_frames_of_other_sizes_fit_the_first(facts_of, tmp_path):
    """Every frame has a size of its own."""
    key = encoded("libvpx", 1, 64, 48)[0]
    sizes = [(16 + 2 * i, 80 - i) for i in range(50)]
    frames = [key[:6] + w.to_bytes(2, "little") + h.to_bytes(2, "little") + key[10:] for w, h in sizes]
    facts = facts_of(ivf(frames))
    clip = Clip.of_span("d", 0, facts.time_base_fraction, Span(facts.start_pts, facts.end_pts))
    specs = {
        "windows": ViewSpec(sampling="windows", windows=2, window_s=0.5),
        "points": ViewSpec(points=(0.0, 1.0), short_side_px=16, pixels="luma"),
    }
    ((_, views),) = sample_spans(str(tmp_path / "a.bin"), facts, [clip], specs)
    assert views["windows"].frames.shape[1:] == (320, 64)
    shaper = Shaper(facts, geometry_of(facts))
    shaped = {
        (s.width, s.height) for s in (shaper.shape(f.av_frame) for f in iter_frames(str(tmp_path / "a.bin"), facts))
    }
    assert shaped == {(16, 80)}


def test_a_thumbnail_of_a_line_is_bounded():
    frame = av.VideoFrame(2, 65_534, "yuv420p")
    assert Frame(0, frame, Scaler()).thumb(64).shape == (MOST_THUMB_ROWS, 64, 3)


def test_units_without_end_are_not_gone_through():
    """Each would take minutes, or gigabytes, if it were."""
    judge = needed_bytes("av1", b"")
    assert judge is not None
    for data in (b"\x0a" + b"\x80" * (1 << 20), b"\x7a\0" * (1 << 19)):
        assert judge(data) == len(data)


def test_frames_are_not_left_out_without_end(tmp_path):
    _, facts = small(tmp_path / "a.mp4")
    stream = SimpleNamespace(codec_context=SimpleNamespace(extradata=b""))
    chosen = PacketFilter(stream, facts, Depth.REFERENCE, 0)
    free = b"\0\0\0\1\x01" + bytes(20)
    kept = 0
    for pts in range(2 * MOST_SKIPPED):
        packet = av.Packet(free)
        packet.pts = pts
        kept += chosen.kept(packet) is not None
    assert kept == MOST_SKIPPED


def test_a_picture_without_a_size_is_no_video(facts_of):
    with pytest.raises(NoVideoStreamError):
        facts_of(matroska([video_track(1, "V_MPEG4/ISO/AVC", (0, 0))], []))
