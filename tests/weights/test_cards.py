"""Model cards: complete, checked, and found wherever the package lies."""

import json
import os
import re
from pathlib import Path

import pytest

from curate import datafiles
from curate.config import parse_config
from curate.datafiles import find_data_dir
from curate.errors import ConfigError, StorageError
from curate.weights.cards import Card, all_cards, comes_from, load_card
from curate.weights.store import fetch

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


def test_what_is_not_known_of_a_file_may_be_left_out_where_the_model_hub_is_its_only_source():
    unknown = {"name": "sac+logos.pth", "sources": ["hf:org/model@main#w.bin"]}
    card = parse_config(Card, {**GOOD, "files": [unknown]}, "m.yaml")
    assert (card.files[0].sha256, card.size_bytes) == (None, 0)
    for more in ({"sources": ["hf:org/model@main#w.bin", "file:/x"]}, {"sources": ["pypi:six==1.17.0#six.py"]}):
        with pytest.raises(ConfigError, match="only where every source is one of hf:"):
            parse_config(Card, {**GOOD, "files": [{**unknown, **more}]}, "m.yaml")


def test_every_hub_file_of_a_shipped_card_is_held_to_a_revision_or_a_digest():
    loose = [
        (card.name, source)
        for card in all_cards()
        for file in card.files
        for source in file.sources
        if source.startswith("hf:") and not (file.sha256 or re.search(r"@[0-9a-f]{40}#", source))
    ]
    assert loose == []


def test_files_that_lie_beside_a_card_are_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CURATE_MODELS", str(tmp_path / "models"))
    beside = [(card, file) for card in all_cards() for file in card.files if file.sources[0].startswith("file:")]
    assert ("coca-vit-l-14", "open_clip_config.json") in {(card.name, file.name) for card, file in beside}
    for card, file in beside:
        (path,) = fetch(card.model_copy(update={"files": (file,)}))
        assert path.stat().st_size == file.size_bytes


def test_a_card_whose_files_lie_elsewhere_on_this_machine_is_not_one_of_the_package_index(tmp_path, monkeypatch):
    (tmp_path / "mine.yaml").write_text(json.dumps({**GOOD, "name": "mine"}))
    monkeypatch.setenv("CURATE_CARDS", str(tmp_path))
    assert not comes_from(load_card("mine"), "pypi")
    assert comes_from(load_card("pp-ocr-det"), "pypi")
    assert comes_from(load_card("coca-vit-l-14"), "hf")
