"""Commands that look: `stats`, `show`."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from curate.cli.console import ending, out, plain
from curate.cli.tables import grid, print_stats
from curate.units import format_duration

if TYPE_CHECKING:
    from curate.inspection import ClipRecord
    from curate.tables import Corpus

CorpusName = Annotated[str, typer.Argument(metavar="CORPUS", help="Folder or URI of the corpus.")]
RunName = Annotated[str | None, typer.Option("--run", help="A run's id; default the last complete one.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for other programs.")]


def stats(
    corpus: CorpusName,
    run: RunName = None,
    selection: Annotated[str | None, typer.Option(help="Funnel of this selection; default the latest.")] = None,
    as_json: AsJson = False,
    time: Annotated[bool, typer.Option("--time", help="Only what the run took, by step and by stage.")] = False,
    plan: Annotated[
        Path | None, typer.Option(metavar="FILE", help="With --time: compare with what `curate plan --save` foretold.")
    ] = None,
) -> None:
    """Funnel in clips and hours with reasons, every score's percentiles and histogram, failures, time per stage.

    Example: `curate stats corpus --selection embedded`
    """
    from curate.stats import corpus_stats
    from curate.tables import Corpus

    with ending():
        if time or plan is not None:
            _time(Corpus(corpus), run, selection, plan, as_json=as_json)
            return
        found = corpus_stats(Corpus(corpus), run, selection)
        if as_json:
            typer.echo(json.dumps(asdict(found)))
        else:
            print_stats(out, found)


def _time(corpus: Corpus, run: str | None, selection: str | None, plan: Path | None, *, as_json: bool) -> None:
    """What a run took, beside a plan if there is one."""
    from curate.cli.forecasts import print_compared, print_taken
    from curate.estimate.compare import compare, taken
    from curate.estimate.forecast import Forecast
    from curate.query import last_run

    corpus.check()
    run_id = run or last_run(corpus)
    found = taken(corpus, run_id)
    rows = compare(corpus, run_id, Forecast.from_json(plan.read_text(), str(plan)), selection) if plan else []
    if as_json:
        compared = [{**asdict(row), "ratio": row.ratio, "inside": row.inside} for row in rows]
        typer.echo(json.dumps({**asdict(found), "compared": compared}))
        return
    print_taken(out, found)
    if rows:
        print_compared(out, rows)


def show(
    corpus: CorpusName,
    clip_id: Annotated[str, typer.Argument(metavar="CLIP_ID", help="A clip's id, or the beginning of it.")],
    run: RunName = None,
    png: Annotated[Path | None, typer.Option(help="Where to write the contact sheet; default CLIP_ID.png.")] = None,
) -> None:
    """All cells of one clip, where it comes from, and a contact sheet as PNG.

    Example: `curate show corpus 3f2a --png clip.png`
    """
    from curate.inspection import clip_picture, find_clip
    from curate.tables import Corpus

    with ending():
        record = find_clip(Corpus(corpus), clip_id, run)
        _print_clip(record)
        for stage, cell in record.cells.items():
            _print_traceback(stage, cell)
        # The id comes from a table that another wrote: as a file name it may lead nowhere else.
        target = png or Path(f"{re.sub('[^0-9A-Za-z-]', '_', record.clip.clip_id)}.png")
        target.write_bytes(clip_picture(record))
        out.print(f"Contact sheet: {plain(target)}", soft_wrap=True)


def _print_clip(record: ClipRecord) -> None:
    from curate.tables import BOOKKEEPING

    clip, no_values = record.clip, {*BOOKKEEPING, "key", "outcome", "error_traceback"}
    out.print(f"[bold]Clip[/] {plain(clip.clip_id)}")
    for uri in record.uris:
        out.print(f"  of {plain(uri)}", soft_wrap=True)
    out.print(f"  stream {clip.stream} of content sha256 {clip.source_digest}", soft_wrap=True)
    out.print(
        f"  {float(clip.start_s):.3f} s to {float(clip.end_s):.3f} s ({format_duration(float(clip.duration_s))}), "
        f"pts {clip.start_pts} to {clip.end_pts} in units of {clip.time_base} s",
        soft_wrap=True,
    )
    begins, ends = _edge(clip.start_kind, clip.start_detector), _edge(clip.end_kind, clip.end_detector)
    out.print(f"  begins with {begins}, ends with {ends}", soft_wrap=True)
    if record.mark is not None:
        said = "".join(
            f"{mark} {plain(text)}" for mark, text in ((" by", record.mark.by), (":", record.mark.note)) if text
        )
        out.print(f"  marked {plain(record.mark.verdict)}{said}", soft_wrap=True)
    for name, verdict in record.verdicts.items():
        why = f": {plain(verdict['reason'])}" if verdict["reason"] else ""
        out.print(f"  selection {plain(name)}: {plain(verdict['verdict'])}{why}", soft_wrap=True)
    for stage, cell in record.cells.items():
        table = grid(plain(f"{stage} {record.fingerprints[stage]}"), plain(cell["outcome"]))
        for column, value in cell.items():
            if value is not None and column not in no_values:
                table.add_row(f"  {plain(column)}", plain(_short(value)))
        out.print(table)


def _edge(kind: object, detector: str) -> str:
    words = plain(kind).replace("_", " ")
    return f"{words} ({plain(detector)})" if detector else words


def _print_traceback(stage: str, cell: dict[str, Any]) -> None:
    if cell.get("error_traceback"):
        out.print(f"[bold]Traceback of {plain(stage)}[/]")
        for line in cell["error_traceback"].splitlines():
            out.print(f"  {plain(line)}", soft_wrap=True)


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        if not value:
            return "none"
        head = ", ".join(_short(item) for item in value[:6])
        return f"[{head}{', ...' if len(value) > 6 else ''}] ({len(value)})"
    return str(value)
