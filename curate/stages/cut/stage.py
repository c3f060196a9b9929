"""The stage: configuration, columns, and the detector that the engine feeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pyarrow as pa

from curate.records import CutKind, SourceFacts, Span
from curate.stage import Column, CutDetector, CutStage, Thumb
from curate.stages.cut.cascade import Cascade
from curate.stages.cut.config import CutConfig
from curate.stages.cut.joint import JointFinder
from curate.stages.cut.model import Edge, NoCuts, ShotFinder
from curate.stages.cut.scenedetect import SceneDetectFinder, Settings
from curate.stages.cut.spans import SpanMaker, SpanRule
from curate.stages.cut.stride import StrideFinder
from curate.stages.cut.transnet import CARD, THRESHOLD, TransNetFinder
from curate.units import exact, pts_to_s, s_to_pts_ceil, s_to_pts_floor
from curate.weights.cards import load_card

LOOK_AHEAD_S = {"fixed": 0.0, "stride": 0.0, "transnetv2": 16.0, "cascade+transnetv2": 16.2}
"""How far a detector reads past a frame before it decides, at 8 frames/s and more; the others' 12 s."""

NETWORK_S_PER_FRAME = 0.2
"""What TransNet V2 may take for a frame: ten times what it takes on a core of its own."""


class Cut(CutStage[CutConfig]):
    """Finds a source's shots and cuts them into clips."""

    name = "cut"
    version = 3
    config_type = CutConfig
    columns = (
        Column("n_clips", pa.int32(), "1", "clips of this source"),
        Column("n_cuts", pa.int32(), "1", "transitions between shots, of all kinds"),
        Column("n_hard", pa.int32(), "1", "hard cuts"),
        Column("n_dissolves", pa.int32(), "1", "dissolves"),
        Column("n_fades", pa.int32(), "1", "fades to or from black or white"),
        Column("n_wipes", pa.int32(), "1", "wipes"),
        Column("n_flashes", pa.int32(), "1", "jumps that turned back at once, not taken for cuts"),
        Column("n_frames", pa.int32(), "1", "frames of the source, shown to the detector or not"),
        Column("short_dropped", pa.int32(), "1", "stretches of shots that no allowed clip length fits"),
        Column("short_dropped_s", pa.float64(), "s", "their length together"),
        Column(
            "damaged_s",
            pa.float64(),
            "s",
            "left out because it could not be decoded; clips end before and begin after it",
        ),
        Column("cut_times_s", pa.list_(pa.float64()), "s", "first affected frame of each transition"),
        Column(
            "cut_kinds",
            pa.list_(pa.string()),
            "",
            "hard, dissolve, fade or wipe; gradual where the detector does not tell",
        ),
        Column("cut_detectors", pa.list_(pa.string()), "", "what found it; one + another: both"),
    )

    def __init__(self, config: CutConfig) -> None:
        super().__init__(config)
        peer = config.method.startswith("pyscenedetect")
        network = config.method.endswith(CARD)
        self.thumb_width_px = 256 if peer else 64
        self.every_frame = peer or network
        self.blind = not config.knows_cuts
        self.s_per_frame = NETWORK_S_PER_FRAME if network else 0.0

    def model_digests(self) -> Mapping[str, str]:
        """TransNet V2's weights, where they are used."""
        return load_card(CARD).digests() if self.config.method.endswith(CARD) else {}

    def detector(self, facts: SourceFacts) -> CutDetector:
        """A fresh detector for one source."""
        rule = span_rule(self.config, facts)
        finder = _finder(self.config, facts)
        return SourceCutter(finder, SpanMaker(rule, facts.time_base_fraction), facts.time_base_fraction)

    def longest_clip_s(self) -> float:
        """The longest clip and the detector's look-ahead: how far back a span may begin when it is given."""
        longest = self.config.longest_s
        return longest + LOOK_AHEAD_S.get(self.config.method, 12.0) if longest else math.inf


def span_rule(config: CutConfig, facts: SourceFacts) -> SpanRule:
    """The limits of a configuration on the clock of a source."""
    base = facts.time_base_fraction
    kind = CutKind.MAX_LEN if config.knows_cuts else CutKind.STRIDE
    # The clips of a stride end where the clock says, not where a length is reached.
    longest_s = 0.0 if config.method == "stride" else config.longest_s
    rule = SpanRule.of(facts, config.min_len_s, longest_s, piece_kind=kind, snap=config.snap_to_key_frames)
    return replace(
        rule,
        piece_ticks=s_to_pts_floor(exact(config.piece_s or 0.0), base),
        truncates=config.long_shots == "truncate",
        trim_ticks=s_to_pts_ceil(exact(config.trim_s or 0.0), base),
    )


def _finder(config: CutConfig, facts: SourceFacts) -> ShotFinder:
    if config.method == "fixed":
        return NoCuts()
    if config.method == "stride":
        return StrideFinder(facts, config.fixed_s, config.stride_s or config.fixed_s)
    if config.method.startswith("pyscenedetect"):
        settings = Settings(config.threshold, config.min_scene_frames, config.min_content)
        return SceneDetectFinder(config.method, facts.rate_fps, settings)
    if config.method == "cascade":
        return Cascade(facts.time_base_fraction, facts.rate_fps)
    network = TransNetFinder(facts.rotation_deg, config.threshold or THRESHOLD)
    if config.method == "transnetv2":
        return network
    return JointFinder(Cascade(facts.time_base_fraction, facts.rate_fps), network, facts.time_base_fraction)


class SourceCutter:
    """The detector of one source: a shot finder, a span maker, and the account of what was found."""

    def __init__(self, finder: ShotFinder, maker: SpanMaker, time_base: Fraction) -> None:
        self._finder = finder
        self._maker = maker
        self._time_base = time_base
        self._cuts: list[tuple[float, CutKind, str]] = []
        self._end: Edge | None = None

    @property
    def needed_pts(self) -> int:
        """No span to come begins before this pts."""
        return self._maker.opened_pts if self._maker.opened_pts is not None else self._finder.settled_pts

    def wants_between(self, thumb: Thumb) -> bool:
        """Whether the frames that ``thumb`` skips may hold a cut."""
        return self._finder.wants_between(thumb)

    def push(self, thumb: Thumb) -> list[Span]:
        """Take the next frame in display order; StageError when its pts is not after that of the frame before."""
        for pts in thumb.skipped:
            self._maker.frame(pts)
        self._maker.frame(thumb.pts)
        edges = self._finder.push(thumb)
        self._count(edges)
        return self._maker.settle(edges, self._finder.settled_pts)

    def finish(self, end_pts: int, skipped: tuple[int, ...] = ()) -> list[Span]:
        """The stream ended at ``end_pts``, after frames that were not shown; give the remaining spans."""
        for pts in skipped:
            self._maker.frame(pts)
        edges = self._finder.finish(skipped)
        self._count(edges)
        if self._end is not None:
            self._enter(self._end, self._end)
        return self._maker.finish(edges, end_pts)

    def summary(self) -> dict[str, Any]:
        """Values of the cut cell except ``n_clips``; valid after finish."""
        kinds = [kind for _, kind, _ in self._cuts]
        return {
            "n_cuts": len(kinds),
            "n_hard": kinds.count(CutKind.HARD),
            "n_dissolves": kinds.count(CutKind.DISSOLVE),
            "n_fades": kinds.count(CutKind.FADE),
            "n_wipes": kinds.count(CutKind.WIPE),
            "n_flashes": self._finder.n_flashes,
            "n_frames": self._maker.n_frames,
            "short_dropped": self._maker.dropped,
            "short_dropped_s": self._maker.dropped_s,
            "cut_times_s": [time_s for time_s, _, _ in self._cuts],
            "cut_kinds": [str(kind) for kind in kinds],
            "cut_detectors": [detector for _, _, detector in self._cuts],
        }

    def _count(self, edges: Sequence[Edge]) -> None:
        for edge in edges:
            if edge.kind is CutKind.STRIDE:  # the clock put it there, no change of picture
                continue
            if not edge.opens:
                self._end = edge
            elif self._end is not None:
                self._enter(self._end, edge)
                self._end = None

    def _enter(self, end: Edge, start: Edge) -> None:
        """One transition: its time, and the kind of its more gradual side."""
        side = end if start.kind is CutKind.HARD else start
        self._cuts.append((float(pts_to_s(end.pts, self._time_base)), side.kind, side.detector))
