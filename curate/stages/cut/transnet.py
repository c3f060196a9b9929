"""TransNet V2 as a shot finder, at its own threshold unless a recipe has another.

Its authors let FFmpeg decode to 48 x 27 R G B with a bicubic filter; here the pictures come from the thumbs of the one
decode, averaged, with the colour matrix of BT.601. The network, its windows and its rule for shots are theirs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import cv2
import numpy as np

from curate.media.pixels import rotate
from curate.records import CutKind
from curate.stage import Thumb
from curate.stages.cut.model import BEFORE_ALL, Edge
from curate.stages.cut.scenedetect import yuv_to_bgr
from curate.weights.cards import load_card
from curate.weights.loading import load_state
from curate.weights.store import path_of

if TYPE_CHECKING:
    from curate.stages.cut.transnet_network import TransNetV2

CARD = "transnetv2"
DETECTOR = "transnetv2"
THRESHOLD = 0.5
"""Probability above which a frame is the last of a shot, or part of a change: the default of its authors."""

WINDOW, KEPT = 100, 50
"""Frames that the network sees at once, and those in the middle of them whose result counts."""

_CONTEXT = (WINDOW - KEPT) // 2
_SIZE_PX = (48, 27)


class TransNetFinder:
    """Needs every frame. A change of shot is a run of marked frames (`Runs`)."""

    n_flashes = 0

    def __init__(self, rotation_deg: int = 0, threshold: float = THRESHOLD) -> None:
        self.settled_pts = BEFORE_ALL
        self._network = _network()
        self._rotation_deg = rotation_deg
        self._threshold = threshold
        self._pictures: list[np.ndarray] = []
        self._pts: deque[int] = deque()
        self._runs = Runs()

    def wants_between(self, thumb: Thumb) -> bool:
        """All of them: it counts frames."""
        return True

    def push(self, thumb: Thumb) -> list[Edge]:
        """Take the next frame; give the edges that are now certain."""
        picture = self._picture(thumb.yuv)
        if not self._pictures:
            self._pictures = [picture] * _CONTEXT
        self._pictures.append(picture)
        self._pts.append(thumb.pts)
        edges = self._decide() if len(self._pictures) == WINDOW else []
        self.settled_pts = self._pts[0] if self._runs.waits_at is None else self._runs.waits_at
        return edges

    def finish(self, skipped: Sequence[int] = ()) -> list[Edge]:
        """The stream ended; give the remaining edges."""
        edges: list[Edge] = []
        while self._pts:
            self._pictures += [self._pictures[-1]] * (WINDOW - len(self._pictures))
            edges += self._decide()
        return edges + self._runs.finish()

    def _picture(self, yuv: np.ndarray) -> np.ndarray:
        small = cv2.resize(rotate(yuv, self._rotation_deg), _SIZE_PX, interpolation=cv2.INTER_AREA)
        return yuv_to_bgr(small)[..., ::-1]

    def _decide(self) -> list[Edge]:
        """Ask the network about a full window."""
        marked = marks(self._network, np.stack(self._pictures), self._threshold)
        del self._pictures[:KEPT]
        return [edge for each in marked[: len(self._pts)] for edge in self._runs.push(self._pts.popleft(), bool(each))]


class Runs:
    """From marked frames to edges. The old shot ends with the first frame of a run, the new one begins after its last.
    A run of one frame is a hard cut; of a longer one it is not known what it is. Where every frame is marked, nothing
    is a change.

    Not as with its authors, for frames cannot be held for ever: where more than KEPT frames are marked from the first
    on (snow), they belong to no shot, even if all others are marked too.
    """

    def __init__(self) -> None:
        self.waits_at: int | None = None
        self._n = 0
        self._run = 0
        self._given = False
        self._first: int | None = None

    def push(self, pts: int, is_marked: bool) -> list[Edge]:
        """The next frame; gives the edges that are now certain. ``waits_at``: pts of one that is not."""
        edges: list[Edge] = []
        if self._first is None and (self._run or (is_marked and not self._n)):
            self._first = pts  # of a run that begins with the source all is affected
        if self._first is not None and self._run and not is_marked:
            kind = CutKind.HARD if self._first == pts else CutKind.GRADUAL
            edges = [] if self._given else [Edge(self._first, False, kind, DETECTOR)]
            edges.append(Edge(pts, True, kind, DETECTOR))
            self._first, self._given = None, False
        elif self._first is not None and self._run >= KEPT and not self._given:
            edges, self._given = [Edge(self._first, False, CutKind.GRADUAL, DETECTOR)], True
        self._run = self._run + 1 if is_marked else 0
        self._n += 1
        self.waits_at = None if self._given else self._first
        return edges

    def finish(self) -> list[Edge]:
        """The stream ended; gives the edge that was not certain yet."""
        if self._first is None or self._given or self._run == self._n:
            return []
        return [Edge(self._first, False, CutKind.GRADUAL, DETECTOR)]


def marks(network: TransNetV2, pictures: np.ndarray, threshold: float = THRESHOLD) -> np.ndarray:
    """bool (KEPT,): the marked ones of the frames in the middle of a window, uint8 (WINDOW, 27, 48, 3) R G B."""
    import torch

    with torch.inference_mode():
        logits_1t = network(torch.from_numpy(pictures[None]))
        return (torch.sigmoid(logits_1t[0, _CONTEXT:-_CONTEXT]) > threshold).numpy()


def _network() -> TransNetV2:
    (file,) = load_card(CARD).files
    return _loaded(path_of(CARD, file.name), file.sha256)


@lru_cache(maxsize=1)
def _loaded(path: str, _sha256: str) -> TransNetV2:
    """The network on one thread, kept for the sources that a process has still to read."""
    import torch

    from curate.stages.cut.transnet_network import TransNetV2

    torch.set_num_threads(1)
    network = TransNetV2()
    network.load_state_dict(load_state(path))
    return network.eval()
