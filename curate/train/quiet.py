"""Libraries of the trainer, with nothing to say but errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Within, diffusers and transformers log nothing but errors and show no progress bars."""
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
