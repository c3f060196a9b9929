"""One clip out of a shard: its bytes by a range request, its frames cut to a bucket."""

from __future__ import annotations

import io
import json
import tarfile
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, cast

import av
import av.error
import numpy as np

from curate.errors import CorpusError, DecodeError
from curate.media.pixels import Pyramid, Scaler, rotate
from curate.shards.buckets import Bucket
from curate.storage import Place
from curate.train.data.catalogue import ClipRef

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

_OPTIONS = {"enable_drefs": "0", "use_absolute_path": "0", "probesize": "32"}
_PROBE_OPTIONS = {"skip_frame": "all"}
"""Opening decodes the first frame to learn what decoding tells anyway: 5 to 9 ms at 480p, and 0.2 ms without."""


@dataclass(frozen=True, slots=True)
class Window:
    """Frames ``start``, ``start + stride``, ... of a clip, ``count`` of them."""

    start: int
    stride: int
    count: int

    @property
    def last(self) -> int:
        """Number of the last frame."""
        return self.start + (self.count - 1) * self.stride


def read_clip(place: Place, ref: ClipRef) -> tuple[bytes, dict[str, Any]]:
    """A clip's MP4 and the facts of its JSON, which hold every column of the sidecar.

    CorpusError when something else lies where the clip should, StorageError when it cannot be read.
    """
    data = place.read_range(ref.offset_bytes, ref.sample_bytes)
    return data[: ref.video_bytes], _facts(data[_padded(ref.video_bytes) :], ref, place.uri)


def read_facts(place: Place, ref: ClipRef) -> dict[str, Any]:
    """The facts alone; errors as for `read_clip`."""
    skipped = _padded(ref.video_bytes)
    return _facts(place.read_range(ref.offset_bytes + skipped, ref.sample_bytes - skipped), ref, place.uri)


def _padded(size_bytes: int) -> int:
    return -(-size_bytes // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def _facts(data: bytes, ref: ClipRef, uri: str) -> dict[str, Any]:
    """From the header of the JSON on."""
    try:
        info = tarfile.TarInfo.frombuf(data[: tarfile.BLOCKSIZE], "utf-8", "strict")
        facts = json.loads(data[tarfile.BLOCKSIZE : tarfile.BLOCKSIZE + info.size])
    except (tarfile.HeaderError, ValueError) as error:
        raise CorpusError(f"clip {ref.clip_id} does not lie where its sidecar says: {error}", subject=uri) from error
    if info.name != f"{ref.clip_id}.json":
        raise CorpusError(f"{info.name} lies where clip {ref.clip_id} should", subject=uri)
    return facts


def decode_window(video: bytes, window: Window, bucket: Bucket, *, closed: bool = False) -> np.ndarray:
    """uint8 (window.count, height, width, 3) RGB of the bucket's size, full range.

    Pictures are turned upright, scaled until they cover the bucket, and cropped in the middle. ``closed``: decoding
    may begin at any key frame. DecodeError when a frame of the window cannot be had.
    """
    out = np.empty((window.count, bucket.height_px, bucket.width_px, 3), np.uint8)
    try:
        with _opened(video) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            n_found = _fill(out, stream, [packet for packet in container.demux(stream) if packet.size], window, closed)
    except (av.error.FFmpegError, IndexError) as error:
        raise DecodeError(f"cannot be decoded: {error}") from error
    if n_found < window.count:
        raise DecodeError(f"only {n_found} of {window.count} frames up to frame {window.last} can be decoded")
    return out


def _opened(video: bytes) -> InputContainer:
    opened = av.open(io.BytesIO(video), format="mp4", options=_PROBE_OPTIONS, container_options=_OPTIONS)
    return cast("InputContainer", opened)


def _fill(out: np.ndarray, stream: VideoStream, packets: list[Packet], window: Window, closed: bool) -> int:
    """Decode from the nearest entry on; gives how many frames of the window were found."""
    times = sorted(packet.pts for packet in packets if packet.pts is not None and not packet.is_discard)
    wanted = {pts: at for at, pts in enumerate(times[window.start : window.last + 1 : window.stride])}
    if len(wanted) < window.count:
        return len(wanted)
    first_pts = times[window.start]
    entries = [at for at, packet in enumerate(packets) if packet.is_keyframe and (packet.pts or 0) <= first_pts]
    entry = entries[-1] if closed and entries else 0
    scaler = Scaler()
    found = 0
    for packet in [*packets[entry:], None]:
        for frame in stream.codec_context.decode(packet):
            at = wanted.pop(frame.pts, None) if frame.pts is not None else None
            if at is not None:
                aspect = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio or Fraction(1)
                out[at] = _cut(frame, scaler, aspect, out.shape[2], out.shape[1])
                found += 1
        if not wanted:
            break
    return found


def _cut(frame: VideoFrame, scaler: Scaler, aspect: Fraction, width_px: int, height_px: int) -> np.ndarray:
    """RGB (height_px, width_px, 3) view of a frame, upright and cropped in the middle."""
    turn_deg = round(-frame.rotation / 90) * 90 % 360
    size_px = (height_px, width_px) if turn_deg % 180 else (width_px, height_px)
    stored_px = float(frame.width * aspect), float(frame.height)
    scale = max(size_px[0] / stored_px[0], size_px[1] / stored_px[1])
    scaled_px = max(size_px[0], round(stored_px[0] * scale)), max(size_px[1], round(stored_px[1] * scale))
    picture = Pyramid(scaler.whole(frame)).rgb(scaled_px)
    left, top = (scaled_px[0] - size_px[0]) // 2, (scaled_px[1] - size_px[1]) // 2
    return rotate(picture[top : top + size_px[1], left : left + size_px[0]], turn_deg)
