"""`curate sample`: a clip from a picture."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from curate.cli.bars import Counted
from curate.cli.console import ending, out, plain
from curate.cli.training import training_libraries
from curate.errors import UsageError
from curate.units import format_duration

if TYPE_CHECKING:
    from curate.train.sampling_run import Checkpoint

_USUAL_MOTION = 127.0

EPILOG = """
**Examples**

- A training run: `curate sample runs/image-to-video --image dog.jpg --fps 7 --motion 127 --out dog.mp4`
- Much motion, with a fixed seed: `curate sample CHECKPOINT --image dog.jpg --motion 230 --seed 7 --out dog.mp4`
- A longer clip: `curate sample CHECKPOINT --image dog.jpg --chain 3 --out dog.mp4`
"""

Device = Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Where to compute; `auto` is a GPU if any.")]


def sample_command(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CHECKPOINT", help="A StableVideoDiffusionPipeline folder, or a training run's.")
    ],
    image: Annotated[Path, typer.Option(help="The first frame: turned upright, scaled, cropped in the middle.")],
    movie: Annotated[str, typer.Option("--out", metavar="MP4", help="File or URI of the clip.")],
    fps: Annotated[float, typer.Option(help="Frames a second, as the network is told and the file says.")] = 7.0,
    motion: Annotated[float | None, typer.Option(help="Motion bucket, 0 to 255; default 127.")] = None,
    motion_score: Annotated[
        float | None, typer.Option(help="Motion in the unit of the training data's score, in place of a bucket.")
    ] = None,
    frames: Annotated[int | None, typer.Option(min=1, help="Frames of a clip; default as trained.")] = None,
    width: Annotated[int | None, typer.Option(min=1, help="Pixels; default as trained.")] = None,
    height: Annotated[int | None, typer.Option(min=1, help="Pixels; default as trained.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of all noise.")] = 0,
    steps: Annotated[int, typer.Option(help="Sampling steps.")] = 25,
    guidance: Annotated[
        str, typer.Option(metavar="FIRST:LAST", help="Guidance of the first and the last frame, linear in between.")
    ] = "1:3",
    augmentation: Annotated[float, typer.Option(help="Sigma of the noise on the first frame.")] = 0.02,
    decode_chunk: Annotated[
        int | None, typer.Option(help="Frames that are decoded at once; default all. Fewer need less memory.")
    ] = None,
    chain: Annotated[int, typer.Option(min=1, help="Clips in a row, each from the last frame before it.")] = 1,
    device: Device = "auto",
) -> None:
    """Draw a clip that begins with a picture, from an image-to-video checkpoint."""
    began_s = time.monotonic()
    with ending(), training_libraries():
        from curate.config import parse_config
        from curate.train.distributed import torch_device
        from curate.train.movie import rate_of, read_picture, write_movie
        from curate.train.sampler import Sampling
        from curate.train.sampling_run import Checkpoint, draw

        _check_out(movie)
        rate_of(fps)
        found = Checkpoint.read(checkpoint)
        told = {"steps": steps, "fps": fps, "motion": _motion(found, motion, motion_score), **_guidance(guidance)}
        told |= {"augmentation": augmentation, "decode_chunk": decode_chunk}
        settings = parse_config(Sampling, told, "sample")
        shape, where = found.fitting(width, height, frames), torch_device(device)
        picture = read_picture(image, shape.width_px, shape.height_px)
        pipeline = found.load(where)
        with Counted(out, "steps") as bar:
            clip = draw(pipeline, picture, shape.frames, settings, seed, chain=chain, on_progress=bar)
        write_movie(movie, clip, fps)
        out.print(
            f"{plain(movie)}: {len(clip)} frames of {shape.width_px}x{shape.height_px} at {fps:g} frames/s "
            f"({format_duration(len(clip) / fps)}), motion bucket {settings.motion:.4g}, seed {seed}, "
            f"in {format_duration(time.monotonic() - began_s)} on {where}",
            soft_wrap=True,
        )


def _check_out(movie: str) -> None:
    """Before anything is computed."""
    if not movie.lower().endswith(".mp4"):
        raise UsageError("is to be an MP4 file, and named so", subject=f"--out {movie}")


def _motion(checkpoint: Checkpoint, bucket: float | None, score: float | None) -> float:
    if score is None:
        return _USUAL_MOTION if bucket is None else bucket
    if bucket is not None:
        raise UsageError("--motion and --motion-score say the same thing twice", fix="Give one of them")
    return checkpoint.motion_of(score)


def _guidance(text: str) -> dict[str, float]:
    first, _, last = text.partition(":")
    try:
        found = {"guidance_first": float(first), "guidance_last": float(last or first)}
    except ValueError as error:
        raise UsageError(f"must be a number, or two such as 1:3, not {text!r}", subject="--guidance") from error
    if not all(map(math.isfinite, found.values())):
        raise UsageError(f"must be finite, not {text!r}", subject="--guidance")
    return found
