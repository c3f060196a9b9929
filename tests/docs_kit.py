"""What stands in the documentation, taken at its word: its blocks, how they are run, how outputs are compared.

A block of ```console, ```python or ```sql is run; one without a language that follows it directly is its output. In an
output a line of three dots stands for any lines, `…` for any text in a line. Times, sizes, dates and ids may be others,
numbers with a decimal point differ by a twentieth; everything else has to be what the command prints.

`pip`, `curate view` (which goes on until it is stopped) and commands on an object store are not run: their options are
checked. Comments before a block, which readers do not see:

    <!-- sandbox: NAME -->      once in a page: the folder of tests/docs that it is run in; else `two`
    <!-- first: COMMAND -->     run before the block, by bash
    <!-- file: NAME -->         the block, of any language, is written there
    <!-- exits: 1 -->           how the last command of the block ends
    <!-- not run: REASON -->    one of NOT_RUN; its commands are still read by the real command line
    <!-- checked by: FILE -->   once in a page: the test that follows it; the page's blocks are not run here
"""

from __future__ import annotations

import re
import runpy
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

NOT_RUN = runpy.run_path(str(ROOT / "docs" / "tools" / "hooks.py"))["NOT_RUN"]

_FENCE = re.compile(r"^```(\w*)$")
_NOTE = re.compile(r"^<!-- (sandbox|first|file|exits|not run|checked by): (.*?) -->$")


@dataclass
class Block:
    """One fenced block. ``output`` is the block behind it, where one is."""

    page: Path
    line: int
    language: str
    text: str
    notes: dict[str, str] = field(default_factory=dict)
    first: list[str] = field(default_factory=list)
    output: str | None = None

    @property
    def name(self) -> str:
        """Where it stands."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    def commands(self) -> list[str]:
        """The command lines of a console block, without comments."""
        joined = re.sub(r"\\\n\s*", "", self.text)
        lines = (re.sub(r"(^|\s+)# .*$", "", line).strip() for line in joined.splitlines())
        return [line for line in lines if line]


def blocks(page: Path) -> list[Block]:
    """The blocks of a page in order, outputs taken to those before them."""
    found: list[Block] = []
    notes: dict[str, str] = {}
    first: list[str] = []
    between = ""
    lines = iter(enumerate(page.read_text(encoding="utf-8").splitlines(), start=1))
    for number, line in lines:
        note, fence = _NOTE.match(line), _FENCE.match(line)
        if note and note[1] == "first":
            first.append(note[2])
        elif note:
            notes[note[1]] = note[2]
        elif not fence:
            between += line.strip()
        else:
            text = "".join(f"{inner}\n" for inner in _inside(lines))
            before = found[-1] if found and not (between or notes or first) else None
            if before and not fence[1] and before.language in RUN_LANGUAGES and before.output is None:
                before.output = text
            else:
                found.append(Block(page, number, fence[1], text, notes, first))
            notes, first, between = {}, [], ""
    return found


def _inside(lines: Iterator[tuple[int, str]]) -> Iterator[str]:
    for _, line in lines:
        if line == "```":
            return
        yield line


RUN_LANGUAGES = ("console", "python", "sql")


def page_notes(page: Path) -> dict[str, str]:
    """The notes of a page that hold for all of it."""
    found = (_NOTE.match(line) for line in page.read_text(encoding="utf-8").splitlines())
    return {note[1]: note[2] for note in found if note and note[1] in {"sandbox", "checked by"}}


# --- Outputs ----------------------------------------------------------------------------------------------------------

_VARYING = [
    (re.compile(r"\d{8}T\d{6}\.\d{6}Z-[0-9a-f]{6}"), "RUN"),
    (re.compile(r"\b[0-9a-f]{12,64}\b"), "ID"),
    (re.compile(r"\b\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d)?)?\b"), "DATE"),
    (re.compile(r"\b(\d+h)?(\d+m)?\d+(\.\d+)?s\b"), "SO LONG"),
    (re.compile(r"\d[\d.,]*( ?(ms|s|min|h|bytes|B|[kKMGT]i?B)\b)+( \d+ (s|min)\b)*"), "SO MUCH"),
    (re.compile(r"\d[\d.,]* (clips|steps|frames)/s"), "SO FAST"),
    (re.compile(r"(?<=:)\d{4,5}\b"), "PORT"),
]
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e-?\d+)?")
_PART = {"…": ".*"} | dict.fromkeys("0123456789", f"({_NUMBER.pattern})")
"""What may stand for a part of an expected line, by its last character."""
TOLERANCE = 0.05


def differs(expected: str, printed: str) -> str:
    """What of an expected output was not printed, in words; empty where it was."""
    wanted, got = _lines(expected), _lines(printed)
    parts = _split(wanted)
    at = 0
    for number, part in enumerate(parts):
        is_first, is_last = number == 0, number == len(parts) - 1
        starts = [at] if is_first else range(at, len(got) - len(part) + 1)
        if is_last and not is_first:
            starts = [max(at, len(got) - len(part))]
        found = next((start for start in starts if _same(part, got[start : start + len(part)])), None)
        if found is None or (is_last and found + len(part) != len(got)):
            shown = "\n  ".join(part)
            return f"expected, and not found there:\n  {shown}\nprinted:\n" + "\n".join(got)
        at = found + len(part)
    return ""


def _lines(text: str) -> list[str]:
    lines = [re.sub(r"\s+", " ", line).strip() for line in text.strip("\n").splitlines()]
    return [line for line in lines if line]


def _split(lines: Sequence[str]) -> list[list[str]]:
    parts: list[list[str]] = [[]]
    for line in lines:
        if line == "...":
            parts.append([])
        else:
            parts[-1].append(line)
    return parts


def _same(wanted: Sequence[str], got: Sequence[str]) -> bool:
    return len(wanted) == len(got) and all(map(_same_line, wanted, got))


def _same_line(wanted: str, got: str) -> bool:
    parts = re.split(rf"({_NUMBER.pattern}|…)", _masked(wanted))
    pattern = "".join(
        _PART.get(part[-1:], re.escape(part)) if n % 2 else re.escape(part) for n, part in enumerate(parts)
    )
    found = re.fullmatch(pattern, _masked(got))
    numbers = [part for part in parts[1::2] if part != "…"]
    return bool(found) and all(map(_same_number, numbers, found.groups()))


def _masked(line: str) -> str:
    for pattern, name in _VARYING:
        line = pattern.sub(name, line)
    return line


def _same_number(wanted: str, got: str) -> bool:
    if "." not in wanted + got:
        return wanted == got
    last_digit = 10.0 ** -len(wanted.partition(".")[2].partition("e")[0])
    return abs(float(wanted) - float(got)) <= max(TOLERANCE * abs(float(wanted)), last_digit)


def words(command: str) -> tuple[list[str], str]:
    """A command line as the shell would split it, and the file that its output goes to, if any."""
    given = shlex.split(command)
    return (given[:-2], given[-1]) if ">" in given else (given, "")
