"""Small OpenCLIP models with random weights, in the library's hub format, and aesthetic heads of the real shapes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from model_kit import ModelKit
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from curate.weights.cards import Card, load_card
from curate.weights.store import fetch, model_dir

OPENAI_LIKE: dict[str, Any] = {
    "model_cfg": {
        "embed_dim": 24,
        "quick_gelu": True,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8, "head_width": 32},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
    },
    "preprocess_cfg": {},
}
"""As ViT-L-14 with OpenAI's weights: QuickGELU, a class token, the library's own tokenizer, the middle cut out."""

SIGLIP_LIKE: dict[str, Any] = {
    "model_cfg": {
        "embed_dim": 96,
        "init_logit_bias": -10,
        "custom_text": True,
        "vision_cfg": {
            "image_size": 160,
            "timm_model_name": "test_vit3",
            "timm_model_pretrained": False,
            "timm_pool": "map",
            "timm_proj": "none",
        },
        "text_cfg": {
            "context_length": 16,
            "vocab_size": 40,
            "hf_tokenizer_name": "kit/none",
            "tokenizer_kwargs": {"clean": "canonicalize"},
            "width": 96,
            "heads": 3,
            "layers": 2,
            "no_causal_mask": True,
            "proj_bias": True,
            "pool_type": "last",
            "norm_kwargs": {"eps": 1e-6},
        },
    },
    "preprocess_cfg": {
        "size": [160, 160],
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "interpolation": "bicubic",
        "resize_mode": "squash",
    },
}
"""As the SigLIP models: timm's network with attention pooling, a tokenizer in the folder, frames squeezed square."""

KINDS = {"openai": OPENAI_LIKE, "siglip": SIGLIP_LIKE}
"""By the name of the card."""


def kit_beside(folder: Path, monkeypatch: pytest.MonkeyPatch, real: Sequence[str]) -> ModelKit:
    """A kit whose store also has these cards of ours, fetched once into the user's own folder."""
    for name in real:
        fetch(load_card(name))
    own = model_dir()
    kit = ModelKit(folder, monkeypatch)
    kit.models.mkdir()
    for name in real:
        (kit.models / name).symlink_to(own / name)
    return kit


@contextmanager
def kit_of_kinds(folder: Path) -> Iterator[ModelKit]:
    """A store with one small model of each kind; `upstream_folder` says where they were made."""
    with pytest.MonkeyPatch.context() as patch:
        kit = ModelKit(folder, patch)
        for name, config in KINDS.items():
            add_open_clip(kit, name, config, upstream_folder(kit, name))
        yield kit


def upstream_folder(kit: ModelKit, name: str) -> Path:
    """Where the library itself reads a model of `kit_of_kinds`."""
    return kit.cards.parent / "made" / name


def write_open_clip(folder: Path, config: dict[str, Any], *, pickled: bool = False) -> None:
    """A model of this configuration with random weights."""
    folder.mkdir(parents=True)
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    if "hf_tokenizer_name" in config["model_cfg"]["text_cfg"]:
        _write_tokenizer(folder)
    torch.manual_seed(5)
    model = open_clip.create_model(f"local-dir:{folder}", pretrained_text=False)
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    # Positions and biases start at nothing, where a mistake in reading them would not show.
    state = {name: value + 0.02 * torch.randn_like(value) for name, value in state.items()}
    if pickled:
        torch.save(state, folder / "open_clip_pytorch_model.bin")
    else:
        save_file(state, str(folder / "open_clip_model.safetensors"))


def _write_tokenizer(folder: Path) -> None:
    letters = "abcdefghijklmnopqrstuvwxyz ."
    pieces = {piece: number for number, piece in enumerate(("<pad>", "</s>", "<unk>", *letters))}
    tokenizer = Tokenizer(models.WordLevel(pieces, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    made = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", padding_side="right"
    )
    made.save_pretrained(str(folder))


def add_open_clip(kit: ModelKit, name: str, config: dict[str, Any], folder: Path, *, pickled: bool = False) -> Card:
    """A small model in the store, its card with the settings that `clip` asks for."""
    write_open_clip(folder, config, pickled=pickled)
    model = config["model_cfg"]
    settings = {"image_px": model["vision_cfg"]["image_size"], "embedding": model["embed_dim"], "family": "kit"}
    return kit.add(name, folder, settings)


MLP_WIDTHS = {0: (1024, None), 2: (128, 1024), 4: (64, 128), 6: (16, 64), 7: (1, 16)}
"""Layers of LAION's improved predictor by number: outputs and inputs; between them lie drop-outs."""


def mlp_head(length: int, seed: int = 0) -> dict[str, torch.Tensor]:
    """The improved predictor's keys and shapes (over embeddings of this length), random."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for number, (outputs, inputs) in MLP_WIDTHS.items():
        width = inputs or length
        state[f"layers.{number}.weight"] = torch.randn(outputs, width, generator=generator) / width**0.5
        state[f"layers.{number}.bias"] = torch.randn(outputs, generator=generator)
    return state


def add_head(kit: ModelKit, name: str, state: dict[str, torch.Tensor], folder: Path, **settings: Any) -> Card:
    """A head in the store, as the pickle that LAION publishes."""
    folder.mkdir(parents=True)
    torch.save(state, folder / "head.pth")
    return kit.add(name, folder, settings)


def frames_of(seed: int, n: int, height: int, width: int) -> np.ndarray:
    """n random RGB frames."""
    return np.random.default_rng(seed).integers(0, 256, (n, height, width, 3), np.uint8)
