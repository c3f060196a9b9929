"""`curate unpack`: a shard set as plain files, for other trainers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from curate.cli.console import ending, out, plain


def unpack_command(
    shards: Annotated[str, typer.Argument(metavar="SHARDS", help="A shard set: CORPUS/shards/NAME, anywhere.")],
    folder: Annotated[
        str, typer.Option("--out", metavar="FOLDER", help="Where the files go, on a disk of this machine.")
    ],
    bucket: Annotated[str, typer.Option(metavar="NAME", help="One bucket alone, such as `320x192x25`.")] = "",
) -> None:
    """Write the clips of a shard set as MP4 files, with lists of paths and captions that other trainers read.

    Example: `curate unpack corpus/shards/strict --out clips`
    """
    with ending():
        from curate.errors import UsageError
        from curate.shards.plain_files import unpack
        from curate.shards.reader import ShardSet
        from curate.storage import Place

        if "://" in folder:
            raise UsageError(
                "is no folder on a disk of this machine", subject="--out", fix="Copy the folder afterwards"
            )
        done = unpack(ShardSet.open(Place(shards)), Path(folder), bucket)
        without = f"; {done.without_caption} without a caption are left out" if done.without_caption else ""
        out.print(f"{done.n_clips} clips in {plain(folder)}{without}", soft_wrap=True)
