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
    from diffusers.utils import logging as of_diffusers
    from transformers.utils import logging as of_transformers

    libraries = (of_diffusers, of_transformers)
    before = [(of.get_verbosity(), of.is_progress_bar_enabled()) for of in libraries]
    for of in libraries:
        of.set_verbosity_error()
        of.disable_progress_bar()
    try:
        yield
    finally:
        for of, (verbosity, bars) in zip(libraries, before, strict=True):
            of.set_verbosity(verbosity)
            if bars:
                of.enable_progress_bar()
