"""A report of a selection: one HTML file that a person can look at (docs/report.md).

The tables of a run and one of its selections -> facts (plain JSON, counted in DuckDB) -> the page in ``page/``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from curate.errors import StorageError
from curate.report.facts import PICTURES, build_facts, chosen_selection, silent
from curate.report.html import render
from curate.report.pictures import Reading, take_pictures
from curate.storage import Place, is_remote
from curate.tables import Corpus

__all__ = ["PICTURES", "Reading", "Written", "write_report"]


@dataclass(frozen=True, slots=True)
class Written:
    """A report. ``uri`` is where it lies; ``n_pictures`` of ``n_shown`` clips have one.

    ``n_otherwise`` clips would be judged otherwise now: what the selection reads changed since it was made. ``again``
    is the command that makes it again.
    """

    uri: str
    selection: str
    size_bytes: int
    n_shown: int
    n_pictures: int
    n_otherwise: int = 0
    again: str = ""


def write_report(
    corpus: Corpus,
    *,
    run_id: str | None = None,
    selection: str | None = None,
    out: str | None = None,
    pictures: int = PICTURES,
    reading: Reading | None = None,
    step: Callable[[str], None] = silent,
    counted: Callable[[int, int], None] = silent,
) -> Written:
    """Write the report of a selection (the latest over the run, by default the last complete run) as one HTML file.

    ``out`` is a path or URI, by default ``reports/<selection>.html`` in the corpus. At most ``pictures`` clips have a
    picture; ``reading`` says how their sources are read. ConfigError where there is no selection,
    StorageError where ``out`` cannot be written.
    """
    reading = reading or Reading()
    funnel = chosen_selection(corpus, run_id, selection)
    place = _place(corpus, funnel.name, out)
    found = build_facts(corpus, funnel, pictures=pictures, addresses=reading.addresses, step=step)
    facts = found.facts
    if found.wanted:
        step("Taking pictures")
    facts["pictures"] = take_pictures(found.wanted, list(facts["clip_facts"]), found.reasons, counted, reading.limits)
    step("Writing the report")
    text = render(facts).encode()
    place.write_bytes(text)
    n_pictures = sum("src" in picture for picture in facts["pictures"].values())
    stale = {"n_otherwise": facts["judged_otherwise"], "again": facts["commands"].get("again", "")}
    return Written(place.uri, funnel.name, len(text), len(facts["clip_facts"]), n_pictures, **stale)


def _place(corpus: Corpus, name: str, out: str | None) -> Place:
    if out is None:
        return corpus.root.child("reports", f"{name}.html")
    if is_remote(out):
        return Place(out)
    path = Path(out.removeprefix("file://")).expanduser().absolute()
    if path.is_dir():
        raise StorageError("is a folder", subject=str(path), fix="Name a file, such as report.html")
    return Place(str(path))
