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
from curate.stages.nets import NetConfig, place
from curate.weights.loading import load_state

if TYPE_CHECKING:
    import torch

_CONFIG = "open_clip_config.json"
_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin")
"""In the order in which open_clip itself looks for them."""


class Tower:
    """One half of a model: inputs of one shape in, unit vectors out.

    The network always runs at ``rows`` inputs, the last batch padded with zeros: matrix products of different sizes
    round differently, and a vector must not depend on what it was computed with. On a CPU that is one input.
    """

    def __init__(self, folder: str, config: NetConfig, rows: int) -> None:
        self.device, self.dtype = place(config)
        self.rows = 1 if self.device.type == "cpu" else rows
        self._model, self._cfg = _build(folder, self.device, self.dtype)

    def _embed(self, inputs: Sequence[torch.Tensor], forward: Callable[[torch.Tensor], torch.Tensor]) -> np.ndarray:
        """float32 (n, length) of n inputs of one shape."""
        import torch

        if self.device.type == "cpu":
            torch.set_num_threads(1)
        found: list[np.ndarray] = []
        with torch.inference_mode():
            for start in range(0, len(inputs), self.rows):
                part = torch.stack(list(inputs[start : start + self.rows]))
                padded = part.new_zeros(self.rows, *part.shape[1:])
                padded[: len(part)] = part
                vectors = forward(padded.to(self.device))[: len(part)].float()
                found.append(torch.nn.functional.normalize(vectors, dim=-1).cpu().numpy())
        return np.concatenate(found)


class ImageTower(Tower):
    """The image network with the library's own evaluation transform."""

    def __init__(self, folder: str, config: NetConfig, rows: int) -> None:
        import_open_clip()
        from open_clip.transform import PreprocessCfg, image_transform_v2

        super().__init__(folder, config, rows)
        self._network = self._model.visual
        self.image_px = int(np.max(self._network.image_size))
        preprocess: Any = self._network.preprocess_cfg
        self._transform: Any = image_transform_v2(PreprocessCfg(**preprocess), is_train=False)
        del self._model

    def embed(self, frames: Sequence[np.ndarray]) -> np.ndarray:
        """float32 (n, length), of length 1 each, of n RGB frames, uint8 (height, width, 3), of any sizes."""
        from PIL import Image

        inputs = [self._transform(Image.fromarray(frame)).to(self.dtype) for frame in frames]
        return self._embed(inputs, self._network)


class TextTower(Tower):
    """The text network with its tokenizer: the library's own, or the one that lies in the folder."""

    def __init__(self, folder: str, config: NetConfig, rows: int) -> None:
        open_clip = import_open_clip()
        super().__init__(folder, config, rows)
        # Texts need none of it, and it is the larger half.
        self._model.visual = None
        named = self._cfg["text_cfg"].get("hf_tokenizer_name")
        safe = {"local_files_only": True, "trust_remote_code": False} if named else {}
        try:
            self._tokenizer: Any = open_clip.get_tokenizer(f"local-dir:{folder}", **safe)
        except (OSError, ValueError) as error:
            raise ModelFileError(f"holds no tokenizer that can be read: {error}", subject=folder) from error

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """float32 (n, length), of length 1 each, of n texts; what is beyond the model's context is cut off."""
        return self._embed(list(self._tokenizer(list(texts))), self._model.encode_text)


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
