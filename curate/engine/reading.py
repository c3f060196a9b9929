"""A source as the decoding process reads it, with what is tried when that fails.

    normal -> tolerant (damaged stretches left out) -> reclocked (frames counted, where stamps run backwards) -> failed

A file whose process died, or took too long or too much, is read once more, tolerantly; a second time is the last.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from typing import Any

from curate.engine.decoding import Found, Pixels, cut_source, get_ready, probe_source, see_clips
from curate.errors import ClockError, DecodeError, DecodeLimitError, DecoderCrashError, InputError
from curate.isolation import Limits, Sandbox
from curate.records import Clip, SourceFacts
from curate.stage import CutStage, ProbeStage, Reading, SourceFile
from curate.view import ViewSpec


@dataclass(frozen=True, slots=True)
class Restart:
    """What came of this source so far is void: it is read anew from its start, by new facts where there are some."""

    facts: SourceFacts | None = None


@dataclass(frozen=True, slots=True)
class SourceStages:
    """What is computed while a source is decoded: its facts, its cuts, and the views that later stages ask for."""

    probe: ProbeStage[Any]
    cut: CutStage[Any]
    specs: Mapping[str, ViewSpec]


CutEvent = Found | dict[str, Any] | Restart


class SourceReader:
    """Reads sources in one decoding process. ``close`` ends it."""

    def __init__(self, limits: Limits | None = None) -> None:
        self._sandbox = Sandbox(limits)
        self._sandbox.start()
        self._is_ready = False

    def get_ready(self, probe: ProbeStage[Any], cut: CutStage[Any]) -> bool:
        """Wait until the decoding process has started, once: the first source is not to be charged with it. Whether
        this was the time."""
        if self._is_ready:
            return False
        self._is_ready = True
        with suppress(InputError):  # one that cannot start says so to the source that wants it
            self._sandbox.call(get_ready, probe, cut, limit_s=self._sandbox.limits.least_s)
        return True

    def cpu_s(self) -> float:
        """CPU seconds of the decoding process so far."""
        return self._sandbox.cpu_s()

    def close(self) -> None:
        """End the decoding process."""
        self._sandbox.close()

    def probe(self, probe: ProbeStage[Any], file: SourceFile) -> SourceFacts:
        """Facts of a local file; InputError."""
        try:
            return self._probe_once(probe, file, Reading.NORMAL)
        except DecodeError as error:
            first = error
        try:
            return self._probe_once(probe, file, Reading.TOLERANT)
        except DecodeError as error:
            raise _final(first, error) from first

    def _probe_once(self, probe: ProbeStage[Any], file: SourceFile, reading: Reading) -> SourceFacts:
        limit_s = self._sandbox.limits.read_s(file.size_bytes)
        return self._sandbox.call(probe_source, probe, replace(file, reading=reading), limit_s=limit_s)

    def cut(self, file: SourceFile, facts: SourceFacts, stages: SourceStages) -> Iterator[CutEvent]:
        """Spans with their views, then the values of the cut cell; a `Restart` where it begins again. DecodeError."""
        reading: Reading | None = Reading.NORMAL
        first: DecodeError | None = None
        while reading is not None:
            try:
                if reading is Reading.RECLOCKED:
                    facts = self._probe_once(stages.probe, file, reading)
                if first is not None:
                    yield Restart(facts if reading is Reading.RECLOCKED else None)
                yield from self._cut_once(file, facts, stages, salvage=reading is not Reading.NORMAL)
                return
            except DecodeError as error:
                following = _after(reading, error, facts)
                if following is None:
                    raise _final(first or error, error) from first
                first, reading = first or error, following

    def _cut_once(
        self, file: SourceFile, facts: SourceFacts, stages: SourceStages, *, salvage: bool
    ) -> Iterator[Found | dict[str, Any]]:
        task = (file, facts, stages.cut, stages.specs, salvage)
        limit_s = self._limit_s(file, facts) + facts.n_frames * stages.cut.s_per_frame
        with closing(self._sandbox.run(cut_source, *task, limit_s=limit_s)) as found:
            yield from found

    def see(
        self, file: SourceFile, facts: SourceFacts, clips: Sequence[Clip], specs: Mapping[str, ViewSpec]
    ) -> Iterator[tuple[Clip, Pixels | None, Exception | None]]:
        """Views of clips already known, or why one has none. DecodeError."""
        left = {clip.clip_id: clip for clip in clips}
        limit_s = self._limit_s(file, facts)
        for last in (False, True):
            try:
                todo = list(left.values())
                with closing(self._sandbox.run(see_clips, file, facts, todo, specs, limit_s=limit_s)) as seen:
                    for clip, pixels, error in seen:
                        del left[clip.clip_id]
                        yield clip, pixels, error
                return
            except (DecoderCrashError, DecodeLimitError) as error:
                if last:
                    raise _final(error, error) from error

    def _limit_s(self, file: SourceFile, facts: SourceFacts) -> float:
        frame_px = facts.coded_width_px * facts.coded_height_px
        return self._sandbox.limits.decode_s(facts.n_frames, frame_px, file.size_bytes)


def _after(reading: Reading, error: DecodeError, facts: SourceFacts) -> Reading | None:
    """What may help after an error: counting frames where the clock is at fault, leaving damage out where there is a
    clock to tell how much, and a second chance for a file that killed its process."""
    killed = isinstance(error, DecoderCrashError | DecodeLimitError)
    if isinstance(error, ClockError) and facts.has_pts:
        return Reading.RECLOCKED
    return Reading.TOLERANT if reading is Reading.NORMAL and (killed or facts.has_pts) else None


def _final(first: DecodeError, second: DecodeError) -> DecodeError:
    """Why a source failed for good: what killed the process, else what was wrong at first."""
    if not isinstance(second, DecoderCrashError | DecodeLimitError):
        return first if type(first) is DecodeError else second
    twice = isinstance(first, DecoderCrashError | DecodeLimitError)
    found = type(second)(
        f"{second.message}{', twice: it is quarantined' if twice else ''}", subject=second.subject, fix=second.fix
    )
    found.peak_memory_bytes = second.peak_memory_bytes
    return found
