import av
import numpy as np
import pytest
from media_kit import FILES, digest, small, stamped_by_decoding

from curate.errors import DecodeError
from curate.media.decode import Frame, FrameReader, iter_frames
from curate.media.facts import read_facts
from curate.media.pixels import THUMB_ROWS, Scaler, plane_view
from curate.testing.footage import moving_texture, write_video


@pytest.mark.parametrize("name", FILES)
def test_frames_are_the_same_wherever_decoding_starts(tmp_path, name):
    path, facts = small(tmp_path / name, **FILES[name])
    full = {frame.pts: digest(frame) for frame in iter_frames(path, facts)}
    order = list(full)
    assert len(full) == facts.n_frames == 48
    assert order == sorted(order) and order[0] == facts.start_pts
    for i in range(0, 48, 5):
        end = order[i + 4] if i + 4 < 48 else facts.end_pts
        part = {frame.pts: digest(frame) for frame in iter_frames(path, facts, start_pts=order[i], end_pts=end)}
        assert part == {pts: full[pts] for pts in order[i : i + 4]}, f"from frame {i}"


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "a.flv"])
def test_a_late_start_does_not_decode_what_lies_before(tmp_path, monkeypatch, name):
    path, facts = small(tmp_path / name, n=120, codec="libx264", options={"bf": "3"})
    n_decoded = []
    decoded = FrameReader._decoded

    def counting(self, stream, packets, *, tolerant):
        return decoded(self, stream, (n_decoded.append(1) or each for each in packets), tolerant=tolerant)

    monkeypatch.setattr(FrameReader, "_decoded", counting)
    assert len(list(iter_frames(path, facts, start_pts=facts.key_frames_pts[-1]))) == 12
    assert len(n_decoded) == 12 + 1  # and the one that flushes the decoder


def test_frames_kept_while_decoding_goes_on_do_not_change(tmp_path):
    path, facts = small(tmp_path / "a.mp4", codec="libx264", options={"bf": "3"})
    kept = [(frame, digest(frame)) for frame in iter_frames(path, facts)]
    assert all(digest(frame) == then for frame, then in kept)


def test_frames_outlive_the_reader(tmp_path):
    path, facts = small(tmp_path / "a.mp4")
    with iter_frames(path, facts) as reader:
        frame = next(reader)
    with pytest.raises(StopIteration):
        next(reader)
    assert frame.master().frame.to_ndarray().shape == (81, 96)


def test_two_frames_with_one_time_stamp_count_once(tmp_path):
    path = tmp_path / "twice.mkv"
    pts = [3000 * i for i in range(19)]
    pts.insert(10, 27030)  # a third of a millisecond after its neighbour, and Matroska counts milliseconds
    write_video(path, moving_texture(20, 96, 54, (3, 0)), pts=pts, options={"bf": "0"})
    facts = read_facts(str(path))
    stamps = [frame.pts for frame in iter_frames(str(path), facts)]
    assert len(stamps) == facts.n_frames == 19
    assert stamps == sorted(set(stamps))


def test_truncated_stream_is_an_error_with_its_position(tmp_path):
    path, facts = small(tmp_path / "a.ts", n=100, codec="mpeg2video", options={"b": "500k"})
    data = (tmp_path / "a.ts").read_bytes()
    (tmp_path / "a.ts").write_bytes(data[: len(data) // 188 // 2 * 188])
    with pytest.raises(DecodeError, match=r"ends early .*expected until 4.\d+ s\) at 2.\d+ s.*Replace or re-download"):
        list(iter_frames(path, facts))


def test_broken_stream_is_an_error_with_its_position(tmp_path):
    path, facts = small(tmp_path / "a.webm", n=60, codec="libvpx-vp9", gop=60)
    with av.open(path) as container:
        packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    data = bytearray((tmp_path / "a.webm").read_bytes())
    at = data.find(bytes(next(p for i, p in enumerate(_packets(path)) if i == 30)))
    data[at : at + packets[30][1]] = b"\0" * packets[30][1]
    (tmp_path / "a.webm").write_bytes(bytes(data))
    with pytest.raises(DecodeError, match=r"cannot be decoded .* at 1\.\d+ s"):
        list(iter_frames(path, facts))


def _packets(path):
    with av.open(path) as container:
        yield from (bytes(p) for p in container.demux(video=0) if p.size)


def test_time_stamps_that_run_backwards_are_an_error_not_a_silent_loss(tmp_path):
    source, _ = small(tmp_path / "a.mp4", codec="libx264", options={"bf": "3"})
    path = str(tmp_path / "b.mp4")
    stamped_by_decoding(source, path)
    with pytest.raises(DecodeError, match="run backwards"):
        list(iter_frames(path, read_facts(path)))


def test_recording_that_begins_in_mid_gop_gives_what_can_be_decoded(tmp_path):
    path, facts = small(tmp_path / "a.ts", codec="mpeg2video", options={"b": "500k"})
    packets = list(_packets(path))
    data = (tmp_path / "a.ts").read_bytes()
    (tmp_path / "a.ts").write_bytes(data[len(data) // 188 // 6 * 188 :])
    facts = read_facts(path)
    frames = list(iter_frames(path, facts))
    assert 30 <= len(frames) < len(packets)


@pytest.mark.parametrize(
    "pix_fmt",
    ["yuv420p", "yuvj420p", "yuv422p", "yuv444p", "nv12", "gray", "yuv420p10le", "yuv422p10le", "rgb24", "gbrp"],
)
def test_thumb_shows_the_picture_in_any_format(pix_fmt):
    picture = np.full((90, 161, 3), (200, 60, 40), np.uint8)
    picture[:, 80:] = (30, 90, 210)
    frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=pix_fmt)
    thumb = Frame(0, frame, Scaler()).thumb(64)
    reference = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv444p").to_ndarray()
    assert (thumb.shape, thumb.dtype) == ((36, 64, 3), np.uint8)
    channels = 1 if pix_fmt == "gray" else 3
    for x, source_x in ((10, 20), (54, 140)):
        got, want = thumb[18, x].astype(int), reference[:, 45, source_x].astype(int)
        tolerance = 20 if pix_fmt in ("yuvj420p", "gray") else 2  # those are full range
        assert np.abs(got - want)[:channels].max() <= tolerance
    if pix_fmt == "gray":
        assert (thumb[..., 1:] == 128).all()


@pytest.mark.parametrize(("width", "height"), [(847, 479), (1920, 1080), (640, 360), (100, 300)])
def test_thumb_averages_and_stays_in_place(width, height):
    frame = av.VideoFrame(width, height, "gray")
    ramp = (np.arange(width) + 0.5) / width * 200 + 20
    plane_view(frame.planes[0])[:] = np.rint(np.broadcast_to(ramp, (height, width)))
    thumb = Frame(0, frame, Scaler()).thumb(64)[..., 0]
    assert np.abs(thumb - ((np.arange(64) + 0.5) / 64 * 200 + 20)).max() <= 2
    noise = np.random.default_rng(0).integers(0, 256, (height, width))
    plane_view(frame.planes[0])[:] = noise
    thumb = Frame(0, frame, Scaler()).thumb(64)[..., 0]
    assert abs(thumb.mean() - noise.mean()) < 2
    averaged_px = min(width / 64, 8) * min(height / thumb.shape[0], THUMB_ROWS[0])
    assert thumb.std() < 1.5 * noise.std() / np.sqrt(averaged_px)
    assert (Scaler().luma_thumb(frame, 64) == thumb).all()


def test_master_is_bounded_and_never_enlarged():
    scaler = Scaler()
    assert scaler.master(frame := av.VideoFrame(320, 180, "yuv420p")).frame is frame
    large = scaler.master(av.VideoFrame(1920, 1080, "yuv420p")).frame
    assert (large.width, large.height, large.format.name) == (960, 540, "yuv420p")
    tall = scaler.master(av.VideoFrame(64, 2000, "yuv422p10le")).frame
    assert (tall.width, tall.height, tall.format.name) == (64, 2000, "yuv420p")
