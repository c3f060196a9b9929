"""VideoBLIP: on one frame what BLIP-2 says of a picture, on several what its authors' rule gives."""

import json
import os
import shutil
import sys
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from model_kit import ModelKit
from safetensors.torch import load_file, save_file
from tiny_models import VBLIP_END, VBLIP_SETTINGS, tiny_vblip
from transformers import AutoTokenizer, Blip2ForConditionalGeneration, Blip2Processor, BlipImageProcessor

from curate.errors import MissingModelError, ModelFileError
from curate.records import Clip, Outcome, Span
from curate.stages.caption.base import frames_digest, tidy
from curate.stages.caption.vblip import VblipCaption, VblipConfig

MODEL = "videoblip-opt-2.7b"
ENDS = [2, VBLIP_END]
PROMPT = VblipConfig().prompt


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("vblip")


@pytest.fixture(scope="module", autouse=True)
def kit(folder):
    with pytest.MonkeyPatch.context() as patch:
        kit = ModelKit(folder / "kit", patch)
        kit.add(MODEL, tiny_vblip(folder / "plain", 1), VBLIP_SETTINGS)
        kit.add("ending", tiny_vblip(folder / "ending", 1, end_gain=2.2), VBLIP_SETTINGS)
        kit.add("with-image-tokens", tiny_vblip(folder / "tokens", 1, image_tokens=True), VBLIP_SETTINGS)
        kit.add("t5", tiny_vblip(folder / "t5", 1, language="t5"), VBLIP_SETTINGS)
        yield kit


def made(**config):
    stage = VblipCaption(VblipConfig(max_tokens=config.pop("max_tokens", 12), **config))
    stage.setup()
    return stage


@pytest.fixture(scope="module")
def stage(kit):
    return made()


def items_of(clip_item, n_frames):
    """Five clips of different pictures in different shapes."""
    sizes = [(28, 50), (50, 28), (28, 28), (28, 50), (30, 90)]
    rng = np.random.default_rng(n_frames)
    return [
        replace(
            clip_item(views={"frames": rng.integers(0, 256, (n_frames, *size, 3), dtype=np.uint8)}),
            clip=Clip.of_span("0" * 64, 0, Fraction(1, 1000), Span(i, i + 1)),
        )
        for i, size in enumerate(sizes)
    ]


@pytest.fixture
def items(clip_item):
    return items_of(clip_item, 4)


@pytest.mark.parametrize("beams", [1, 3])
def test_one_frame_is_a_picture_for_blip_2(clip_item, folder, beams):
    """The library's own way: image tokens before the prompt, filled with what the Q-Former saw."""
    path = folder / "tokens"
    model = Blip2ForConditionalGeneration.from_pretrained(path)
    processor = Blip2Processor(
        BlipImageProcessor.from_pretrained(path), AutoTokenizer.from_pretrained(path), num_query_tokens=6
    )
    items = items_of(clip_item, 1)
    cells = made(model="with-image-tokens", frames=1, beams=beams).process(items)
    for item, cell in zip(items, cells, strict=True):
        # The tokenizer's file for a prompt begins with the mark of start; its class in this library does not say so.
        prompt = f"</s>{PROMPT}" if processor.tokenizer(PROMPT)["input_ids"][0] != 2 else PROMPT
        given = processor(images=item.views["frames"].frames[0], text=prompt, return_tensors="pt")
        ids = model.generate(**given, do_sample=False, num_beams=beams, max_new_tokens=12, eos_token_id=ENDS)
        text = processor.decode(ids[0, given["input_ids"].shape[1] :], skip_special_tokens=True)
        assert cell.values["caption"] == tidy(text)
    assert len({cell.values["caption"] for cell in cells}) > 2


def seen_by_rule(model, processor, frames):
    """What the language model is shown of one clip, from the rule: each frame through the vision model, their tokens
    one after the other through the Q-Former, projected."""
    tokens = []
    for frame in frames:
        pixels = processor(images=frame, return_tensors="pt")["pixel_values"]
        tokens.append(model.vision_model(pixels).last_hidden_state)
    joined = torch.cat(tokens, dim=1)
    mask = torch.ones(joined.shape[:2], dtype=torch.long)
    looked = model.qformer(query_embeds=model.query_tokens, encoder_hidden_states=joined, encoder_attention_mask=mask)
    return model.language_projection(looked.last_hidden_state)


def by_rule(folder, frames, prompt_ids, n):
    """Token ids of one clip, greedily, word by word."""
    model = Blip2ForConditionalGeneration.from_pretrained(folder)
    processor = BlipImageProcessor.from_pretrained(folder)
    embed, found = model.get_input_embeddings(), []
    with torch.no_grad():
        seen = seen_by_rule(model, processor, frames)
        while len(found) < n:
            words = embed(torch.tensor([prompt_ids + found]))
            logits = model.language_model(inputs_embeds=torch.cat([seen, words], dim=1)).logits[0, -1]
            found.append(int(logits.argmax()))
            if found[-1] in ENDS:
                break
    return found


@pytest.mark.parametrize(("name", "source"), [(MODEL, "plain"), ("ending", "ending")])
def test_several_frames_by_the_authors_rule(items, folder, name, source):
    cells = made(model=name, beams=1).process(items)
    tokenizer = AutoTokenizer.from_pretrained(folder / source)
    prompt = [2, *tokenizer(PROMPT, add_special_tokens=False)["input_ids"]]
    lengths = set()
    for item, cell in zip(items, cells, strict=True):
        ids = by_rule(folder / source, item.views["frames"].frames, prompt, 12)
        lengths.add(len(ids))
        text = tidy(tokenizer.decode(ids, skip_special_tokens=True))
        assert cell.values["caption"] == text if text else cell.outcome == Outcome.FAILED
        if text:
            assert cell.values["frames"] == frames_digest(item.views["frames"])
    assert (lengths == {12}) == (source == "plain")


def test_a_language_model_that_reads_first(items, folder):
    """T5: what is seen and the prompt, closed by a mark of end, are its input; the answer is generated from nothing."""
    path = folder / "t5"
    model = Blip2ForConditionalGeneration.from_pretrained(path)
    processor, tokenizer = BlipImageProcessor.from_pretrained(path), AutoTokenizer.from_pretrained(path)
    cells = made(model="t5", beams=2).process(items)
    for item, cell in zip(items, cells, strict=True):
        with torch.no_grad():
            seen = seen_by_rule(model, processor, item.views["frames"].frames)
            words = model.get_input_embeddings()(torch.tensor([tokenizer(PROMPT)["input_ids"]]))
            ids = model.language_model.generate(
                inputs_embeds=torch.cat([seen, words], dim=1), do_sample=False, num_beams=2, max_new_tokens=12
            )
        assert cell.values["caption"] == tidy(tokenizer.decode(ids[0], skip_special_tokens=True))
    assert tokenizer(PROMPT)["input_ids"][-1] == 2
    assert len({cell.values["caption"] for cell in cells}) > 1


def outcomes(cells):
    return [(cell.key, cell.outcome, cell.values) for cell in cells]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("rows", [1, 3])
def test_a_caption_depends_on_its_clip_alone(items, dtype, rows):
    """One clip at a time, as on a CPU; always three, the last repeated, as on a GPU."""
    stage = made(dtype=dtype)
    stage.rows = rows
    alone = [cell for item in items for cell in stage.process([item])]
    assert outcomes(stage.process(items)) == outcomes(alone)
    assert outcomes(stage.process(items[::-1])) == outcomes(alone[::-1])
    assert len({cell.values["caption"] for cell in alone}) > 2


def test_each_frame_is_encoded_once(stage, items):
    seen = []
    hook = stage._loaded.model.vision_model.register_forward_hook(lambda module, given, out: seen.append(out[0].shape))
    stage.process(items)
    hook.remove()
    assert sum(shape[0] for shape in seen) == 4 * len(items)


def test_every_frame_counts(stage, items):
    """A clip that differs from another in its last frame alone is seen otherwise."""
    frames = items[0].views["frames"].frames
    other = frames.copy()
    other[-1] = 255 - other[-1]
    pixels = stage._loaded.pixels([frames, other])
    with torch.inference_mode():
        first, second = stage._loaded.model.seen(pixels)
    assert (first - second).abs().max() > 0.01


def test_the_frames_of_the_card_or_of_the_recipe():
    def points(**config):
        return VblipCaption(VblipConfig(**config)).views()["frames"].points

    assert points() == (0, 1 / 3, 2 / 3, 1)
    assert points(frames=3) == (0, 0.5, 1)
    assert points(frames=1) == (0.5,)
    assert VblipCaption(VblipConfig()).views()["frames"].short_side_px == 28


def test_the_prompt_is_part_of_the_fingerprint_and_matters(stage, items):
    other = made(prompt="Question: Answer:")
    empty = made(prompt="")
    assert len({made.fingerprint({}) for made in (stage, other, empty)}) == 3
    assert len({tuple(cell.values["caption"] for cell in made.process(items)) for made in (stage, other, empty)}) == 3


def test_only_the_clip_without_words_fails(stage, items):
    """A text of marks alone, put in for one clip."""
    plain = stage.process(items)
    write = stage.write
    bad = stage.pixels([items[1].views["frames"].frames])
    stage.write = lambda pixels: ["\n "] if torch.equal(pixels, bad) else write(pixels)
    cells = stage.process(items)
    del stage.write
    assert "said nothing" in cells[1].failure.message
    assert outcomes([cells[0], *cells[2:]]) == outcomes([plain[0], *plain[2:]])


def test_pickled_shards_say_the_same(kit, folder, stage, items):
    kit.add("pickled", tiny_vblip(folder / "pickled", 1, pickled=True), VBLIP_SETTINGS)
    assert outcomes(made(model="pickled").process(items)) == outcomes(stage.process(items))


def test_the_authors_own_kind_of_configuration(kit, folder, stage, items):
    path = folder / "video_blip"
    shutil.copytree(folder / "plain", path)
    edit(path, lambda config: config.update(model_type="video_blip"))
    kit.add("video_blip", path, VBLIP_SETTINGS)
    assert outcomes(made(model="video_blip").process(items)) == outcomes(stage.process(items))


def edit(path, change):
    config = json.loads((path / "config.json").read_text())
    change(config)
    (path / "config.json").write_text(json.dumps(config))


class Evil:
    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return os.mkdir, (str(self.canary),)


def break_weights(path, how):
    weights = path / "model.safetensors"
    if how == "code":
        weights.unlink()
        torch.save(Evil(path.parent / "canary"), path / "pytorch_model.bin")
    elif how == "cut off":
        weights.write_bytes(weights.read_bytes()[:10000])
    elif how == "one lacking":
        state = load_file(weights)
        del state["qformer.layernorm.weight"]
        save_file(state, weights, {"format": "pt"})
    else:
        weights.unlink()


@pytest.mark.parametrize(
    "how", ["code", "cut off", "one lacking", "no weights", "no tokenizer", "no preprocessing", "kind", "other sizes"]
)
def test_folders_of_something_else(kit, folder, how):
    path = folder / how
    shutil.copytree(folder / "plain", path)
    if how == "no tokenizer":
        (path / "tokenizer.json").unlink()
        (path / "tokenizer_config.json").unlink()
    elif how == "no preprocessing":
        (path / "preprocessor_config.json").unlink()
    elif how == "kind":
        edit(path, lambda config: config.update(model_type="llava"))
    elif how == "other sizes":
        edit(path, lambda config: config.update(num_query_tokens=9))
    else:
        break_weights(path, how)
    name = how.replace(" ", "-")
    kit.add(name, path, VBLIP_SETTINGS)
    with pytest.raises(ModelFileError):
        made(model=name)
    assert not (folder / "canary").exists()


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingModelError, match=r"transformers .*pip install 'curate-video\[captions\]'"):
        made()
