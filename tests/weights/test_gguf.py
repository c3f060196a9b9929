"""Language models as folders: plain ones as they are, GGUF files converted once, whoever asks and how many at once."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from model_kit import ModelKit
from safetensors.numpy import load_file
from tiny_gguf import tiny_gguf
from tiny_llm import tiny_llm, tiny_tokenizer

from curate.errors import MissingModelError, ModelFileError
from curate.weights.cards import Card
from curate.weights.gguf import transformers_folder
from curate.weights.store import folder_of


@pytest.fixture
def kit(tmp_path, monkeypatch):
    return ModelKit(tmp_path / "kit", monkeypatch)


@pytest.fixture
def packed(kit, tmp_path):
    """The tensors of a GGUF card called ``packed``."""
    (tmp_path / "packed").mkdir()
    held = tiny_gguf(tmp_path / "packed" / "tiny.Q4_1.gguf", seed=3)
    kit.add("packed", tmp_path / "packed")
    return held


def test_a_folder_of_safetensors_is_taken_as_it_is(kit, tmp_path):
    kit.add("plain", tiny_llm(tmp_path / "plain"))
    assert transformers_folder("plain") == folder_of("plain")


def test_a_conversion_holds_what_the_formats_own_library_reads(packed):
    folder = Path(transformers_folder("packed"))
    found = load_file(folder / "model.safetensors")
    assert set(found) == set(packed)
    for name, data in packed.items():
        np.testing.assert_array_equal(found[name], data, err_msg=name)
    config = json.loads((folder / "config.json").read_text())
    assert (config["model_type"], config["num_hidden_layers"], config["num_key_value_heads"]) == ("llama", 2, 2)
    assert config["max_position_embeddings"] == 4096


def test_a_converted_tokenizer_reads_chats_alike(packed):
    from transformers import AutoTokenizer

    chat = [{"role": "user", "content": "Zwölf cats — 12!"}]
    converted, own = AutoTokenizer.from_pretrained(transformers_folder("packed")), tiny_tokenizer()
    ids = [t.apply_chat_template(chat, add_generation_prompt=True)["input_ids"] for t in (converted, own)]
    assert ids[0] == ids[1]
    assert converted.eos_token == "<|im_end|>"


def test_workers_that_ask_at_once_all_find_a_whole_folder(packed, kit):
    with ThreadPoolExecutor(3) as pool:
        found = set(pool.map(lambda _: transformers_folder("packed"), range(3)))
    assert len(found) == 1
    names = sorted(path.name for path in (kit.models / "packed").iterdir())
    assert [name.partition("-")[0] for name in names if len(name) != 16] == ["all", "converted"]


def test_a_conversion_that_broke_off_leaves_nothing_behind(packed, kit, monkeypatch):
    from transformers import PreTrainedTokenizerBase

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(PreTrainedTokenizerBase, "save_pretrained", full)
        with pytest.raises(Exception, match="no space left"):
            transformers_folder("packed")
    assert not [path for path in (kit.models / "packed").iterdir() if "converted" in path.name]
    assert transformers_folder("packed")


@pytest.mark.parametrize("damage", [b"", b"GGUF", b"no model at all"])
def test_another_kind_of_file_is_said_to_be_one(kit, tmp_path, damage):
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "bad.gguf").write_bytes(damage or b"\0")
    kit.add("bad", tmp_path / "bad")
    with pytest.raises(ModelFileError, match="bad"):
        transformers_folder("bad")


def test_a_model_that_was_not_fetched_is_named(packed, monkeypatch, tmp_path):
    monkeypatch.setenv("CURATE_MODELS", str(tmp_path / "empty"))
    with pytest.raises(MissingModelError, match="curate models fetch packed"):
        transformers_folder("packed")


def test_another_file_without_a_digest_in_its_card_is_converted_anew(kit, tmp_path, monkeypatch):
    """Regression: the digest that the first download found had no part in the folder's name."""
    folders = set()
    for seed in (3, 4):
        made = tmp_path / f"made{seed}"
        made.mkdir()
        tiny_gguf(made / "tiny.Q4_1.gguf", seed=seed)
        card = kit.add("loose", made)
        digest = card.files[0].sha256
        with monkeypatch.context() as patch:
            patch.setattr(Card, "known", lambda self, file, digest=digest: file.model_copy(update={"sha256": digest}))
            patch.setattr("curate.weights.gguf.load_card", lambda name, card=card: without_digest(card))
            folders.add(transformers_folder("loose"))
    assert len(folders) == 2


def without_digest(card: Card) -> Card:
    (file,) = card.files
    return card.model_copy(update={"files": (file.model_copy(update={"sha256": None}),)})
