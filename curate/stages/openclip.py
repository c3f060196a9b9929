"""Models of open_clip, built from a folder in the library's own hub format, without network.

open_clip_config.json, open_clip_model.safetensors (or open_clip_pytorch_model.bin), tokenizer files for SigLIP
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.errors import ModelFileError
from curate.packages import needed, of_extra
from curate.weights.loading import load_state

if TYPE_CHECKING:
    import torch

PACKAGES = of_extra("clip", "open_clip")
(_OPEN_CLIP,) = PACKAGES
(_TRANSFORMERS,) = of_extra("clip", "transformers")

_CONFIG = "open_clip_config.json"
_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin")
"""In the order in which open_clip itself looks for them."""


def load_model(folder: str, device: torch.device, dtype: torch.dtype, *, pure: bool = False) -> Any:
    """The whole model with its weights, ready to run.

    ``pure``: everything is in ``dtype``; else open_clip keeps in float32 what it thinks needs that. MissingModelError
    without the library, ModelFileError for a folder of something else, or of a model that would be sought on a hub.
    """
    import torch

    open_clip = needed(_OPEN_CLIP)
    precision = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}[dtype]
    _text_cfg(folder)
    weights = next((path for name in _WEIGHTS if (path := Path(folder) / name).is_file()), None)
    if weights is None:
        raise ModelFileError(f"holds none of {', '.join(_WEIGHTS)}", subject=folder)
    if weights.suffix != ".safetensors":
        # With old versions of torch, open_clip may fall back to reading a pickle without limits.
        load_state(str(weights))
    try:
        model: Any = open_clip.create_model(
            f"local-dir:{folder}",
            precision=f"pure_{precision}" if pure and dtype != torch.float32 else precision,
            device=device,
            pretrained_text=False,
            require_pretrained=True,
            weights_only=True,
        )
    except _broken() as error:
        raise ModelFileError(f"open_clip cannot make a model of it: {error}", subject=folder) from error
    return model.eval()


def load_tokenizer(folder: str) -> Any:
    """The library's own tokenizer, or the one that lies in the folder; errors as for ``load_model``."""
    named = _text_cfg(folder).get("hf_tokenizer_name")
    if named:
        needed(_TRANSFORMERS)
    safe = {"local_files_only": True, "trust_remote_code": False} if named else {}
    try:
        return needed(_OPEN_CLIP).get_tokenizer(f"local-dir:{folder}", **safe)
    except (OSError, ValueError) as error:
        raise ModelFileError(f"holds no tokenizer that can be read: {error}", subject=folder) from error


def load_transform(network: Any) -> Any:
    """The library's evaluation transform for an image network: a Pillow picture to float32 (3, height, width)."""
    transform = needed(_OPEN_CLIP, "transform")
    return transform.image_transform_v2(transform.PreprocessCfg(**network.preprocess_cfg), is_train=False)


def _broken() -> tuple[type[Exception], ...]:
    """What open_clip raises for folders that hold something else; with ``weights_only`` no pickle runs anything."""
    import pickle

    from safetensors import SafetensorError

    usual = (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, EOFError)
    return *usual, pickle.UnpicklingError, SafetensorError


def _text_cfg(folder: str) -> dict[str, Any]:
    """What the configuration says of the text network; ModelFileError when it names one that lies on a hub."""
    path = Path(folder) / _CONFIG
    try:
        cfg = json.loads(path.read_text(encoding="utf-8"))["model_cfg"]
        outside = [cfg["text_cfg"].get("hf_model_name"), cfg["vision_cfg"].get("timm_model_name")]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelFileError(f"is no configuration of an OpenCLIP model: {error!r}", subject=str(path)) from error
    if outside[0] or ":" in (outside[1] or ""):
        raise ModelFileError("names a network that lies on a hub, not in this folder", subject=str(path))
    return cfg["text_cfg"]
