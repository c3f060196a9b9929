"""`curate train`: a training stage on the shards of an export."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from curate.cli.console import EXIT_STOPPED, ending, err, out, plain
from curate.cli.sample import Device
from curate.cli.tables import grid
from curate.cli.training import training_libraries
from curate.units import format_bytes

if TYPE_CHECKING:
    from curate.train.recipe import TrainRecipe

EPILOG = (
    "The stages of the paper, in their order: `image-time`, `image`, `video-256x384`, `video-320x576`, "
    "`image-to-video-320x576`, `image-to-video-576x1024`, `image-to-video-576x1024x25`; on a CPU `tiny-image`, "
    "`tiny-video`, `tiny-image-to-video`. On several GPUs: `torchrun --nproc-per-node 8 -m curate train ...`"
)


def train_command(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A stage: a name below, or a YAML file.")],
    data: Annotated[
        str, typer.Option(metavar="SHARDS", help="Shards of an export: CORPUS/shards/NAME, anywhere.")
    ] = "",
    out_folder: Annotated[
        Path | None,
        typer.Option("--out", metavar="FOLDER", help="Where the run goes, or goes on; default train/RECIPE."),
    ] = None,
    init: Annotated[
        str,
        typer.Option(metavar="FOLDER", help="What it starts from: a run, or a folder of diffusers. Default: nothing."),
    ] = "",
    encoders: Annotated[
        str,
        typer.Option(
            metavar="FOLDER", help="Autoencoder and CLIP, where --init has others or none; `tiny` for random."
        ),
    ] = "",
    latents: Annotated[str, typer.Option(metavar="PLACE", help="What `curate latents` wrote.")] = "",
    sets: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a key: `optimiser.lr=2e-5`.")
    ] = None,
    device: Device = "auto",
    plan: Annotated[bool, typer.Option("--plan", help="Say what it costs, and start nothing.")] = False,
    world: Annotated[int, typer.Option(min=1, metavar="N", help="With --plan: so many devices.")] = 1,
    device_kind: Annotated[
        str, typer.Option(metavar="NAME", help="With --plan: for devices of this kind, such as `H100`.")
    ] = "",
) -> None:
    """Train one stage of latent video diffusion. The same command goes on where it was stopped.

    Example: `curate train tiny-image --data demo/corpus/shards/embedded --out train/image`
    """
    with ending(), training_libraries():
        from curate.errors import UsageError
        from curate.train.recipe import load_train_recipe

        if device_kind and not plan:
            text = "a run takes the devices that there are"
            raise UsageError(text, subject="--device-kind", fix="Add --plan, or name a device with --device")

        found = load_train_recipe(recipe, sets or [])
        folder = out_folder or Path("train") / found.name
        if plan:
            _plan(found, init, encoders, device, device_kind, world, latents=bool(latents))
            return
        _train(found, data, folder, init, encoders, latents, device)


def _train(recipe: TrainRecipe, data: str, folder: Path, init: str, encoders: str, latents: str, device: str) -> None:
    from curate.errors import UsageError
    from curate.train.run import Job, train

    if not data:
        raise UsageError("no shards are named", subject="--data", fix="Give --data CORPUS/shards/NAME")

    def tell_row(step: int, row: Mapping[str, float]) -> None:
        out.print(f"step {step}/{recipe.steps}  {_in_words(row)}", soft_wrap=True)

    found = train(Job(recipe, data, folder, init, encoders, latents, device, tell_row, _tell_start))
    if found.stopped and not found.is_first:
        raise typer.Exit(EXIT_STOPPED)
    if found.stopped:
        out.print(
            f"Stopped after step {found.step}, which is kept; the same command goes on from here.", soft_wrap=True
        )
        raise typer.Exit(EXIT_STOPPED)
    if found.model is not None and found.is_first:
        out.print(f"[bold]Model[/] {plain(found.model)}", soft_wrap=True)


def _tell_start(facts: Mapping[str, Any]) -> None:
    counts, world = facts["parameters"], facts["world"]
    out.print(
        f"{facts['clips']} clips to train on, in {len(facts['buckets'])} buckets: "
        + ", ".join(f"{name} ({count})" for name, count in facts["buckets"].items()),
        soft_wrap=True,
    )
    for reason, count in facts["left_out"].items():
        out.print(f"  {count} clips not: {plain(reason)}", soft_wrap=True)
    if facts["precomputed"]:
        out.print(f"Encoded beforehand: {', '.join(facts['precomputed'])}", soft_wrap=True)
    for warning in facts["warnings"]:
        err.print(f"[yellow]Warning[/] {plain(warning)}", soft_wrap=True)
    out.print(
        f"Parameters: {counts.trainable:,} of {counts.total:,} learn "
        f"(spatial {counts.spatial:,}, temporal {counts.temporal:,}, vector {counts.vector:,}); "
        f"{world.size} x {world.device}",
        soft_wrap=True,
    )
    if facts["resumed_at"]:
        out.print(f"Going on after step {facts['resumed_at']}", soft_wrap=True)


def _in_words(row: Mapping[str, float]) -> str:
    """A row of the log in a line."""
    if "loss" not in row:
        levels = "  ".join(f"{name.rpartition('_')[2]}: {value:.3f}" for name, value in row.items() if "sigma_" in name)
        moves = {name.split("/")[1]: value for name, value in row.items() if name.endswith("flow_width_s")}
        drawn = "".join(f"  {name} moves {value:.3f} widths/s" for name, value in moves.items())
        return f"held-out loss {row['held_out/mean']:.4f} (by sigma {levels}){drawn}"
    parts = [f"loss {row['loss']:.4f}", f"gradient {row['gradient']:.3f}", f"{row['clips_per_s']:.2f} clips/s"]
    parts += [f"MFU {row['mfu']:.1%}"] if "mfu" in row else []
    parts += [f"waited {row['stall_share']:.0%}", format_bytes(int(row["memory_bytes"]))]
    return "  ".join(parts)


def _plan(recipe: TrainRecipe, init: str, encoders: str, device: str, kind: str, world: int, *, latents: bool) -> None:
    from curate.train.devices import device_facts, facts_of_kind
    from curate.train.distributed import shards, torch_device
    from curate.train.parts import clip_bytes, codec_factor, network_config
    from curate.train.plan import make_plan

    here = torch_device(device)
    found = make_plan(
        recipe,
        network_config(recipe, init),
        codec_factor(recipe, init, encoders),
        world=world,
        sharded=shards(recipe.run.sharding, "cuda" if kind else here.type),
        device=facts_of_kind(kind, recipe.precision) if kind else device_facts(here, recipe.precision),
        latents=latents,
        clip_bytes=clip_bytes(recipe, init, encoders),
    )
    table = grid("", "")
    for name, value in found.rows():
        table.add_row(name, value)
    out.print(table)
