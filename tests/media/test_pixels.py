"""Pictures made of planes: colour by the definition of matrix and range, size, place, and what thumbnails see."""

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.media.pixels import Pyramid, Scaler, expand_range, plane_view
from curate.testing import scenes

KR_KB = {1: (0.2126, 0.0722), 4: (0.30, 0.11), 5: (0.299, 0.114), 7: (0.212, 0.087), 9: (0.2627, 0.0593)}


def rgb_of(yuv, code, full):
    """The definition (ITU-T H.273, 8.3): float R, G, B in 0..255 of integer (..., 3) Y, U, V."""
    kr, kb = KR_KB[code]
    y, cb, cr = (
        (yuv[..., 0] - (0 if full else 16)) / (255 if full else 219),
        *((yuv[..., i] - 128) / (255 if full else 224) for i in (1, 2)),
    )
    r, b = y + 2 * (1 - kr) * cr, y + 2 * (1 - kb) * cb
    return np.stack([r, (y - kr * r - kb * b) / (1 - kr - kb), b], axis=-1) * 255


@pytest.mark.parametrize("code", KR_KB)
@pytest.mark.parametrize("full", [False, True])
def test_colours_follow_the_definition_of_matrix_and_range(code, full):
    for level in np.random.default_rng(code).integers(0, 256, (20, 3)):
        frame = av.VideoFrame(60, 40, "yuv420p")
        frame.colorspace, frame.color_range = code, 2 if full else 1
        for plane, value in zip(frame.planes, level, strict=True):
            plane_view(plane)[:] = value
        picture = Pyramid(Scaler().master(frame)).rgb((31, 17))
        assert np.abs(picture - np.clip(rgb_of(level, code, full), 0, 255)).max() <= 1


FORMATS = ["yuv420p", "yuv422p", "yuv444p", "yuv440p", "yuv411p", "nv12", "yuv420p10le", "yuv422p10le", "yuv444p12le"]


@pytest.mark.parametrize("pix_fmt", [*FORMATS, "yuvj420p", "gray", "rgb24", "gbrp", "p010le", "yuva420p"])
@pytest.mark.parametrize(("width", "height"), [(160, 90), (1280, 720), (2561, 1441), (3840, 2160)])
def test_a_picture_of_any_format_and_size_comes_out_upright_in_its_colours(pix_fmt, width, height):
    colours = [[(220, 30, 40), (30, 200, 60)], [(40, 60, 220), (128, 128, 128)]]
    picture = np.zeros((height, width, 3), np.uint8)
    for i, row in enumerate(colours):
        for j, colour in enumerate(row):
            picture[i * height // 2 :, j * width // 2 :] = colour
    frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
    if pix_fmt != "rgb24":
        space, range_ = ("ITU709", "ITU601")[height < 720], "JPEG" if pix_fmt in ("yuvj420p", "gray") else "MPEG"
        frame = frame.reformat(format=pix_fmt, dst_colorspace=space, dst_color_range=range_)
    master = Scaler().master(frame)
    assert min(master.frame.width, master.frame.height) <= (720 if master.frame is frame else 540)
    pyramid = Pyramid(master)
    kr, kb = KR_KB[1 if height >= 720 else 5]
    for size_px in ((160, 90), (64, 64), (320, 180)):
        rgb, luma = pyramid.rgb(size_px), pyramid.luma(size_px)
        assert (rgb.shape, luma.shape) == ((*size_px[::-1], 3), size_px[::-1])
        for i, row in enumerate(colours):
            for j, colour in enumerate(row):
                at = (2 * i + 1) * size_px[1] // 4, (2 * j + 1) * size_px[0] // 4
                grey = np.dot(colour, (kr, 1 - kr - kb, kb))
                if pix_fmt == "gray":
                    assert np.ptp(rgb[at].astype(int)) == 0
                else:
                    assert np.abs(rgb[at] - np.array(colour, float)).max() <= 4
                    assert abs(luma[at] - grey) <= 3


def test_pictures_can_be_made_in_place_and_share_halves():
    frame = av.VideoFrame.from_ndarray(next(scenes.static_texture(1, 854, 480)), format="rgb24").reformat(
        format="yuv420p"
    )
    scaler = Scaler()
    shared = Pyramid(scaler.master(frame))
    for size_px in ((569, 320), (854, 480), (28, 16), (320, 180), (224, 224), (900, 500), (160, 90)):
        alone = Pyramid(scaler.master(frame))
        out, grey = np.zeros((*size_px[::-1], 3), np.uint8), np.zeros(size_px[::-1], np.uint8)
        shared.rgb(size_px, out)
        shared.luma(size_px, grey)
        assert (out == alone.rgb(size_px)).all() and (grey == alone.luma(size_px)).all()
        assert (scaler.rgb(scaler.master(frame), *size_px) == out).all()


def test_a_reduced_picture_is_close_to_the_area_average():
    picture = next(scenes.static_texture(1, 854, 480))
    frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p")
    for width, height in ((427, 240), (320, 180), (160, 90), (28, 16)):
        rows, columns = (np.linspace(0, n, m + 1).round().astype(int) for n, m in ((480, height), (854, width)))
        mean = np.add.reduceat(np.add.reduceat(picture.astype(float), rows[:-1], 0), columns[:-1], 1)
        mean /= (np.diff(rows)[:, None] * np.diff(columns))[..., None]
        found = Pyramid(Scaler().master(frame)).rgb((width, height))
        assert np.abs(found - mean).mean() < 6
        assert np.abs(found.mean(axis=(0, 1)) - picture.mean(axis=(0, 1))).max() < 1


@pytest.mark.parametrize("pix_fmt", [*FORMATS, "gray", "rgb24"])
@pytest.mark.parametrize(("width", "height"), [(96, 54), (200, 356), (855, 481), (1920, 1080)])
def test_the_luma_thumb_is_the_first_channel_of_the_whole_thumb(pix_fmt, width, height):
    frame = av.VideoFrame.from_ndarray(next(scenes.static_texture(1, width, height)), format="rgb24")
    frame = frame.reformat(format=pix_fmt)
    scaler = Scaler()
    thumb = scaler.thumb(frame, 64)
    assert (scaler.luma_thumb(frame, 64) == thumb[..., 0]).all()
    assert thumb.shape == (max(2, round(64 * height / width)), 64, 3)


def test_equal_planes_give_equal_thumbs_whatever_lies_beside_them():
    scaler, thumbs = Scaler(), []
    for padding in (0, 255):
        frame = av.VideoFrame(850, 478, "yuv420p")
        for plane in frame.planes:
            whole = np.frombuffer(plane, np.uint8)
            whole[:] = padding
            plane_view(plane)[:] = np.arange(plane.width) % 256
        thumbs.append((scaler.thumb(frame, 64), Pyramid(scaler.master(frame)).rgb((320, 180))))
    assert (thumbs[0][0] == thumbs[1][0]).all() and (thumbs[0][1] == thumbs[1][1]).all()


@given(st.integers(1, 6))
def test_full_range_luma_of_each_level(n):
    levels = np.tile(np.arange(256, dtype=np.uint8), (n, 1, 1))
    expected = np.clip(np.rint((np.arange(256) - 16) * (255 / 219)), 0, 255)
    assert (expand_range(levels) == expected).all()
