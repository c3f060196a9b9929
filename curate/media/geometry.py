"""From stored to displayed pixels: rotation, pixel aspect and crop, as one chain of filters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, cast

from av.filter import Graph
from av.video.frame import VideoFrame

from curate.media.pixels import HD_HEIGHT_PX
from curate.records import SourceFacts

_SCALE = "flags=bicubic+accurate_rnd+bitexact+full_chroma_int"
_TURN = {0: [], 90: [("transpose", "1")], 180: [("hflip", ""), ("vflip", "")], 270: [("transpose", "2")]}
_BT709, _BT601 = 1, 5
_NO_MATRIX = (0, 2, 3)  # RGB, unspecified, reserved
_PLAIN = ("yuv420p", "yuvj420p")
_MOST_GRAPHS = 16


class Crop(NamedTuple):
    """The part of the displayed picture to keep, in displayed pixels from the top left corner."""

    x_px: int
    y_px: int
    width_px: int
    height_px: int


@dataclass(frozen=True, slots=True)
class Geometry:
    """What is cut out of the upright stored picture and what it is scaled to; all sizes and offsets even."""

    x_px: int
    y_px: int
    cut_width_px: int
    cut_height_px: int
    out_width_px: int
    out_height_px: int


def geometry_of(facts: SourceFacts, crop: Crop | None = None, most_short_side_px: int | None = None) -> Geometry:
    """Crop and output size. The crop shrinks to whole 4:2:0 samples inside it and to the picture; nothing is enlarged
    but the axis that a pixel aspect stretches. Sizes are 0 when nothing is left.

    With ``most_short_side_px`` the output is reduced to that short side at most, its aspect kept to even sizes.
    """
    upright_px = _upright(facts)
    crop = crop or Crop(0, 0, facts.width_px, facts.height_px)
    x_px, cut_width_px, out_width_px = _axis(crop.x_px, crop.width_px, upright_px[0], facts.width_px)
    y_px, cut_height_px, out_height_px = _axis(crop.y_px, crop.height_px, upright_px[1], facts.height_px)
    short_px = min(out_width_px, out_height_px)
    if most_short_side_px and short_px > most_short_side_px:
        out_width_px, out_height_px = (
            max(2, length_px * most_short_side_px // (2 * short_px) * 2) for length_px in (out_width_px, out_height_px)
        )
    return Geometry(x_px, y_px, cut_width_px, cut_height_px, out_width_px, out_height_px)


def _upright(facts: SourceFacts) -> tuple[int, int]:
    width_px, height_px = facts.coded_width_px, facts.coded_height_px
    return (height_px, width_px) if facts.rotation_deg % 180 else (width_px, height_px)


def _axis(offset_px: int, length_px: int, stored_px: int, shown_px: int) -> tuple[int, int, int]:
    """Offset and length in stored pixels, length in displayed pixels, along one axis."""
    start_px = -(-max(offset_px, 0) * stored_px // (2 * shown_px)) * 2
    end_px = min(offset_px + length_px, shown_px) * stored_px // (2 * shown_px) * 2
    cut_px = max(end_px - start_px, 0)
    return start_px, cut_px, cut_px * shown_px // (2 * stored_px) * 2


class Shaper:
    """Turns decoded frames into upright, square-pixel, 8-bit 4:2:0 ones. A frame that is all that already passes as is.

    Colour matrix and range stay the source's (RGB becomes BT.709, limited range).
    """

    def __init__(self, facts: SourceFacts, geometry: Geometry) -> None:
        self._facts = facts
        self._geometry = geometry
        self._graphs: dict[tuple[object, ...], Graph | None] = {}

    def shape(self, frame: VideoFrame) -> VideoFrame:
        """One frame in, one frame out."""
        key = (frame.width, frame.height, frame.format.name, frame.colorspace, frame.color_range)
        if key not in self._graphs:
            if len(self._graphs) >= _MOST_GRAPHS:
                self._graphs.clear()  # a stream that changes its size with every frame
            self._graphs[key] = self._graph(frame)
        graph = self._graphs[key]
        if graph is None:
            return frame
        graph.push(frame)
        return cast("VideoFrame", graph.pull())

    def _graph(self, frame: VideoFrame) -> Graph | None:
        steps = self._steps(frame)
        if not steps:
            return None
        graph = Graph()
        graph.threads = 1
        source = (
            f"video_size={frame.width}x{frame.height}:pix_fmt={frame.format.name}:time_base=1/1000:pixel_aspect=1/1"
            f":colorspace={frame.colorspace}:range={frame.color_range}"
        )
        nodes = [graph.add(name, args) for name, args in [("buffer", source), *steps, ("buffersink", None)]]
        graph.link_nodes(*nodes).configure()
        return graph

    def _steps(self, frame: VideoFrame) -> list[tuple[str, str]]:
        """Filters by name and arguments; none when the frame is right as it is."""
        facts, geo = self._facts, self._geometry
        steps: list[tuple[str, str]] = []
        if (frame.width, frame.height) != (facts.coded_width_px, facts.coded_height_px):
            steps.append(("scale", f"{facts.coded_width_px}:{facts.coded_height_px}:{_SCALE}"))
        steps += _TURN[facts.rotation_deg % 360]
        if (geo.cut_width_px, geo.cut_height_px) != _upright(facts):
            steps.append(("crop", f"{geo.cut_width_px}:{geo.cut_height_px}:{geo.x_px}:{geo.y_px}:exact=1"))
        scaled = (geo.out_width_px, geo.out_height_px) != (geo.cut_width_px, geo.cut_height_px)
        if scaled or frame.format.name not in _PLAIN:
            rgb = ":out_color_matrix=bt709:out_range=tv" if frame.format.is_rgb else ""
            steps.append(("scale", f"{geo.out_width_px}:{geo.out_height_px}:{_SCALE}{rgb}"))
            steps.append(("format", f"pix_fmts={_plain_format(frame)}"))
        return steps


def matrix_code(frame: VideoFrame, facts: SourceFacts) -> int:
    """AVColorSpace code for the output. Untagged sources get the one their size stands for (`curate.media.pixels`):
    a crop could make a reader guess another one.
    """
    untagged = frame.colorspace in _NO_MATRIX
    return (_BT709 if facts.coded_height_px >= HD_HEIGHT_PX else _BT601) if untagged else frame.colorspace


def _plain_format(frame: VideoFrame) -> str:
    return "yuvj420p" if frame.format.name.startswith("yuvj") else "yuv420p"
