"""Models in a folder for machines without a network: laid out like the store here, with the cards beside it.

FOLDER/<card>/<sha256[:16]>/<file>    as in the store: FOLDER is a mirror, and serves as CURATE_MODELS
FOLDER/<card>/found/<file>.json       digests that the first fetch found, where the card gives none
FOLDER/cards/<card>.yaml              for CURATE_CARDS, where a card is the user's own
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

from curate.errors import StorageError
from curate.redaction import redacted
from curate.storage import Place, storage_error
from curate.weights.cards import Card, ModelFile, card_path
from curate.weights.download import sha256_at, sha256_of
from curate.weights.ledger import found_path, model_dir
from curate.weights.store import location


def bundle(cards: Sequence[Card], folder: str, say: Callable[[str], None]) -> None:
    """Copy cards whose files are all here to a folder, local or remote, and read every byte there again.

    What is there already and right is left alone. StorageError when a file cannot be written, or is not what it was.
    """
    root = Place(folder)
    for card in cards:
        for file in card.files:
            _bundle_file(card, card.known(file), root, say)
            if file.sha256 is None:
                name = found_path(card.name, file.name)
                root.child(*name.split("/")).write_bytes((model_dir() / name).read_bytes())
        root.child("cards", f"{card.name}.yaml").write_bytes(card_path(card.name).read_bytes())


def _bundle_file(card: Card, file: ModelFile, root: Place, say: Callable[[str], None]) -> None:
    path = location(card, file)
    fix = f"Run `curate models fetch {card.name}`"
    if path is None or not path.is_file():
        raise StorageError(f"{file.name!r} is not here", subject=card.name, fix=fix)
    place = root.child(card.name, path.parent.name, file.name)
    label = f"{card.name}/{file.name}"
    if place.exists() and sha256_at(place) == file.sha256:
        say(f"{label}: already there, verified")
        return
    if sha256_of(path) != file.sha256:
        raise StorageError(f"{file.name!r} is damaged here", subject=card.name, fix=fix)
    _copy(path, place)
    if (found := sha256_at(place)) != file.sha256:
        raise StorageError(f"was written, but reads back with sha256 {found}", subject=redacted(place.uri))
    say(f"{label}: copied, verified")


def _copy(path: Path, place: Place) -> None:
    """At once or not at all."""
    if not place.is_local:
        place.put(path)
        return
    target = Path(place.path)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, temporary)
        temporary.replace(target)
    except OSError as error:
        raise storage_error(error, str(target), writing=True) from error
    finally:
        temporary.unlink(missing_ok=True)
