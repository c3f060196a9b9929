"""Exponential moving average of what learns: the weights that are judged, sampled and exported (decay 0.9999)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from curate.train.distributed import local

__all__ = ["Average"]


class Average:
    """The average of a network's learning parameters, in float32, sharded as they are.

    In the first steps a smaller decay is used, (1 + step) / (10 + step), so that the start is forgotten.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self._decay = decay
        self._live: dict[str, Any] = {name: p for name, p in network.named_parameters() if p.requires_grad}
        self.tensors: dict[str, Tensor] = {name: p.detach().clone() for name, p in self._live.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the parameters after step number ``step`` (the first is 0)."""
        decay = min(self._decay, (1 + step) / (10 + step))
        ours = [local(tensor) for tensor in self.tensors.values()]
        torch._foreach_lerp_(  # pyright: ignore[reportPrivateImportUsage]
            ours, [local(p.detach()) for p in self._live.values()], 1 - decay
        )

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Within, the network computes with the average."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        for name, parameter in self._live.items():
            ours, theirs = local(self.tensors[name]), local(parameter.detach())
            kept = theirs.clone()
            theirs.copy_(ours)
            ours.copy_(kept)
