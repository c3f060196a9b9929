"""The sound of a clip: decoded, cut to the sample, encoded as AAC."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import chain
from typing import cast

import av
import av.error
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.codec.context import Flags
from av.container import InputContainer, OutputContainer
from av.packet import Packet

from curate.errors import DecodeError
from curate.media.container import is_readable, open_media
from curate.media.packets import demuxed
from curate.records import Clip

AAC_FRAME_SAMPLES = 1024
BIT_RATE_BPS = 128_000
AAC_RATES_HZ = frozenset({96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350})
OTHER_RATE_HZ = 48_000
"""Rates that AAC knows, and the one that sound of any other rate gets."""

_LEAD_S = 1.0  # decoding starts this much early: AAC and Opus need a few packets before they sound right


def add_audio(container: OutputContainer, path: str, clip: Clip) -> list[Packet]:
    """Add a stereo AAC stream with the sound of the clip and give its packets; none when the source has no sound.

    DecodeError when there is sound that cannot be decoded.
    """
    with open_media(path) as source:
        if not source.streams.audio:
            return []
        sound = cast("AudioStream", source.streams.best("audio") or source.streams.audio[0])
        if not is_readable(sound):
            raise DecodeError("the sound cannot be decoded: no decoder reads it", subject=clip.clip_id)
        rate_hz = sound.rate if sound.rate in AAC_RATES_HZ else OTHER_RATE_HZ
        stream = cast("AudioStream", container.add_stream("aac", rate=rate_hz))
        stream.codec_context.bit_rate = BIT_RATE_BPS
        stream.codec_context.flags |= Flags.bitexact
        try:
            track = _samples(source, path, sound, clip, rate_hz)
        except (av.error.FFmpegError, ValueError) as error:
            raise DecodeError(f"the sound cannot be decoded: {error}", subject=clip.clip_id) from error
        packets: list[Packet] = []
        for frame in _frames(track, rate_hz):
            packets += stream.encode(frame)
        return [*packets, *stream.encode(None)]


def _samples(source: InputContainer, path: str, sound: AudioStream, clip: Clip, rate_hz: int) -> np.ndarray:
    """float32 (2, n) in [-1, 1] over the span; silence where the source has none."""
    start_s = clip.start_s
    n_samples = round(clip.duration_s * rate_hz)
    track = np.zeros((2, n_samples), np.float32)
    base = cast("Fraction", sound.time_base)
    # Some demuxers (AVI, FLV) refuse to go to a time before the first packet.
    target = max(sound.start_time or 0, int((float(start_s) - _LEAD_S) / base))
    source.seek(target, stream=sound, backward=True)
    resampler = av.AudioResampler(format="fltp", layout="stereo", rate=rate_hz)
    packets = demuxed(source, sound, path)
    for decoded in chain.from_iterable(sound.codec_context.decode(packet) for packet in packets):
        if decoded.pts is None:
            continue
        at = round((decoded.pts * base - start_s) * rate_hz)
        if at >= n_samples:
            break
        for frame in resampler.resample(decoded):
            _place(track, frame.to_ndarray(), at)
    return track


def _place(track: np.ndarray, samples: np.ndarray, at: int) -> None:
    """Copy samples into the track at an offset that may lie before it or reach beyond it."""
    first, last = max(at, 0), min(at + samples.shape[1], track.shape[1])
    if first < last:
        track[:, first:last] = samples[:, first - at : last - at]


def _frames(track: np.ndarray, rate_hz: int) -> Iterator[AudioFrame]:
    for start in range(0, track.shape[1], AAC_FRAME_SAMPLES):
        piece = np.ascontiguousarray(track[:, start : start + AAC_FRAME_SAMPLES])
        frame = AudioFrame.from_ndarray(piece, format="fltp", layout="stereo")
        frame.sample_rate, frame.pts, frame.time_base = rate_hz, start, Fraction(1, rate_hz)
        yield frame
