"""Captions fused by a language model on the worker or behind an endpoint: the same whoever else is asked, and tied."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from endpoint_kit import Script, served, texts_of
from hypothesis import given, settings
from hypothesis import strategies as st
from model_kit import ModelKit
from tiny_llm import tiny_llm

from curate.config import parse_config
from curate.errors import ConfigError, MissingModelError, ModelFileError, StageError
from curate.records import Outcome
from curate.stages.caption import endpoint as module
from curate.stages.caption.fused import FusedCaption, FusedConfig, cut_caption, joint_digest
from curate.stages.caption.llm import LocalModel
from curate.stages.nets import NetConfig
from curate.testing.contract import check_stage

NET = NetConfig(device="cpu")
QUESTIONS = ["a", "a dog runs", "x" * 40, "a dog runs in the park " * 9, "a cat sleeps", "word " * 100]
CHATS = [[{"role": "user", "content": text}] for text in QUESTIONS]


def loaded(card: str) -> LocalModel:
    model = LocalModel(card, NET, 12)
    model.setup()
    return model


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    with pytest.MonkeyPatch.context() as monkeypatch:
        folder = tmp_path_factory.mktemp("tiny")
        kit = ModelKit(folder / "kit", monkeypatch)
        kit.add("tiny", tiny_llm(folder / "model", seed=1))
        yield kit


@pytest.fixture(scope="module")
def model(tiny):
    return loaded("tiny")


def directly(folder, chat, max_tokens):
    """Token ids of the greedy answer, by transformers alone."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    asked = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True, return_tensors="pt")
    with torch.inference_mode():
        out = model.generate(**asked, do_sample=False, max_new_tokens=max_tokens)
    said = out[0, asked["input_ids"].shape[1] :]
    return len(asked["input_ids"][0]), tokenizer.decode(said, skip_special_tokens=True), len(said)


def test_answers_are_those_of_transformers_called_directly(tiny, model, tmp_path):
    folder = str(tiny_llm(tmp_path / "same", seed=1))
    for chat, answer in zip(CHATS, model.ask(CHATS), strict=True):
        n_asked, text, n_said = directly(folder, chat, 12)
        assert (answer.prompt_tokens, answer.text, answer.completion_tokens) == (n_asked, text, n_said)
        assert answer.truncated
        assert answer.text.isalpha()


@pytest.mark.parametrize("rows", [1, 4])
def test_an_answer_depends_on_its_question_alone(tiny, rows):
    """Rows of a batch are padded to a shape that the question itself decides, so this is equality."""
    model = loaded("tiny")
    model.rows = rows
    together = model.ask(CHATS)
    assert [model.ask([chat])[0] for chat in CHATS] == together
    assert model.ask(CHATS[::-1])[::-1] == together
    assert model.ask([*CHATS, *CHATS[:3]])[len(CHATS) :] == together[:3]


def test_rows_change_nothing_on_this_machine(tiny, model):
    wide = loaded("tiny")
    wide.rows = 4
    assert wide.ask(CHATS) == model.ask(CHATS)


def test_questions_that_do_not_fit_together_are_asked_in_smaller_batches(tiny, model):
    class Tight(LocalModel):
        def infer(self, items, prepared):
            if len(items) > 2:
                raise torch.OutOfMemoryError("injected")
            return super().infer(items, prepared)

    tight = Tight("tiny", NET, 12)
    tight.setup()
    tight.rows = 8
    assert tight.ask(CHATS) == model.ask(CHATS)
    assert tight.rows == 2


def test_attention_is_the_fused_one(model):
    assert model._model.config._attn_implementation == "sdpa"


def test_an_answer_ends_where_the_model_says_so(tiny, model):
    """With the letter that it says third taken for an end, the answer has two and counts three."""
    whole = model.ask(CHATS[:1])[0].text
    third = model._tokenizer.convert_tokens_to_ids(whole[2])
    if whole[2] in whole[:2]:
        pytest.fail("choose another seed: the third letter is to be a new one")
    ended = loaded("tiny")
    ended._ends = [*ended._ends, third]
    (answer,) = ended.ask(CHATS[:1])
    assert (answer.text, answer.completion_tokens, answer.truncated) == (whole[:2], 3, False)


def test_a_question_beyond_the_models_length_fails_alone(model):
    found = model.ask([CHATS[0], [{"role": "user", "content": "x" * 5000}], CHATS[1]])
    assert isinstance(found[1], StageError)
    assert "too many" in found[1].message
    assert [found[0], found[2]] == model.ask(CHATS[:2])


@pytest.mark.parametrize("missing", ["model.safetensors", "chat_template.jinja", "config.json"])
def test_a_folder_that_is_no_such_model_is_refused(tmp_path, monkeypatch, missing):
    folder = tiny_llm(tmp_path / "model")
    (folder / missing).unlink()
    ModelKit(tmp_path / "kit", monkeypatch).add("broken", folder)
    with pytest.raises(ModelFileError, match="broken"):
        loaded("broken")


def test_code_in_a_models_folder_is_never_run(tmp_path, monkeypatch):
    folder, trace = tiny_llm(tmp_path / "model"), tmp_path / "ran"
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "strange", "auto_map": {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text(f"open({str(trace)!r}, 'w')")
    ModelKit(tmp_path / "kit", monkeypatch).add("strange", folder)
    with pytest.raises(ModelFileError):
        loaded("strange")
    assert not trace.exists()


def cells(coca="a dog runs", vblip="a dog on grass"):
    return {
        "caption.coca": {"caption": coca, "frames": "c" * 32},
        "caption.vblip": {"caption": vblip, "frames": "v" * 32},
    }


def made(**config):
    stage = FusedCaption(FusedConfig.model_validate({"device": "cpu", "max_tokens": 6, **config}))
    stage.setup()
    return stage


def behind(url, **config):
    return made(endpoint={"url": url, "model": "m", "retries": 0, "timeout_s": 5.0}, **config)


def test_the_cell_of_a_model_on_the_worker(tiny, clip_item):
    stage = made(model="tiny")
    (cell,) = stage.process([clip_item(cells=cells())])
    assert cell.outcome is Outcome.OK, cell.failure
    word = cell.values["caption"]
    assert word.isalpha()
    assert cell.values == {
        "caption": word,
        "frames": joint_digest({"caption.coca": "c" * 32, "caption.vblip": "v" * 32}),
        "invented": [word],
        "marked": True,
        "model": "tiny",
        "prompt_tokens": len(stage._model.token_ids(stage.chat(["a dog runs", "a dog on grass"]))),
        "completion_tokens": 6,
        "truncated": True,
    }


def test_a_model_keeps_the_stage_contract(tiny):
    check_stage(FusedCaption(FusedConfig(model="tiny", device="cpu", max_tokens=4)), cells=cells())


def test_an_endpoint_keeps_the_stage_contract():
    with served(Script(lambda asked: "a dog runs on grass")) as url:
        endpoint = {"url": url, "model": "m"}
        check_stage(FusedCaption(FusedConfig.model_validate({"endpoint": endpoint})), cells=cells())


def test_what_the_model_is_told(clip_item):
    script = Script(lambda asked: "A dog runs on grass.")
    example = {"captions": ["one", "two"], "fused": "Both."}
    with served(script) as url:
        (cell,) = behind(url, prompt="Join them.", examples=[example]).process([clip_item(cells=cells())])
    (asked,) = script.asked
    assert texts_of(asked) == ["Join them.", "1. one\n2. two", "Both.", "1. a dog runs\n2. a dog on grass"]
    assert [message["role"] for message in asked["messages"]] == ["system", "user", "assistant", "user"]
    assert (cell.values["caption"], cell.values["marked"], cell.values["model"]) == (
        "A dog runs on grass.", False, "m-served",
    )  # fmt: skip
    assert cell.values["completion_tokens"] == 5


def last_of_both(asked):
    """A model that says the last word of each caption, and makes one up for cats."""
    words = [line.split()[-1] for line in texts_of(asked)[-1].splitlines()]
    return " ".join([*words, *(["unicorn"] if "cat" in words else [])])


@settings(max_examples=15, deadline=None)
@given(st.lists(st.sampled_from(["dog", "cat", "bus", "tree"]), min_size=1, max_size=8), st.integers(1, 4))
def test_each_clip_gets_the_sentence_of_its_own_captions(clip_item, nouns, size):
    items = [clip_item(cells=cells(f"a {noun}", f"the {noun} {number}")) for number, noun in enumerate(nouns)]
    with served(Script(last_of_both)) as url:
        stage = behind(url)
        found = [cell for at in range(0, len(items), size) for cell in stage.process(items[at : at + size])]
    for number, (noun, cell) in enumerate(zip(nouns, found, strict=True)):
        expected = f"{noun} {number}" + (" unicorn" if noun == "cat" else "")
        assert cell.values["caption"] == expected
        assert cell.values["invented"] == (["unicorn"] if noun == "cat" else [])
        assert cell.values["marked"] == (noun == "cat")


def test_a_clip_that_finds_no_answer_fails_alone(clip_item, monkeypatch):
    monkeypatch.setattr(module, "FIRST_WAIT_S", 0.01)
    script = Script(last_of_both, faults=lambda text, attempt: "busy" if "bus" in text else "")
    items = [clip_item(cells=cells(f"a {noun}", f"a {noun}")) for noun in ("dog", "bus", "tree")]
    items.append(clip_item(cells={**cells(), "caption.vblip": {"caption": "untied"}}))
    items.append(clip_item(cells=cells("", " ")))
    with served(script) as url:
        found = behind(url).process(items)
    assert [cell.values.get("caption") for cell in found] == ["dog dog", None, "tree tree", None, None]
    errors = [cell.failure.error_class for cell in found if cell.failure]
    assert errors == ["EndpointUnavailableError", "StageError", "StageError"]
    assert "caption.vblip gave no `caption` with its `frames`" in found[3].failure.message
    assert max(script.attempts.values()) == 1


def test_an_empty_caption_is_left_out(clip_item):
    script = Script(last_of_both)
    with served(script) as url:
        (cell,) = behind(url).process([clip_item(cells=cells("", "a dog"))])
    assert texts_of(script.asked[0])[-1] == "1. a dog"
    assert cell.values["caption"] == "dog"


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("a dog runs", "a dog runs"),
        ("a dog runs fast", "a dog runs"),
        ("a dog running", "a dog"),
        ("abcdefghijkl", "abcdefghij"),
    ],
)
def test_a_long_caption_is_cut_after_a_whole_word(text, cut):
    assert cut_caption(text, 10) == cut


@given(st.text(max_size=100), st.integers(1, 60))
def test_a_cut_caption_is_a_beginning_within_the_bound(text, bound):
    cut = cut_caption(text, bound)
    assert len(cut) <= bound
    assert text.startswith(cut)
    assert (cut == text) == (len(text) <= bound)


def test_the_tie_follows_the_inputs_and_not_their_order():
    one = joint_digest({"caption.coca": "1", "caption.vblip": "2"})
    assert joint_digest({"caption.vblip": "2", "caption.coca": "1"}) == one
    assert joint_digest({"caption.coca": "2", "caption.vblip": "1"}) != one
    assert len(one) == 32


def test_one_of_model_and_endpoint():
    endpoint = {"url": "http://127.0.0.1/v1", "model": "m"}
    assert parse_config(FusedConfig, {}, "x").model == "smollm2-135m-instruct"
    assert parse_config(FusedConfig, {"endpoint": endpoint}, "x").model is None
    with pytest.raises(ConfigError, match="either `model` or `endpoint`"):
        parse_config(FusedConfig, {"endpoint": endpoint, "model": "tiny"}, "x")
    with pytest.raises(ConfigError, match="names a stage twice"):
        parse_config(FusedConfig, {"captions": ["caption.coca"] * 2}, "x")


def test_what_the_model_is_told_decides_the_fingerprint(tiny):
    def fingerprint(**config):
        return FusedCaption(FusedConfig.model_validate(config)).fingerprint({})

    own = fingerprint(model="tiny")
    assert fingerprint(model="tiny") == own
    changed = ({"prompt": "?"}, {"examples": ()}, {"max_caption_chars": 50}, {"captions": ("caption.coca",)})
    assert len({own, fingerprint(), *(fingerprint(model="tiny", **config) for config in changed)}) == 6
    endpoint = {"url": "http://127.0.0.1/v1", "model": "m"}
    assert fingerprint(endpoint=endpoint) == fingerprint(endpoint={**endpoint, "api_key_env": "K", "retries": 1})
    assert fingerprint(endpoint=endpoint) != fingerprint(endpoint={**endpoint, "model": "n"})
    assert fingerprint(endpoint=endpoint) != fingerprint(endpoint={**endpoint, "max_tokens": 9})


def test_what_would_run_on_the_worker_decides_nothing_where_an_endpoint_answers(tiny):
    def fingerprint(**config):
        return FusedCaption(FusedConfig.model_validate(config)).fingerprint({})

    endpoint = {"endpoint": {"url": "http://127.0.0.1/v1", "model": "m"}}
    changed = ({"max_tokens": 9}, {"dtype": "bfloat16"}, {"device": "cuda"}, {"gpus": 0.5}, {"batch_size": 2})
    assert {fingerprint(**endpoint, **config) for config in changed} == {fingerprint(**endpoint)}
    assert fingerprint(model="tiny", max_tokens=9) != fingerprint(model="tiny")
    assert fingerprint(model="tiny", dtype="bfloat16") != fingerprint(model="tiny")


def test_weights_that_are_not_here_are_named(monkeypatch, tmp_path):
    monkeypatch.setenv("CURATE_MODELS", str(tmp_path / "empty"))
    with pytest.raises(MissingModelError, match="curate models fetch smollm2-135m-instruct"):
        made()


def test_the_card_names_the_digest_of_its_file():
    digests = FusedCaption(FusedConfig()).model_digests()
    assert [Path(name).name for name in digests] == ["SmolLM2-135M-Instruct.Q4_1.gguf"]
