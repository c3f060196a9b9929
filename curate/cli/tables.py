"""How funnels, scores and failures look on a terminal."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from curate.cli.console import plain
from curate.units import format_duration

if TYPE_CHECKING:
    from curate.failures import FailureGroup
    from curate.select import Counts, Funnel, Reason
    from curate.stats import CategoryStats, CorpusStats, NumberStats, SourceOutcome, StageSeconds

_BARS = " ▁▂▃▄▅▆▇█"
_VERDICTS = ("kept", "dropped", "failed", "skipped")
_REASONS = 12
"""Reasons and causes that are printed one by one; funnel.json and inputs.parquet hold all."""
_ANY_WIDTH = 1000
_WORD_CHARS = 40
"""Longer values are sentences, which nobody wants counted."""
_LAYOUTS: tuple[tuple[tuple[str, ...], int], ...] = (
    (("min", "p5", "p25", "p50", "p75", "p95", "max"), 20),
    (("min", "p5", "p50", "p95", "max"), 20),
    (("min", "p50", "max"), 10),
    (("min", "p50", "max"), 0),
    (("p50",), 0),
)
"""Ranks and bins of the histogram that are shown, from wide to narrow terminals."""


def grid(*heads: str) -> Table:
    """An open table; columns whose head begins with ``>`` hold numbers."""
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for head in heads:
        is_number = head.startswith(">")
        table.add_column(head.lstrip(">"), justify="right" if is_number else "left", no_wrap=is_number)
    return table


def print_funnel(console: Console, funnel: Funnel) -> None:
    """What became of every input and every clip, with reasons and hours."""
    table = grid("", ">found", *(f">{verdict}" for verdict in _VERDICTS))
    table.add_row("inputs", *_cells(funnel.inputs), str(funnel.inputs.skipped))
    table.add_row("clips", *_cells(funnel.clips))
    table.add_row("video", *(short_time(3600 * funnel.hours.get(key, 0.0)) for key in ("found", *_VERDICTS[:3])))
    title = f"[bold]Funnel[/] of selection {plain(funnel.name)} over run {plain(funnel.run_id)}"
    console.print(title, soft_wrap=True)
    console.print(table)
    _print_reasons(console, "inputs", funnel.input_reasons)
    _print_reasons(console, "clips", funnel.clip_reasons)
    for limit in funnel.thresholds:
        value = "nothing to rank" if limit.value is None else f"{limit.value:.6g}"
        console.print(f"{plain(limit.condition)}: {limit.kind} {limit.share:g} of {limit.n} is {value}", soft_wrap=True)
    found = funnel.retention
    if found and found.ratio is not None and len(funnel.conditions) > 1:
        expected = f"expected if they were independent {found.product:.1%} (ratio {found.ratio:.2f})"
        console.print(f"kept by all conditions {found.joint:.1%} of {found.judged}; {expected}", soft_wrap=True)


def _cells(counts: Counts) -> list[str]:
    return [str(n) for n in (counts.found, counts.kept, counts.dropped, counts.failed)]


def _print_reasons(console: Console, what: str, reasons: Sequence[Reason]) -> None:
    shown = [reason for reason in reasons if reason.verdict != "kept"]
    if not shown:
        return
    has_time = any(reason.hours for reason in shown)
    table = grid(f"{what} not kept", "why", ">n", *([">time"] if has_time else []))
    for reason in shown[:_REASONS]:
        spent = [short_time(reason.hours * 3600)] if has_time else []
        table.add_row(reason.verdict, plain(reason.reason), str(reason.n), *spent)
    rest = shown[_REASONS:]
    if rest:
        table.add_row("...", f"{len(rest)} more reasons (funnel.json has them)", str(sum(reason.n for reason in rest)))
    console.print(table)


def print_stats(console: Console, stats: CorpusStats) -> None:
    """Scores, failures and time of a run."""
    from curate.select import Funnel

    console.print(
        f"[bold]Run[/] {plain(stats.run_id)}: {stats.n_sources} sources, {stats.n_clips} clips, "
        f"{format_duration(stats.hours * 3600)}",
        soft_wrap=True,
    )
    if stats.funnel is not None:
        print_funnel(console, Funnel.from_json(json.dumps(stats.funnel)))
    else:
        _print_outcomes(console, stats.sources)
    print_stand_ins(console, stats.stand_ins, stats.lacks)
    _print_numbers(console, [n for n in stats.numbers if n.stage != "probe"])
    _print_categories(console, [c for c in stats.categories if c.stage != "probe"])
    print_failures(console, stats.failures)
    print_seconds(console, stats.seconds)


def print_stand_ins(console: Console, stand_ins: Mapping[str, str], lacks: Mapping[str, str]) -> None:
    """What some stages cannot do without bigger models, and what a recipe lacks of the one that it follows: nobody
    should take what comes of them for more than it is."""
    for word, told in (("Stand-in", stand_ins), ("Not done", lacks)):
        for name, text in told.items():
            console.print(f"[yellow]{word}[/] {plain(name)}: {plain(text)}", soft_wrap=True)


def _print_outcomes(console: Console, outcomes: Sequence[SourceOutcome]) -> None:
    """What became of the inputs, where no selection was made over the run."""
    table = grid("inputs", "why", ">n")
    for entry in outcomes[:_REASONS]:
        table.add_row(entry.outcome, plain(entry.cause), str(entry.n))
    rest = outcomes[_REASONS:]
    if rest:
        table.add_row("...", f"{len(rest)} more causes", str(sum(entry.n for entry in rest)))
    console.print(table)


def sparkline(counts: Sequence[int], bins: int) -> str:
    """A histogram in one line of block characters; an empty bin is a blank, any other at least the lowest block."""
    step = max(1, len(counts) // bins)
    merged = [sum(counts[i : i + step]) for i in range(0, len(counts), step)]
    top = max(merged, default=0)
    return "".join(_BARS[-(-8 * count // top) if top else 0] for count in merged)


def _print_numbers(console: Console, numbers: Sequence[NumberStats]) -> None:
    """Scores by stage: those of clips in the recipe's order, then what the cut counted in each source."""
    if not numbers:
        return
    place = {"clip": -1, "cut": 1}
    ordered = sorted(numbers, key=lambda entry: place.get(entry.stage, 0))
    print_fitting(console, [_draw_numbers(ordered, ranks, bins) for ranks, bins in _LAYOUTS])


def print_fitting(console: Console, tables: Sequence[Table]) -> None:
    """Print the first table that the terminal has room for, else the last."""
    # Measured as if there were room for all, else the answer is what is left after shrinking.
    anywhere = console.options.update(width=_ANY_WIDTH)
    fitting = (table for table in tables if console.measure(table, options=anywhere).maximum <= console.width)
    console.print(next(fitting, tables[-1]))


def _draw_numbers(ordered: Sequence[NumberStats], ranks: Sequence[str], bins: int) -> Table:
    table = grid("score", ">n", *(f">{rank}" for rank in ranks), *(["histogram"] if bins else []))
    table.columns[0].no_wrap = table.columns[-1].no_wrap = True
    for stage, entries in groupby(ordered, key=lambda entry: entry.stage):
        members = list(entries)
        failed = f", [red]{members[0].failed} failed[/]" if members[0].failed else ""
        table.add_row(f"[bold]{plain(stage)}[/]{' of each source' if stage == 'cut' else ''}{failed}")
        for entry in members:
            values = {"min": entry.min, "max": entry.max, **entry.percentiles}
            shown = (_number(values[rank]) for rank in ranks)
            line = [sparkline(entry.counts, bins)] if bins else []
            table.add_row(f"  {plain(entry.column)}", str(entry.n), *shown, *line)
    return table


def _number(value: float) -> str:
    """Three significant digits, whole numbers in full."""
    value += 0.0  # no minus before a nought
    return f"{value:.0f}" if value == round(value) or abs(value) >= 100 else f"{value:.3g}"


def _print_categories(console: Console, categories: Sequence[CategoryStats]) -> None:
    table = grid("class", "values")
    for entry in categories:
        if entry.top and all(len(value) <= _WORD_CHARS for value, _ in entry.top):
            counts = ", ".join(f"{plain(value)} {n}" for value, n in entry.top[:8])
            more = f", {entry.n_distinct - 8} more" if entry.n_distinct > 8 else ""
            table.add_row(f"{plain(entry.stage)}.{plain(entry.column)}", counts + more)
    if table.row_count:
        console.print(table)


def print_failures(console: Console, groups: Sequence[FailureGroup]) -> None:
    """Failures by stage and class, each with an example; nothing when there are none."""
    if not groups:
        return
    table = grid("failed in", "class", ">n", "for example")
    for group in groups:
        example = group.examples[0]
        name = example.uri.rsplit("/", 1)[-1]
        text = f"{plain(name)}: {plain(example.message)}"
        table.add_row(plain(group.stage), plain(group.error_class), str(group.n), text)
    console.print(table)


_WIDE = 72
"""Columns of a terminal from which the pace of the stages has room."""


def print_seconds(console: Console, seconds: Sequence[StageSeconds]) -> None:
    """Time by stage."""
    paces = [">clips/s", ">waited"] if console.width >= _WIDE else []
    table = grid("time of stage", ">cells", ">total", ">share", ">mean", ">longest", *paces)
    total_s = sum(entry.sum_s for entry in seconds) or 1.0
    for entry in seconds:
        spent = (
            short_time(entry.sum_s),
            f"{entry.sum_s / total_s:.0%}",
            short_time(entry.mean_s),
            short_time(entry.max_s),
        )
        rate = "" if entry.clips_per_s is None else f"{entry.clips_per_s:.{0 if entry.clips_per_s >= 100 else 2}f}"
        waited = "" if entry.waited is None else f"{entry.waited:.0%}"
        table.add_row(plain(entry.stage), str(entry.n), *spent, *[rate, waited][: len(paces)])
    console.print(table)


def short_time(seconds: float) -> str:
    """A time, with milliseconds where seconds would all be nought."""
    return f"{seconds * 1000:.0f} ms" if 0 < seconds < 1 else format_duration(seconds)
