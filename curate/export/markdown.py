"""Markdown out of words that strangers wrote: licences, reasons, column names, file kinds."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

MAX_CHARS = 120
"""A longer text is cut: what is shown is a label."""

_TICKS = re.compile("`+")
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Categories of characters that break lines, turn the direction of text, or show nothing."""


def plain(text: str, max_chars: int = MAX_CHARS) -> str:
    """The text on one line, without invisible characters, cut to ``max_chars``."""
    seen = "".join(" " if unicodedata.category(c) in _INVISIBLE else c for c in text)
    line = " ".join(seen.split())
    return line if len(line) <= max_chars else line[: max_chars - 1].rstrip() + "…"


def code(text: str, max_chars: int = MAX_CHARS) -> str:
    """The text as a code span, in which Markdown and HTML are letters; also in a table, whose bars it cannot hold."""
    line = plain(text, max_chars).replace("|", "¦")
    if not line:
        return "(empty)"
    ticks = "`" * (1 + max((len(run) for run in _TICKS.findall(line)), default=0))
    pad = " " if "`" in line else ""
    return f"{ticks}{pad}{line}{pad}{ticks}"


def fenced(text: str, language: str) -> str:
    """The text as a code block, whose fence is longer than any row of backticks in it."""
    ticks = "`" * max(3, 1 + max((len(run) for run in _TICKS.findall(text)), default=0))
    return f"{ticks}{language}\n{text.rstrip()}\n{ticks}"


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table; columns after the first are numbers where ``head`` begins with ``>``."""
    names = [name.removeprefix(">") for name in head]
    marks = ["---:" if name.startswith(">") else "---" for name in head]
    lines = [names, marks, *([_cell(value) for value in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)
