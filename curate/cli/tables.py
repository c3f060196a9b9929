"""How funnels, scores and failures look on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from curate.cli.console import plain
from curate.select import Counts, Funnel, Reason
from curate.stats import CategoryStats, CorpusStats, FailureGroup, NumberStats, StageSeconds
from curate.units import format_duration

_BARS = " ▁▂▃▄▅▆▇█"
_VERDICTS = ("kept", "dropped", "failed", "skipped")


def print_funnel(console: Console, funnel: Funnel) -> None:
    """What became of every input and every clip, with reasons and hours."""
    table = Table("", "found", *_VERDICTS, box=None, header_style="bold")
    for name, counts in (("inputs", funnel.inputs), ("clips", funnel.clips)):
        table.add_row(name, *_cells(counts, skips=name == "inputs"))
    total_s = 3600 * sum(funnel.hours.values())
    spent = [format_duration(3600 * funnel.hours.get(verdict, 0.0)) for verdict in _VERDICTS[:3]]
    table.add_row("video", format_duration(total_s), *spent, "")
    console.print(f"[bold]Funnel[/] of selection {plain(funnel.name)} over run {plain(funnel.run_id)}")
    console.print(table)
    _print_reasons(console, "inputs", funnel.input_reasons)
    _print_reasons(console, "clips", funnel.clip_reasons)
    for limit in funnel.thresholds:
        value = "nothing to rank" if limit.value is None else f"{limit.value:.6g}"
        console.print(f"  {plain(limit.condition)}: {limit.kind} {limit.share:g} of {limit.n} is {value}")
    if funnel.retention and funnel.retention.ratio is not None and len(funnel.conditions) > 1:
        joint, product = funnel.retention.joint, funnel.retention.product
        console.print(f"  kept by all conditions {joint:.1%}; if they were independent it would be {product:.1%}")


def _cells(counts: Counts, *, skips: bool) -> list[str]:
    shown = [counts.found, counts.kept, counts.dropped, counts.failed]
    return [str(n) for n in shown] + [str(counts.skipped) if skips else ""]


def _print_reasons(console: Console, what: str, reasons: Sequence[Reason]) -> None:
    shown = [reason for reason in reasons if reason.verdict != "kept"]
    if not shown:
        return
    table = Table(f"{what} not kept", "why", "n", "time", box=None, header_style="bold")
    for reason in shown:
        spent = format_duration(reason.hours * 3600) if reason.hours else ""
        table.add_row(reason.verdict, plain(reason.reason), str(reason.n), spent)
    console.print(table)


def print_stats(console: Console, stats: CorpusStats) -> None:
    """Scores, failures and time of a run."""
    console.print(
        f"[bold]Run[/] {plain(stats.run_id)}: {stats.n_sources} sources, {stats.n_clips} clips, "
        f"{format_duration(stats.hours * 3600)}"
    )
    if stats.funnel is not None:
        print_funnel(console, Funnel.from_json(_json(stats.funnel)))
    _print_numbers(console, [n for n in stats.numbers if n.stage != "probe"])
    _print_categories(console, [c for c in stats.categories if c.stage != "probe" and c.n_distinct <= 20])
    print_failures(console, stats.failures)
    _print_seconds(console, stats.seconds)


def _json(funnel: dict[str, Any]) -> str:
    import json

    return json.dumps(funnel)


def sparkline(counts: Sequence[int]) -> str:
    """A histogram in one line of block characters; an empty bin is a blank, any other at least the lowest block."""
    top = max(counts, default=0)
    return "".join(_BARS[-(-8 * count // top) if top else 0] for count in counts)


def _print_numbers(console: Console, numbers: Sequence[NumberStats]) -> None:
    heads = ("score", "clips", "failed", "min", "p5", "p25", "p50", "p75", "p95", "max", "histogram")
    table = Table(*heads, box=None, header_style="bold")
    for entry in numbers:
        ranks = [entry.percentiles[p] for p in ("p5", "p25", "p50", "p75", "p95")]
        values = [f"{value:.4g}" for value in (entry.min, *ranks, entry.max)]
        failed = f"[red]{entry.failed}[/]" if entry.failed else "0"
        table.add_row(f"{entry.stage}.{entry.column}", str(entry.n), failed, *values, sparkline(entry.counts))
    console.print(table)


def _print_categories(console: Console, categories: Sequence[CategoryStats]) -> None:
    table = Table("class", "values", box=None, header_style="bold")
    for entry in categories:
        if entry.top:
            counts = ", ".join(f"{plain(value)} {n}" for value, n in entry.top[:8])
            table.add_row(f"{entry.stage}.{entry.column}", counts)
    if table.row_count:
        console.print(table)


def print_failures(console: Console, groups: Sequence[FailureGroup], *, examples: int = 1) -> None:
    """Failures by stage and class, with examples; nothing when there are none."""
    if not groups:
        return
    table = Table("failed in", "class", "n", "for example", box=None, header_style="bold")
    for group in groups:
        for index, example in enumerate(group.examples[:examples]):
            head = (group.stage, group.error_class, str(group.n)) if index == 0 else ("", "", "")
            name = example.uri.rsplit("/", 1)[-1]
            table.add_row(*head, f"{plain(name)}: {plain(example.message)}")
    console.print(table)


def _print_seconds(console: Console, seconds: Sequence[StageSeconds]) -> None:
    table = Table("stage", "cells", "total", "mean", "longest", box=None, header_style="bold")
    for entry in seconds:
        spent = (format_duration(entry.sum_s), f"{entry.mean_s * 1000:.0f} ms", format_duration(entry.max_s))
        table.add_row(entry.stage, str(entry.n), *spent)
    console.print(table)
