"""The two halves of an OpenCLIP model, built from a folder in the library's own hub format, without network.

    open_clip_config.json, open_clip_model.safetensors (or open_clip_pytorch_model.bin), tokenizer files for SigLIP

One half is kept; the other is let go as soon as the weights are read.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from curate.errors import MissingModelError, ModelFileError
from curate.weights.loading import load_state

if TYPE_CHECKING:
    import torch

_CONFIG = "open_clip_config.json"
_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin")
"""In the order in which open_clip itself looks for them."""


class ImageTower:
    """The image network with the library's own evaluation transform."""

    def __init__(self, folder: str, device: torch.device, dtype: torch.dtype) -> None:
        import_open_clip()
        from open_clip.transform import PreprocessCfg, image_transform_v2

        model, _ = _build(folder, device, dtype)
        self._network, self._device, self._dtype = model.visual, device, dtype
        self.image_px = int(np.max(self._network.image_size))
        preprocess: Any = self._network.preprocess_cfg
        self._transform: Any = image_transform_v2(PreprocessCfg(**preprocess), is_train=False)

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
        open_clip = import_open_clip()
        self._model, cfg = _build(folder, device, dtype)
        self._device = device
        # Texts need none of it, and it is the larger half.
        self._model.visual = None
        named = cfg["text_cfg"].get("hf_tokenizer_name")
        safe = {"local_files_only": True, "trust_remote_code": False} if named else {}
        try:
            self._tokenizer: Any = open_clip.get_tokenizer(f"local-dir:{folder}", **safe)
        except (OSError, ValueError) as error:
            raise ModelFileError(f"holds no tokenizer that can be read: {error}", subject=folder) from error

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


def import_open_clip() -> Any:
    """The library; MissingModelError with the command that installs it."""
    try:
        import open_clip
    except ImportError as error:
        raise MissingModelError(
            f"open_clip cannot be imported: {error}", subject="clip", fix="Run `pip install 'curate-video[clip]'`"
        ) from error
    return open_clip


def _build(folder: str, device: torch.device, dtype: torch.dtype) -> tuple[Any, dict[str, Any]]:
    """The whole model with its weights, and what its configuration says."""
    import torch

    open_clip = import_open_clip()
    precision = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}[dtype]
    cfg = _model_cfg(folder)
    weights = next((path for name in _WEIGHTS if (path := Path(folder) / name).is_file()), None)
    if weights is None:
        raise ModelFileError(f"holds none of {', '.join(_WEIGHTS)}", subject=folder)
    if weights.suffix != ".safetensors":
        # With old versions of torch, open_clip may fall back to reading a pickle without limits.
        load_state(str(weights))
    try:
        model: Any = open_clip.create_model(
            f"local-dir:{folder}", precision=precision, device=device, pretrained_text=False, require_pretrained=True
        )
    except (RuntimeError, ValueError, TypeError, KeyError, AttributeError, OSError) as error:
        raise ModelFileError(f"open_clip cannot make a model of it: {error}", subject=folder) from error
    return model.eval(), cfg


def _model_cfg(folder: str) -> dict[str, Any]:
    """The model's configuration, less what would be sought on a hub."""
    path = Path(folder) / _CONFIG
    try:
        cfg = json.loads(path.read_text(encoding="utf-8"))["model_cfg"]
        outside = [cfg["text_cfg"].get("hf_model_name"), cfg["vision_cfg"].get("timm_model_name")]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelFileError(f"is no configuration of an OpenCLIP model: {error!r}", subject=str(path)) from error
    if outside[0] or ":" in (outside[1] or ""):
        raise ModelFileError("names a network that lies on a hub, not in this folder", subject=str(path))
    return cfg
