"""CoCa: the same texts as open_clip's own `generate` and as its parts called directly, whatever the batch."""

import json
import os
import shutil
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from model_kit import ModelKit
from PIL import Image
from tiny_models import COCA_END, COCA_SETTINGS, tiny_coca

from curate.config import parse_config
from curate.errors import ConfigError, MissingModelError, ModelFileError, StageError
from curate.records import Clip, Outcome, Span
from curate.stages.caption.base import frames_digest
from curate.stages.caption.beams import Limits, search
from curate.stages.caption.coca import CocaCaption, CocaConfig, CocaSettings
from curate.weights.cards import card_settings

VECTORS = json.loads((Path(__file__).parents[1] / "data" / "coca_vectors.json").read_text())["cases"]
MODEL = "coca-vit-l-14"
SEEDS = sorted({case["seed"] for case in VECTORS})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("coca")


@pytest.fixture(scope="module", autouse=True)
def kit(folder):
    with pytest.MonkeyPatch.context() as patch:
        kit = ModelKit(folder / "kit", patch)
        for seed in SEEDS:
            kit.add(f"seed-{seed}", tiny_coca(folder / f"seed-{seed}", seed), COCA_SETTINGS)
        kit.add(MODEL, folder / f"seed-{SEEDS[0]}", COCA_SETTINGS)
        yield kit


def made(**config):
    stage = CocaCaption(CocaConfig(**config))
    stage.setup()
    return stage


@pytest.fixture(scope="module")
def stage(kit):
    return made()


@pytest.fixture
def items(clip_item):
    """Six clips of different pictures in different shapes."""
    sizes = [(32, 57), (57, 32), (32, 32), (40, 32), (32, 57), (20, 90)]
    rng = np.random.default_rng(7)
    return [
        replace(
            clip_item(views={"frames": rng.integers(0, 256, (1, *size, 3), dtype=np.uint8)}),
            clip=Clip.of_span("0" * 64, 0, Fraction(1, 1000), Span(i, i + 1)),
        )
        for i, size in enumerate(sizes)
    ]


def pictures(seed):
    """As `make_coca_vectors.py` draws them: float32 (5, 3, 32, 32)."""
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((5, 3, 32, 32)).astype(np.float32))


def content(row):
    """Tokens between the marks of start and end."""
    return row[1 : row.index(COCA_END)] if COCA_END in row else row[1:]


def config_of(arguments):
    """Our settings for a call of upstream's `generate`; its groups of beams all do the same."""
    beams = 1 if "top_k" in arguments else arguments["num_beams"] // arguments["num_beam_groups"]
    names = {"max_tokens": "seq_len", "min_tokens": "min_seq_len"}
    return {"beams": beams, **{ours: arguments[name] for ours, name in names.items() if name in arguments}}


@pytest.mark.parametrize("case", VECTORS, ids=lambda case: f"{case['seed']}-{list(case['arguments'].values())}")
def test_texts_are_those_of_open_clips_own_generate(case):
    stage = made(model=f"seed-{case['seed']}", **config_of(case["arguments"]))
    found = stage.tokens(pictures(case["seed"]))
    wanted = [content(row) for row in case["tokens"]]
    if stage.config.beams == 1:
        # A text that reaches the limit: upstream's greedy way spends its last place on the mark of end.
        found = [row[:28] for row in found]
    assert found == wanted


def test_the_vectors_are_worth_comparing_with():
    lengths = {len(content(row)) for case in VECTORS for row in case["tokens"]}
    assert max(lengths) == 29
    assert len(lengths) > 10
    assert all(len({tuple(row) for row in case["tokens"]}) == 5 for case in VECTORS)


def test_our_default_is_what_upstreams_default_amounts_to():
    default = next(case for case in VECTORS if case["arguments"] == {"num_beams": 6, "num_beam_groups": 3})
    assert CocaConfig(**config_of(default["arguments"])) == CocaConfig()


def greedy(model, tokenizer, picture):
    """Tokens by upstream's forward pass from the picture on, one word at a time."""
    text = [tokenizer.sot_token_id]
    while len(text) < 30:
        with torch.no_grad():
            scores = model(picture[None], torch.tensor([text]), output_labels=False)["logits"][0, -1]
        if len(text) < 5:
            scores[tokenizer.eot_token_id] = -torch.inf
        word = int(scores.argmax())
        if word == tokenizer.eot_token_id:
            break
        text.append(word)
    return text[1:]


def test_captions_are_those_of_upstreams_parts_called_directly(items, folder):
    name = f"local-dir:{folder / f'seed-{SEEDS[0]}'}"
    model, transform = open_clip.create_model_from_pretrained(name)
    tokenizer = open_clip.get_tokenizer(name)
    model.eval()
    cells = made(beams=1).process(items)
    for item, cell in zip(items, cells, strict=True):
        frames = item.views["frames"].frames
        tokens = greedy(model, tokenizer, transform(Image.fromarray(frames[0])))
        assert cell.values["caption"] == " ".join(tokenizer.decode(tokens).split())
        assert cell.values["frames"] == frames_digest(item.views["frames"])
    assert len({cell.values["caption"] for cell in cells}) == len(items)


def outcomes(cells):
    return [(cell.key, cell.outcome, cell.values) for cell in cells]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_caption_depends_on_its_clip_alone(items, dtype):
    stage = made(dtype=dtype, max_tokens=12)
    alone = [cell for item in items for cell in stage.process([item])]
    together = stage.process(items)
    assert outcomes(together) == outcomes(alone)
    assert outcomes(stage.process(items[::-1])) == outcomes(alone[::-1])
    assert len({cell.values["caption"] for cell in alone}) > 3


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_nor_on_the_batch_where_the_network_sees_several_at_a_time(items, dtype):
    """As on a GPU: always four pictures, the last repeated."""
    stage = made(dtype=dtype, max_tokens=12)
    stage.rows = 4
    shapes = set()
    stage._model.visual.register_forward_hook(lambda module, given, out: shapes.add(tuple(given[0].shape)))
    alone = [cell for item in items for cell in stage.process([item])]
    assert outcomes(stage.process(items)) == outcomes(alone)
    assert outcomes(stage.process(items[::-1])) == outcomes(alone[::-1])
    assert shapes == {(4, 3, 32, 32)}


def test_a_picture_is_encoded_once(stage, items):
    seen = []
    hook = stage._model.visual.register_forward_hook(lambda module, given, out: seen.append(len(given[0])))
    stage.process(items)
    hook.remove()
    assert sum(seen) == len(items)


def test_only_the_clip_without_words_fails(items):
    """The end may come at once here, and the network is made to want it for one picture."""
    stage = made(min_tokens=1, max_tokens=8)
    plain = stage.process(items)
    decode = stage._tokenizer.decode
    (silent,) = stage.tokens(stage._transform(Image.fromarray(items[2].views["frames"].frames[0]))[None])
    stage._tokenizer.decode = lambda tokens: " " if tokens == silent else decode(tokens)
    cells = stage.process(items)
    assert cells[2].outcome == Outcome.FAILED
    assert "said nothing" in cells[2].failure.message
    assert outcomes([*cells[:2], *cells[3:]]) == outcomes([*plain[:2], *plain[3:]])


def test_scores_that_are_no_numbers_are_no_caption():
    with pytest.raises(StageError, match="not all numbers"):
        search(lambda ids: torch.full((len(ids), 9), torch.nan), 1, Limits(0, 1, 2, 5, 1))


def test_a_search_by_hand():
    """Two beams over four words. Scores are given by text: the best start leads into the worse text."""
    table = {(0,): [0, -9, 2, 1.5], (0, 2): [0, 1, 0.5, 0.2], (0, 3): [0, 8, 0, 0]}

    def logits_of(ids):
        return torch.tensor([table.get(tuple(row), [0, 1, 0, 0]) for row in ids.tolist()], dtype=torch.float32)

    assert search(logits_of, 1, Limits(start=0, end=1, beams=1, max_tokens=6, min_tokens=1)) == [[2]]
    assert search(logits_of, 1, Limits(start=0, end=1, beams=2, max_tokens=6, min_tokens=1)) == [[3]]


def test_an_end_that_is_not_among_the_best_is_no_end():
    """Two beams: in the second step both want to end, the second of them only as third best. It is not kept, so the
    search is not over yet and finds the better text."""
    low = [-9.0] * 4
    table = {
        (0,): [-9, -9, 2, 1.9],
        (0, 2): [0.9, 1, -9, -9],
        (0, 3): [0.8, 0.95, -9, -9],
        (0, 2, 0): [-9, -9, -9, 0.5],
        (0, 2, 0, 3): [-9, 5, -9, -9],
    }

    def logits_of(ids):
        return torch.tensor([table.get(tuple(row), low) for row in ids.tolist()], dtype=torch.float32)

    assert search(logits_of, 1, Limits(start=0, end=1, beams=2, max_tokens=6, min_tokens=1)) == [[2, 0, 3]]


def test_the_middle_frame_at_the_models_size():
    spec = CocaCaption(CocaConfig()).views()["frames"]
    assert (spec.points, spec.short_side_px, spec.pixels) == ((0.5,), 32, "rgb")


def test_more_words_than_the_model_reads():
    with pytest.raises(
        ConfigError,
        match=r"caption\.coca\.max_tokens: is 41, .* reads 40 tokens at most. Set caption\.coca\.max_tokens=40 or less",
    ):
        made(max_tokens=41)
    with pytest.raises(ConfigError, match="min_tokens must be below max_tokens"):
        parse_config(CocaConfig, {"max_tokens": 5}, "stages.caption.coca")


def test_more_words_than_its_card_says_are_refused_before_the_model_is_there(kit, folder):
    kit.add("said", folder / f"seed-{SEEDS[0]}", {**COCA_SETTINGS, "context_tokens": 20})
    with pytest.raises(ConfigError, match=r"Set caption\.coca\.max_tokens=20 or less"):
        CocaCaption(CocaConfig(model="said"))
    CocaCaption(CocaConfig(model="said", max_tokens=20))
    assert {card_settings(name, CocaSettings).context_tokens for name in ("coca-vit-b-32", "coca-vit-l-14")} == {
        None,
        76,
    }


def test_both_forms_of_weights_say_the_same(kit, folder, stage, items):
    kit.add("pickled", tiny_coca(folder / "pickled", SEEDS[0], pickled=True), COCA_SETTINGS)
    assert outcomes(made(model="pickled").process(items)) == outcomes(stage.process(items))


class Evil:
    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return os.mkdir, (str(self.canary),)


def broken(folder, how):
    """A folder of CoCa with something wrong."""
    made = shutil.copytree(folder / f"seed-{SEEDS[0]}", folder / how)
    weights = made / "open_clip_model.safetensors"
    config = json.loads((made / "open_clip_config.json").read_text())
    if how == "code":
        weights.unlink()
        torch.save(Evil(folder / "canary"), made / "open_clip_pytorch_model.bin")
    elif how == "no weights":
        weights.unlink()
    elif how == "cut off":
        weights.write_bytes(weights.read_bytes()[:10000])
    elif how == "other weights":
        config["model_cfg"]["vision_cfg"]["layers"] = 3
    elif how == "no captioner":
        del config["model_cfg"]["multimodal_cfg"]
    elif how == "texts on a hub":
        config["model_cfg"]["text_cfg"]["hf_model_name"] = "some/one"
    elif how == "pictures on a hub":
        config["model_cfg"]["vision_cfg"]["timm_model_name"] = "hf-hub:some/one"
    elif how == "other tokens":
        config["model_cfg"]["text_cfg"]["hf_tokenizer_name"] = "some/one"
    (made / "open_clip_config.json").write_text(json.dumps(config))
    return made


BROKEN = {
    "code": "tensors alone",
    "no weights": "holds none of",
    "cut off": "cannot make a model",
    "other weights": "cannot make a model",
    "no captioner": "cannot make a model",
    "texts on a hub": "lies on a hub",
    "pictures on a hub": "lies on a hub",
    "other tokens": "no tokenizer that can be read",
}


@pytest.mark.parametrize("how", BROKEN)
def test_folders_of_something_else(kit, folder, how):
    name = how.replace(" ", "-")
    kit.add(name, broken(folder, how), COCA_SETTINGS)
    with pytest.raises(ModelFileError, match=BROKEN[how]):
        made(model=name)
    assert not (folder / "canary").exists()


def test_a_card_without_the_size(kit, folder):
    kit.add("sizeless", folder / f"seed-{SEEDS[0]}")
    with pytest.raises(ConfigError, match="image_px"):
        CocaCaption(CocaConfig(model="sizeless")).views()


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(MissingModelError, match=r"open_clip .*pip install 'curate-video\[clip\]'"):
        made()


def test_what_it_needs():
    assert CocaCaption(CocaConfig(device="cpu", batch_size=5)).resources.batch_size == 5
    gpu = CocaCaption(CocaConfig(gpus=0.5)).resources
    assert (gpu.gpus, gpu.gpu_optional, gpu.memory_bytes) == (0.5, True, 1 << 20)
