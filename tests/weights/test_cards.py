"""Model cards: complete, checked, and found wherever the package lies."""

import json
import os
from pathlib import Path

import pytest

from curate import datafiles
from curate.config import parse_config
from curate.datafiles import find_data_dir
from curate.errors import ConfigError, StorageError
from curate.weights.cards import Card, all_cards, load_card

GOOD = {
    "name": "m",
    "purpose": "p",
    "licence": "MIT",
    "files": [{"name": "f.bin", "sha256": "0" * 64, "size_bytes": 1, "sources": ["file:/x"]}],
    "input": "i",
    "output": "o",
    "memory_bytes": 1,
    "needed_by": [],
}


def test_shipped_cards_are_valid_and_named_after_their_files():
    names = [card.name for card in all_cards()]
    assert {"pp-ocr-det", "efficientnet-lite0"} <= set(names)
    assert names == sorted(names)
    assert all(load_card(name).name == name for name in names)


def test_digests_name_card_and_file():
    card = load_card("pp-ocr-det")
    assert card.digests() == {f"pp-ocr-det/{file.name}": file.sha256 for file in card.files}


def test_unknown_names_say_what_was_meant():
    with pytest.raises(ConfigError, match="did you mean 'pp-ocr-det'"):
        load_card("pp-ocr-dett")
    with pytest.raises(ConfigError, match="lists no file"):
        load_card("pp-ocr-det").file("x.onnx")
    with pytest.raises(ConfigError):
        load_card("../pyproject")


@pytest.mark.parametrize(
    "change",
    [
        {"licenze": "MIT"},
        {"files": []},
        {"memory_bytes": 0},
        {"name": "../m"},
        {"files": [{**GOOD["files"][0], "sha256": "xyz"}]},
        {"files": [{**GOOD["files"][0], "sources": ["ftp://x"]}]},
        {"files": [{**GOOD["files"][0], "sources": ["pypi:six"]}]},
        {"files": [{**GOOD["files"][0], "name": "a/b"}]},
    ],
)
def test_bad_cards_are_refused(change):
    with pytest.raises(ConfigError):
        parse_config(Card, {**GOOD, **change}, "m.yaml")


def test_all_kinds_of_source_are_accepted():
    sources = ["file:~/w.bin", "pypi:six==1.17.0#six.py", "hf:org/model@main#w.bin"]
    card = parse_config(Card, {**GOOD, "files": [{**GOOD["files"][0], "sources": sources}]}, "m.yaml")
    assert list(card.files[0].sources) == sources
    assert card.size_bytes == 1


def test_broken_yaml_names_the_file(tmp_path, monkeypatch):
    fake_package(tmp_path, monkeypatch, installed=True)
    (tmp_path / "curate" / "_data" / "models" / "bad.yaml").write_text("a: [")
    with pytest.raises(ConfigError, match=r"bad\.yaml: is not YAML"):
        all_cards()


def test_card_and_file_name_must_agree(tmp_path, monkeypatch):
    fake_package(tmp_path, monkeypatch, installed=True)
    source = (find_checkout() / "models" / "pp-ocr-det.yaml").read_text()
    (tmp_path / "curate" / "_data" / "models" / "other.yaml").write_text(source)
    with pytest.raises(ConfigError, match="must agree"):
        load_card("other")


def find_checkout():
    return Path(__file__).resolve().parents[2]


def fake_package(root, monkeypatch, *, installed):
    """The package as if it lay in ``root``, with its data inside it or beside it."""
    package = root / "curate"
    package.mkdir()
    (package / "_data" / "models" if installed else root / "models").mkdir(parents=True)
    monkeypatch.setattr(datafiles, "__file__", str(package / "datafiles.py"))


def test_data_of_a_checkout():
    assert find_data_dir("models") == find_checkout() / "models"
    assert find_data_dir("pipelines") == find_checkout() / "pipelines"


def test_data_of_an_installed_wheel(tmp_path, monkeypatch):
    fake_package(tmp_path, monkeypatch, installed=True)
    assert find_data_dir("models") == tmp_path / "curate" / "_data" / "models"


def test_a_strangers_folder_beside_the_package_is_not_ours(tmp_path, monkeypatch):
    fake_package(tmp_path, monkeypatch, installed=False)
    with pytest.raises(StorageError, match="carries no models"):
        find_data_dir("models")


def test_a_users_own_cards_go_before_ours(tmp_path, monkeypatch):
    (tmp_path / "pp-ocr-det.yaml").write_text(json.dumps({**GOOD, "name": "pp-ocr-det", "settings": {"px": 7}}))
    (tmp_path / "mine.yaml").write_text(json.dumps({**GOOD, "name": "mine"}))
    monkeypatch.setenv("CURATE_CARDS", f"{tmp_path / 'none'}{os.pathsep}{tmp_path}")
    assert load_card("pp-ocr-det").settings == {"px": 7}
    assert {"mine", "efficientnet-lite0"} <= {card.name for card in all_cards()}
