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
MORE = {
    "hevc.ts": {"codec": "libx265", "options": {"x265-params": "log-level=error:pools=none:bframes=4"}},
    "layers.mp4": {"codec": "libx265", "options": {"x265-params": "log-level=error:pools=none:temporal-layers=3"}},
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
    assert (len(wanted) < len(every)) == (name in SKIPPABLE or name in MORE)


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


@pytest.mark.parametrize(("codec", "extradata"), [("vp8", b""), ("prores", b""), ("hevc", b""), ("hevc", b"\1" * 10)])
def test_a_codec_that_is_not_understood_needs_everything(codec, extradata):
    assert needed_bytes(codec, extradata) is None


@pytest.mark.parametrize("codec", ["h264", "hevc", "mpeg4", "mpeg2video", "vp9", "av1"])
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
