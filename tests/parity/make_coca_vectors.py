"""Writes `tests/data/coca_vectors.json`: what open_clip's own `generate` says, for a random CoCa.

It needs an environment of its own, because that method asserts beside transformers 5:

    pip install open_clip_torch==3.3.0 'transformers==4.55.4'
    PYTHONPATH=tests python tests/parity/make_coca_vectors.py
"""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from open_clip.coca_model import CoCa
from tiny_models import COCA, coca_state

SEEDS = (4, 6)
N_IMAGES = 5
WAYS: list[dict[str, Any]] = [
    {"generation_type": "top_k", "top_k": 1},
    {"num_beams": 2, "num_beam_groups": 1},
    {"num_beams": 4, "num_beam_groups": 1},
    {"num_beams": 6, "num_beam_groups": 3},
    {"num_beams": 3, "num_beam_groups": 1, "seq_len": 12, "min_seq_len": 2},
]


def images(seed: int) -> torch.Tensor:
    """float32 (N_IMAGES, 3, 32, 32)."""
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((N_IMAGES, 3, 32, 32)).astype(np.float32))


def vectors(seed: int) -> list[dict[str, Any]]:
    """Token ids by way of generating, each image's as upstream pads them."""
    model = CoCa(**{key: value for key, value in COCA.items() if key != "custom_text"})
    model.load_state_dict(coca_state(seed))
    model.eval()
    return [{"seed": seed, "arguments": way, "tokens": model.generate(images(seed), **way).tolist()} for way in WAYS]


def main() -> None:
    """Make and write them."""
    names = ("open_clip_torch", "torch", "transformers", "numpy")
    found = [case for seed in SEEDS for case in vectors(seed)]
    data = {"versions": {name: version(name) for name in names}, "cases": found}
    target = Path(__file__).parents[1] / "data" / "coca_vectors.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(data) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
