"""Folders that appear whole or not at all, and parts of model folders, read whole or refused."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from curate.errors import ModelFileError, UsageError
from curate.storage import is_remote, storage_error

__all__ = [
    "MOTION",
    "TRAINED",
    "atomic_folder",
    "check_writable",
    "load_part",
    "reading",
    "remove_folder",
    "resolve_model",
    "resolved",
    "unfinished_of",
]

MOTION = "motion.json"
"""File of a model folder with the motion calibration that the network was trained with."""
TRAINED = "train.json"
"""File of a model folder that says what it was trained on, and in which shape."""


def check_writable(folder: Path) -> None:
    """Make a folder, if it is not there, and see that files can be written in it; StorageError when not."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise storage_error(error, str(folder), writing=True) from error


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """An empty folder to fill; when the block ends it is on the disk and becomes ``path``, replacing what lay there.

    When the block fails, or the process dies in it, ``path`` stays what it was. One writer at a time: what an attempt
    that died left behind goes away with the next one. StorageError when it cannot be put in place.
    """
    path = path.absolute()
    unfinished, replaced = unfinished_of(path), path.with_name(f".{path.name}.replaced")
    try:
        if replaced.exists() and not path.exists():
            replaced.rename(path)  # an attempt died between the two renames below
        for leftover in (unfinished, replaced):
            shutil.rmtree(leftover, ignore_errors=True)
        unfinished.mkdir(parents=True)
    except OSError as error:
        raise storage_error(error, str(path), writing=True) from error
    try:
        yield unfinished
        _put_in_place(unfinished, path, replaced)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def unfinished_of(path: Path) -> Path:
    """Where `atomic_folder` fills a folder: for other processes that write into it too."""
    path = path.absolute()
    return path.with_name(f".{path.name}.unfinished")


def remove_folder(path: Path) -> None:
    """Remove a folder whose name stands for something whole: the name goes first, so that no half is taken for it.

    What a process that dies in it leaves behind begins with a dot and goes with the next call. StorageError when it
    cannot be removed.
    """
    going = path.with_name(f".{path.name}.going")
    try:
        shutil.rmtree(going, ignore_errors=True)
        if path.exists():
            path.rename(going)
            shutil.rmtree(going)
    except OSError as error:
        raise storage_error(error, str(path), writing=True) from error


def resolve_model(name: str | Path, part: str = "vae") -> Path:
    """The model folder that a path means: itself, or that of a training run, finished or of its newest checkpoint.

    ``part``: a file or folder that tells it. UsageError when there is none.
    """
    path = Path(name)
    checkpoints = sorted(path.glob("checkpoints/step-*/model"), key=_step, reverse=True)
    for folder in (path, path / "model", *checkpoints):
        if (folder / part).exists():
            return folder
    if not path.exists():
        raise UsageError("there is no such folder", subject=str(path))
    raise UsageError(
        f"holds no such model: no {part} in it, in model/ or in checkpoints/step-*/model/",
        subject=str(path),
        fix="Name a folder of diffusers, or what --out of `curate train` was",
    )


def resolved(place: str) -> str:
    """The place that a name means, however it is spelled and from wherever it is named; empty for none."""
    local = place.removeprefix("file://").removeprefix("local://")
    return str(Path(local).resolve()) if place and not is_remote(place) else place.rstrip("/")


def _step(model: Path) -> int:
    found = re.search(r"\d+$", model.parent.name)
    return int(found[0]) if found else -1


def _put_in_place(unfinished: Path, path: Path, replaced: Path) -> None:
    try:
        for folder, _, names in os.walk(unfinished):
            for file in (Path(folder, name) for name in names):
                _to_disk(file)
            _to_disk(Path(folder))
        if path.exists():
            path.rename(replaced)
        unfinished.rename(path)
        _to_disk(path.parent)
    except OSError as error:
        if replaced.exists() and not path.exists():
            replaced.rename(path)
        raise storage_error(error, str(path), writing=True) from error
    shutil.rmtree(replaced, ignore_errors=True)


def _to_disk(path: Path) -> None:
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


@contextmanager
def reading(folder: Path, part: str) -> Iterator[Path]:
    """The folder of a part of a model folder; ModelFileError, naming both, when it is not there or not readable."""
    if not (folder / part).is_dir():
        raise ModelFileError(f"has no folder {part!r}", subject=str(folder))
    try:
        yield folder / part
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        message = f"it lacks {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
        raise ModelFileError(f"{part!r} cannot be read: {message}", subject=str(folder)) from error


def load_part(kind: Any, folder: Path, part: str) -> Any:
    """A model of a diffusers or transformers class; only local files, only safetensors.

    ModelFileError also when weights are missing or of another shape: the libraries would leave them random.
    """
    with reading(folder, part) as found:
        model, info = kind.from_pretrained(found, local_files_only=True, use_safetensors=True, output_loading_info=True)
    lacking = [str(key) for name in ("missing_keys", "mismatched_keys") for key in info[name]]
    if lacking:
        message = f"{part!r} lacks {len(lacking)} weights of {kind.__name__}, such as {sorted(lacking)[0]}"
        raise ModelFileError(message, subject=str(folder))
    return model
