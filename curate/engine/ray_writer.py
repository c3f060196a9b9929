"""The table writer as an actor of Ray Data. A module of its own: its process needs no decoders."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np

from curate.engine.ray_registry import register
from curate.engine.writer import write_bundle
from curate.tables import Corpus

Batch = dict[str, np.ndarray]


class WriterOperator:
    """Its output acknowledges what was renamed into place."""

    def __init__(self, corpus: Corpus, registry: Any) -> None:
        register(registry)
        self._corpus = corpus

    def __call__(self, batch: Batch) -> Batch:
        """Tables in, acknowledgements out."""
        summaries = [write_bundle(self._corpus, pickle.loads(payload)) for payload in batch["payload"]]
        return {"summary": np.array([pickle.dumps(summary) for summary in summaries], dtype=object)}
