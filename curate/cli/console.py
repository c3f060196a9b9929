"""How commands print, and how they end: one clear error, the right exit status."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.markup import escape

from curate.errors import CurateError, UsageError
from curate.storage import storage_error

EXIT_OK = 0
EXIT_ERROR = 1
EXIT_USAGE = 2
EXIT_FAILURES = 3
EXIT_STOPPED = 4

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

_QUERY_STOPPED = "Query interrupted"
"""What DuckDB makes of Ctrl-C during a query: a RuntimeError of these words."""

# Control characters, and those that change the direction or the lines of a text; a name may forge neither.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def plain(text: object) -> str:
    """Text of unknown origin (file names, messages), safe to print in a line: no control characters, no markup."""
    safe = str(text).encode("utf-8", "backslashreplace").decode()
    return escape(_CONTROL.sub("\N{REPLACEMENT CHARACTER}", safe))


@contextmanager
def ending() -> Iterator[None]:
    """Turn our errors, and those of the machine, into one line and an exit status; Ctrl-C into status 4."""
    try:
        yield
    except CurateError as error:
        raise _told(error) from error
    except OSError as error:
        raise _told(storage_error(error, str(error.filename or ""))) from error
    except (KeyboardInterrupt, RuntimeError) as stop:
        if isinstance(stop, RuntimeError) and str(stop) != _QUERY_STOPPED:
            raise
        err.print("Stopped. What is finished is kept; the same command goes on from here.", soft_wrap=True)
        raise typer.Exit(EXIT_STOPPED) from stop


def _told(error: CurateError) -> typer.Exit:
    err.print(f"[bold red]Error[/] {plain(' '.join(str(error).split()))}", soft_wrap=True)
    return typer.Exit(EXIT_USAGE if isinstance(error, UsageError) else EXIT_ERROR)
