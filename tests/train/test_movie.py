"""Films decode to what was written, at the rate that was asked for; pictures become what a network is told."""

from __future__ import annotations

from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from curate.errors import ConfigError, UsageError
from curate.media.pixels import Scaler
from curate.train.movie import beside, read_picture, to_uint8, write_movie


def footage(n: int = 5, height_px: int = 64, width_px: int = 96) -> np.ndarray:
    """Soft colours that move; uint8 (n, height, width, 3)."""
    y, x = np.mgrid[0:height_px, 0:width_px]
    frames = [np.stack([2 * x % 190 + 9 * t, 3 * y % 220 + 10, (x + y) % 180 + 5 * t], -1) for t in range(n)]
    return np.stack([cv2.GaussianBlur(frame.astype(np.uint8), (0, 0), 4) for frame in frames])


def decoded(path) -> tuple[av.video.stream.VideoStream, list[av.VideoFrame]]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return stream, list(container.decode(stream))


def pixels(frames) -> np.ndarray:
    scaler = Scaler()
    return np.stack([scaler.rgb(scaler.whole(frame), frame.width, frame.height) for frame in frames])


@pytest.mark.parametrize(
    ("fps", "wanted"),
    [
        (7, Fraction(7)),
        (6.5, Fraction(13, 2)),
        (23.976, Fraction(2997, 125)),
        (30000 / 1001, Fraction(30000, 1001)),
        (24 / 7, Fraction(24, 7)),
        (Fraction(1, 3), Fraction(1, 3)),
    ],
)
def test_every_frame_is_there_at_its_time(tmp_path, fps, wanted):
    path = tmp_path / "a.mp4"
    write_movie(path, footage(), fps)
    stream, frames = decoded(path)
    assert (stream.average_rate, stream.frames) == (wanted, 5)
    assert stream.duration * stream.time_base == 5 / wanted
    assert [frame.pts * frame.time_base for frame in frames] == [i / wanted for i in range(5)]


def test_colours_come_back_and_are_tagged(tmp_path):
    path, written = tmp_path / "a.mp4", footage()
    write_movie(path, written, 7)
    stream, frames = decoded(path)
    context = stream.codec_context
    assert (context.name, context.pix_fmt) == ("h264", "yuv420p")
    assert (context.colorspace, context.color_primaries, context.color_trc, context.color_range) == (1, 1, 1, 1)
    error = pixels(frames).astype(float) - written
    assert np.abs(error).mean() < 1.5
    assert np.abs(error.mean((0, 1, 2))).max() < 0.6  # the wrong matrix or range is off by far more


def test_odd_sides_are_filled_up(tmp_path):
    path, written = tmp_path / "a.mp4", footage(2, 33, 47)
    write_movie(path, written, 7)
    found = pixels(decoded(path)[1])
    assert found.shape == (2, 34, 48, 3)
    assert np.abs(found[:, :33, :47].astype(float) - written).mean() < 1.5
    assert np.abs(found[:, 33, :47].astype(float) - written[:, 32]).mean() < 2.5


def test_a_film_can_be_played_while_it_loads_and_is_the_same_every_time(tmp_path):
    written = footage()
    for name in ("a.mp4", "b.mp4"):
        write_movie(tmp_path / name, written, 7)
    data = (tmp_path / "a.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    assert data == (tmp_path / "b.mp4").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "b.mp4"]


def test_what_cannot_be_written_leaves_the_old_film(tmp_path):
    path = tmp_path / "a.mp4"
    write_movie(path, footage(), 7)
    before = path.read_bytes()
    for fps in (0, -1, float("nan"), float("inf"), 1e9):
        with pytest.raises(ConfigError, match="frames/s cannot be written"):
            write_movie(path, footage(), fps)
    with pytest.raises(ValueError, match="uint8"):
        write_movie(path, footage().astype(np.float64), 7)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_films_go_to_any_place(memory_bucket, tmp_path):
    from curate.storage import Place

    write_movie(f"{memory_bucket}/clips/a.mp4", footage(), 7)
    write_movie(tmp_path / "a.mp4", footage(), 7)
    assert Place(f"{memory_bucket}/clips/a.mp4").read_bytes() == (tmp_path / "a.mp4").read_bytes()


@pytest.mark.parametrize("height_px", [64, 20, 128])
def test_a_clip_beside_its_first_frame(height_px):
    clip, first = footage(), footage(1)[0]
    frame = cv2.resize(first, (3 * height_px // 2, height_px), interpolation=cv2.INTER_AREA)
    found = beside(frame, clip)
    assert found.dtype == np.uint8
    assert found.shape[:2] == clip.shape[:2]
    assert found.shape[2] % 2 == 0
    assert np.array_equal(found[:, :, -96:], clip)
    assert (found[:, :, 96:-96] == 255).all()
    assert 2 <= found.shape[2] - 192 <= 3
    assert np.abs(found[3, :, :96].astype(float) - first).mean() < {64: 1e-9, 20: 6, 128: 1}[height_px]


def test_rounding_is_diffusers():
    from diffusers.image_processor import VaeImageProcessor

    frames = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2.2 - 1.1
    theirs = VaeImageProcessor().postprocess(frames, output_type="pil")
    assert np.array_equal(to_uint8(frames), np.stack([np.asarray(image) for image in theirs]))


@pytest.fixture
def saved(tmp_path):
    """Writes a picture; options are Pillow's."""

    def save(image, name="a.png", **options):
        image = image if isinstance(image, Image.Image) else Image.fromarray(image)
        image.save(tmp_path / name, **options)
        return tmp_path / name

    return save


def test_a_picture_of_the_right_size_is_not_touched(saved):
    picture = footage(1)[0]
    found = read_picture(saved(picture), 96, 64)
    assert (found.shape, found.dtype) == ((1, 3, 64, 96), torch.float32)
    assert torch.equal(found[0], torch.from_numpy(picture).permute(2, 0, 1).float() / 127.5 - 1)


def test_a_picture_is_cropped_in_the_middle(saved):
    picture = np.zeros((100, 400, 3), np.uint8)
    picture[:, 150:250] = (255, 0, 128)
    found = read_picture(saved(picture), 32, 32)
    assert torch.allclose(found[0, :, 8:24, 8:24].mean((1, 2)), torch.tensor([1.0, -1.0, 128 / 127.5 - 1]), atol=0.01)
    assert (found[0, 0, :, 1:-1] > 0.9).all()


def test_a_picture_is_turned_upright(saved):
    picture = footage(1)[0]
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its left side
    found = read_picture(saved(picture, exif=exif), 64, 96)
    assert torch.equal(found, read_picture(saved(np.rot90(picture, -1).copy(), "b.png"), 64, 96))


def test_transparent_is_black(saved):
    picture = np.full((16, 16, 4), 200, np.uint8)
    picture[:8, :, 3], picture[8:, :, 3] = 0, 255
    found = read_picture(saved(picture), 16, 16)
    assert (found[0, :, :8] == -1).all()
    assert torch.allclose(found[0, :, 8:], torch.tensor(200 / 127.5 - 1))
    palette = Image.fromarray(picture).convert("P")
    palette.info["transparency"] = palette.getpixel((0, 15))
    assert (read_picture(saved(palette, "p.png"), 16, 16)[0, :, 8:] == -1).all()


def test_other_kinds_of_pixels(saved):
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    wanted = torch.from_numpy(grey).float() / 127.5 - 1
    for name, image in {
        "l.png": grey,
        "i.png": grey.astype(np.uint16) * 257,
        "f.tiff": grey.astype(np.float32),
    }.items():
        found = read_picture(saved(image, name), 16, 16)
        assert torch.equal(found[0], wanted.expand(3, -1, -1)), name
    cmyk = Image.fromarray(footage(1)[0]).convert("CMYK")
    assert read_picture(saved(cmyk, "c.tiff"), 96, 64).shape == (1, 3, 64, 96)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such picture"),
        (b"", "of no known format"),
        (b"no picture at all", "of no known format"),
        ("cut", "no picture that can be read"),
        ("folder", "no picture that can be read"),
    ],
    ids=["missing", "empty", "text", "cut", "folder"],
)
def test_what_is_no_picture_is_said_in_one_line(saved, tmp_path, content, message):
    path = tmp_path / "x.png"
    if content == "folder":
        path.mkdir()
    elif content == "cut":
        path.write_bytes(saved(footage(1)[0]).read_bytes()[:200])
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=message) as caught:
        read_picture(path, 8, 8)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
