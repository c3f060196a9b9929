"""Runs the steps of one group over clips: gates, cells that others read, one cell per step and clip."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from curate.engine.pipeline import Step
from curate.engine.work import ClipWork, Use
from curate.errors import DeviceError
from curate.records import Cell, Clip, Outcome, SourceFacts
from curate.stage import ClipItem, ClipStage, boundary, failed_cell, missing_dependency
from curate.view import View, ViewSpec
from curate.weights.store import check_planned


@dataclass
class OpenClip:
    """A clip on its way: its pixels by view key, the cell values found so far, what it still lacks."""

    clip: Clip
    facts: SourceFacts
    pixels: Mapping[str, View]
    missing: frozenset[str]
    has: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)

    @classmethod
    def of_work(cls, work: ClipWork, facts: SourceFacts, pixels: Mapping[str, View]) -> OpenClip:
        """An open clip as the planner describes it."""
        return cls(work.clip, facts, pixels, work.missing, dict(work.has), set(work.failed))

    def to_work(self) -> ClipWork:
        """What is known of the clip now."""
        return ClipWork(self.clip, self.missing, dict(self.has), frozenset(self.failed))


class ViewKeys:
    """The union of all views that steps ask for: equal specifications are sampled once."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self.specs: dict[str, ViewSpec] = {}
        self._keys: dict[tuple[str, str], str] = {}
        by_spec: dict[ViewSpec, str] = {}
        for step in steps:
            for name, spec in step.stage.views().items():
                key = by_spec.setdefault(spec, f"{step.stage.name}/{name}")
                self.specs[key] = spec
                self._keys[step.stage.name, name] = key

    def wanted_by(self, stages: frozenset[str]) -> dict[str, ViewSpec]:
        """Specifications by key that any of these stages asks for."""
        keys = {key for (stage, _), key in self._keys.items() if stage in stages}
        return {key: spec for key, spec in self.specs.items() if key in keys}

    def views_of(self, stage: ClipStage[Any], pixels: Mapping[str, View]) -> dict[str, View]:
        """A stage's own views by the names it gave them."""
        return {name: pixels[self._keys[stage.name, name]] for name in stage.views()}


class Scorer:
    """The stages of one group on one worker; weights are loaded when the first clip needs them."""

    def __init__(self, steps: Sequence[Step], keys: ViewKeys) -> None:
        self._steps = steps
        self._keys = keys
        self._ready: dict[str, Exception | None] = {}
        self._use: dict[str, Use] = {}
        self._ended: dict[str, float] = {}

    def score(
        self, clips: Sequence[OpenClip], attempts: Mapping[tuple[str, str], int], emit: Callable[[Step, Cell], None]
    ) -> None:
        """Run every step over these clips; each new cell goes to ``emit`` and into the clip's own record.

        DeviceError, naming the stage, where the GPU gives no more cells to this process.
        """
        for step in self._steps:
            todo = [clip for clip in clips if self._is_due(step, clip)]
            ready = [clip for clip in todo if not self._broken_reads(step, clip)]
            for clip in todo:
                for needs in self._broken_reads(step, clip)[:1]:
                    self._record(
                        step, clip, missing_dependency(clip.clip.clip_id, step.stage.name, needs), attempts, emit
                    )
            batches = _batches(ready, step.stage.resources.batch_size)
            with _naming(step.stage.name):
                for batch, cells in zip(batches, self._process(step, batches), strict=True):
                    for clip, cell in zip(batch, cells, strict=True):
                        self._record(step, clip, cell, attempts, emit)

    def take_use(self) -> dict[str, Use]:
        """What each stage did since this was last asked."""
        taken, self._use = self._use, {}
        return taken

    def _process(self, step: Step, batches: Sequence[Sequence[OpenClip]]) -> Iterator[list[Cell]]:
        if not batches:
            return
        name = step.stage.name
        if name not in self._ready:
            began = time.perf_counter()
            with boundary() as caught:
                check_planned(step.digests)
                step.stage.setup()
            self._ready[name] = caught.error
            self._use.setdefault(name, Use()).add(Use(load_s=time.perf_counter() - began, loads=1))
        if (broken := self._ready[name]) is not None:
            yield from ([failed_cell(clip.clip.clip_id, broken, 0.0) for clip in batch] for batch in batches)
            return
        use, began, unready_s = self._use.setdefault(name, Use()), time.perf_counter(), step.stage.waited_s
        use.waited_s += began - self._ended.get(name, began)
        items = ([self._item(step, clip) for clip in batch] for batch in batches)
        for cells in step.stage.process_batches(items):
            ended = time.perf_counter()
            waited_s, unready_s = step.stage.waited_s - unready_s, step.stage.waited_s
            use.add(Use(len(cells), ended - began - waited_s, waited_s))
            self._ended[name] = ended
            yield cells
            began = time.perf_counter()

    @staticmethod
    def _is_due(step: Step, clip: OpenClip) -> bool:
        return step.stage.name in clip.missing and all(gate.passes(clip.has) for gate in step.gates)

    @staticmethod
    def _broken_reads(step: Step, clip: OpenClip) -> list[str]:
        return [name for name in step.stage.reads if name not in clip.has]

    def _item(self, step: Step, clip: OpenClip) -> ClipItem:
        cells = {name: clip.has[name] for name in step.stage.reads}
        return ClipItem(clip.clip, clip.facts, self._keys.views_of(step.stage, clip.pixels), cells)

    @staticmethod
    def _record(
        step: Step,
        clip: OpenClip,
        cell: Cell,
        attempts: Mapping[tuple[str, str], int],
        emit: Callable[[Step, Cell], None],
    ) -> None:
        name = step.stage.name
        if cell.outcome is Outcome.OK:
            clip.has[name] = cell.values
        else:
            clip.failed.add(name)
        emit(step, replace(cell, attempt=attempts.get((name, cell.key), 0) + 1))


@contextmanager
def _naming(stage: str) -> Iterator[None]:
    """An error of the device says which stage met it."""
    try:
        yield
    except DeviceError as error:
        raise type(error)(error.message, subject=f"stage {stage}", fix=error.fix) from error


def _batches(clips: Sequence[OpenClip], size: int) -> list[Sequence[OpenClip]]:
    return [clips[start : start + size] for start in range(0, len(clips), size)]
