"""What all commands of the trainer do first."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from curate.errors import UsageError

_NEEDED = ("diffusers", "transformers", "torchvision")


@contextmanager
def training_libraries() -> Iterator[None]:
    """Libraries of the trainer, with nothing to say but errors. UsageError when they are not installed."""
    lacking = [name for name in _NEEDED if find_spec(name) is None]
    if lacking:
        fix = "Run `pip install 'curate-video[train]'`"
        raise UsageError(f"{' and '.join(lacking)} not installed, which the trainer needs", fix=fix)
    from curate.train.quiet import quiet_libraries

    with quiet_libraries():
        yield
