"""The inline engine: the same groups and the same writer in this process, for debugging, tests and small jobs."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from pathlib import Path

from curate.engine.analyse import Analyser, GroupScorer
from curate.engine.pipeline import Pipeline
from curate.engine.work import Bundle, ClipBundle, Machines, SourceWork, Summary, TableBundle
from curate.engine.writer import write_bundle
from curate.isolation import Limits
from curate.tables import Corpus


class InlineEngine:
    """Runs a pass source by source. Interrupted, it still writes what is finished."""

    name = "inline"

    def __init__(self, scratch: Path, limits: Limits | None = None) -> None:
        self._scratch = scratch
        self._limits = limits
        self._in_flight: set[str] = set()
        self._gpus = 0

    def open(self) -> None:
        """Nothing to start."""

    def run_pass(
        self, corpus: Corpus, pipeline: Pipeline, works: Sequence[SourceWork], *, run_id: str, single: bool
    ) -> Iterator[Summary]:
        """Give a summary for every bundle written. ``single`` changes nothing here: sources never share a block."""
        needs = [step.stage.resources for step in pipeline.asked() if step.stage.resources.gpus]
        optional = any(need.gpu_optional for need in needs)
        has_gpu = optional and _has_gpu()
        if optional and not has_gpu:
            pipeline = pipeline.without_gpus()
        self._gpus = int(has_gpu or any(not need.gpu_optional for need in needs))
        host = socket.gethostname()
        analyser = Analyser(
            pipeline, self._scratch, host=host, run_id=run_id, on_source=self._on_source, limits=self._limits
        )
        later = [GroupScorer(pipeline, n, host=host, run_id=run_id) for n in range(1, pipeline.n_groups)]
        try:
            for number, work in enumerate(works, 1):
                for bundle in analyser.analyse([work], last=number == len(works)):
                    yield from self._write(corpus, bundle, later)
        except KeyboardInterrupt:
            for bundle in analyser.leftovers():
                for _ in self._write(corpus, bundle, []):
                    pass
            raise
        finally:
            analyser.close()

    def in_flight(self) -> set[str]:
        """URIs of the sources being read."""
        return set(self._in_flight)

    def machines(self) -> Machines:
        """This process."""
        return Machines(1, 1.0, self._gpus)

    def close(self) -> None:
        """Nothing to release."""

    def _on_source(self, event: str, uri: str) -> None:
        (self._in_flight.add if event == "start" else self._in_flight.discard)(uri)

    def _write(self, corpus: Corpus, bundle: Bundle, later: Sequence[GroupScorer]) -> Iterator[Summary]:
        if isinstance(bundle, TableBundle):
            yield write_bundle(corpus, bundle)
        elif isinstance(bundle, ClipBundle) and later:
            for following in later[0].process(bundle):
                yield from self._write(corpus, following, later[1:])


def _has_gpu() -> bool:
    import torch  # not before a stage wants one: it takes seconds

    return torch.cuda.is_available()
