"""`curate status`: how runs go, asked from anywhere that reads the corpus."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from curate.cli.console import ending, err, out, plain
from curate.cli.look import AsJson, CorpusName
from curate.cli.tables import grid
from curate.errors import CorpusError, StorageError
from curate.units import format_bytes, format_duration

if TYPE_CHECKING:
    from curate.watch.status import PassStatus, RunStatus

LOOK_EVERY_S = 2.0
PATIENCE_S = 600.0
"""How long `--watch` goes on asking for a corpus that it read once and cannot read any more."""

_CLASSES = 12
"""Classes of failures that are shown; `--json` has all."""

OneRun = Annotated[
    str | None, typer.Option("--run", help="Only this run; default the last that ended well, and those after it.")
]


def status_command(
    corpus: CorpusName,
    run: OneRun = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Look again every two seconds, until nothing goes on any more.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """How runs go: sources, clips, rates, time left, failures, where time goes. From any machine that reads the corpus.

    A run says every few seconds that it is alive. One that said nothing for a minute has died, or has lost the corpus:
    the same `curate run` goes on from there.

    Example: `curate status corpus --watch`
    """
    with ending():
        if watch and out.is_terminal and not as_json:
            _watch(corpus, run)
            return
        told = ""
        for look in _looks(corpus, run, again=watch):
            if look.trouble and look.trouble != told:
                err.print(plain(look.trouble), soft_wrap=True)
            elif not look.trouble and as_json:
                typer.echo(json.dumps([asdict(each) | _judged(each, look.at) for each in look.found]))
            elif not look.trouble:
                print_statuses(out, look.found, look.at)
            told = look.trouble


@dataclass(frozen=True, slots=True)
class _Look:
    """Runs as they were ``at`` a time; ``trouble`` says why they were not seen since."""

    found: Sequence[RunStatus]
    at: datetime
    trouble: str = ""


def _looks(corpus: str, run: str | None, *, again: bool) -> Iterator[_Look]:
    """The runs; ``again`` and again as long as one goes on. A corpus that was read once may be out of reach meanwhile:
    whoever watches a run of weeks need not start over."""
    from curate.tables import Corpus
    from curate.watch.status import status_of, statuses

    place, look, read_at_s = Corpus(corpus), None, -math.inf
    while True:
        try:
            found, read_at_s = [status_of(place, run)] if run else statuses(place), time.monotonic()
            look = _Look(found, datetime.now(UTC))
        except (StorageError, CorpusError) as error:  # the second of a folder that is not mounted any more
            if look is None or time.monotonic() - read_at_s > PATIENCE_S:
                raise
            look = replace(look, trouble=f"cannot be read just now, asked again: {' '.join(str(error).split())}")
        yield look
        if not again or not (look.trouble or any(each.goes_on(look.at) for each in look.found)):
            return
        time.sleep(LOOK_EVERY_S)


def _watch(corpus: str, run: str | None) -> None:
    """One picture that renews itself; the last one stays."""
    look = _Look([], datetime.now(UTC))
    with Live(get_renderable=lambda: Group(*_picture(look)), console=out, refresh_per_second=1):
        try:
            for look in _looks(corpus, run, again=True):  # noqa: B007 - the picture is made of it
                pass
        except KeyboardInterrupt:
            return


def _picture(look: _Look) -> Iterator[RenderableType]:
    yield from _all(look.found, look.at if look.trouble else datetime.now(UTC))
    if look.trouble:
        yield Text.from_markup(f"[yellow]{plain(look.trouble)}[/]")


def _judged(status: RunStatus, now: datetime) -> dict[str, object]:
    """What follows from a status, for programs that read it."""
    the_pass = status.the_pass
    return {
        "goes_on": status.goes_on(now),
        "silent_s": round(status.silent_s(now), 1),
        "clips_per_s": the_pass.clips_per_s,
        "left_s": the_pass.left_s,
        "waiting": the_pass.waiting,
    }


def print_statuses(console: Console, found: Sequence[RunStatus], now: datetime) -> None:
    """All of them; texts are not broken, since they are searched by line."""
    for each in _all(found, now):
        console.print(each, soft_wrap=isinstance(each, Text))


def _all(found: Sequence[RunStatus], now: datetime) -> Iterator[RenderableType]:
    if not found:
        yield Text("No run has begun here, or none of a version that leaves a status.")
    for status in found:
        yield from _one(status, now)


def _one(status: RunStatus, now: datetime) -> Iterator[RenderableType]:
    if status.state == "damaged":
        yield Text.from_markup(f"[bold]Run[/] {plain(status.run)} is damaged: {plain(status.error)}")
        return
    yield Text.from_markup(f"[bold]Run[/] {plain(status.run)} of recipe {plain(status.recipe)} {_state(status, now)}")
    for name, told in _lines(status, now):
        yield Text.from_markup(f"  {name:<9} {told}")
    if status.stages:
        yield _stages(status)
    for failure in status.failures[:_CLASSES]:
        yield Text.from_markup(f"  {failure.n} x {plain(failure.error_class)} in {plain(failure.stage)}")
    if rest := len(status.failures) - _CLASSES:
        yield from [Text(f"  and {rest} more classes of failures")] if rest > 0 else []


def _state(status: RunStatus, now: datetime) -> str:
    spent, step = format_duration(status.seconds), plain(status.step)
    if status.goes_on(now):
        again = f", pass {status.the_pass.number}" if status.the_pass.number > 1 else ""
        return f"goes on: {step}{again}"
    if status.state == "running" and status.measured:
        return f"is measured, but ended without a word after {spent}, at: {step}"
    if status.state == "running":
        since = datetime.fromisoformat(status.beat_at).astimezone(UTC)
        ago = format_duration(status.silent_s(now))
        return f"gave no sign of life since {since:%Y-%m-%d %H:%M:%S} UTC ({ago} ago); it was at: {step}"
    if status.state == "complete":
        return f"is complete after {spent}"
    if status.state == "stopped":
        return f"was stopped after {spent}, at: {step}"
    return f"failed after {spent}, at: {step}"


def _lines(status: RunStatus, now: datetime) -> Iterator[tuple[str, str]]:
    the_pass, goes_on = status.the_pass, status.goes_on(now)
    if status.error:
        yield "why", f"{plain(status.error_class)}: {plain(status.error)}"
    if goes_on:
        alive = f"last sign of life {format_duration(status.silent_s(now))} ago"
        yield "since", f"{format_duration(status.seconds)}, process {status.pid} on {plain(status.host)}, {alive}"
    yield "engine", ", ".join([plain(status.engine), *_machines(status)])
    yield "sources", _sources(status, goes_on=goes_on)
    yield "clips", ", ".join([str(status.clips), *_rates(the_pass, goes_on=goes_on)])
    yield "bytes", f"{format_bytes(status.read_bytes)} read, {format_bytes(status.written_bytes)} written"
    if status.result:
        yield "result", _result(status)
    if status.gpu_waiting_share is not None:
        yield "GPUs", f"waited {status.gpu_waiting_share:.0%} of their workers' time"
    if goes_on and status.metrics_url:
        yield "metrics", plain(status.metrics_url)
    if goes_on and status.dashboard_url:
        yield "dashboard", f"{plain(status.dashboard_url)} (Ray's)"


def _machines(status: RunStatus) -> list[str]:
    counts = {"node": status.nodes, "CPU": status.cpus, "GPU": status.gpus}
    return [f"{n:g} {name}{'s' if n != 1 else ''}" for name, n in counts.items() if n]


def _sources(status: RunStatus, *, goes_on: bool) -> str:
    the_pass = status.the_pass
    failed = f"{status.sources_failed} failed" + (f", {status.quarantined} quarantined" if status.quarantined else "")
    if not goes_on or not the_pass.sources:
        return f"{status.sources_ok + status.sources_failed} done of {status.inputs} inputs, {failed}"
    queue = f"{the_pass.in_flight} in flight, {the_pass.waiting} waiting"
    return f"{the_pass.done} of {the_pass.sources} done, {queue}; {failed}"


def _rates(the_pass: PassStatus, *, goes_on: bool) -> list[str]:
    if not the_pass.seconds or not the_pass.clips:
        return []
    hours = the_pass.video_s / the_pass.seconds
    rates = [f"{the_pass.clips_per_s:.1f} clips/s", f"{hours:.2f} video-hours/hour"]
    if goes_on and the_pass.done < the_pass.sources:
        rates.append(f"about {format_duration(the_pass.left_s)} left" if the_pass.left_s is not None else "ETA ?")
    return rates


def _result(status: RunStatus) -> str:
    told = [f"{status.result[name]} clips {name}" for name in ("kept", "dropped", "failed") if name in status.result]
    if "shards" in status.result:
        told.append(f"{status.result['shards']} shards of {format_bytes(status.result['shard_bytes'])}")
    return ", ".join(told)


def _stages(status: RunStatus) -> Table:
    """Where time goes; the stage that holds the rest up first."""
    table = grid("  stage", ">ok", ">failed", ">time", ">share", ">waited")
    total_s = sum(stage.seconds for stage in status.stages.values()) or 1.0
    for name, stage in sorted(status.stages.items(), key=lambda item: -item[1].seconds):
        used_s = stage.busy_s + stage.waited_s
        waited = f"{stage.waited_s / used_s:.0%}" if used_s else ""
        cells = (str(stage.ok), str(stage.failed), format_duration(stage.seconds), f"{stage.seconds / total_s:.0%}")
        table.add_row(f"  {plain(name)}", *cells, waited)
    return table
