"""docs/bad-inputs.md as data: what each row says, and checks that it came true."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
from cli_kit import curate, verdicts

from curate.testing.bucket import EXPECTED

DOC = Path(__file__).parents[1] / "docs" / "bad-inputs.md"
KEPT = ("kept", "")


@dataclass(frozen=True)
class Row:
    """One row of the tables: the first code span of what the user sees, and the exit status."""

    sees: str
    said: str
    status: int


def _rows() -> dict[str, Row]:
    cells = [line.strip("| \n").split(" | ") for line in DOC.read_text().splitlines() if line.startswith("| ")]
    return {name: Row(sees, _span(sees), int(status)) for name, sees, status, _ in cells if name != "Input"}


def _span(text: str) -> str:
    found = re.search(r"`([^`]+)`", text)
    return found[1] if found else ""


ROWS = _rows()
FILES = {_span(name): name for name in ROWS if _span(name) in EXPECTED}


def row(name: str) -> Row:
    return ROWS[name]


def matches(said: str, text: str, **names: object) -> bool:
    """Whether ``text`` is what a row says; ' in a table stands for the code quote of the message."""
    for name, value in names.items():
        said = said.replace(name, str(value))
    pattern = re.escape(said).replace("…", ".*").replace("'", "['`]")
    return bool(re.fullmatch(pattern, text))


def check_input(name: str, corpus: Path, file: str, **names: object) -> None:
    """The input ended as the row says, for the reason it says, and its neighbour was kept."""
    check_verdict(name, verdicts(corpus), file, **names)


def check_verdict(name: str, found: Mapping[str, tuple[str, str]], file: str, **names: object) -> None:
    """The same of verdicts that were read already."""
    told = row(name)
    verdict, reason = found[file]
    assert verdict == told.sees.split(":")[0]
    assert matches(told.said, reason, **names), reason
    assert found["good.mp4"] == KEPT


def check_refused(name: str, *args: object, corpus: Path | None = None, **names: object) -> None:
    """The command ended as the row says, in one line, and wrote nothing."""
    ended = curate("run", *args)
    assert ended.status == row(name).status
    assert matches(row(name).said, ended.err.removesuffix("\n"), **names), ended.err
    assert "\n" not in ended.err.removesuffix("\n")
    assert corpus is None or not corpus.exists()


def every_row(folder: Path) -> list[dict]:
    parts = sorted(folder.rglob("*.parquet"))
    return [row for part in parts for row in pq.ParquetFile(part).read(use_threads=False).to_pylist()]
