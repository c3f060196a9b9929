"""`curate diff`: what one selection keeps and another does not."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from curate.cli.bars import Counted
from curate.cli.console import ending, out, plain
from curate.cli.tables import grid, print_fitting
from curate.units import format_duration

EPILOG = """
**Examples**

- Two selections of one corpus: `curate diff corpus#strict corpus#embedded`
- The latest selections of two corpora: `curate diff corpus-may corpus-june`
- What another recipe or model changed: `curate diff corpus@20260101T120000.000000Z-abc123 corpus`
- With pictures, in a browser: `curate diff corpus#strict corpus#embedded --html diff.html`
"""

_SIDE = "`CORPUS#SELECTION`, or `CORPUS` or `CORPUS@RUN` for the latest selection of its last run or of that one."
_ROWS = 15
_SHARES = ("p5", "p50", "p95")
_FIGURES = (("mean", *_SHARES, "largest"), ("mean", "p50", "largest"))
"""How scores changed, from wide to narrow terminals."""


def diff_command(
    a: Annotated[str, typer.Argument(metavar="A", help=f"Before: {_SIDE}")],
    b: Annotated[str, typer.Argument(metavar="B", help=f"After: the same; `#SELECTION` and `@RUN` are A's. {_SIDE}")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for other programs.")] = False,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a page with pictures of what left and entered.")
    ] = None,
    pictures: Annotated[int, typer.Option(min=0, help="Show so many clips on the page; 0 for no pictures.")] = 48,
) -> None:
    """What entered and what left between two selections, which filter moved it, and how scores shifted.

    Clips are the same where content and span are.
    """
    from curate.report.diff import difference, parse_side, write_difference

    with ending():
        one = parse_side(a)
        found = difference(one, parse_side(b, one.corpus), pictures=pictures if html else 0, clips=pictures or 48)
        if as_json:
            typer.echo(json.dumps(found.facts))
        else:
            print_difference(found.facts)
        if html is not None:
            with Counted(out, "Sources of pictures") as counted:
                where = write_difference(found, str(html.absolute()), counted)
            if not as_json:
                out.print(f"[bold]Page[/] {plain(where)}", soft_wrap=True)


def print_difference(facts: Mapping[str, Any]) -> None:
    """The difference in tables."""
    _print_sides(facts)
    table = grid("", ">clips", ">time")
    for name, text in (("both", "kept by both"), ("left", "left (A alone keeps)"), ("entered", "entered (B alone)")):
        table.add_row(text, str(facts[name]["n"]), _time(facts[name]["hours"]))
    out.print(table)
    known = facts["known"]
    if known["only_a"] or known["only_b"]:
        text = f"{known['both']} clips are in both runs, {known['only_a']} in A's alone, {known['only_b']} in B's alone"
        cut = ": their cuts were found in another way" if facts["a"]["cut"] != facts["b"]["cut"] else ""
        out.print(f"{text}{cut}.", soft_wrap=True)
    for name, text in (("left", "left: why B does not keep them"), ("entered", "entered: why A did not keep them")):
        _print_reasons(text, facts[name]["reasons"])
    _print_filters(facts)
    _print_shifts(facts)


def _print_sides(facts: Mapping[str, Any]) -> None:
    for name in ("a", "b"):
        side = facts[name]
        kept = f"{side['kept']['n']} of {side['found']} clips, {_time(side['kept']['hours'])}"
        now = " (judged now, by its recipe)" if side["judged_now"] else ""
        where = f"selection {plain(side['selection'])} over run {plain(side['run_id'])}{now}: {kept}"
        out.print(f"[bold]{name.upper()}[/] {plain(side['corpus'])}, {where}", soft_wrap=True)


def _print_reasons(title: str, reasons: list[dict[str, Any]]) -> None:
    if not reasons:
        return
    table = grid(title, ">n", ">time")
    for reason in reasons[:_ROWS]:
        table.add_row(plain(reason["reason"]), str(reason["n"]), _time(reason["hours"]))
    rest = reasons[_ROWS:]
    if rest:
        table.add_row(f"{len(rest)} more reasons", str(sum(reason["n"] for reason in rest)), "")
    out.print(table)


def _print_filters(facts: Mapping[str, Any]) -> None:
    if facts["thresholds"]:
        table = grid("condition", "A drops where", "B drops where")
        for row in facts["thresholds"]:
            table.add_row(plain(row["name"]), plain(row["a"]) or "-", plain(row["b"]) or "-")
        out.print(table)
    if facts["filters"]:
        table = grid("moved by", ">left", ">by it alone", ">entered", ">it alone")
        for row in facts["filters"][:_ROWS]:
            counts = (str(row[key]) for key in ("left", "left_only", "entered", "entered_only"))
            table.add_row(plain(row["name"]), *counts)
        out.print(table)


def _print_shifts(facts: Mapping[str, Any]) -> None:
    changed = [row for row in facts["numbers"] if row["changed"]]
    if changed:
        print_fitting(out, [_draw_changed(changed[:_ROWS], figures) for figures in _FIGURES])
    for row in [row for row in facts["categories"] if row["changed"]][:_ROWS]:
        moves = ", ".join(f"{plain(a)} to {plain(b)} ({n})" for a, b, n in row["moves"][:3])
        out.print(f"{plain(row['column'])}: {row['changed']} of {row['n']} changed: {moves}", soft_wrap=True)
    _print_spread(facts["numbers"])


def _draw_changed(rows: Sequence[Mapping[str, Any]], figures: Sequence[str]) -> Table:
    table = grid("scores that changed", ">clips", ">of", *(f">{figure}" for figure in figures))
    table.columns[0].overflow = "fold"
    for row in rows:
        shift = row["shift"]
        largest = max((shift["min"], shift["max"]), key=lambda x: abs(x or 0))
        numbers = (_signed(x) for x in ({**shift, "largest": largest}[figure] for figure in figures))
        table.add_row(plain(row["column"]), str(row["changed"]), str(shift["n"]), *numbers)
    return table


def _print_spread(rows: Sequence[Mapping[str, Any]]) -> None:
    """Both sides below each other, where what is printed of them differs."""
    table = grid("scores of kept clips", "", *(f">{share}" for share in _SHARES))
    table.columns[0].overflow = "fold"
    shown, same = 0, 0
    for row in rows:
        if not (row["a"]["n"] and row["b"]["n"]):
            continue
        a, b = ([f"{row[side][share]:.4g}" for share in _SHARES] for side in ("a", "b"))
        same += a == b
        if a != b and shown < _ROWS:
            shown += 1
            table.add_row(plain(row["column"]), "A", *a)
            table.add_row("", "B", *b)
    if shown:
        out.print(table)
        if same:
            out.print(f"{same} other {'scores are' if same > 1 else 'score is'} spread alike.", soft_wrap=True)


def _signed(x: float | None) -> str:
    return "-" if x is None else f"{x:+.4g}"


def _time(hours: float) -> str:
    return format_duration(3600 * hours)
