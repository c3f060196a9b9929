"""Runs that are watched, in this process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from curate.bulk import inline_map
from curate.engine.inline import InlineEngine
from curate.engine.pipeline import Pipeline
from curate.engine.run import Engine, RunRequest, RunResult, execute
from curate.ingest.listing import list_inputs
from curate.tables import Corpus
from curate.watch.listener import JobListener
from curate.watch.state import RunState
from curate.watch.watching import Watching, WatchOptions

MOST_LOOKS = 30_000
"""Rounds of a loop that waits for what comes within a few: for what is broken it ends, after minutes."""


class Quiet(JobListener):
    """Cares for nothing."""


def watched_run(
    out: Path,
    bucket: Path,
    pipe: Pipeline,
    *,
    engine: Engine | None = None,
    options: WatchOptions | None = None,
    shown: JobListener | None = None,
    state: RunState | None = None,
) -> RunResult:
    corpus = Corpus(str(out))
    corpus.create()
    request = RunRequest(corpus, pipe, list_inputs([str(bucket)]), "test", "name: test\n")
    with Watching(state or RunState(), shown or Quiet(), options or WatchOptions()) as listener:
        return execute(request, engine or InlineEngine(out), inline_map, out, listener)


def lines(log: Path, event: str = "") -> list[dict[str, Any]]:
    """The objects of a log, those of one event if asked."""
    found = [json.loads(line) for line in log.read_text().splitlines()]
    return [each for each in found if event in {"", each["event"]}]
