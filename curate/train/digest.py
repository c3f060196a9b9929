"""Which encoder it is that made a tensor: one digest for all of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

_NOT_SETTINGS = frozenset({"transformers_version", "architectures", "dtype"})
"""Keys of transformers that tell who wrote a configuration, or repeat what the weights say."""


def digest_of(config: Mapping[str, Any], model: nn.Module) -> str:
    """sha256 over configuration and weights: tensors of encoders with the same digest may be mixed.

    Keys that begin with an underscore say where a model was read from; they are left out.
    """
    settings = {key: value for key, value in config.items() if not key.startswith("_") and key not in _NOT_SETTINGS}
    found = hashlib.sha256(json.dumps(settings, sort_keys=True, default=list).encode())
    for name, tensor in sorted(model.state_dict().items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
