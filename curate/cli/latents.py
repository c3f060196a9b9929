"""`curate latents`: encode the clips of a shard set once, before training."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console

from curate.cli.bars import Counted
from curate.cli.console import ending, out, plain
from curate.cli.sample import Device
from curate.cli.training import training_libraries
from curate.config import nearest
from curate.errors import ConfigError, ModelFileError, UsageError
from curate.units import format_duration

if TYPE_CHECKING:
    from curate.train.data.catalogue import Catalogue
    from curate.train.encoders import Encoders
    from curate.train.latents import Precomputed
    from curate.train.recipe import TrainRecipe

TINY = "tiny"
"""The encoders that small runs start with, in place of a folder."""

_MOST_LOST = 10
_KINDS = ("video", "image", "text")


def latents_command(
    shards: Annotated[str, typer.Argument(metavar="SHARDS", help="A shard set, as `curate export` writes it.")],
    recipe: Annotated[str, typer.Option(help="The stage's recipe, by name or as a YAML file: says sizes, captions.")],
    encoders: Annotated[
        str, typer.Option(metavar="FOLDER|tiny", help="A diffusers folder with vae/ and the encoders beside it.")
    ],
    place: Annotated[str, typer.Option("--out", help="Folder or URI where all that is encoded lies.")],
    sets: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a key.")] = None,
    what: Annotated[
        str, typer.Option(metavar="KIND,...", help="Of video, image and text; default what the stage is told.")
    ] = "",
    dtype: Annotated[Literal["float16", "float32"], typer.Option(help="Numbers as they are stored.")] = "float16",
    device: Device = "auto",
) -> None:
    """Encode every clip of a stage once: latents, embeddings of its frames, embeddings of its captions.

    What is there already is not computed again: the same command goes on. Processes that decode: `--set run.workers=8`.
    On several GPUs: `torchrun --nproc-per-node 8 -m curate latents ...`; each takes its share of the shards.

    Example: `curate latents corpus/shards/svd --recipe video-256x384 --encoders sd21/ --out latents`
    """
    with ending(), training_libraries():
        from curate.shards.reader import ShardSet
        from curate.storage import Place
        from curate.train.data.worker import Ahead
        from curate.train.distributed import this_process
        from curate.train.latents import Work, all_clips, precompute, precompute_texts
        from curate.train.recipe import load_train_recipe

        began_s, (rank, world, where) = time.monotonic(), this_process(device)
        stage = load_train_recipe(recipe, sets or [])
        models = _encoders(encoders, stage)
        chosen = {kind: _encoder(models, kind, encoders) for kind in _kinds(what, stage)}
        catalogue = all_clips(ShardSet.open(Place(shards)), stage.data)
        for encoder in chosen.values():
            encoder.to(where)
        if rank == 0:
            _print_clips(catalogue)
        for kind, encoder in chosen.items():
            with Counted(out if rank == 0 else Console(quiet=True), kind) as bar:
                ahead = Ahead(stage.run.workers, stage.run.prefetch)
                work = Work(dtype=dtype, ahead=ahead, rank=rank, world=world, device=str(where), on_part=bar)
                if kind == "text":
                    report = precompute_texts(catalogue, encoder, stage.data.captions, Place(place), work)
                else:
                    report = precompute(catalogue, encoder, Place(place), work)
            _print_report(kind, report)
        share = f"Share {rank + 1} of {world} complete" if world > 1 else "Complete"
        out.print(f"{share} after {format_duration(time.monotonic() - began_s)} on {where}.")


def _kinds(what: str, stage: TrainRecipe) -> list[str]:
    if not what:
        told = {"video": True, "image": stage.kind == "image-to-video", "text": bool(stage.data.captions)}
        return [kind for kind, wanted in told.items() if wanted]
    kinds = list(dict.fromkeys(kind.strip() for kind in what.split(",")))
    for kind in kinds:
        if kind not in _KINDS:
            raise UsageError(f"nothing is called {kind!r}, {nearest(kind, _KINDS)}", subject="--what")
    if "text" in kinds and not stage.data.captions:
        raise ConfigError("the stage is told no captions", subject="data.captions", fix="Leave text out of --what")
    return kinds


def _encoders(folder: str, stage: TrainRecipe) -> Encoders:
    from curate.train.encoders import Encoders
    from curate.train.folders import resolve_model
    from curate.train.network import preset_config

    if folder == TINY:
        return Encoders.tiny(preset_config(stage.network)["cross_attention_dim"])
    return Encoders.load(resolve_model(folder))


def _encoder(models: Encoders, kind: str, folder: str) -> Any:
    found = {"video": models.codec, "image": models.image, "text": models.text}[kind]
    if found is None:
        parts = {"image": "image_encoder/ and feature_extractor/", "text": "text_encoder/ and tokenizer/"}[kind]
        raise ModelFileError(f"has no {parts}", subject=folder, fix=f"Give another folder, or leave out {kind}")
    return found


def _print_clips(catalogue: Catalogue) -> None:
    buckets = ", ".join(bucket.name for bucket in catalogue.buckets)
    out.print(f"{catalogue.n_clips} clips in buckets {plain(buckets)}", soft_wrap=True)
    for reason, count in catalogue.left_out.items():
        out.print(f"  {count} clips left out: {plain(reason)}", soft_wrap=True)


def _print_report(kind: str, report: Precomputed) -> None:
    out.print(
        f"[bold]{kind}[/] {plain(report.folder)}: {report.encoded} encoded, {report.found} found, "
        f"{report.without} without, {len(report.lost)} lost",
        soft_wrap=True,
    )
    for lost in report.lost[:_MOST_LOST]:
        out.print(f"  lost {plain(lost.clip_id)} of {plain(lost.shard)}: {plain(lost.reason)}", soft_wrap=True)
    if len(report.lost) > _MOST_LOST:
        out.print(f"  and {len(report.lost) - _MOST_LOST} more")
