"""`curate retry`: what failed for a lasting reason, again."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from curate.cli.console import EXIT_FAILURES, ending, out, plain
from curate.cli.failures import ClassName, StageName
from curate.cli.look import CorpusName, RunName
from curate.cli.run import DecodeMemory, DecodeSeconds
from curate.units import format_duration

if TYPE_CHECKING:
    from curate.retry import RetryResult


def retry(
    corpus: CorpusName,
    run: RunName = None,
    stage: StageName = "",
    error_class: ClassName = "",
    engine: Annotated[Literal["ray", "inline"], typer.Option(help="Ray, or this process alone.")] = "ray",
    address: Annotated[str | None, typer.Option(help="An existing Ray cluster (`auto`, `ray://...`).")] = None,
    decode_memory_gb: DecodeMemory = 4.0,
    decode_s: DecodeSeconds = 60.0,
) -> None:
    """Compute again what failed in a run, lasting failures too, with the run's own recipe and inputs.

    A cell that succeeds now takes the place of the failed one; what waited for it, or was never computed, follows.
    Selections and shards stay as they are until `curate select` and `curate export` make them anew.

    Exit status 3 when something failed again.

    Example: `curate retry corpus --stage cut --class DecodeLimitError --decode-s 600`
    """
    with ending():
        from curate.cli.progress import watched
        from curate.engine.again import Again
        from curate.isolation import Limits
        from curate.retry import retry_job
        from curate.tables import Corpus

        again = Again(stage, error_class)
        limits = Limits(round(decode_memory_gb * 1e9), decode_s)
        with watched(out) as listener:
            done = retry_job(
                Corpus(corpus), again, listener, run_id=run or "", engine=engine, address=address, limits=limits
            )
        _print(done, corpus)
    if done.n_after:
        raise typer.Exit(EXIT_FAILURES)


def _print(done: RetryResult, corpus: str) -> None:
    if done.run is None:
        out.print("Nothing that failed in this run matches.")
        return
    out.print(f"Run {done.run.run_id} is complete after {format_duration(done.run.seconds)}.", soft_wrap=True)
    out.print(f"Tried again {done.n_before}: {done.n_before - done.n_after} went well, {done.n_after} failed again.")
    hints = {"failures": "what failed again, and why"} if done.n_after else {}
    hints |= {"select": "decide anew", "export": "write the shards anew"}
    out.print("[bold]Look next[/]")
    for command, what in hints.items():
        out.print(f"  curate {command:<9} {plain(shlex.quote(corpus))}   {what}", soft_wrap=True)
