"""How commands print, and how they end: one clear error, the right exit status.

Whatever comes from outside (names, messages, values of tables) goes through `plain` before it is printed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.markup import escape

from curate.errors import CurateError, UsageError, is_stop
from curate.redaction import redacted
from curate.storage import storage_error

EXIT_OK = 0
EXIT_ERROR = 1
EXIT_USAGE = 2
EXIT_FAILURES = 3
EXIT_STOPPED = 4

out = Console(highlight=False, emoji=False)
err = Console(stderr=True, highlight=False, emoji=False)

MOST_CHARS = 10_000
"""A longer text is cut off: nobody reads it, and finding markup in it can take for ever."""

# Control characters, those that change the direction or the lines of a text, and invisible ones: a name may forge
# nothing. The joiners U+200C and U+200D stay, since scripts and emoji are written with them.
_CONTROL = re.compile(
    r"[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    r"\U000e0000-\U000e007f]"
)


def plain(text: object) -> str:
    """Text of unknown origin, safe to print in a line: no control characters, no markup, no secrets of URIs."""
    safe = redacted(str(text)).encode("utf-8", "backslashreplace").decode()
    if len(safe) > MOST_CHARS:
        safe = f"{safe[:MOST_CHARS]}… ({len(safe)} characters)"
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
        if not is_stop(stop):
            raise
        err.print("Stopped. What is finished is kept; the same command goes on from here.", soft_wrap=True)
        raise typer.Exit(EXIT_STOPPED) from stop


def _told(error: CurateError) -> typer.Exit:
    err.print(f"[bold red]Error[/] {plain(' '.join(str(error).split()))}", soft_wrap=True)
    return typer.Exit(EXIT_USAGE if isinstance(error, UsageError) else EXIT_ERROR)
