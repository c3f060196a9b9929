"""Frames that nothing needs are left out; all others stay bit for bit what a full decode gives."""

import av
import pytest
from media_kit import FILES, X264_OPEN, digest, small

from curate.media.bitstream import is_idr, needed_bytes
from curate.media.decode import iter_frames
from curate.media.facts import read_facts
from curate.media.packets import Depth
from curate.testing.footage import moving_texture, write_video

SKIPPABLE = {
    "closed.mp4", "open.mp4", "open.mkv", "open.ts", "short_gops.ts", "short_gops.flv", "open_hevc.mp4",
    "deep_hevc.mkv", "av1.mp4", "mpeg4.mp4", "mpeg4.avi", "mpeg2.mpg", "flash.flv",
}  # fmt: skip
VP9_LAYERS = (
    "ts_number_layers=2:ts_target_bitrate=150,300:ts_rate_decimator=2,1:ts_periodicity=2:ts_layer_id=0,1:"
    "ts_layering_mode=2"
)
MORE = {
    "hevc.ts": {"codec": "libx265", "options": {"x265-params": "log-level=error:pools=none:bframes=4"}},
    "layers.mp4": {"codec": "libx265", "options": {"x265-params": "log-level=error:pools=none:temporal-layers=3"}},
    "layers.webm": {
        "codec": "libvpx-vp9",
        "options": {
            "deadline": "realtime",
            "cpu-used": "6",
            "lag-in-frames": "0",
            "b": "300k",
            "ts-parameters": VP9_LAYERS,
        },
    },
    "slices.mp4": {"codec": "libx264", "options": {"x264-params": "slices=4:bframes=3"}},
}


def read(path, facts, depth, **span):
    frames = iter_frames(path, facts, depth=depth, **span)
    with frames:
        found = {frame.pts: (digest(frame), frame.reference, frame.skipped) for frame in frames}
    return found, frames.trailing


@pytest.mark.parametrize("name", [*FILES, *MORE])
def test_reference_frames_are_those_of_a_full_decode_wherever_decoding_starts(tmp_path, name):
    path, facts = small(tmp_path / name, **{**FILES, **MORE}[name])
    every, trailing = read(path, facts, Depth.EVERY)
    assert trailing == () and all(not skipped for _, _, skipped in every.values())
    wanted = {pts: pixels for pts, (pixels, reference, _) in every.items() if reference}
    order = list(every)
    for first in (0, 7, 18, 31):
        found, trailing = read(path, facts, Depth.REFERENCE, start_pts=order[first])
        assert {pts: pixels for pts, (pixels, _, _) in found.items()} == {
            pts: pixels for pts, pixels in wanted.items() if pts >= order[first]
        }, f"from frame {first}"
        unseen = [pts for _, _, skipped in found.values() for pts in skipped]
        assert sorted([*found, *unseen, *trailing]) == order[first:], f"from frame {first}"
    assert (len(wanted) < len(every)) == ((name in SKIPPABLE or name in MORE) and name != "layers.webm")


def test_every_frame_left_out_is_named_by_the_next_one(tmp_path):
    path, facts = small(tmp_path / "a.mp4", codec="mpeg4", options={"bf": "2", "qscale": "3"})
    last = None
    found, _ = read(path, facts, Depth.REFERENCE)
    for pts, (_, reference, skipped) in found.items():
        assert reference and list(skipped) == sorted(skipped)
        assert all((last is None or last < each) and each < pts for each in skipped)
        last = pts


def test_packets_that_hint_at_a_new_picture_are_decoded_with_their_surroundings(tmp_path):
    path = tmp_path / "cut.mp4"
    frames = [*moving_texture(61, 192, 108, (1, 0), 1), *moving_texture(60, 192, 108, (1, 0), 2)]
    write_video(path, frames, codec="mpeg4", options={"bf": "2", "qscale": "3"}, gop=120)
    facts = read_facts(str(path))
    likely, _ = read(str(path), facts, Depth.LIKELY)
    extra = [round(pts * facts.time_base_fraction * 30) for pts, (_, reference, _) in likely.items() if not reference]
    assert extra == [61, 62]


def test_a_reader_can_go_over_to_every_frame(tmp_path):
    path, facts = small(tmp_path / "a.mp4", codec="libx264", options={"bf": "3"})
    every, _ = read(path, facts, Depth.EVERY)
    found = []
    with iter_frames(path, facts, depth=Depth.REFERENCE) as frames:
        for frame in frames:
            found.append(frame.pts)
            if len(found) == 8:
                frames.decode_every()
    rest = [pts for pts in every if pts > found[12]]
    assert found[-len(rest) :] == rest and len(found) < len(every)


@pytest.mark.parametrize(
    ("codec", "extradata"), [("vp8", b""), ("vp9", b""), ("prores", b""), ("hevc", b""), ("hevc", b"\1" * 10)]
)
def test_a_codec_that_is_not_understood_needs_everything(codec, extradata):
    assert needed_bytes(codec, extradata) is None


@pytest.mark.parametrize("codec", ["h264", "hevc", "mpeg4", "mpeg2video", "av1"])
def test_damaged_packets_are_needed(codec):
    extradata = bytes([1] + [0] * 20 + [0b00001011, 0]) if codec == "hevc" else b""
    needed = needed_bytes(codec, extradata)
    assert needed is not None
    for data in (b"", b"\0", b"\0\0\1", b"\xff" * 5, b"\0" * 40, bytes(range(32)), b"\x12\x00\x0a\xff"):
        assert needed(data) == len(data), data


def test_key_frames_are_told_apart_with_short_nal_lengths(tmp_path):
    path = tmp_path / "a.mp4"
    write_video(path, moving_texture(24, 96, 54, (3, 1), 1), codec="libx264", options=X264_OPEN)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        extradata = bytes(stream.codec_context.extradata)
        packets = [bytes(packet) for packet in container.demux(stream) if packet.size and packet.is_keyframe]
    short = extradata[:4] + bytes([extradata[4] & 0xFC | 1]) + extradata[5:]
    for data in packets:
        small_lengths, at = b"", 0
        while at < len(data):
            length = int.from_bytes(data[at : at + 4], "big")
            small_lengths += length.to_bytes(2, "big") + data[at + 4 : at + 4 + length]
            at += 4 + length
        assert is_idr(small_lengths, short) == is_idr(data, extradata)
    assert [is_idr(data, extradata) for data in packets] == [True, False]


def remuxed(path, target, change):
    """The packets of a file again, each after ``change(number, packet)``."""
    with av.open(str(path)) as source, av.open(str(target), "w") as out:
        stream = source.streams.video[0]
        copy = out.add_stream_from_template(stream)
        for number, packet in enumerate(p for p in source.demux(stream) if p.size):
            packet.pts += 10 * 512
            change(number, packet)
            packet.stream = copy
            out.mux(packet)


@pytest.mark.parametrize("shift", [-3, -1, 1, 2])
@pytest.mark.parametrize("number", [10, 11, 12])
def test_two_frames_with_one_time_stamp_count_once_when_skipped_too(tmp_path, number, shift):
    plain, _ = small(tmp_path / "a.mp4", n=90, options={"x264-params": "b-adapt=0:bframes=3:b-pyramid=none"})

    def change(at, packet):
        packet.pts += shift * 512 * (at == number)

    remuxed(plain, tmp_path / "twice.mkv", change)
    path, facts = str(tmp_path / "twice.mkv"), read_facts(str(tmp_path / "twice.mkv"))
    found, trailing = read(path, facts, Depth.REFERENCE)
    given = [each for pts, (_, _, skipped) in found.items() for each in (*skipped, pts)] + list(trailing)
    assert given == sorted(set(given)) and len(given) in (facts.n_frames, facts.n_frames - 1)


def test_nothing_is_skipped_at_rates_below_the_looks(tmp_path):
    path = tmp_path / "slow.mkv"
    options = {"x264-params": "b-adapt=0:bframes=8:scenecut=0:b-pyramid=none"}
    write_video(path, moving_texture(40, 96, 54, (3, 1), 1), 5, options=options, gop=250)
    found, _ = read(str(path), read_facts(str(path)), Depth.REFERENCE)
    assert len(found) == 40


def test_settings_beside_a_frame_that_nothing_needs_are_kept(tmp_path):
    path = tmp_path / "a.ts"
    write_video(path, moving_texture(24, 96, 54, (3, 1), 1), codec="libx264", options={"bf": "3"})
    needed = needed_bytes("h264", b"")
    with av.open(str(path)) as container:
        packets = [bytes(p) for p in container.demux(container.streams.video[0]) if p.size]
    free = [data for data in packets if needed(data) == 0]
    settings = b"\0\0\1\x68\xce\x3c\x80"
    assert free and all(needed(settings + data) == len(settings + data) for data in free)


def test_damage_in_a_frame_that_only_a_hint_asked_for_is_no_error(tmp_path):
    path, facts = small(tmp_path / "a.mp4", n=60, options={"bf": "3"})
    data = bytearray((tmp_path / "a.mp4").read_bytes())
    with av.open(path) as container:
        stream = container.streams.video[0]
        needed = needed_bytes("h264", stream.codec_context.extradata)
        free = [bytes(p) for p in container.demux(stream) if p.size and not needed(bytes(p))]
    for packet in free:
        at = bytes(data).find(packet)
        data[at + 5 : at + len(packet)] = bytes(len(packet) - 5)
    (tmp_path / "a.mp4").write_bytes(data)
    for depth in (Depth.REFERENCE, Depth.LIKELY):
        found, trailing = read(path, facts, depth)
        unseen = [pts for _, _, skipped in found.values() for pts in skipped]
        assert len(found) + len(unseen) + len(trailing) == 60
