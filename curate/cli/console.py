"""How commands print, and how they end: one clear error, the right exit status."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.markup import escape

from curate.errors import CurateError, UsageError

EXIT_OK = 0
EXIT_ERROR = 1
EXIT_USAGE = 2
EXIT_FAILURES = 3
EXIT_STOPPED = 4

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def plain(text: object) -> str:
    """Text of unknown origin (file names, messages) made safe to print: no control characters, no markup."""
    return escape(_CONTROL.sub("\N{REPLACEMENT CHARACTER}", str(text)))


@contextmanager
def ending() -> Iterator[None]:
    """Turn our errors into one line and an exit status; Ctrl-C into status 4."""
    try:
        yield
    except CurateError as error:
        err.print(f"[bold red]Error[/] {plain(error)}", soft_wrap=True)
        raise typer.Exit(EXIT_USAGE if isinstance(error, UsageError) else EXIT_ERROR) from error
    except KeyboardInterrupt as stop:
        err.print("Stopped. What is finished is kept; the same command goes on from here.")
        raise typer.Exit(EXIT_STOPPED) from stop
