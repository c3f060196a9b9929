"""Clips on their way to the next group: collected until there is work for several full batches in one bundle."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from curate.engine.pipeline import Pipeline
from curate.engine.rows import FLUSH_S
from curate.engine.score import OpenClip, ViewKeys
from curate.engine.work import ClipBundle, ClipWork
from curate.stage import ClipItem
from curate.view import View

BUNDLE_BYTES = 512 << 20
"""Most pixels of a bundle, where memory allows: about 110 clips of the `svd` recipe."""
LEAST_BUNDLE_BYTES = 64 << 20
"""Most pixels of a bundle where memory is short."""
BUNDLE_COPIES = 3
"""A bundle is in a worker's memory as arrays, pickled, and once more as Ray makes a block of it."""
BATCHES_A_BUNDLE = 4
"""While one batch is inferred the next is prepared, so of four one alone is waited for."""
LEAST_CLIPS = 32
"""Bundles hold as many where batches are small: each is a task, and a part of every table that it fills."""
HOLD_S = FLUSH_S
"""Clips that come so slowly are sent as they are: the next group then waits for them, not they for it."""


@dataclass
class Forward:
    """Clips that wait to be sent on, with the views that later groups ask for.

    ``batch``: clips in the largest batch of a later stage. Bundles are whole multiples of it but for what comes last
    or has waited ``HOLD_S``. ``shared``: views lie in memory that more than the clip's own uses.
    """

    keys: frozenset[str]
    batch: int
    most_bytes: int = BUNDLE_BYTES
    shared: bool = False
    _items: list[tuple[ClipItem, ClipWork]] = field(default_factory=list)
    _attempts: list[dict[tuple[str, str], int]] = field(default_factory=list)
    _held_bytes: list[int] = field(default_factory=list)
    _since: float = 0.0

    @classmethod
    def beyond(cls, pipeline: Pipeline, group: int, most_bytes: int = BUNDLE_BYTES, *, shared: bool = False) -> Forward:
        """For what goes from this group to later ones."""
        later = [step.stage for step in pipeline.steps if step.group > group]
        keys = ViewKeys(pipeline.steps).wanted_by(frozenset(stage.name for stage in later))
        return cls(frozenset(keys), largest_batch(pipeline, group), most_bytes, shared)

    def add(self, clip: OpenClip, attempts: Mapping[tuple[str, str], int]) -> None:
        """A clip that is done here."""
        if not self._items:
            self._since = time.monotonic()
        views = {key: self._own(view) for key, view in clip.pixels.items() if key in self.keys}
        self._items.append((ClipItem(clip.clip, clip.facts, views), clip.to_work()))
        cells = ((stage, clip.clip.clip_id) for stage in clip.missing)
        self._attempts.append({cell: attempts[cell] for cell in cells if cell in attempts})
        self._held_bytes.append(sum(view.frames.nbytes for view in views.values()))

    def due(self) -> ClipBundle | None:
        """What is to be sent now: clips for full batches, or all that have waited too long."""
        if self._items and time.monotonic() - self._since >= HOLD_S:
            return self.take()
        if sum(self._held_bytes) < self.most_bytes and len(self._items) < self._wanted():
            return None
        return self.take(len(self._items) // self.batch * self.batch or None)

    def take(self, n: int | None = None) -> ClipBundle | None:
        """The first ``n`` clips, or all; None where there are none."""
        if not self._items:
            return None
        attempts = {cell: tried for each in self._attempts[:n] for cell, tried in each.items()}
        bundle = ClipBundle(tuple(self._items[:n]), attempts)
        kept = slice(n, None) if n is not None else slice(0, 0)
        self._items, self._attempts = self._items[kept], self._attempts[kept]
        self._held_bytes = self._held_bytes[kept]
        self._since = time.monotonic()
        return bundle

    def _wanted(self) -> int:
        batches = max(BATCHES_A_BUNDLE, -(-LEAST_CLIPS // self.batch))
        return batches * self.batch

    def _own(self, view: View) -> View:
        """Copied where the memory would stay as long as any clip that shares it."""
        if not self.shared:
            return view
        return replace(view, frames=view.frames.copy(), pts=view.pts.copy(), groups=view.groups.copy())


def largest_batch(pipeline: Pipeline, group: int = 0) -> int:
    """Clips in the largest batch of a stage beyond the group; 1 where there is none."""
    return max((step.stage.resources.batch_size for step in pipeline.steps if step.group > group), default=1)
