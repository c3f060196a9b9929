"""The two halves of an OpenCLIP model. One half is kept; the other is let go as soon as the weights are read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from curate.stages.openclip import load_model, load_tokenizer, load_transform

if TYPE_CHECKING:
    import torch


class ImageTower:
    """The image network with the library's own evaluation transform."""

    def __init__(self, folder: str, device: torch.device, dtype: torch.dtype) -> None:
        self._network: Any = load_model(folder, device, dtype).visual
        self._device, self._dtype = device, dtype
        self.image_px = int(np.max(self._network.image_size))
        self._transform: Any = load_transform(self._network)

    def pixels(self, frames: Sequence[np.ndarray]) -> torch.Tensor:
        """(n, 3, image_px, image_px) of n RGB frames, uint8 (height, width, 3), of any sizes."""
        import torch
        from PIL import Image

        return torch.stack([self._transform(Image.fromarray(frame)) for frame in frames]).to(self._dtype)

    def embed(self, pixels_n3hw: torch.Tensor) -> np.ndarray:
        """float32 (n, length), of length 1 each."""
        return _unit_vectors(self._network, pixels_n3hw, self._device)


class TextTower:
    """The text network with its tokenizer: the library's own, or the one that lies in the folder."""

    def __init__(self, folder: str, device: torch.device, dtype: torch.dtype) -> None:
        self._model: Any = load_model(folder, device, dtype)
        self._device = device
        # Texts need none of it, and it is the larger half.
        self._model.visual = None
        self._tokenizer: Any = load_tokenizer(folder)

    def tokens(self, texts: Sequence[str]) -> torch.Tensor:
        """int64 (n, context); what is beyond the model's context is cut off."""
        return self._tokenizer(list(texts))

    def embed(self, tokens_nl: torch.Tensor) -> np.ndarray:
        """float32 (n, length), of length 1 each."""
        return _unit_vectors(self._model.encode_text, tokens_nl, self._device)


def _unit_vectors(
    forward: Callable[[torch.Tensor], torch.Tensor], inputs: torch.Tensor, device: torch.device
) -> np.ndarray:
    import torch

    with torch.inference_mode():
        vectors_nd = forward(inputs.to(device, non_blocking=True)).float()
        return torch.nn.functional.normalize(vectors_nd, dim=-1).cpu().numpy()
