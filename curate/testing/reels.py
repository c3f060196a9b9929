"""Reels with known truth: takes of real footage joined by cuts, dissolves, fades and wipes, and what is no cut.

    material = gather_material()                                    # curate.testing.reel_footage
    reel = make_reel(material, {"hard": 10, "dissolve": 5, "flash": 5}, seed=1)
    write_reel("reel.mp4", reel, ENCODINGS["h264-b"])               # and reel.json beside it

Frames are made as they are read, so that a reel costs no memory. The same material and seed give the same reel.

What is independent and what is not: the default footage holds seven scenes in each half, so a hundred cuts are a
hundred different moments, crops and mirrorings of those few scenes. The halves share no film. Each frame of the footage
is one frame of the reel, whatever its rate: at 60 fps things move faster than life, at 24 fps about as filmed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from curate.errors import ConfigError
from curate.testing.footage import PTS_PER_S, Track, write_tracks
from curate.testing.reel_edit import Joint, Take, flashed, mixed, pan_take, shot_take, still_take
from curate.testing.reel_footage import Shot
from curate.testing.scenes import Frame

JOINTS = ("hard", "jump", "short", "dissolve", "fade", "wipe")
DISTRACTORS = ("flash", "strobe", "pan", "static")
CLEAR_FRAMES = 14
"""Frames between a distractor and the nearest joint, so that a false cut can be told from a found one."""

_SHORT_FRAMES = (3, 13)
_SCENE_FRAMES = (30, 64)
_GRADUAL_FRAMES = (4, 49)
_WIPE_FRAMES = (8, 41)
_ALIKE = 10.0
"""Mean difference of two small pictures, in steps of 255, under which they are too much alike to stand side by side."""


@dataclass(frozen=True)
class Event:
    """A change of shot: the first affected frame, and the first clean frame of the next shot (equal for a cut).

    ``kind``: hard (never between pictures that look nearly alike), jump (a cut within one scene), short (a cut to or
    from a shot of 3 to 12 frames), dissolve, fade (out to black or white, and in again, each 4 to 48 frames) or wipe.
    """

    kind: str
    first: int
    clean: int


@dataclass(frozen=True)
class Distractor:
    """What is no change of shot, in frames [first, end): flash, strobe, pan or static."""

    kind: str
    first: int
    end: int


@dataclass(frozen=True)
class _Scene:
    """One take on the reel from frame ``first`` to ``end``, both with the joints' shares of it."""

    take: Take
    first: int
    end: int
    flashes: tuple[tuple[int, int, int], ...] = ()


@dataclass(frozen=True)
class Reel:
    """Frames and truth. ``pts``: time stamps in 1/PTS_PER_S s of a variable rate, None for a constant one."""

    n_frames: int
    rate: Fraction
    events: tuple[Event, ...]
    distractors: tuple[Distractor, ...]
    pts: tuple[int, ...] | None
    scenes: tuple[_Scene, ...]
    joints: tuple[Joint, ...]

    def frames(self) -> Iterator[Frame]:
        """uint8 (height, width, 3) RGB."""
        at = 0
        for number in range(self.n_frames):
            while at + 1 < len(self.scenes) and number >= self.scenes[at].end:
                at += 1
            scene = self.scenes[at]
            if at < len(self.joints) and number >= self.joints[at].first:
                yield mixed(self.joints[at], number, self._frame(scene, number), self._next(at, number))
            else:
                yield self._frame(scene, number)

    def _next(self, at: int, number: int) -> Frame:
        return self._frame(self.scenes[at + 1], max(number, self.scenes[at + 1].first))

    def _frame(self, scene: _Scene, number: int) -> Frame:
        frame = scene.take.frame(number - scene.first)
        for first, length, seed in scene.flashes:
            if first <= number < first + length:
                frame = flashed(frame, number - first, seed)
        return frame


def make_reel(
    material: Sequence[Shot],
    counts: Mapping[str, int],
    *,
    seed: int = 0,
    rate: Fraction = Fraction(25),
    size_px: tuple[int, int] = (480, 270),
    vfr: bool = False,
) -> Reel:
    """A reel with so many joints and distractors of each kind (JOINTS and DISTRACTORS; "short" counts shots, each of
    which makes two events), in an order drawn by ``seed``. ConfigError when too few of the shots look different."""
    return _Editor(material, np.random.default_rng(seed), size_px).cut(counts, rate, vfr)


class _Editor:
    """Lays takes on a timeline."""

    def __init__(self, material: Sequence[Shot], rng: np.random.Generator, size_px: tuple[int, int]) -> None:
        self._material = material
        self._rng = rng
        self._size_px = size_px
        self._scenes: list[_Scene] = []
        self._joints: list[Joint] = []
        self._events: list[Event] = []
        self._distractors: list[Distractor] = []
        self._at: int | None = None
        self._plain = True
        self._looks = [cv2.resize(shot.frames[0], (32, 18), interpolation=cv2.INTER_AREA) for shot in material]

    def cut(self, counts: Mapping[str, int], rate: Fraction, vfr: bool) -> Reel:
        joints = self._shuffled(JOINTS, counts)
        extras = self._shuffled(DISTRACTORS, counts)
        extras += [""] * max(0, len(joints) + 1 - len(extras))
        if len(extras) > len(joints) + 1:
            joints += ["hard"] * (len(extras) - len(joints) - 1)
        order = self._rng.permutation(len(extras))
        at = self._scene(0, 0, extras[order[0]], jump=False)
        for joint, extra in zip(joints, (extras[i] for i in order[1:]), strict=True):
            at = self._joined(at, joint, extra)
        pts = self._stamps(at, rate) if vfr else None
        found = (tuple(self._events), tuple(self._distractors), pts, tuple(self._scenes), tuple(self._joints))
        return Reel(at, rate, *found)

    def _shuffled(self, kinds: Sequence[str], counts: Mapping[str, int]) -> list[str]:
        names = [kind for kind in kinds for _ in range(counts.get(kind, 0))]
        return [names[i] for i in self._rng.permutation(len(names))]

    def _joined(self, at: int, kind: str, extra: str) -> int:
        """Add a joint at frame ``at`` and the scene behind it; the frame at which that one ends."""
        if kind == "short":
            self._events.append(Event("short", at, at))
            self._joints.append(Joint("hard", at, at))
            middle = self._scene(at, 0, "", jump=False, length=int(self._rng.integers(*_SHORT_FRAMES)))
            self._events.append(Event("short", middle, middle))
            self._joints.append(Joint("hard", middle, middle))
            return self._scene(middle, 0, extra, jump=False)
        joint = self._gradual(at, kind) if kind in ("dissolve", "fade", "wipe") else Joint(kind, at, at)
        self._events.append(Event(kind, joint.first, joint.clean))
        self._joints.append(joint)
        last = self._scenes[-1]
        self._scenes[-1] = _Scene(last.take, last.first, joint.clean, last.flashes)
        enters = joint.enters if kind == "fade" else joint.first
        return self._scene(enters, joint.clean - enters, extra, jump=kind == "jump")

    def _gradual(self, at: int, kind: str) -> Joint:
        seed = int(self._rng.integers(1 << 30))
        if kind != "fade":
            low, high = _WIPE_FRAMES if kind == "wipe" else _GRADUAL_FRAMES
            return Joint(kind, at, at + int(self._rng.integers(low, high)), seed=seed)
        out, held, back = (int(v) for v in self._rng.integers((4, 1, 4), (49, 16, 49)))
        return Joint(kind, at, at + out + held + back, at + out, at + out + held, seed)

    def _scene(self, first: int, shared: int, extra: str, *, jump: bool, length: int = 0) -> int:
        """A take from ``first`` on, of which ``shared`` frames belong to the joint before it."""
        rng = self._rng
        length = length or int(rng.integers(*_SCENE_FRAMES))
        clear = first + shared + CLEAR_FRAMES
        if extra:
            length = max(length, 2 * CLEAR_FRAMES)
        flashes: tuple[tuple[int, int, int], ...] = ()
        if extra == "pan":
            taken = int(rng.integers(5, 21))
            take = pan_take(self._next_shot(jump), self._size_px, rng, shared + CLEAR_FRAMES, taken)
            self._distractors.append(Distractor("pan", clear, clear + taken))
            end = clear + taken + CLEAR_FRAMES
        elif extra == "static":
            take = still_take(self._next_shot(jump), self._size_px, rng)
            end = first + shared + length
            self._distractors.append(Distractor("static", first + shared, end))
        else:
            take = self._jumped() if jump else shot_take(self._next_shot(), self._size_px, rng)
            flashes = self._flashes(extra, clear)
            lit_end = max((at + n for at, n, _ in flashes), default=first + shared)
            end = max(first + shared + length, lit_end + CLEAR_FRAMES if flashes else 0)
            if flashes:
                self._distractors.append(Distractor(extra, flashes[0][0], lit_end))
        self._scenes.append(_Scene(take, first, end, flashes))
        self._plain = extra not in ("pan", "static")
        return end

    def _flashes(self, extra: str, first: int) -> tuple[tuple[int, int, int], ...]:
        """(first frame, frames, seed) of each flash."""
        rng = self._rng
        if extra == "flash":
            seed = int(rng.integers(1 << 30))
            return tuple((first + 9 * i, int(rng.integers(1, 5)), seed + i) for i in range(int(rng.integers(1, 3))))
        if extra == "strobe":
            n, period, lit = (int(v) for v in rng.integers((4, 3, 1), (11, 7, 3)))
            seed = int(rng.integers(1 << 30))
            return tuple((first + i * period, lit, seed) for i in range(n))
        return ()

    def _next_shot(self, jump: bool = False) -> Shot:
        """A shot of another scene than the last one, which looks different; for a jump, the last one again."""
        if self._at is not None and jump:
            return self._material[self._at]
        others = [i for i in range(len(self._material)) if self._at is None or self._differ(self._at, i)]
        if not others:
            raise ConfigError(
                f"{len(self._material)} shots of footage show too little that is different to cut between",
                fix="Give footage of three and more different scenes",
            )
        self._at = others[int(self._rng.integers(len(others)))]
        return self._material[self._at]

    def _differ(self, a: int, b: int) -> bool:
        apart = np.abs(self._looks[a].astype(np.int16) - self._looks[b]).mean()
        return self._material[a].scene != self._material[b].scene and bool(apart >= _ALIKE)

    def _jumped(self) -> Take:
        """The last take's camera, half a shot later; after a pan or a still, another camera on the same scene."""
        if not self._plain:
            return shot_take(self._next_shot(jump=True), self._size_px, self._rng)
        last = self._scenes[-1].take
        return last.later(max(12, len(last.frames) // 2))

    def _stamps(self, n: int, rate: Fraction) -> tuple[int, ...]:
        """Time stamps whose distance varies between two thirds and four thirds of the usual one."""
        usual = PTS_PER_S / float(rate)
        steps = np.rint(usual * self._rng.choice([2 / 3, 1, 1, 4 / 3], n)).astype(int)
        return tuple(int(pts) for pts in np.cumsum(steps) - steps[0])


@dataclass(frozen=True)
class Encoding:
    """How a reel is stored. ``suffix`` names the container."""

    codec: str
    options: Mapping[str, str]
    gop: int | None = None
    rate: Fraction = Fraction(25)
    vfr: bool = False
    suffix: str = ".mp4"


_X265 = "log-level=error:pools=none"
ENCODINGS: Mapping[str, Encoding] = {
    "h264-b": Encoding("libx264", {"preset": "medium", "crf": "23"}),
    "h264-b-30": Encoding("libx264", {"preset": "fast", "crf": "23"}, rate=Fraction(30)),
    "h264-b-vfr": Encoding("libx264", {"preset": "fast", "crf": "23"}, vfr=True, suffix=".mkv"),
    "h264-b-no-scenecut": Encoding("libx264", {"preset": "fast", "crf": "23", "bf": "3"}, gop=48, rate=Fraction(30)),
    "h264-b-long-gop": Encoding(
        "libx264", {"preset": "fast", "crf": "23", "sc_threshold": "0"}, rate=Fraction(24000, 1001)
    ),
    "h264-bf0": Encoding("libx264", {"preset": "fast", "crf": "23", "bf": "0"}),
    "h264-bf0-60": Encoding("libx264", {"preset": "fast", "crf": "23", "bf": "0"}, rate=Fraction(60)),
    "hevc": Encoding("libx265", {"preset": "superfast", "crf": "26", "x265-params": _X265}, rate=Fraction(24)),
    "hevc-short-gop": Encoding(
        "libx265", {"preset": "superfast", "crf": "26", "x265-params": f"{_X265}:keyint=24:min-keyint=24:scenecut=0"}
    ),
    "vp9": Encoding("libvpx-vp9", {"deadline": "realtime", "cpu-used": "6", "crf": "32", "b": "0"}, suffix=".webm"),
    "av1": Encoding("libsvtav1", {"preset": "9", "crf": "35"}, rate=Fraction(30)),
    "mpeg4": Encoding("mpeg4", {"bf": "2", "qscale": "4"}),
}


def write_reel(path: str | Path, reel: Reel, encoding: Encoding) -> None:
    """Encode a reel, and write its truth as JSON beside it (the same name with .json)."""
    track = Track(reel.frames(), reel.rate, encoding.codec, pts=reel.pts, options=encoding.options, gop=encoding.gop)
    write_tracks(path, [track])
    truth: dict[str, Any] = {
        "n_frames": reel.n_frames,
        "rate": str(reel.rate),
        "events": [asdict(event) for event in reel.events],
        "distractors": [asdict(each) for each in reel.distractors],
    }
    Path(path).with_suffix(".json").write_text(json.dumps(truth, indent=1))


def read_truth(path: str | Path) -> tuple[list[Event], list[Distractor]]:
    """The truth beside an encoded reel."""
    data = json.loads(Path(path).with_suffix(".json").read_text())
    return [Event(**each) for each in data["events"]], [Distractor(**each) for each in data["distractors"]]
