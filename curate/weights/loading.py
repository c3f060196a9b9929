"""Reading weights without running what a file says: safetensors, or pickles limited to tensors."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

from curate.errors import ModelFileError


def load_state(path: str) -> dict[str, Any]:
    """Tensors by name from a ``.safetensors`` file or a PyTorch checkpoint, on the CPU.

    A checkpoint that wraps them (``state_dict``, ``model``) is unwrapped. ModelFileError when the file is neither, or
    when it asks for code to be run.
    """
    import torch

    try:
        if Path(path).suffix == ".safetensors":
            from safetensors import SafetensorError
            from safetensors.torch import load_file

            try:
                return load_file(path)
            except SafetensorError as error:
                raise ModelFileError(f"is no whole safetensors file: {error}", subject=path) from error
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ModelFileError(
            f"is no checkpoint that holds tensors alone: {error}", subject=path, fix="Convert it to safetensors"
        ) from error
    for wrapper in ("state_dict", "model"):
        if isinstance(found, dict) and isinstance(found.get(wrapper), dict):
            found = found[wrapper]
    if not isinstance(found, dict) or not all(isinstance(value, torch.Tensor) for value in found.values()):
        raise ModelFileError("holds something else than tensors by name", subject=path)
    return found
