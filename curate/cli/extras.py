"""What to say when a command needs packages that are not installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from curate.errors import MissingModelError


@contextmanager
def needs_extra(extra: str) -> Iterator[None]:
    """Around what needs the packages of an extra: one error that says how to install them."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "curate":
            raise
        raise MissingModelError(
            f"the package {error.name!r} is not installed", fix=f"Run `pip install 'curate-video[{extra}]'`"
        ) from error
