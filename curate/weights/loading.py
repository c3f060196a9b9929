"""Reading weights without running what a file says: safetensors, or pickles limited to tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from curate.errors import ModelFileError
from curate.stage import boundary
from curate.storage import storage_error


def load_state(path: str) -> dict[str, Any]:
    """Tensors by name from a ``.safetensors`` file or a PyTorch checkpoint, on the CPU.

    A checkpoint that wraps them (``state_dict``, ``model``) is unwrapped. ModelFileError when the file is neither, or
    when it asks for code to be run; StorageError when it cannot be read.
    """
    import torch

    with boundary() as caught:  # the readers raise whatever the bytes make them do
        found = _read(path)
    if isinstance(caught.error, OSError):
        raise storage_error(caught.error, path) from caught.error
    if caught.error is not None:
        what = "whole safetensors file" if _is_safe(path) else "checkpoint that holds tensors alone"
        fix = "Fetch it again" if _is_safe(path) else "Convert it to safetensors"
        raise ModelFileError(f"is no {what}: {caught.error}", subject=path, fix=fix) from caught.error
    for wrapper in ("state_dict", "model"):
        if isinstance(found, dict) and isinstance(found.get(wrapper), dict):
            found = found[wrapper]
    if not isinstance(found, dict) or not all(isinstance(value, torch.Tensor) for value in found.values()):
        raise ModelFileError("holds something else than tensors by name", subject=path)
    return found


def _is_safe(path: str) -> bool:
    return Path(path).suffix == ".safetensors"


def _read(path: str) -> Any:
    if _is_safe(path):
        from safetensors.torch import load_file

        return load_file(path)
    import torch

    return torch.load(path, map_location="cpu", weights_only=True)
