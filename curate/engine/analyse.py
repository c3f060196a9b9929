"""Group 0: one source in, cells out. A file is opened once and decoded once for cuts, views and all stages beside it.

decoding process:  file -> probe -> frames -> cut detector -> spans
                                          \\-> view sampler -> views
this process:      spans, views -> clips -> stages -> cells
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2

from curate.engine.decoding import Pixels
from curate.engine.forward import BUNDLE_BYTES, Forward
from curate.engine.pipeline import Pipeline, Step
from curate.engine.reading import Restart, SourceReader, SourceStages
from curate.engine.rows import RowBuffer
from curate.engine.score import OpenClip, Scorer, ViewKeys
from curate.engine.work import Bundle, ClipBundle, ClipWork, SourceWork, TableBundle
from curate.errors import StageError
from curate.ingest.spool import changed, check_listed, check_unchanged, spooled
from curate.isolation import Limits
from curate.records import Cell, Clip, Outcome, SourceFacts
from curate.stage import SourceFile, boundary, failed_cell
from curate.weights.store import check_planned


class Analyser:
    """A worker of group 0, with a decoding process of its own until `close`.

    ``on_source`` hears ("start" | "done", uri), so that a dead worker's source is known.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        scratch: Path,
        *,
        host: str,
        run_id: str,
        on_source: Callable[[str, str], None] | None = None,
        limits: Limits | None = None,
        bundle_bytes: int = BUNDLE_BYTES,
    ) -> None:
        self._reader = SourceReader(limits)
        self._pipeline = pipeline
        self._scratch = scratch
        self._keys = ViewKeys(pipeline.steps)
        self._scorer = Scorer(pipeline.group(0), self._keys)
        self._later = frozenset(step.stage.name for step in pipeline.steps if step.group > 0)
        self._all = pipeline.requested
        self._on_source = on_source or (lambda _event, _uri: None)
        self._rows = RowBuffer(pipeline, host=host, run_id=run_id)
        self._forward = Forward.beyond(pipeline, 0, bundle_bytes, shared=True)
        self._cpu = _Cpu(self._reader)
        cv2.setNumThreads(1)  # one worker per core is cheaper than threads inside a worker (DESIGN section 6)

    def close(self) -> None:
        """End the decoding process."""
        self._reader.close()

    def analyse(self, works: Sequence[SourceWork], *, last: bool = True) -> Iterator[Bundle]:
        """Work through sources; bundles come out as they fill, the rest at the end.

        ``last``: no call follows, so clips wait no longer for others to go with.
        """
        if self._reader.get_ready(self._pipeline.probe, self._pipeline.cut):
            self._cpu.since()  # what starting took is no cost of the sources
        for work in works:
            self._on_source("start", work.ref.uri)
            clock = _Clock()
            for _ in self._source(work, clock):
                with clock.paused():  # whoever takes the bundles may be slow, which is no cost of this source
                    yield from self._due()
            self._on_source("done", work.ref.uri)
        yield from self._due(rows=True, clips=last)

    def leftovers(self) -> Iterator[Bundle]:
        """What is finished but not given out yet, for a run that is being stopped."""
        yield from self._due(rows=True, clips=True)

    def _due(self, *, rows: bool = False, clips: bool = False) -> Iterator[Bundle]:
        """What is to go out now; all ``rows`` and all ``clips`` where asked."""
        if rows or self._rows.is_due():
            yield _taken(self._rows, self._scorer, self._cpu)
        if (bundle := self._forward.take() if clips else self._forward.due()) is not None:
            yield bundle

    def _source(self, work: SourceWork, clock: _Clock) -> Iterator[None]:
        source = _Source(work, digest=work.digest, facts=work.facts)
        with boundary() as caught:
            if work.clips is not None and not self._specs(work):
                self._score_without_pixels(source)
            else:
                with spooled(work.ref, self._scratch) as file:
                    yield from self._opened(file, source)
        row = source.row(caught.error, clock.seconds())
        self._rows.add_source(row, read_bytes=source.read_bytes, clips=len(source.done))
        if caught.error is not None:
            self._fail_remaining(source, caught.error)

    def _specs(self, work: SourceWork) -> dict[str, Any]:
        wanted = frozenset().union(*[clip.missing for clip in work.clips or ()])
        return self._keys.wanted_by(self._all if work.clips is None else wanted)

    def _opened(self, file: SourceFile, source: _Source) -> Iterator[None]:
        work = source.work
        if work.digest is None:
            check_listed(work.ref, file)
        elif work.digest != file.digest:
            raise changed(file.uri)
        source.digest, source.opened, source.read_bytes = file.digest, True, file.size_bytes
        if source.facts is None:
            source.facts = self._probe(file, work.attempt)
        if work.clips is None:
            yield from self._cut(file, source)
        else:
            yield from self._known_clips(file, source.facts, work.clips, source)

    def _probe(self, file: SourceFile, attempt: int) -> SourceFacts:
        began = time.perf_counter()
        probe = self._pipeline.probe
        with boundary() as caught:
            facts = self._reader.probe(probe, file)
            check_unchanged(file)
            seconds = time.perf_counter() - began
            self._rows.add_cell(probe, Cell(file.digest, Outcome.OK, facts.to_cell(), seconds, attempt=attempt))
            return facts
        error = _cause(file, caught.error)
        self._rows.add_cell(probe, failed_cell(file.digest, error, time.perf_counter() - began, attempt))
        raise error

    def _cut(self, file: SourceFile, source: _Source) -> Iterator[None]:
        """Spans come with their views; clips are scored as they close, and count once all of them are there."""
        facts, cut = source.facts, self._pipeline.cut
        assert facts is not None
        clock, clips = _Clock(), list[Clip]()
        with boundary() as caught:
            check_planned(self._pipeline.cut_digests)
            values: dict[str, Any] = {}
            stages = SourceStages(self._pipeline.probe, cut, self._specs(source.work))
            for found in self._reader.cut(file, facts, stages):
                check_unchanged(file)
                if isinstance(found, Restart):
                    clips.clear()
                    facts = self._restarted(found, file, source)
                elif isinstance(found, dict):
                    values = found
                else:
                    span, pixels, error = found
                    clips.append(Clip.of_span(file.digest, facts.stream, facts.time_base_fraction, span))
                    with clock.paused():
                        self._see(ClipWork(clips[-1], self._all), source, pixels, error)
                        yield
            for clip in clips:
                self._rows.add_clip(clip)
            values["n_clips"] = len(clips)
            self._rows.add_cell(
                cut, Cell(file.digest, Outcome.OK, values, clock.seconds(), attempt=source.work.attempt)
            )
            return
        error = _cause(file, caught.error)
        self._rows.add_cell(cut, failed_cell(file.digest, error, clock.seconds(), source.work.attempt))
        raise error

    def _restarted(self, restart: Restart, file: SourceFile, source: _Source) -> SourceFacts:
        """The facts that hold from here on; new ones are kept in place of the old, which they outrank as an attempt."""
        assert source.facts is not None
        source.done -= source.blind  # what could not be seen may be seen now
        if restart.facts is not None:
            source.facts = restart.facts
            cell = Cell(file.digest, Outcome.OK, restart.facts.to_cell(), 0.0, attempt=source.work.attempt + 1)
            self._rows.add_cell(self._pipeline.probe, cell)
        return source.facts

    def _known_clips(
        self, file: SourceFile, facts: SourceFacts, works: Sequence[ClipWork], source: _Source
    ) -> Iterator[None]:
        by_id = {work.clip.clip_id: work for work in works}
        clips = [work.clip for work in works]
        for clip, pixels, error in self._reader.see(file, facts, clips, self._specs(source.work)):
            check_unchanged(file)
            self._see(by_id[clip.clip_id], source, pixels, error)
            yield

    def _see(self, work: ClipWork, source: _Source, pixels: Pixels | None, error: Exception | None) -> None:
        """Score a clip with its views, or record why it has none; once, however often its source is read."""
        if work.clip.clip_id in source.done:
            return
        assert source.facts is not None
        if pixels is None:
            source.blind.add(work.clip.clip_id)
            self._fail_clip(work, source, error or StageError("has no views", subject=work.clip.clip_id))
        else:
            self._score(OpenClip.of_work(work, source.facts, pixels), source)

    def _score_without_pixels(self, source: _Source) -> None:
        assert source.facts is not None
        for clip_work in source.work.clips or ():
            self._score(OpenClip.of_work(clip_work, source.facts, {}), source)

    def _score(self, clip: OpenClip, source: _Source) -> None:
        def emit(step: Step, cell: Cell) -> None:
            self._rows.add_cell(step.stage, cell, clip.clip.source_digest)

        self._scorer.score([clip], source.work.attempts, emit)
        self._rows.scored(clip.clip)
        source.done.add(clip.clip.clip_id)
        if clip.missing & self._later:
            self._forward.add(clip, source.work.attempts)

    def _fail_remaining(self, source: _Source, error: Exception) -> None:
        """What was known of a source that can no longer be read fails with that reason: the missing cells of its clips,
        or the cut, where the content is all that was known."""
        content = source.work.digest
        if content is not None and source.work.clips is None and not source.opened:
            self._rows.add_cell(self._pipeline.cut, failed_cell(content, error, 0.0, source.work.attempt))
        for work in source.work.clips or ():
            if work.clip.clip_id not in source.done:
                self._fail_clip(work, source, error)

    def _fail_clip(self, work: ClipWork, source: _Source, error: Exception) -> None:
        """A clip without pixels: every cell it lacks fails with the reason."""
        source.done.add(work.clip.clip_id)
        self._rows.scored(work.clip)
        for step in self._pipeline.steps:
            if step.stage.name in work.missing:
                attempt = source.work.attempts.get((step.stage.name, work.clip.clip_id), 0) + 1
                cell = failed_cell(work.clip.clip_id, error, 0.0, attempt)
                self._rows.add_cell(step.stage, cell, work.clip.source_digest)


def _cause(file: SourceFile, error: Exception | None) -> Exception:
    """Why reading a file failed: if it changed meanwhile that is why, and says nothing of the content it had."""
    with boundary() as caught:
        check_unchanged(file)
    found = caught.error or error
    assert found is not None
    return found


class GroupScorer:
    """A worker of a later group: scores bundles of clips and sends on what further groups need."""

    def __init__(self, pipeline: Pipeline, group: int, *, host: str, run_id: str) -> None:
        self._pipeline, self._number = pipeline, group
        self._scorer = Scorer(pipeline.group(group), ViewKeys(pipeline.steps))
        self._later = frozenset(step.stage.name for step in pipeline.steps if step.group > group)
        self._rows = RowBuffer(pipeline, host=host, run_id=run_id)
        self._cpu = _Cpu()

    def process(self, bundle: ClipBundle) -> Iterator[Bundle]:
        """Score one bundle; those of its clips that go on stay together."""
        clips = [OpenClip.of_work(work, item.facts, item.views) for item, work in bundle.items]
        digests = {clip.clip.clip_id: clip.clip.source_digest for clip in clips}

        def emit(step: Step, cell: Cell) -> None:
            self._rows.add_cell(step.stage, cell, digests[cell.key])

        self._scorer.score(clips, bundle.attempts, emit)
        forward = Forward.beyond(self._pipeline, self._number)
        for clip in clips:
            if clip.missing & self._later:
                forward.add(clip, bundle.attempts)
        if (onward := forward.take()) is not None:
            yield onward
        yield _taken(self._rows, self._scorer, self._cpu)


def _taken(rows: RowBuffer, scorer: Scorer, cpu: _Cpu) -> TableBundle:
    """What there is to write, with what the stages did for it."""
    rows.add_cpu(cpu.since())
    for stage, use in scorer.take_use().items():
        rows.add_use(stage, use)
    return rows.take()


@dataclass
class _Source:
    """What is known of a source while it is worked on; ``opened`` when it is read, and holds what it should."""

    work: SourceWork
    digest: str | None = None
    facts: SourceFacts | None = None
    opened: bool = False
    read_bytes: int = 0
    done: set[str] = field(default_factory=set)
    blind: set[str] = field(default_factory=set)

    def row(self, error: Exception | None, seconds: float) -> dict[str, Any]:
        """Its row in `sources`."""
        ref, facts = self.work.ref, self.facts
        cell = failed_cell(ref.uri, error, seconds) if error else None
        return {
            "uri": ref.uri,
            "size_bytes": ref.size_bytes,
            "version": ref.version,
            "source_digest": self.digest,
            "stream": facts.stream if facts else None,
            "container": facts.container if facts else None,
            "codec": facts.codec if facts else None,
            "width_px": facts.width_px if facts else None,
            "height_px": facts.height_px if facts else None,
            "rate_fps": facts.rate_fps if facts else None,
            "duration_s": facts.duration_s if facts else None,
            "outcome": str(Outcome.FAILED if error else Outcome.OK),
            **(cell.failure.columns() if cell and cell.failure else {}),
            "attempt": self.work.attempt,
            "seconds": seconds,
        }


class _Cpu:
    """CPU seconds of a worker, with its decoding process if it has one."""

    def __init__(self, reader: SourceReader | None = None) -> None:
        self._reader = reader
        self._last_s = self._now_s()

    def _now_s(self) -> float:
        return time.process_time() + (self._reader.cpu_s() if self._reader is not None else 0.0)

    def since(self) -> float:
        """Those since it was made, or last asked."""
        last_s, self._last_s = self._last_s, self._now_s()
        return max(0.0, self._last_s - last_s)


class _Clock:
    """Seconds since it was made, less the pauses: what a source cost by itself, or cutting it without other stages."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._paused_s = 0.0

    def paused(self) -> _Pause:
        return _Pause(self)

    def pause_over(self, seconds: float) -> None:
        self._paused_s += seconds

    def seconds(self) -> float:
        return time.perf_counter() - self._began - self._paused_s


class _Pause:
    def __init__(self, clock: _Clock) -> None:
        self._clock = clock

    def __enter__(self) -> None:
        self._began = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._clock.pause_over(time.perf_counter() - self._began)
