"""The frames of a window are those of the file, upright, of their own colours, cut in the middle."""

import io
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from clips_kit import clip_id, make_set, usual

from curate.errors import CorpusError, DecodeError, StorageError
from curate.shards.buckets import Bucket
from curate.testing.footage import moving_texture, write_video
from curate.train.data.catalogue import ClipRef
from curate.train.data.clip import Window, decode_window, read_clip, read_facts

N = 24
PLAIN = {"options": {"preset": "ultrafast", "crf": "4", "bf": "0"}, "gop": 7}
B_FRAMES = {"options": {"preset": "fast", "crf": "4", "bf": "3"}, "gop": 12}
OPEN = {"options": {"x264-params": "open-gop=1:bframes=3:ref=4:keyint=8:min-keyint=8:scenecut=0", "crf": "4"}}


def video(tmp_path, frames=None, **more):
    path = tmp_path / "clip.mp4"
    write_video(path, moving_texture(N, 128, 72, (3, 1), 1) if frames is None else frames, Fraction(24), **more)
    return path.read_bytes()


def plainly(data):
    """Every frame as PyAV's own scaler gives it."""
    with av.open(io.BytesIO(data)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def error(found, wanted):
    return np.abs(found.astype(float) - wanted.astype(float)).mean()


@pytest.mark.parametrize("options", [PLAIN, B_FRAMES, OPEN], ids=["plain", "b-frames", "open"])
@pytest.mark.parametrize("window", [Window(0, 1, N), Window(9, 1, 4), Window(5, 3, 6), Window(23, 1, 1)], ids=str)
def test_the_frames_of_a_window_are_those_of_the_file(tmp_path, options, window):
    data = video(tmp_path, **options)
    frames = plainly(data)
    found = decode_window(data, window, Bucket(128, 72, window.count), closed=options is PLAIN)
    numbers = range(window.start, window.last + 1, window.stride)
    for picture, number in zip(found, numbers, strict=True):
        errors = [error(picture, frame) for frame in frames]
        assert int(np.argmin(errors)) == number
        assert errors[number] < 3  # of 255: chroma is interpolated differently


def test_decoding_from_the_nearest_key_frame_gives_the_same_bits(tmp_path):
    data = video(tmp_path, **PLAIN)
    for start in range(0, N - 3, 4):
        both = [decode_window(data, Window(start, 1, 3), Bucket(64, 32, 3), closed=closed) for closed in (True, False)]
        assert (both[0] == both[1]).all()


@pytest.mark.parametrize("bucket", [Bucket(64, 64, 2), Bucket(64, 32, 2), Bucket(48, 64, 2)], ids=str)
def test_pictures_are_scaled_to_cover_the_bucket_and_cropped_in_the_middle(tmp_path, bucket):
    data = video(tmp_path, **PLAIN)
    found = decode_window(data, Window(4, 1, 2), bucket)
    assert found.shape == (2, bucket.height_px, bucket.width_px, 3)
    frame = plainly(data)[4]
    scale = max(bucket.width_px / 128, bucket.height_px / 72)
    size_px = round(128 * scale), round(72 * scale)
    left, top = (size_px[0] - bucket.width_px) // 2, (size_px[1] - bucket.height_px) // 2
    whole = cv2.resize(frame, size_px, interpolation=cv2.INTER_LINEAR)
    assert error(found[0], whole[top : top + bucket.height_px, left : left + bucket.width_px]) < 4


def corners(n=3):
    """Red, green, blue and white quarters: top left, top right, bottom left, bottom right."""
    frame = np.zeros((72, 128, 3), np.uint8)
    for at, colour in enumerate(COLOURS):
        frame[36 * (at // 2) : 36 * (at // 2) + 36, 64 * (at % 2) : 64 * (at % 2) + 64] = colour
    return [frame] * n


COLOURS = [(220, 20, 20), (20, 220, 20), (20, 20, 220), (230, 230, 230)]


def quarters(picture):
    height, width = picture.shape[:2]
    return [picture[height * y // 8, width * x // 8] for y in (2, 6) for x in (2, 6)]


@pytest.mark.parametrize(
    ("turn_deg", "order"), [(0, [0, 1, 2, 3]), (90, [2, 0, 3, 1]), (180, [3, 2, 1, 0]), (270, [1, 3, 0, 2])]
)
def test_pictures_stand_upright_in_their_colours(tmp_path, turn_deg, order):
    data = video(tmp_path, corners(), rotation_deg=turn_deg, **PLAIN)
    bucket = Bucket(72, 128, 1) if turn_deg % 180 else Bucket(128, 72, 1)
    (picture,) = decode_window(data, Window(1, 1, 1), bucket)
    for found, colour in zip(quarters(picture), [COLOURS[at] for at in order], strict=True):
        assert np.abs(found.astype(int) - colour).max() <= 6


@pytest.mark.parametrize("pix_fmt", ["yuv444p", "yuv420p10le"])
def test_other_pixel_formats_keep_their_colours(tmp_path, pix_fmt):
    data = video(
        tmp_path,
        corners(),
        codec="libx265",
        pix_fmt=pix_fmt,
        options={"crf": "4", "x265-params": "log-level=error:pools=none"},
    )
    (picture,) = decode_window(data, Window(1, 1, 1), Bucket(128, 72, 1))
    for found, colour in zip(quarters(picture), COLOURS, strict=True):
        assert np.abs(found.astype(int) - colour).max() <= 8


def test_pixels_that_are_not_square_are_shown_as_they_should(tmp_path):
    data = video(tmp_path, corners(), sar=Fraction(2), **PLAIN)
    (picture,) = decode_window(data, Window(0, 1, 1), Bucket(256, 72, 1))
    for found, colour in zip(quarters(picture), COLOURS, strict=True):
        assert np.abs(found.astype(int) - colour).max() <= 6


def test_a_window_beyond_the_end_is_an_error(tmp_path):
    with pytest.raises(DecodeError, match="only 3 of 4 frames up to frame 24"):
        decode_window(video(tmp_path, **PLAIN), Window(21, 1, 4), Bucket(64, 32, 4))


def test_a_spoilt_file_is_an_error(tmp_path):
    data = video(tmp_path, **PLAIN)
    at = data.index(b"mdat") + 8
    spoilt = data[:at] + b"\xff" * (len(data) - at) if data.index(b"moov") < at else data[:at]
    for wrong in (b"", b"\0" * 100, data[: len(data) // 3], spoilt):
        with pytest.raises(DecodeError):
            decode_window(wrong, Window(0, 1, N), Bucket(64, 32, N))


def test_a_clip_that_lies_elsewhere_is_named(tmp_path):
    shards = make_set(str(tmp_path / "set"), usual(2), tmp_path)
    place = shards.place(shards.index.shards[0].path)
    ref = ClipRef(0, clip_id(1), 512, 1000, 4000, 96, 54, 12, 24.0, 0.0, True)
    for read in (read_clip, read_facts):
        with pytest.raises(CorpusError, match=rf"000000\.tar: clip {clip_id(1)} does not lie where"):
            read(place, ref)
        with pytest.raises(StorageError, match="ended after"):
            read(place, ref._replace(offset_bytes=place.size_bytes() - 100))
