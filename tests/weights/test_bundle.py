"""Bundles: a store that travels, on a disk or an object store, with the cards beside it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from model_kit import ModelKit

from curate.errors import MissingModelError, StorageError
from curate.storage import Place
from curate.weights.bundle import bundle
from curate.weights.cards import NOT_FETCHED, load_card
from curate.weights.ledger import Found, found_path, learn
from curate.weights.store import FileStatus, fetch, folder_of, glance, path_of, status_of, verify

FILES = {"config.json": b"{}", "model.bin": b"weights" * 1000}


@pytest.fixture
def kit(tmp_path, monkeypatch) -> ModelKit:
    """A card ``m`` of one's own whose files are in the store, and nowhere else."""
    made = tmp_path / "made"
    made.mkdir()
    for name, data in FILES.items():
        (made / name).write_bytes(data)
    kit = ModelKit(tmp_path / "kit", monkeypatch)
    kit.add("m", made)
    for name in FILES:
        (made / name).unlink()
    monkeypatch.delenv("CURATE_MIRROR", raising=False)
    return kit


def pack(folder: str, *names: str) -> list[str]:
    said: list[str] = []
    bundle([load_card(name) for name in names], folder, said.append)
    return said


def elsewhere(folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another machine, with the bundle's cards alone and an empty store."""
    cards = tmp_path / "elsewhere" / "cards"
    cards.mkdir(parents=True)
    (cards / "m.yaml").write_bytes(Place(folder).child("cards", "m.yaml").read_bytes())
    monkeypatch.setenv("CURATE_CARDS", str(cards))
    monkeypatch.setenv("CURATE_MODELS", str(tmp_path / "elsewhere" / "models"))


def test_a_bundle_on_an_object_store_is_a_mirror(kit, memory_bucket, tmp_path, monkeypatch):
    assert pack(f"{memory_bucket}/models", "m") == ["m/config.json: copied, verified", "m/model.bin: copied, verified"]
    assert {line.rpartition(": ")[2] for line in pack(f"{memory_bucket}/models", "m")} == {"already there, verified"}
    elsewhere(f"{memory_bucket}/models", tmp_path, monkeypatch)
    paths = fetch(load_card("m"), mirror=f"{memory_bucket}/models")
    assert {path.name: path.read_bytes() for path in paths} == FILES


def test_a_bundle_on_a_disk_is_a_store(kit, tmp_path, monkeypatch):
    pack(str(tmp_path / "usb"), "m")
    monkeypatch.setenv("CURATE_CARDS", str(tmp_path / "usb" / "cards"))
    monkeypatch.setenv("CURATE_MODELS", str(tmp_path / "usb"))
    assert Path(path_of("m", "model.bin")).read_bytes() == FILES["model.bin"]
    assert set(glance(load_card("m")).values()) == {FileStatus.UNCHECKED}
    assert set(verify(load_card("m")).values()) == {FileStatus.OK}
    assert set(glance(load_card("m")).values()) == {FileStatus.OK}


def test_a_store_that_cannot_be_written_still_gives_folders(kit, tmp_path, monkeypatch):
    """A share of models is mounted read-only: the links lie with the user."""
    pack(str(tmp_path / "usb"), "m")
    monkeypatch.setenv("CURATE_MODELS", str(tmp_path / "usb"))
    monkeypatch.setattr("curate.weights.store.os.access", lambda path, mode: False)  # tests may run as root
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    before = sorted((tmp_path / "usb").rglob("*"))
    folder = Path(folder_of("m"))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == FILES
    assert folder.is_relative_to(tmp_path / "home")
    assert sorted((tmp_path / "usb").rglob("*")) == before


def test_what_was_checked_in_a_store_that_cannot_be_written_is_noted_with_the_user(kit, tmp_path, monkeypatch):
    pack(str(tmp_path / "usb"), "m")
    monkeypatch.setenv("CURATE_MODELS", str(tmp_path / "usb"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for path in (tmp_path / "usb").rglob("model.bin"):
        (path.parent / f".{path.name}.checked").mkdir()  # as little to be written as a store of root's
    assert status_of("m", "model.bin") is FileStatus.OK
    assert glance(load_card("m"))["model.bin"] is FileStatus.OK
    assert len(list((tmp_path / "home").rglob("checked/*"))) == 1


def test_a_damaged_file_of_a_bundle_is_replaced_and_one_of_the_store_refused(kit, tmp_path):
    pack(str(tmp_path / "usb"), "m")
    (there,) = (tmp_path / "usb").rglob("model.bin")
    there.write_bytes(b"?" * len(FILES["model.bin"]))
    assert pack(str(tmp_path / "usb"), "m")[1] == "m/model.bin: copied, verified"
    assert there.read_bytes() == FILES["model.bin"]
    there.unlink()
    Path(path_of("m", "model.bin")).write_bytes(b"?" * len(FILES["model.bin"]))
    with pytest.raises(StorageError, match=r"is damaged here.*curate models fetch m"):
        pack(str(tmp_path / "usb"), "m")
    assert not there.exists()


def test_what_is_not_here_cannot_be_bundled(kit, tmp_path, monkeypatch):
    monkeypatch.setenv("CURATE_MODELS", str(tmp_path / "empty"))
    with pytest.raises(StorageError, match=r"is not here.*curate models fetch m"):
        pack(str(tmp_path / "usb"), "m")


def test_a_place_that_does_not_keep_what_is_written_is_noticed(kit, memory_bucket, monkeypatch):
    def put(self: Place, file: Path) -> None:
        self.write_bytes(file.read_bytes()[:-1])

    monkeypatch.setattr(Place, "put", put)
    with pytest.raises(StorageError, match="was written, but reads back with sha256"):
        pack(f"{memory_bucket}/models", "m")


HUB = ("hf:org/model@main#w.bin",)


@pytest.fixture
def unknown(kit) -> str:
    """A card ``u`` whose file has no digest and was never fetched."""
    card = json.loads(json.dumps({"name": "u", "purpose": "p", "licence": "l", "input": "i", "output": "o"}))
    card |= {"memory_bytes": 1, "needed_by": [], "files": [{"name": "w.bin", "sources": HUB}]}
    (kit.cards / "u.yaml").write_text(json.dumps(card))
    return "u"


def test_a_digest_that_nobody_knows_is_that_of_the_first_fetch(unknown, kit):
    assert load_card("u").digests() == {"u/w.bin": NOT_FETCHED}
    with pytest.raises(MissingModelError, match="curate models fetch u"):
        path_of("u", "w.bin")
    sha256 = hashlib.sha256(b"w").hexdigest()
    learn("u", "w.bin", Found(sha256, 1, HUB, HUB[0], "2026-01-01T00:00:00+00:00"))
    assert load_card("u").digests() == {"u/w.bin": sha256}
    assert load_card("u").size_bytes == 1
    (kit.models / "u" / sha256[:16]).mkdir()
    (kit.models / "u" / sha256[:16] / "w.bin").write_bytes(b"w")
    assert Path(path_of("u", "w.bin")).read_bytes() == b"w"
    card = json.loads((kit.cards / "u.yaml").read_text())
    card["files"][0]["sources"] = ["hf:org/model@v2#w.bin"]
    (kit.cards / "u.yaml").write_text(json.dumps(card))
    assert load_card("u").digests() == {"u/w.bin": NOT_FETCHED}


@pytest.mark.parametrize("text", ["", "[]", "{", '{"sha256": 5}', '{"sha256": "' + "g" * 64 + '"}'])
def test_a_finding_that_is_none_is_as_good_as_none(unknown, kit, text):
    path = kit.models / found_path("u", "w.bin")
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert load_card("u").digests() == {"u/w.bin": NOT_FETCHED}
