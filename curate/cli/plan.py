"""`curate plan`: what a run will take and give, from a sample of its sources."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from curate.cli.console import ending, err, out, plain
from curate.cli.forecasts import print_forecast

if TYPE_CHECKING:
    from curate.estimate import Cluster
    from curate.watch.listener import JobListener

EPILOG = """
**Examples**

- A folder, on this machine: `curate plan videos/ --recipe embedded --sample 5%`
- A bucket, for four machines: `curate plan s3://bucket/raw --sample 50 --nodes 4 --cpus 32 --memory-gb 128`
- Kept, to compare with: `curate plan videos/ --save plan.json`, after the run `curate stats corpus --plan plan.json`
- Go on in the sample's corpus: `curate plan videos/ --keep corpus`, then `curate run videos/ --out corpus`
- A captioner measured elsewhere: `curate plan videos/ --recipe svd --gpus 1 --device-speed caption.vblip=1.5`
"""

Sets = Annotated[
    list[str] | None, typer.Option("--set", metavar="STAGE.KEY=VALUE", help="Change one key of the recipe.")
]
Patterns = Annotated[
    list[str] | None,
    typer.Option("--stages", metavar="PATTERN", help="Plan only stages whose name matches, and what they read."),
]
Sample = Annotated[
    str, typer.Option(metavar="SHARE|N", help="Try so much of it: `1%`, `0.01`, or `20` sources. At least 8.")
]
Speeds = Annotated[
    list[str] | None,
    typer.Option("--device-speed", metavar="STAGE=CLIPS_PER_S", help="How fast one worker of a stage is there."),
]


def plan(
    sources: Annotated[
        list[str],
        typer.Argument(metavar="SOURCE...", help="Files, folders, globs, lists (.txt .csv .parquet), tars, or URIs."),
    ],
    recipe: Annotated[str, typer.Option(help="A recipe's name, or a YAML file.")] = "embedded",
    sets: Sets = None,
    stages: Patterns = None,
    sample: Sample = "1%",
    seed: Annotated[int, typer.Option(help="Seed of `--sample`.")] = 0,
    engine: Annotated[Literal["ray", "inline"], typer.Option(help="Ray, or this process alone.")] = "ray",
    address: Annotated[
        str | None, typer.Option(help="Try the sample on this Ray cluster (`auto`, `ray://...`).")
    ] = None,
    nodes: Annotated[int | None, typer.Option(min=1, help="Plan for so many machines; default this one.")] = None,
    cpus: Annotated[int | None, typer.Option(min=1, help="CPUs of each of them.")] = None,
    gpus: Annotated[int | None, typer.Option(min=0, help="GPUs of each of them.")] = None,
    memory_gb: Annotated[float | None, typer.Option(min=1, help="Memory of each of them.")] = None,
    speeds: Speeds = None,
    keep: Annotated[str, typer.Option(metavar="FOLDER", help="Keep the sample's corpus; a run may go on in it.")] = "",
    save: Annotated[Path | None, typer.Option(metavar="FILE", help="Keep the plan as JSON, to compare with.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for other programs.")] = False,
    follow_links: Annotated[bool, typer.Option("--follow-links", help="Take links that leave a folder.")] = False,
) -> None:
    """Say what a run will take: hours, CPU- and GPU-hours, storage, clips kept, and the stage that holds the rest up.

    A sample of the sources goes through the real job: scores, selection, shards. Nothing is written but where --keep or
    --save say.
    """
    with ending():
        from curate.cli.progress import shown
        from curate.estimate import PlanOptions, SampleSize, make_plan
        from curate.recipe import load_recipe

        options = PlanOptions(
            sample=SampleSize.parse(sample),
            seed=seed,
            cluster=_cluster(nodes, cpus, gpus, memory_gb, address),
            engine=engine,
            address=address,
            keep=keep,
            only_stages=tuple(stages or ()),
            follow_links=follow_links,
            speeds=dict(map(_speed, speeds or ())),
        )
        with shown(err if as_json else out) as listener:
            forecast = make_plan(sources, load_recipe(recipe, sets or []), options, listener, _counted(listener))
        if save is not None:
            save.write_text(forecast.to_json(), encoding="utf-8")
        if as_json:
            typer.echo(json.dumps(forecast.to_dict()))
        else:
            print_forecast(out, forecast)
            if save is not None:
                out.print(f"[bold]Plan[/] {plain(save)}", soft_wrap=True)


def _counted(listener: JobListener) -> Callable[[int, int], None]:
    """Tells now and then how many of how many files were read through."""
    from curate.cli.progress import LOG_EVERY_S

    last_s = time.monotonic()

    def counted(done: int, total: int) -> None:
        nonlocal last_s
        if time.monotonic() - last_s >= LOG_EVERY_S:
            last_s = time.monotonic()
            listener.step(f"Read through {done} of {total} files")

    return counted


def _cluster(
    nodes: int | None, cpus: int | None, gpus: int | None, memory_gb: float | None, address: str | None
) -> Cluster | None:
    """What the options say of the machines; None for this one."""
    from curate.errors import UsageError
    from curate.estimate import Cluster

    if nodes is None and cpus is None and gpus is None and memory_gb is None:
        if address is not None:
            fix = "Say it with --nodes, --cpus, --gpus and --memory-gb"
            raise UsageError("does not tell which machines to plan for", subject="--address", fix=fix)
        return None
    here = Cluster.here()
    memory_bytes = round(memory_gb * 1e9) if memory_gb is not None else None
    if memory_bytes is None and cpus is None:
        memory_bytes = here.memory_bytes
    return Cluster(nodes or 1, cpus or here.cpus, gpus or 0, memory_bytes)


def _speed(text: str) -> tuple[str, float]:
    from curate.errors import ConfigError

    found = re.fullmatch(r"([\w.]+)=(\d+(?:\.\d+)?|\.\d+)", text)
    if not found or not float(found[2]):
        fix = "Say `caption.vblip=1.5`, in clips a second"
        raise ConfigError(f"{text!r} is no stage with its speed", subject="--device-speed", fix=fix)
    return found[1], float(found[2])
