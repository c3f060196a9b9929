"""How a plan looks on a terminal, and a run beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from curate.cli.console import plain
from curate.cli.tables import grid, print_fitting, print_seconds, short_time
from curate.units import HOUR_S, format_bytes, format_duration

if TYPE_CHECKING:
    from curate.estimate import Estimate, Forecast
    from curate.estimate.compare import Compared, Taken

_REASONS = 12
_INTERVAL = ">in 9 of 10 cases"
_UNKNOWN = "not measured"


def print_forecast(console: Console, forecast: Forecast) -> None:
    """Hours, workers, stages, funnel, storage, and what is not known."""
    _print_tried(console, forecast)
    console.print(_hours(forecast))
    _print_stages(console, forecast)
    _print_bottleneck(console, forecast)
    console.print(_funnel(forecast))
    for table in (_passes(forecast), _storage(forecast)):
        if table.row_count:
            console.print(table)
    for text in forecast.cautions:
        console.print(f"[yellow]Note[/] {plain(text)}.", soft_wrap=True)


def _print_tried(console: Console, forecast: Forecast) -> None:
    tried, cluster = forecast.tried, forecast.cluster
    sizes = f"{format_bytes(tried.sample_bytes)} of {format_bytes(tried.size_bytes)}"
    console.print(
        f"[bold]Plan[/] of recipe {plain(forecast.recipe)}: {tried.n_sample} of {tried.n_sources} sources tried "
        f"({sizes}, {tried.sample_clips} clips) in {format_duration(tried.wall_s)} with {tried.engine}",
        soft_wrap=True,
    )
    what = [f"{cluster.nodes} x {cluster.cpus} CPUs" if cluster.nodes > 1 else f"{cluster.cpus} CPUs"]
    what += [f"{cluster.all_gpus} GPUs"] if cluster.gpus else []
    what += [f"{format_bytes(cluster.memory_bytes)} of memory each"] if cluster.memory_bytes else []
    length = f", {format_duration(tried.video_s)} of video" if tried.video_s is not None else ""
    console.print(f"For {', '.join(what)}; {tried.n_inputs} inputs{length}", soft_wrap=True)


def _hours(forecast: Forecast) -> Table:
    hours, table = forecast.hours, grid("time", ">about", _INTERVAL)
    table.add_row("[bold]on the clock[/]", *_told(hours.wall, format_duration))
    both = format_duration(hours.start_s + hours.end_s)
    table.add_row(f"  scoring (start and end {both} of it)", *_told(hours.scoring, format_duration))
    if hours.writing.value:
        table.add_row("  writing shards", *_told(hours.writing, format_duration))
    table.add_row("CPU-hours at work", *_told(hours.cpu_work, _hours_of))
    table.add_row("CPU-hours held", *_told(hours.cpu_held, _hours_of))
    if forecast.cluster.gpus:
        table.add_row("GPU-hours at work", *_told(hours.gpu_work, _hours_of))
        table.add_row("GPU-hours held", *_told(hours.gpu_held, _hours_of))
    return table


def _print_stages(console: Console, forecast: Forecast) -> None:
    for lane in forecast.lanes:
        gpus = f", {lane.gpus:g} GPU each" if lane.gpus else ""
        clock = f"{format_duration(lane.wall_s)} on the clock" if lane.known else _UNKNOWN
        console.print(f"[bold]{plain(lane.name)}[/] ({lane.workers}{gpus}): {clock}", soft_wrap=True)
        print_fitting(console, [_lane(forecast, lane.name, few=few) for few in (False, True)])


def _lane(forecast: Forecast, lane: str, *, few: bool) -> Table:
    """The stages of some workers, on wide terminals or narrow ones."""
    more = [] if few else [_INTERVAL, ">bytes each", "goes with"]
    table = grid("stage", ">cells", ">each", ">clips/s", ">all workers", *more)
    table.columns[0].no_wrap = True
    for stage in (stage for stage in forecast.stages if stage.lane == lane):
        if not stage.known:
            table.add_row(f"  {plain(stage.name)}", _count(stage.cells.value), _UNKNOWN)
            continue
        rate = f"{1 / stage.s_per_cell:.3g}" if stage.s_per_cell else ""
        total, interval = _told(stage.busy_s, short_time)
        size = f"{stage.bytes_per_cell:.0f}" if stage.bytes_per_cell else ""
        shown = [_count(stage.cells.value), short_time(stage.s_per_cell), rate, total]
        table.add_row(f"  {plain(stage.name)}", *shown, *([] if few else [interval, size, stage.goes_with]))
    return table


def _print_bottleneck(console: Console, forecast: Forecast) -> None:
    stage = next(stage for stage in forecast.stages if stage.name == forecast.holds_up)
    lane = next(lane for lane in forecast.lanes if lane.name == stage.lane)
    share = stage.busy_s.value / lane.busy_s.value if lane.busy_s.value else 0.0
    text = f"{plain(stage.name)} takes {share:.0%} of the time of {plain(lane.name)}"
    console.print(f"[bold]Holds the rest up[/] {text}", soft_wrap=True)


def _funnel(forecast: Forecast) -> Table:
    table = grid("funnel", ">about", _INTERVAL, ">share", ">video")
    for end, number in forecast.inputs.items():
        if number.value or (number.high or 0) >= 1:
            table.add_row(f"inputs {end}", *_told(number, _count))
    found = forecast.clips["found"].value or 1.0
    for end, number in forecast.clips.items():
        length = forecast.video_s.get(end)
        if end in {"found", "kept"} or number.value:
            share = f"{number.value / found:.0%}" if end != "found" else ""
            video = format_duration(length.value) if length else ""
            table.add_row(f"[bold]clips {end}[/]", *_told(number, _count), share, video)
    for reason, number in list(forecast.reasons.items())[:_REASONS]:
        table.add_row(f"  {plain(reason)}", *_told(number, _count), f"{number.value / found:.0%}")
    return table


def _passes(forecast: Forecast) -> Table:
    table = grid("passes of all clips", ">about", _INTERVAL)
    for rate in forecast.passes:
        table.add_row(plain(rate.name), *_told(rate.share, _share))
    return table


def _storage(forecast: Forecast) -> Table:
    storage, table = forecast.storage, grid("storage", ">about", _INTERVAL)
    table.add_row("tables", *_told(storage.tables, format_bytes))
    table.add_row("  after `curate compact`", *_told(storage.compacted, format_bytes))
    if storage.shards.value:
        table.add_row("shards", *_told(storage.shards, format_bytes))
    if storage.scratch_bytes:
        table.add_row("scratch of a node, at most", format_bytes(storage.scratch_bytes), "")
    return table


def print_taken(console: Console, taken: Taken) -> None:
    """What a run took, by step and by stage."""
    steps = ", ".join(f"{plain(step)} {format_duration(seconds)}" for step, seconds in taken.wall_s.items())
    total = format_duration(sum(taken.wall_s.values()))
    console.print(f"[bold]Run[/] {plain(taken.run_id)} took {total} on the clock: {steps}", soft_wrap=True)
    if taken.all_there:
        console.print(
            "[yellow]Note[/] It found all cells in the tables; the times of stages are those of earlier runs."
        )
    print_seconds(console, taken.stages)


def print_compared(console: Console, rows: Iterable[Compared]) -> None:
    """A plan beside the run."""
    table = grid("", ">foretold", _INTERVAL, ">taken", ">ratio", "inside")
    table.columns[0].no_wrap = True
    forms: dict[str, Callable[[float], str]] = {
        "s": format_duration,
        "bytes": format_bytes,
        "": _count,
        "share": _share,
    }
    for row in rows:
        form = forms[row.unit]
        inside = {True: "yes", False: "[yellow]no[/]", None: ""}[row.inside]
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        table.add_row(plain(row.name), *_told(row.foretold, form), form(row.found), ratio, inside)
    console.print(table)


def _told(estimate: Estimate | None, form: Callable[[float], str]) -> Sequence[str]:
    """The value, and its interval."""
    if estimate is None:
        return _UNKNOWN, ""
    if estimate.low is None or estimate.high is None:
        return form(estimate.value), "unknown"
    if form(estimate.low) == form(estimate.high):
        return form(estimate.value), ""
    return form(estimate.value), f"{form(estimate.low)} to {form(estimate.high)}"


def _hours_of(seconds: float) -> str:
    """Hours where there are many, else with minutes and seconds."""
    return f"{seconds / HOUR_S:,.0f} h" if seconds >= 10 * HOUR_S else format_duration(seconds)


def _count(number: float) -> str:
    return f"{number:.0f}"


def _share(share: float) -> str:
    return f"{share:.1%}"
