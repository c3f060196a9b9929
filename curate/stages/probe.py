"""The facts of a source: container, codec, size, rate, duration, key frames, streams."""

from __future__ import annotations

import pyarrow as pa

from curate.config import Config
from curate.media.decode import MOST_DAMAGED_SHARE
from curate.media.facts import read_facts
from curate.records import SourceFacts
from curate.stage import Column, ProbeStage, Reading, SourceFile


class ProbeConfig(Config):
    """Nothing to configure."""


class Probe(ProbeStage[ProbeConfig]):
    """Reads the packets of a file; decodes one key frame of the best video stream for rotation and pixel format."""

    name = "probe"
    version = 1
    config_type = ProbeConfig
    columns = (
        Column("stream", pa.int32(), "index", "video stream taken: largest area, then most frames, longest, first"),
        Column("container", pa.string(), "", "demuxer name"),
        Column("codec", pa.string(), "", "codec name"),
        Column("pix_fmt", pa.string(), "", "pixel format of the decoded frames"),
        Column("bit_depth", pa.int32(), "bit", "bits of a luma sample"),
        Column("coded_width_px", pa.int32(), "px", "width of the decoded frames"),
        Column("coded_height_px", pa.int32(), "px", "height of the decoded frames"),
        Column("width_px", pa.int32(), "px", "width as displayed, after pixel aspect and rotation"),
        Column("height_px", pa.int32(), "px", "height as displayed, after pixel aspect and rotation"),
        Column("rotation_deg", pa.int32(), "deg", "clockwise turn a player applies: 0, 90, 180 or 270"),
        Column("sar", pa.string(), "ratio", "width over height of a stored pixel, as num/den"),
        Column("rate", pa.string(), "1/s", "exact frame rate as num/den; the mean where it varies"),
        Column("rate_fps", pa.float64(), "1/s", "frame rate"),
        Column("vfr", pa.bool_(), "", "some frame lies more than one tick off a constant rate"),
        Column("has_pts", pa.bool_(), "", "time stamps are usable; else pts is the frame index at the declared rate"),
        Column("time_base", pa.string(), "s", "seconds of one tick, as num/den"),
        Column("start_pts", pa.int64(), "tick", "time stamp of the first frame shown"),
        Column("end_pts", pa.int64(), "tick", "time stamp of the last frame plus its duration"),
        Column("duration_s", pa.float64(), "s", "end_pts - start_pts"),
        Column("n_frames", pa.int64(), "frame", "frames with different time stamps, counted in packets"),
        Column("key_frames_pts", pa.list_(pa.int64()), "tick", "time stamps of the key frames, ascending"),
        Column("key_frames_closed", pa.list_(pa.bool_()), "", "per key frame: nothing shown before it needs it (IDR)"),
        Column("bit_rate_bps", pa.int64(), "bit/s", "mean bit rate of the video stream"),
        Column("streams_json", pa.string(), "json", "all streams: index, type, codec, size, language"),
    )

    def probe(self, source: SourceFile) -> SourceFacts:
        """Facts of the best video stream; raises InputError (empty, not media, no video, truncated)."""
        if source.reading is Reading.NORMAL:
            return read_facts(source.path)
        clock = source.reading is not Reading.RECLOCKED
        return read_facts(source.path, missing_share=MOST_DAMAGED_SHARE, clock=clock)
