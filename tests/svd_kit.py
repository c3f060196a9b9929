"""Small checkpoints in the real formats, under the names that the paper's stages have as defaults."""

from __future__ import annotations

from pathlib import Path

import pytest
from clip_kit import OPENAI_LIKE, add_head, add_open_clip, kit_beside, mlp_head
from model_kit import ModelKit
from tiny_llm import tiny_llm
from tiny_models import COCA_SETTINGS, VBLIP_SETTINGS, tiny_coca, tiny_vblip

REAL = ("craft", "efficientnet-lite0", "pp-ocr-det", "transnetv2")
"""Cards whose files a package index carries: these are the real ones."""
EMBEDDING = OPENAI_LIKE["model_cfg"]["embed_dim"]


def small_models(folder: Path, patch: pytest.MonkeyPatch) -> ModelKit:
    """Every card that a built-in stage has as its default: real where it is small, with random weights where not."""
    kit = kit_beside(folder / "kit", patch, REAL)
    add_open_clip(kit, "openclip-vit-l-14", OPENAI_LIKE, folder / "clip")
    settings = {"head": "mlp", "embedding": EMBEDDING, "family": "kit"}
    add_head(kit, "laion-aesthetic-sac-logos-ava1-l14", mlp_head(EMBEDDING), folder / "head", **settings)
    kit.add("coca-vit-l-14", tiny_coca(folder / "coca"), COCA_SETTINGS)
    # Readier to end, some of its sentences would end before they begin.
    kit.add("videoblip-opt-2.7b", tiny_vblip(folder / "vblip", end_gain=0.75), VBLIP_SETTINGS)
    kit.add("smollm2-135m-instruct", tiny_llm(folder / "llm"))
    return kit
