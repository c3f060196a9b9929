"""`curate verify`: prove that a corpus is whole, or say what is wrong where."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from curate.cli.console import EXIT_ERROR, ending, out, plain
from curate.cli.look import CorpusName
from curate.units import format_bytes, format_duration

if TYPE_CHECKING:
    from curate.tables import Corpus
    from curate.verify import Leftover, Problem


def verify_command(
    corpus: CorpusName,
    name: Annotated[str, typer.Argument(metavar="[SHARDS]", help="A shard set alone; default the whole corpus.")] = "",
    deep: Annotated[bool, typer.Option("--deep", help="Decode every clip of the shards, not a sample.")] = False,
    clean: Annotated[
        bool, typer.Option("--clean", help="Remove what interrupted work left, if it is older than a day.")
    ] = False,
) -> None:
    """Check tables, runs, selections and shards; exit status 1 when something is wrong.

    Tables: every part is read, and its bytes are those that its name promises; no promised clip is missing. Runs:
    every input and clip is accounted for. Selections: digest and counts. Shards: index, digests, tar against sidecar,
    decoded clips, selection. What interrupted work left behind is listed, and is no error.

    Example: `curate verify corpus --deep`, or `curate verify corpus embedded` for one shard set
    """
    from curate.tables import Corpus

    with ending():
        place = Corpus(corpus)
        place.check()
        wrong = _shards(place, name, deep=deep) if name else _everything(place, deep=deep, clean=clean)
    if wrong:
        raise typer.Exit(EXIT_ERROR)


def _everything(corpus: Corpus, *, deep: bool, clean: bool) -> int:
    from curate.verify import verify_runs, verify_selections, verify_tables

    wrong = _told("tables", verify_tables(corpus), "whole, every part read")
    wrong += _told("runs", verify_runs(corpus), "whole, all inputs and clips accounted for")
    wrong += _told("selections", verify_selections(corpus), "whole")
    sets = corpus.root.child("shards").folders()
    if not sets:
        out.print("There are no shards yet; `curate export` writes them.")
    wrong += sum(_shards(corpus, name, deep=deep) for name in sets)
    _leftovers(corpus, remove=clean)
    return wrong


def _shards(corpus: Corpus, name: str, *, deep: bool) -> int:
    from curate.verify import verify

    how = "every clip decoded" if deep else "a sample decoded"
    return _told(name, verify(corpus, name, deep=deep), f"whole, {how}")


def _told(what: str, problems: Iterable[Problem], whole: str) -> int:
    count = 0
    for problem in problems:
        count += 1
        out.print(f"[red]{problem.kind}[/] {plain(problem.subject)}: {plain(problem.message)}", soft_wrap=True)
    out.print(f"{plain(what)}: {f'{count} problems' if count else whole}", soft_wrap=True)
    return count


def _leftovers(corpus: Corpus, *, remove: bool) -> None:
    from curate.verify import clean, leftovers

    found = leftovers(corpus)
    gone = clean(corpus, found) if remove else []
    for each in found:
        how = "removed" if each in gone else _why_kept(each)
        out.print(f"left over {plain(each.path)}: {each.what}, {format_bytes(each.bytes)}; {how}", soft_wrap=True)


def _why_kept(leftover: Leftover) -> str:
    if leftover.needed:
        return leftover.needed
    if leftover.is_old:
        return "`--clean` removes it"
    age = "of unknown age" if leftover.age_s is None else f"written {format_duration(max(0.0, leftover.age_s))} ago"
    return f"{age}, kept: it may belong to something that goes on"
